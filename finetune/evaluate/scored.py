"""The development set of what is scored, and the temperature that is fitted on it.

What can be scored: a searched head on cached frames, or a model on recordings.

Both answer one question, what they say about utterances of a manifest, and know what they were made
from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from cache.last_extraction import read_extraction
from cache.lookup import choose_residence, find_frames
from cache.recipe import LayersRead
from corpora.base.errors import ConfigError
from corpora.base.files import file_sha256
from corpora.base.work import Work
from corpora.manifest import Manifest, read_manifest
from corpora.utterance import Utterance
from finetune.assembly import check_streams
from finetune.batches import gather_examples
from finetune.evaluate.calibration import Calibration, calibrate
from finetune.evaluate.evaluation import ENSEMBLE
from finetune.model import EmotionModel
from finetune.model_directory import resolve_model
from finetune.model_files import CONFIG
from finetune.provenance import seen_note
from finetune.scoring import predict_logits
from heads.dataset import Dataset, VectorStore
from heads.head import Head
from heads.records import BEST, HeadRecord, LayerWeights, layer_weights, load_head, manifest_digest
from heads.speakers import SPEAKER, declared
from heads.training import predict

# Frames of a batch when nothing is trained: no activations are kept.
FRAME_BUDGET = 8_000


@dataclass(frozen=True)
class Source:
    """Where a subject comes from.

    Attributes:
        kind: `head` or `model`.
        path: its JSON file, folder or directory.
        labels: in the order of its probabilities.
        encoders: by modality, as the user named them.
        layers: by modality, the hidden state read, or those weighed.
        corpus: trained on.
        manifest_sha256: of the manifest trained on; "" where it is not known.
        search_manifest_sha256: for a model, of the manifest its head was searched on.
        sha256: of its JSON file, which has the digests of all others.
        layer_weights: by modality the weight of each layer, where several are weighed.
        trained_on: the splits that its head learnt from, `train` or `train+dev`.
    """

    kind: str
    path: Path
    labels: tuple[str, ...]
    encoders: Mapping[str, str]
    layers: Mapping[str, LayersRead]
    corpus: str
    manifest_sha256: str
    search_manifest_sha256: str
    sha256: str
    layer_weights: LayerWeights = field(default_factory=dict)
    trained_on: str = "train"

    @property
    def knows_dev(self) -> bool:
        """Whether its head learnt from the development set."""
        return self.trained_on != "train"

    def note(self, work: Work, manifest: Manifest, split: str, rows: Sequence[Utterance]) -> str:
        """What has to be said when it is scored on rows of a manifest (see `seen_note`)."""
        if split == "dev" and self.knows_dev and self.manifest_sha256 == manifest_digest(manifest):
            return f"The {self.kind} learnt from these utterances (--no-refit leaves dev out)."
        return seen_note(
            work,
            self.kind,
            self.corpus,
            self.manifest_sha256,
            manifest,
            split,
            rows,
            searched=self.search_manifest_sha256,
        )


@dataclass(frozen=True, eq=False)
class Scored:
    """What a subject says about utterances.

    Attributes:
        utterances: those it could use, labelled, in the manifest's order.
        probabilities: `[n, C]` of them, in its label order.
        skipped: reasons by id for the others.
        note: what has to be said of how they were scored; "" for nothing.
    """

    utterances: tuple[Utterance, ...]
    probabilities: Tensor
    skipped: Mapping[str, str]
    note: str = ""


class Subject(Protocol):
    """A head or a model that can be scored."""

    @property
    def source(self) -> Source:
        """Where it comes from."""

    def score(self, rows: Manifest, *, title: str = "") -> Scored:
        """What it says about all rows, which are labelled; with a title there is a bar."""


@dataclass(frozen=True, eq=False)
class HeadSubject:
    """A searched head on the cached frames of a work folder."""

    source: Source
    work: Work
    head: Head
    record: HeadRecord

    def score(self, rows: Manifest, *, title: str = "") -> Scored:
        """See `Subject.score`.

        Raises:
            MissingStepError: frames are missing.
            ConfigError: the frames at hand are not of the streams it was searched on.
        """
        check_streams(self.work, self.record, read_extraction(self.work))
        found = find_frames(
            self.work,
            rows,
            self.record.head.modalities,
            layers=dict(self.source.layers),
            speech=self.record.head.needs_speech,
        )
        probabilities, note = torch.zeros(0, len(self.source.labels)), ""
        if found.utterances:
            disk = choose_residence(found.nbytes, "cpu").place == "disk"
            dataset = Dataset(
                found.utterances,
                self.source.labels,
                {
                    name: found.mapped(name) if disk else found.load(name)
                    for name in self.record.head.modalities
                },
                others=found.others,
                layers=found.layers,
            )
            everything = torch.arange(len(dataset))
            targets = {
                name: (affine.shift, affine.scale)
                for name in self.record.head.modalities
                if (affine := self.head.affine(name)) is not None
            }
            store = VectorStore(dataset, targets=targets)
            probabilities = predict([self.head], store, everything)[0]
            if self.record.head.input_norm == SPEAKER:
                note = declared(dataset.speakers(everything))
        return Scored(found.utterances, probabilities, found.failed, note)


@dataclass(frozen=True, eq=False)
class ModelSubject:
    """A model on recordings and texts; they need not be in any cache."""

    source: Source
    model: EmotionModel

    def score(self, rows: Manifest, *, title: str = "") -> Scored:
        """See `Subject.score`."""
        examples, skipped = gather_examples(self.model, rows.utterances, {})
        logits = predict_logits(self.model, examples, FRAME_BUDGET, skipped=skipped, title=title)
        kept = [row for row, u in enumerate(examples.utterances) if u.id not in skipped]
        probabilities = torch.softmax(logits[kept], dim=-1)
        return Scored(tuple(examples.utterances[row] for row in kept), probabilities, skipped)


def open_subject(work: Work, source: str | Path, *, device: str = "cpu") -> Subject:
    """Open a head or a model.

    Args:
        work: the work folder, whose cache a head reads.
        source: a head's JSON file or the folder of a search; or a model's directory or hub id.
        device: for a model, `cpu` or `cuda`.

    Raises:
        MissingStepError: there is none.
        ConfigError: a model was altered, or the name is neither.
        CacheError: a head's weights are not its own.
    """
    path = Path(source)
    if path.suffix == ".json" or (path / BEST).is_file():
        return open_head(work, path)
    return open_model(source, device=device)


def open_head(work: Work, path: Path) -> HeadSubject:
    """Open a head, or the best of a search's folder (see `open_subject`)."""
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
    )
    return HeadSubject(source, work, head, record)


