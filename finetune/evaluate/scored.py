"""The development set of what is scored, and the temperature that is fitted on it.

What can be scored: a searched head on cached frames, or a model on recordings.

Both answer one question, what they say about utterances of a manifest, and know what they were made
from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from cache.found import Found
from cache.lookup import FrameCache
from corpora.base.errors import ConfigError
from corpora.base.files import file_sha256
from corpora.label_map import chosen_labels
from corpora.manifest import Manifest, read_manifest
from corpora.utterance import Utterance
from finetune.assembly import check_streams
from finetune.batches import gather_examples
from finetune.evaluate.calibration import Calibration, calibrate, renormalised
from finetune.evaluate.source import Source, development_manifest, in_order, training_rows
from finetune.launch import predict_logits
from finetune.model import EmotionModel
from finetune.model_directory import resolve_model
from finetune.model_files import CONFIG
from heads.dataset import Dataset
from heads.head import Head, answers
from heads.predict import predict
from heads.records import (
    BEST,
    HeadRecord,
    layer_weights,
    load_head,
    manifest_digest,
    refuse_attributes,
)
from heads.speakers import SPEAKER, declared
from heads.strength import Strength, classifier_vectors, enough_utterances, fit_strength
from heads.vector_store import VectorStore
from heads.words import with_words

# Frames of a batch when nothing is trained: no activations are kept.
FRAME_BUDGET = 8_000


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a head or model says about utterances.

    Attributes:
        utterances: those it could use, in the manifest's order.
        probabilities: `[n, C]` of them, in its label order; with A attributes `[n, C + A]`.
        skipped: reasons by id for the others.
        note: what has to be said of how they were scored; "" for nothing.
    """

    utterances: tuple[Utterance, ...]
    probabilities: Tensor
    skipped: Mapping[str, str]
    note: str = ""


class Scored(Protocol):
    """A head or a model that can be scored."""

    @property
    def source(self) -> Source:
        """Where it comes from."""

    def score(self, rows: Manifest, *, title: str = "") -> Predictions:
        """What it says about all rows; with a title there is a bar."""


@dataclass(frozen=True, eq=False)
class ScoredHead:
    """A searched head on the cached frames of a work folder."""

    source: Source
    cache: FrameCache
    head: Head
    record: HeadRecord

    def score(self, rows: Manifest, *, title: str = "") -> Predictions:
        """See `Scored.score`.

        Raises:
            MissingStepError: frames are missing.
            ConfigError: the frames at hand are not of the streams it was searched on.
        """
        found = self._found(rows)
        probabilities, note = torch.zeros(0, self.record.head.outputs), ""
        if found.utterances:
            store = self._store(found)
            everything = torch.arange(len(store.dataset))
            probabilities = predict([self.head], store, everything)[0]
            if self.record.head.input_norm == SPEAKER:
                note = declared(store.dataset.speakers(everything))
        return Predictions(found.utterances, probabilities, found.failed, note)

    def strength(self, home: Path, reference: str) -> Strength:
        """How strong its emotions are, ranked on the utterances that it learnt from.

        Args:
            home: the manifest of the work folder, which it was searched on.
            reference: the label that stands for no emotion.

        Raises:
            ConfigError: that manifest is another one, frames are normalised by speaker, too few
                utterances have these labels; or see `score`.
            MissingStepError: frames are missing.
        """
        refuse_attributes(self.record, "strength")
        if self.record.head.input_norm == SPEAKER:
            raise ConfigError(
                f"strength needs the frames of a recording as the head in {self.source.path} read "
                "them, and it read them normalised by each speaker's recordings. Search a head "
                "without it (input_norm of --space)."
            )
        own = read_manifest(home)
        if manifest_digest(own) != self.source.manifest_sha256:
            raise ConfigError(
                f"strength is ranked on what the head in {self.source.path} learnt from, and "
                f"{home} is another manifest. Restore that of the search, or search again."
            )
        rows = enough_utterances(training_rows(home, own, self.source))
        found = self._found(replace(own, utterances=rows))
        if not found.utterances:
            raise ConfigError(
                f"strength is ranked on what the head in {self.source.path} learnt from, and none "
                f"of it ({self.source.trained_on} of {home}) has frames in the cache."
            )
        store = self._store(found)
        return fit_strength(
            classifier_vectors(self.head, store),
            [u.label for u in found.utterances],
            store.dataset.speakers(torch.arange(len(store.dataset))),
            self.source.labels,
            reference,
        )

    def _found(self, rows: Manifest) -> Found:
        """The frames that it reads of these rows."""
        check_streams(self.cache, self.record)
        return self.cache.find(
            rows,
            self.record.head.modalities,
            layers=dict(self.source.layers),
            speech=self.record.head.needs_speech,
        )

    def _store(self, found: Found) -> VectorStore:
        """What it reads of rows whose frames were found, at least one."""
        frames, _ = found.read()
        if self.record.head.needs_words:
            frames, _ = with_words(self.cache, found.utterances, frames)
        dataset = Dataset(
            found.utterances,
            self.source.labels,
            frames,
            others=found.others,
            layers=found.layers,
            attributes=self.source.attributes,
        )
        targets = {
            name: (affine.shift, affine.scale)
            for name in self.record.head.modalities
            if (affine := self.head.affine(name)) is not None
        }
        return VectorStore(dataset, targets=targets)


