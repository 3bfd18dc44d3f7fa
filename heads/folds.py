"""Folds of the training and development rows: selection where one small set would decide it.

With few development speakers the luck of who they are decides which head looks best. In folds,
every utterance of train and dev is held out once, from heads that never heard its speaker, and
heads are compared on all of them together. The test set stays out.

Refusing to train where a recording stands on both sides of a split.

Speakers on both sides are refused when the manifest is read.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cache.keys import shared_recordings
from corpora.base.errors import ConfigError, ManifestError
from corpora.splits import deal
from corpora.utterance import SPLITS, Utterance, speaker_key
from heads.dataset import Dataset

# Folds are switched on by themselves below both of these: with 20 speakers and more, and on larger
# corpora, one development set tells heads apart well enough for what folds cost.
FEW_SPEAKERS = 20
FEW_UTTERANCES = 3000
# Each fold costs as much as a search without; five leave four fifths of the speakers to train on.
GROUPED = 5
# More heads than this side by side for one trial take hours.
MOST_FOLDS = 50
CHOICES = "auto, off, speaker, session, or a number of folds from 2 on"


@dataclass(frozen=True, eq=False)
class Folds:
    """Which fold each row of train and dev is held out in.

    Attributes:
        rows: `[n]` utterance numbers, annotated ones of train and dev.
        numbers: `[n]` the fold of each, from 0.
        unit: what makes a fold: `speaker`, `session` or `group of speakers`.
    """

    rows: Tensor
    numbers: Tensor
    unit: str

    @property
    def count(self) -> int:
        """Number of folds."""
        return int(self.numbers.max()) + 1

    def __str__(self) -> str:
        return f"{self.count} folds of train and dev, each one {self.unit}"


@dataclass(frozen=True, eq=False)
class Selection:
    """What heads are trained on and compared by.

    Attributes:
        trained: `[n]` utterance numbers that are trained on (with folds, each held out once).
        scored: `[m]` utterance numbers that heads are compared on.
        folds: where there are.
        refit: whether the chosen head is trained on train and dev, and not on train alone.
    """

    trained: Tensor
    scored: Tensor
    folds: Folds | None = None
    refit: bool = False

    @classmethod
    def of(cls, dataset: Dataset, folds: Folds | None, *, refit: bool = False) -> Selection:
        """Train and dev, or the folds of both."""
        if folds is None:
            return cls(dataset.rows("train"), dataset.rows("dev"))
        return cls(folds.rows, folds.rows, folds, refit)

    def kept(self, dataset: Dataset) -> Tensor:
        """`[n]` utterance numbers that the kept head is trained on."""
        return self.trained if self.refit else dataset.rows("train")

    @property
    def trained_on(self) -> str:
        """The splits of `kept`."""
        return "train+dev" if self.refit else "train"

    @property
    def unseen(self) -> tuple[str, ...]:
        """The splits besides that the kept head can be scored on."""
        return ("test",) if self.refit else ("dev", "test")

    def parts(self) -> list[tuple[Tensor, Tensor]]:
        """Who is trained on, `[n]`, and which positions of `scored`, `[m]`, are judged by it."""
        if self.folds is None:
            return [(self.trained, torch.arange(len(self.scored)))]
        outside = [self.folds.numbers == fold for fold in range(self.folds.count)]
        return [(self.folds.rows[~out], out.nonzero()[:, 0]) for out in outside]

    @property
    def heads(self) -> int:
        """Heads of one trial."""
        return 1 if self.folds is None else self.folds.count

    @property
    def name(self) -> str:
        """What tables call the scored rows."""
        return "dev" if self.folds is None else "folds"


def make_folds(dataset: Dataset, how: str) -> Folds | None:
    """The folds of a data set.

    Args:
        dataset: with its splits.
        how: `off`; `speaker` or `session`, one fold each; a number, of groups of speakers
            of about the same size and mixture of labels; `auto` as in `automatic`.

    Returns:
        None for no folds.

    Raises:
        ConfigError: another word, no such groups in the data, or too many folds.
    """
    choice = automatic(dataset) if how == "auto" else how
    if choice == "off":
        return None
    rows = torch.cat([dataset.rows(split) for split in ("train", "dev")]).sort().values
    utterances = [dataset.utterances[i] for i in rows.tolist()]
    if choice in ("speaker", "session"):
        numbers = _one_each(utterances, choice)
        unit = choice
    else:
        numbers = speaker_groups(utterances, _count(choice))
        unit = "group of speakers"
    return Folds(rows, torch.tensor(numbers), unit)


def automatic(dataset: Dataset) -> str:
    """What `auto` stands for: five groups of speakers on small corpora with few to develop on."""
    dev = [dataset.utterances[i] for i in dataset.rows("dev").tolist()]
    annotated = [u for u in dataset.utterances if u.split in SPLITS and dataset.is_annotated(u)]
    chosen = [u for u in annotated if u.split in ("train", "dev")]
    few = len({speaker_key(u) for u in dev} - {None}) < FEW_SPEAKERS
    if not few or len(annotated) >= FEW_UTTERANCES or len(_units(chosen)) < GROUPED:
        return "off"
    return str(GROUPED)


def _count(choice: str) -> int:
    if not choice.isdecimal() or int(choice) < 2:
        raise ConfigError(f"folds must be {CHOICES}; got {choice!r}")
    if int(choice) > MOST_FOLDS:
        raise ConfigError(f"{choice} folds were asked for; {MOST_FOLDS} is the most.")
    return int(choice)


def _one_each(utterances: list[Utterance], unit: str) -> list[int]:
    """The fold of each utterance, one a speaker or session."""
    keys = [speaker_key(u) if unit == "speaker" else (u.corpus, u.session) for u in utterances]
    unknown = sum(key is None or not key[1] for key in keys)
    if unknown:
        raise ConfigError(
            f"Folds by {unit} need to know every {unit}: {unknown} of {len(keys)} utterances in "
            f"train and dev have none. Fill the column {unit} of the manifest, or ask for a "
            "number of folds."
        )
    names = {key: number for number, key in enumerate(sorted(set(keys), key=str))}
    if not 2 <= len(names) <= MOST_FOLDS:
        raise ConfigError(
            f"Folds by {unit} would be {len(names)}, expected 2 to {MOST_FOLDS}. "
            "Ask for a number of folds, or for none."
        )
    return [names[key] for key in keys]


def _units(utterances: Sequence[Utterance]) -> dict[Hashable, list[int]]:
    """Positions of what may not be torn apart: a known speaker, or one utterance."""
    units: dict[Hashable, list[int]] = {}
    for position, utterance in enumerate(utterances):
        units.setdefault(speaker_key(utterance) or position, []).append(position)
    return units


def speaker_groups(utterances: Sequence[Utterance], count: int) -> list[int]:
    """The fold of each utterance: speakers are dealt out as in `corpora.splits.deal`.

    Raises:
        ConfigError: there are fewer speakers.
    """
    units = _units(utterances)
    if len(units) < count:
        raise ConfigError(
            f"{count} folds were asked for, but train and dev have {len(units)} speakers."
        )
    groups = [positions for _, positions in sorted(units.items(), key=lambda item: str(item[0]))]
    numbers = deal(groups, [u.label for u in utterances], count)
    return [numbers[position] for position in range(len(utterances))]


SHOWN_PAIRS = 5  # enough to see the pattern


def refuse_shared_recordings(
    utterances: Sequence[Utterance], keys: Mapping[str, Mapping[str, str]]
) -> None:
    """Refuse a recording (or the same stretch of one) that stands in two splits.

    Shared speakers can be declared, this cannot: a head would be scored on what it was trained on.

    Args:
        utterances: of a manifest.
        keys: content keys of each by id (`cache.lookup.FrameCache.keys`).

    Raises:
        ManifestError: there is one; the utterances are named.
    """
    pairs = [
        f"  {_named(one)} and {_named(other)}: {one.audio.name} and {other.audio.name} are the same"
        for one, other in shared_recordings(utterances, keys)
    ]
    if pairs:
        more = len(pairs) - SHOWN_PAIRS
        raise ManifestError(
            f"{len(pairs)} recordings stand in two splits, so heads would be scored on what they "
            "were trained on:\n"
            + "\n".join(pairs[:SHOWN_PAIRS])
            + (f"\n  … and {more} more" if more > 0 else "")
            + "\nGive each recording one split, or leave its copies out of the manifest."
        )


def _named(utterance: Utterance) -> str:
    line = f" (line {utterance.line})" if utterance.line else ""
    return f"'{utterance.id}' in {utterance.split}{line}"
