"""What is trained on, chosen by and scored: the splits of a corpus, or the folds of its protocol.

With a protocol of folds every fold is the test set once. The next fold is then the development
set, by which the rate is chosen, and all others are trained on: so each utterance is scored by a
head that neither learnt from it nor was chosen by it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from corpora.base.errors import ManifestError
from corpora.splits import divide
from corpora.utterance import SPLITS, speaker_key
from heads.dataset import Dataset

# Folds of the manifest are few; more than this is a column that means something else.
MOST_FOLDS = 50


@dataclass(frozen=True, eq=False)
class Part:
    """One division of the rows.

    Attributes:
        name: of the fold that is scored; "" for the corpus's own splits.
        rows: by split (train, dev, test) the utterance numbers `[n]`.
    """

    name: str
    rows: Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Division:
    """All divisions of the rows: one by the splits, or one a fold.

    Attributes:
        parts: each trained on by itself.
        folded: they are the folds of a protocol.
        left_out: annotated utterances with a split but no fold, where there are folds.
    """

    parts: tuple[Part, ...]
    folded: bool
    left_out: int = 0

    @classmethod
    def of(cls, dataset: Dataset, *, folds: bool = True) -> Division:
        """By the column `fold` where the manifest has one, else by its splits.

        Args:
            dataset: the utterances.
            folds: False: by the splits in any case.

        Raises:
            ManifestError: fewer than three folds, or more than 50.
        """
        own = [u.fold if dataset.is_annotated(u) else "" for u in dataset.utterances]
        if not folds or not any(own):
            return cls((_part("", dataset),), False)
        names = divide(dataset.utterances, own).folds
        if len(names) > MOST_FOLDS:
            raise ManifestError(
                f"The column fold of the manifest names {len(names)} folds; {MOST_FOLDS} is the "
                "most. Compare with --no-folds to go by the splits."
            )
        parts = []
        for name in names:
            divided = divide(dataset.utterances, own, name)
            parts.append(_part(name, replace(dataset, utterances=divided.utterances)))
        lost = sum(
            bool(dataset.is_annotated(u) and u.split and not fold)
            for u, fold in zip(dataset.utterances, own, strict=True)
        )
        return cls(tuple(parts), True, lost)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that are scored: dev, and test where there is one."""
        return tuple(split for split in ("dev", "test") if len(self.scored(split)))

    def scored(self, split: str) -> Tensor:
        """`[n]` utterance numbers of a split, the parts one after the other."""
        return torch.cat([part.rows[split] for part in self.parts])

    def digest(self) -> str:
        """SHA-256 (hex) of which row is what in which part."""
        digest = hashlib.sha256()
        for part in self.parts:
            rows = {split: numbers.tolist() for split, numbers in part.rows.items()}
            digest.update(json.dumps([part.name, rows]).encode() + b"\n")
        return digest.hexdigest()

    def __str__(self) -> str:
        if self.folded:
            return (
                f"{len(self.parts)} folds: each is scored by heads trained without it, their rate "
                "chosen on the next fold, which they were not trained on either"
            )
        return "train, dev and test splits" if "test" in self.splits else "train and dev splits"


def as_splits(dataset: Dataset, part: Part) -> Dataset:
    """The same data set, its splits being those of a part."""
    split_of = {i: split for split, rows in part.rows.items() for i in rows.tolist()}
    utterances = tuple(
        replace(u, split=split_of.get(i, "")) for i, u in enumerate(dataset.utterances)
    )
    return replace(dataset, utterances=utterances)


def refuse_torn_speakers(dataset: Dataset) -> None:
    """Refuse folds that share a speaker.

    Raises:
        ManifestError: there is one; it is named.
    """
    first: dict[tuple[str, str], str] = {}
    for utterance in dataset.utterances:
        key = speaker_key(utterance)
        if key is None or not (dataset.is_annotated(utterance) and utterance.fold):
            continue
        fold = first.setdefault(key, utterance.fold)
        if fold != utterance.fold:
            raise ManifestError(
                f"Speaker '{key[1]}' stands in the folds {fold} and {utterance.fold} (the latter: "
                f"'{utterance.id}'), so heads would be scored on voices they were trained on. Give "
                "each speaker one fold, or declare shared_speakers in the manifest's JSON file."
            )


def _part(name: str, dataset: Dataset) -> Part:
    return Part(name, {split: dataset.rows(split) for split in SPLITS})