@dataclass(frozen=True, eq=False)
class ScoredModel:
    """A model on recordings and texts; they need not be in any cache."""

    source: Source
    model: EmotionModel

    def score(self, rows: Manifest, *, title: str = "") -> Predictions:
        """See `Scored.score`."""
        examples, skipped = gather_examples(self.model, rows.utterances, {})
        logits = predict_logits(self.model, examples, FRAME_BUDGET, skipped=skipped, title=title)
        kept = [row for row, u in enumerate(examples.utterances) if u.id not in skipped]
        probabilities = answers(self.model.head.config, logits[kept])
        return Predictions(tuple(examples.utterances[row] for row in kept), probabilities, skipped)


@dataclass(frozen=True, eq=False)
class Narrowed:
    """Something that is scored on some of its labels alone, with probabilities that sum to 1."""

    whole: Scored
    source: Source

    @classmethod
    def to(cls, whole: Scored, asked: Sequence[str]) -> Scored:
        """What is scored, narrowed to these labels; as it is where none are asked for.

        Raises:
            ConfigError: it does not know one of them, or there are fewer than two.
        """
        if not asked:
            return whole
        labels = chosen_labels(whole.source.labels, asked, f"the {whole.source.kind}")
        return cls(whole, replace(whole.source, labels=labels, narrowed=True))

    def score(self, rows: Manifest, *, title: str = "") -> Predictions:
        """See `Scored.score`."""
        said = self.whole.score(rows, title=title)
        known = self.whole.source.labels
        own = renormalised(said.probabilities, known, self.source.labels).float()
        attributes = said.probabilities[:, len(known) :]
        return replace(said, probabilities=torch.cat([own, attributes], dim=1))


def open_scored(cache: FrameCache, source: str | Path, *, device: str = "cpu") -> Scored:
    """Open a head or a model.

    Args:
        cache: which a head reads.
        source: a head's JSON file or the folder of a search; or a model's directory or hub id.
        device: for a model, `cpu` or `cuda`.

    Raises:
        MissingStepError: there is none.
        ConfigError: a model was altered, or the name is neither.
        CacheError: a head's weights are not its own.
    """
    path = Path(source)
    if path.suffix == ".json" or path.is_file() or (path / BEST).is_file():
        return open_head(cache, path)
    return open_model(source, device=device)


def open_head(cache: FrameCache, path: Path) -> ScoredHead:
    """Open a head, or the best of a search's folder (see `open_scored`)."""
    head, record = load_head(path)
    file = path / BEST if path.is_dir() else path
    origin = record.origin
    source = Source(
        kind="head",
        path=path,
        labels=record.head.labels,
        encoders={name: origin.encoders[name] for name in record.head.modalities},
        layers={name: origin.layers[name] for name in record.head.modalities},
        corpus=origin.corpus,
        manifest_sha256=origin.manifest_sha256,
        search_manifest_sha256="",
        sha256=file_sha256(file),
        layer_weights=layer_weights(head),
        trained_on=record.trained_on,
        attributes=record.head.attributes,
    )
    return ScoredHead(source, cache, head, record)


