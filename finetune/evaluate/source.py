"""Where what is scored comes from: what it says, what it learnt from, whom it may be put beside."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cache.lookup import FrameCache
from cache.recipe import LayersRead
from corpora.base.errors import ConfigError
from corpora.manifest import Manifest, read_manifest
from corpora.utterance import ALL, ATTRIBUTES, Utterance
from finetune.assembly import not_shared
from finetune.evaluate.evaluation import ENSEMBLE
from heads.dataset import Dataset
from heads.records import LayerWeights, as_learnt, manifest_digest

# What a head or model learnt from, or was chosen on.
SEEN = ("train", "dev")


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
        """What has to be said when it is scored on what it may have seen.

        Another corpus may be scored on. The same one with other rows, labels or splits may not:
        what is now called test may have been trained on.

        Args:
            cache: which knows recordings by content.
            home: the manifest of the work folder, which may be the one it was made from.
            manifest: whose utterances are to be scored.
            split: of them.
            rows: those utterances.

        Returns:
            A sentence for the result; "" where there is nothing to say, or the manifest it was made
            from is not known.

        Raises:
            ConfigError: the manifest is of the same corpus and has changed.
        """
        made_from, searched, now = (
            self.manifest_sha256,
            self.search_manifest_sha256,
            self.digest(manifest),
        )
        if split == "dev" and self.knows_dev and made_from == now:
            return f"The {self.kind} learnt from these utterances (--no-refit leaves dev out)."
        made = "searched" if self.kind == "head" else "trained"
        if made_from not in ("", now) and self.corpus == manifest.corpus:
            again = "`search`" if self.kind == "head" else "`search` and `finetune`"
            raise ConfigError(
                f"the manifest of {self.corpus or 'this corpus'} has changed since the {self.kind} "
                f"was {made} (rows, labels or splits): what it was trained on may now be in "
                f"another split. Run {again} again, or name the manifest of that time with "
                "--manifest. If it is another corpus, give it a name of its own: `corpus` in the "
                "manifest's JSON file."
            )
        if made_from not in ("", now) or searched not in ("", now):
            made = made if made_from not in ("", now) else "first searched"
            known = self._overlap(cache, home, rows)
            return f"This manifest is not the one the {self.kind} was {made} on: {known}."
        if made_from and split == ALL:
            return f"Among these are the utterances that the {self.kind} was trained and chosen on."
        return ""

    def _overlap(self, cache: FrameCache, home: Path, rows: Sequence[Utterance]) -> str:
        """What the content of recordings says of rows, against those it was made from (`note`).

        Where the manifest of the work folder is another one, nothing is known.
        """
        guess = "some of these recordings may be among those it was trained or chosen on"
        digests = {self.manifest_sha256, self.search_manifest_sha256} - {""}
        own = read_manifest(home) if home.is_file() else None
        if own is None or digests != {self.digest(own)}:
            return f"{guess}; its own manifest is not in {home.parent}, so that cannot be told"
        seen = [
            u
            for u in own.utterances
            if u.split in SEEN
            and (u.label or any(getattr(u, name) is not None for name in ATTRIBUTES))
        ]
        learnt = [key.get("audio") for key in cache.keys(seen).values()]
        scored = [key.get("audio") for key in cache.keys(rows).values()]
        known = {*learnt}
        shared = len([key for key in scored if key is not None and key in known])
        if shared:
            return (
                f"by their content {shared:,} of these {len(scored):,} recordings are among those "
                "it was trained or chosen on, which flatters it"
            )
        unknown = (*learnt, *scored).count(None)
        if unknown:
            return f"{guess}; {unknown:,} recordings are not there, so that cannot be told"
        return (
            f"by their content none of these {len(scored):,} recordings is among the "
            f"{len(learnt):,} it was trained or chosen on"
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
    changes = not_shared((str(one.path), one.labels), (str(other.path), other.labels))
    if changes:
        raise ConfigError(f"the labels differ: {changes}. Name models of the same labels.")


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
