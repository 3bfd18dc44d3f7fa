"""Where what is scored comes from: what it says, what it learnt from, whom it may be put beside."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cache.lookup import FrameCache
from cache.recipe import LayersRead
from corpora.base.errors import ConfigError
from corpora.manifest import Manifest, read_manifest
from corpora.utterance import Utterance
from finetune.assembly import seen_note
from finetune.evaluate.evaluation import ENSEMBLE
from heads.dataset import Dataset
from heads.records import LayerWeights, as_learnt, manifest_digest


@dataclass(frozen=True)
class Source:
    """Where what is scored comes from.

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
        narrowed: the labels are some of those that it tells apart (`--labels`).
        attributes: the lowest and highest value of each that it says besides, or without labels.
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
    narrowed: bool = False
    attributes: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def annotated(self, utterances: Iterable[Utterance]) -> tuple[Utterance, ...]:
        """Those that it can be scored on; where it is narrowed, the ones of its labels."""
        asked = Dataset((), self.labels, {}, attributes=self.attributes)
        kept = (u for u in utterances if asked.is_annotated(u))
        return tuple(u for u in kept if not self.narrowed or u.label in self.labels)

    def digest(self, manifest: Manifest) -> str:
        """Of a manifest, as far as it could be learnt from."""
        return manifest_digest(as_learnt(manifest, self.labels), self.attributes)

    @property
    def knows_dev(self) -> bool:
        """Whether its head learnt from the development set."""
        return self.trained_on != "train"

    def note(
        self,
        cache: FrameCache,
        home: Path,
        manifest: Manifest,
        split: str,
        rows: Sequence[Utterance],
    ) -> str:
        """What has to be said when it is scored on rows of a manifest (see `seen_note`)."""
        if split == "dev" and self.knows_dev and self.manifest_sha256 == self.digest(manifest):
            return f"The {self.kind} learnt from these utterances (--no-refit leaves dev out)."
        return seen_note(
            cache,
            home,
            self.kind,
            self.corpus,
            self.manifest_sha256,
            manifest,
            split,
            rows,
            searched=self.search_manifest_sha256,
            digest_of=self.digest,
        )


def in_order(source: Source, first: Source) -> list[int]:
    """Columns of what one says, in another's order of labels and attributes."""
    own = [*source.labels, *source.attributes]
    return [own.index(name) for name in (*first.labels, *first.attributes)]


def check_labels_equal(one: Source, other: Source) -> None:
    """Refuse to average or compare answers to different questions."""
    if dict(one.attributes) != dict(other.attributes):
        known = [
            ", ".join(f"{name} {low:g} to {high:g}" for name, (low, high) in own.attributes.items())
            for own in (one, other)
        ]
        raise ConfigError(
            f"the attributes differ: {one.path} says {known[0] or 'none'}, {other.path} "
            f"{known[1] or 'none'}. Name heads of the same --targets."
        )
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


def training_rows(home: Path, manifest: Manifest, source: Source) -> tuple[Utterance, ...]:
    """The labelled utterances that something was trained on, as far as a manifest at hand has them.

    Args:
        home: the manifest of the work folder.
        manifest: whose utterances are scored; its own training rows count where those trained on
            are not at hand.
        source: what was trained.
    """
    own = development_manifest(home, manifest, source)
    rows = (u for split in source.trained_on.split("+") for u in own.in_split(split))
    return tuple(u for u in rows if u.label in source.labels)


def development_manifest(home: Path, manifest: Manifest, source: Source) -> Manifest:
    """The manifest trained on, where it is at hand: its development set is the model's own."""
    if source.manifest_sha256 in ("", source.digest(manifest)) or not home.is_file():
        return manifest
    own = read_manifest(home)
    return own if source.digest(own) == source.manifest_sha256 else manifest