def open_model(name: str | Path, *, device: str = "cpu") -> ModelSubject:
    """Open a model's directory or hub id (see `open_subject`)."""
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
    )
    return ModelSubject(source, model)


def average(scored: Sequence[Scored], labels: Sequence[Sequence[str]]) -> Scored:
    """The mean of what several subjects say about the utterances that all of them could use.

    Args:
        scored: one a subject, of the same rows.
        labels: their label orders; the first one's is that of the result.
    """
    if len(scored) == 1:
        return scored[0]
    common = set.intersection(*({u.id for u in one.utterances} for one in scored))
    parts = []
    for one, order in zip(scored, labels, strict=True):
        rows = [row for row, u in enumerate(one.utterances) if u.id in common]
        columns = [list(order).index(label) for label in labels[0]]
        parts.append(one.probabilities[rows][:, columns].double())
    utterances = tuple(u for u in scored[0].utterances if u.id in common)
    skipped = {name: reason for one in scored for name, reason in one.skipped.items()}
    return Scored(utterances, torch.stack(parts).mean(dim=0).float(), skipped)


def check_labels_equal(one: Source, other: Source) -> None:
    """Refuse to average or compare answers to different questions."""
    own, others = set(one.labels), set(other.labels)
    if own != others:
        changes = [f"{one.path} alone has {', '.join(sorted(own - others))}"] * bool(own - others)
        changes += [f"{other.path} alone has {', '.join(sorted(others - own))}"] * bool(
            others - own
        )
        raise ConfigError(
            f"the labels differ: {'; '.join(changes)}. Name models of the same labels."
        )


def joint(sources: Sequence[Source]) -> Source:
    """What there is to say about an ensemble as a whole."""
    if len(sources) == 1:
        return sources[0]
    encoders: dict[str, dict[str, None]] = {}
    layers: dict[str, set[LayersRead]] = {}
    for one in sources:
        for kind, name in one.encoders.items():
            encoders.setdefault(kind, {})[name] = None
            layers.setdefault(kind, set()).add(one.layers[kind])
    return replace(
        sources[0],
        kind=ENSEMBLE,
        encoders={kind: " and ".join(names) for kind, names in encoders.items()},
        layers={kind: found.pop() for kind, found in layers.items() if len(found) == 1},
        layer_weights={},
    )


def calibrate_on_dev(
    work: Work,
    manifest: Manifest,
    split: str,
    subjects: Sequence[Subject],
    scored: Scored,
    *,
    show: bool = False,
) -> tuple[Calibration | None, str]:
    """Fit a temperature on the development set, and measure calibration on what was scored.

    Args:
        work: the work folder, whose manifest has the development set of its own models.
        manifest: whose utterances were scored.
        split: of them.
        subjects: one, or the members of an ensemble.
        scored: what they say about the split.
        show: whether to draw a progress bar.

    Returns:
        The calibration, or None and the reason why there is none.
    """
    if any(one.source.knows_dev for one in subjects):
        return None, "dev was learnt from, so no utterance is left to fit it on (search --no-refit)"
    own = _development_manifest(work, manifest, subjects[0].source)
    same = own is manifest and split == "dev"
    labels = subjects[0].source.labels
    if same:
        dev = scored
    else:
        utterances = tuple(u for u in own.in_split("dev") if u.label)
        if not utterances or {u.label for u in utterances} - set(labels):
            return None, "the manifest has no development set with these labels to fit it on"
        rows = replace(own, utterances=utterances)
        title = "Score dev" if show else ""
        each = [subject.score(rows, title=title) for subject in subjects]
        dev = average(each, [one.source.labels for one in subjects])
    if not dev.utterances:
        return None, "no utterance of the development set could be used"
    where = f"the dev split of {own.corpus or 'the manifest'}"
    gold, dev_gold = _targets(scored, labels), _targets(dev, labels)
    return (
        calibrate(scored.probabilities, gold, dev.probabilities, dev_gold, where, same_rows=same),
        "",
    )


def _development_manifest(work: Work, manifest: Manifest, source: Source) -> Manifest:
    """The manifest trained on, where it is at hand: its development set is the model's own."""
    if source.manifest_sha256 in ("", manifest_digest(manifest)) or not work.manifest.is_file():
        return manifest
    own = read_manifest(work.manifest)
    return own if manifest_digest(own) == source.manifest_sha256 else manifest


def _targets(scored: Scored, labels: Sequence[str]) -> list[int]:
    return [labels.index(u.label) for u in scored.utterances]