def open_model(name: str | Path, *, device: str = "cpu") -> ScoredModel:
    """Open a model's directory or hub id (see `open_scored`)."""
    directory = resolve_model(name)
    model = EmotionModel.from_pretrained(directory, device=device)
    made = model.provenance
    encoders = made.get("encoders", {})
    source = Source(
        kind="model",
        path=directory if isinstance(name, Path) else Path(name),
        labels=model.labels,
        encoders={kind: str(encoders.get(kind, "unknown")) for kind in model.layers},
        layers=model.layers,
        corpus=str(made.get("corpus", "")),
        manifest_sha256=str(made.get("manifest_sha256", "")),
        search_manifest_sha256=str(made.get("search_manifest_sha256", "")),
        sha256=file_sha256(directory / CONFIG),
        layer_weights=layer_weights(model.head),
        trained_on=str(made.get("trained_on", "train")),
        attributes=model.head.config.attributes,
    )
    return ScoredModel(source, model)


def average(said: Sequence[Predictions], sources: Sequence[Source]) -> Predictions:
    """The mean of what several say about the utterances that all of them could use.

    Args:
        said: by each, of the same rows.
        sources: of each; the first one's order is that of the result.
    """
    if len(said) == 1:
        return said[0]
    common = set.intersection(*({u.id for u in one.utterances} for one in said))
    parts = []
    for one, source in zip(said, sources, strict=True):
        rows = [row for row, u in enumerate(one.utterances) if u.id in common]
        parts.append(one.probabilities[rows][:, in_order(source, sources[0])].double())
    utterances = tuple(u for u in said[0].utterances if u.id in common)
    skipped = {name: reason for one in said for name, reason in one.skipped.items()}
    return Predictions(utterances, torch.stack(parts).mean(dim=0).float(), skipped)


def calibrate_on_dev(
    home: Path,
    manifest: Manifest,
    split: str,
    scored: Sequence[Scored],
    said: Predictions,
    *,
    show: bool = False,
) -> tuple[Calibration | None, str]:
    """Fit a temperature on the development set, and measure calibration on what was scored.

    Args:
        home: the manifest of the work folder, with the development set of its own models.
        manifest: whose utterances were scored.
        split: of them.
        scored: one, or the members of an ensemble.
        said: what they say about the split.
        show: whether to draw a progress bar.

    Returns:
        The calibration, or None and the reason why there is none.
    """
    if any(one.source.knows_dev for one in scored):
        return None, "dev was learnt from, so no utterance is left to fit it on (search --no-refit)"
    own = development_manifest(home, manifest, scored[0].source)
    same = own is manifest and split == "dev"
    labels = scored[0].source.labels
    if not labels:
        return None, "of attributes alone, nothing is said of how sure an answer is"
    if same:
        dev = said
    else:
        utterances = tuple(u for u in scored[0].source.annotated(own.in_split("dev")) if u.label)
        if not utterances or {u.label for u in utterances} - set(labels):
            return None, "the manifest has no development set with these labels to fit it on"
        rows = replace(own, utterances=utterances)
        title = "Score dev" if show else ""
        each = [one.score(rows, title=title) for one in scored]
        dev = average(each, [one.source for one in scored])
    if not dev.utterances:
        return None, "no utterance of the development set could be used"
    where = f"the dev split of {own.corpus or 'the manifest'}"
    (scores, gold), (dev_scores, dev_gold) = (_classes(one, labels) for one in (said, dev))
    return calibrate(scores, gold, dev_scores, dev_gold, where, same_rows=same), ""


def _classes(said: Predictions, labels: Sequence[str]) -> tuple[Tensor, list[int]]:
    """Probabilities `[m, C]` and classes of the utterances that have a label."""
    rows = [row for row, u in enumerate(said.utterances) if u.label]
    gold = [labels.index(said.utterances[row].label) for row in rows]
    return said.probabilities[rows][:, : len(labels)], gold
