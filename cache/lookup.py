"""FrameCache: from a manifest to the frames of its utterances, read from the cache.

Importing this does not import torch: a plan that finds nothing to do answers at once.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from cache.encoders.grid import Grid, recorded_grid
from cache.found import SPEECH, Found, further_layers, input_kind
from cache.keys import MODALITIES, audio_key, text_key, text_read
from cache.last_extraction import (
    SURPRISAL,
    TIMES,
    TOKEN_KIND,
    Extraction,
    Source,
    extract_command,
    read_extraction,
    read_failures,
)
from cache.recipe import LayersRead, layer_numbers, layers_text
from cache.sources import SourceIndex
from cache.store.mirror import refresh
from cache.stream import FrameStream
from corpora.base.errors import MissingStepError
from corpora.base.work import Work
from corpora.manifest import Manifest, Utterance

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor


class FrameCache:
    """The streams of a work folder, as the last extraction made them.

    Where the folder is connected to an object store, it is looked there what there is.

    Args:
        work: the work folder.

    Attributes:
        root: the work folder, where encoders are and which messages name.
        features: the Zarr group of all streams.
    """

    def __init__(self, work: Work) -> None:
        self.root = work.root
        self.features = work.features
        self._work = work
        refresh(work.root)

    @cached_property
    def extraction(self) -> Extraction:
        """What the last extraction made; read once.

        Raises:
            MissingStepError: nothing was extracted into this work folder.
            FormatVersionError: its record is of another version.
        """
        return read_extraction(self._work.extraction)

    @property
    def sources(self) -> Mapping[str, Source]:
        """Those of the last extraction by kind; none where nothing was extracted.

        Raises:
            FormatVersionError: its record is of another version.
        """
        try:
            return self.extraction.sources
        except MissingStepError:
            return {}

    @property
    def modalities(self) -> tuple[str, ...]:
        """Those of the last extraction.

        Raises:
            MissingStepError: nothing was extracted.
        """
        return tuple(name for name in MODALITIES if name in self.extraction.sources)

    @property
    def failed(self) -> dict[str, str]:
        """Reasons by id, for utterances that the last extraction could not use.

        Raises:
            CacheError: their list is damaged.
        """
        return read_failures(self._work.failures)

    def hashes(self, paths: Iterable[Path], *, read: bool = True) -> dict[Path, str]:
        """SHA-256 of files' contents, in hexadecimal; files that are not there are left out.

        Args:
            paths: of recordings, weights, features.
            read: whether those that are new to the index are read; else they are left out.
        """
        with SourceIndex(self._work.sources) as index:
            return index.content_hashes(paths, read=read)

    @property
    def describe(self) -> str:
        """How the last extraction's text encoder read descriptions (see `cache.keys.text_read`)."""
        source = self.sources.get("text")
        return "" if source is None else source.recipe.describe

    def keys(
        self, utterances: Sequence[Utterance], *, read: bool = True, describe: str | None = None
    ) -> dict[str, dict[str, str]]:
        """The content keys of utterances by id: `audio` (absent if the file is) and `text`.

        Args:
            utterances: of a manifest.
            read: as for `hashes`.
            describe: whether texts are read with descriptions (see `cache.keys.text_read`); by
                default as the last extraction read them.
        """
        describe = self.describe if describe is None else describe
        # As text: paths compare ten times as slowly.
        hashes = self.hashes(sorted({u.audio for u in utterances}, key=os.fspath), read=read)
        keys = {}
        for utterance in utterances:
            keys[utterance.id] = {"text": text_key(text_read(utterance, describe))}
            if utterance.audio in hashes:
                content = hashes[utterance.audio]
                keys[utterance.id]["audio"] = audio_key(content, utterance.start, utterance.end)
        return keys

    def stream(self, kind: str, layer: int | None = None) -> FrameStream:
        """A stream of the last extraction, of the usual layer by default.

        Raises:
            CacheError: that layer was not extracted, or the stream is damaged.
            MissingStepError: that kind was not extracted.
        """
        return FrameStream.open(self.features / self.extraction.source(kind).stream(layer))

    def find(
        self,
        manifest: Manifest,
        modalities: Sequence[str],
        *,
        layers: Mapping[str, LayersRead] | None = None,
        others: bool = False,
        speech: bool | None = None,
    ) -> Found:
        """Find the frames of a manifest's utterances.

        Args:
            manifest: whose utterances.
            modalities: some of `MODALITIES`.
            layers: for a modality another layer than its usual one; or several, of which the
                highest is the one of its stream.
            others: whether, beside its usual one, all layers of a modality are found that are still
                there.
            speech: whether frames in time get the voice activity detector's probabilities; None:
                where these were extracted.

        Raises:
            MissingStepError: nothing was extracted, or utterances are neither cached nor listed as
                failed.
            CacheError: a layer was not extracted, or the cache is damaged.
        """
        extraction = self.extraction
        if others:
            read = {name: self._held_layers(extraction.source(name)) for name in modalities}
            chosen = {n: extraction.source(n).usual_layer for n, numbers in read.items() if numbers}
        else:
            read = {name: layer_numbers((layers or {}).get(name, ())) for name in modalities}
            chosen = {name: numbers[-1] for name, numbers in read.items() if numbers}
        # Of each modality the layer of its stream (None), and the others.
        wanted: dict[tuple[str, int | None], FrameStream] = {
            (name, None): self.stream(name, chosen.get(name)) for name in modalities
        }
        wanted |= {
            (name, layer): self.stream(name, layer)
            for name in modalities
            for layer in read[name]
            if layer != chosen[name]
        }
        timed = any(input_kind(name) != "text" for name in modalities)
        if timed and (SPEECH in extraction.sources if speech is None else speech):
            wanted[SPEECH, None] = self.stream(SPEECH)
        kept: list[Utterance] = []
        missing: list[Utterance] = []
        held: dict[tuple[str, int | None], list[str]] = {which: [] for which in wanted}
        keys, failed = self.keys(manifest.utterances), self.failed
        lacking: set[str] = set()
        for utterance in manifest.utterances:
            own = {
                (kind, layer): extraction.source(kind).held_key(
                    stream, keys[utterance.id].get(input_kind(kind), "")
                )
                for (kind, layer), stream in wanted.items()
            }
            absent = {which[0] for which, stream in wanted.items() if own[which] not in stream}
            (missing if absent else kept).append(utterance)
            if not absent:
                for which, key in own.items():
                    held[which].append(key)
            elif utterance.id not in failed:
                lacking |= absent
        unknown = [u for u in missing if u.id not in failed]
        self._refuse_unknown(unknown, lacking, len(manifest.utterances), read)
        found = Found(
            tuple(kept),
            {u.id: failed[u.id] for u in missing},
            {kind: stream for (kind, layer), stream in wanted.items() if layer is None},
            {kind: tuple(own) for (kind, layer), own in held.items() if layer is None},
            self._kept_moments(chosen, {name: held[name, None] for name in modalities}),
            {},
            {
                name: chosen.get(name, extraction.source(name).usual_layer)
                for name in modalities
                if extraction.source(name).layers
            },
            {name: at for name, layer in wanted if layer is None and (at := self._clock(name))},
        )
        further = {which: stream for which, stream in wanted.items() if which[1] is not None}
        return replace(found, others=further_layers(found, further, held)) if further else found

    def _clock(self, kind: str) -> Grid | FrameStream | None:
        """What tells when the frames of a kind are."""
        recipe = self.extraction.source(kind).recipe
        path = self.features / recipe.folder / TIMES
        return FrameStream.open(path) if path.is_dir() else recorded_grid(recipe)

    def companion(self, kind: str, found: Found) -> Tensor | None:
        """`[N]`, a stream of one value a frame that lies on the frames of a modality.

        Args:
            kind: `energy`, on the audio frames; `text`: the kind of each of its tokens.
            found: the utterances, with these frames.

        Returns:
            None where it is missing for an utterance, or is of another extraction.
        """
        source = self.sources.get(kind)
        if source is None:
            return None
        folder = self.features / source.recipe.folder
        path = folder / TOKEN_KIND if kind == "text" else self.features / source.stream()
        if not path.is_dir():
            return None
        stream = FrameStream.open(path)
        own = self.keys(found.utterances)
        keys = [
            source.held_key(stream, own[u.id].get(input_kind(kind), "")) for u in found.utterances
        ]
        if not all(key in stream for key in keys):
            return None
        beside = input_kind(kind)
        lengths = found.streams[beside].lengths(found.keys[beside])
        return stream.load(keys).values[:, 0] if (stream.lengths(keys) == lengths).all() else None

    def surprisal(self, utterances: Sequence[Utterance]) -> list[NDArray[np.float32] | None]:
        """Bits of each word of utterances' texts; None of one that has none.

        Raises:
            MissingStepError: the last extraction had no --surprisal-model.
        """
        stream = self.stream(SURPRISAL)
        keys = [text_key(u.text) for u in utterances]
        return [stream.read(key)[:, 0] if key in stream else None for key in keys]

    def moments(
        self, utterances: Sequence[Utterance], modality: str, layer: int
    ) -> tuple[Tensor, Tensor]:
        """Mean and deviation `[n, D]` float32 of utterances.

        What the cache has only frames of is computed from these, and kept.

        Raises:
            MissingStepError: nothing was extracted, or an utterance is not in the cache.
            CacheError: that layer was not extracted, or the cache is damaged.
        """
        from cache.moments import moments_of_keys

        source, keys = self.extraction.source(modality), self.keys(utterances)
        own = [keys[u.id].get(input_kind(modality), "") for u in utterances]
        return moments_of_keys(self.features, source, layer, own)

    def _held_layers(self, source: Source) -> tuple[int, ...]:
        """The usual layer, and the others that were not removed from the cache since."""
        return tuple(
            n
            for n in source.layers
            if n == source.usual_layer or (self.features / source.stream(n)).is_dir()
        )

    def _refuse_unknown(
        self,
        unknown: Sequence[Utterance],
        lacking: Collection[str],
        total: int,
        read: Mapping[str, Sequence[int]],
    ) -> None:
        """Refuse utterances that are neither cached nor listed as failed (MissingStepError)."""
        gone = [u for u in unknown if not u.audio.is_file()]
        if gone and any(input_kind(name) != "text" for name in read):
            raise MissingStepError(
                f"{len(gone)} of {total} recordings are not where the manifest says "
                f"(the first: {gone[0].audio}), so it cannot be told which frames are theirs. "
                "Mount or move them back, or run `prepare` on the folder where they are now: "
                "frames are kept by content, and are not extracted again."
            )
        if unknown:
            several = [f"{name} {layers_text(tuple(own))}" for name, own in read.items() if own[1:]]
            of_layers = f" with {' and '.join(several)}" if several else ""
            brought = [n for n in sorted(lacking) if self.extraction.source(n).recipe.imported]
            step = f"Run `{extract_command(self.root)}` again."
            if len(brought) == len(lacking):
                step = f"Import their {' and '.join(brought)} frames too (`cache import`)."
            raise MissingStepError(
                f"{len(unknown)} of {total} utterances are not in the cache{of_layers} "
                f"(the first: {unknown[0].id}). {step}"
            )

    def _kept_moments(
        self, layers: Mapping[str, int], held: Mapping[str, Sequence[str]]
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Moments of modalities of which all were kept: with these no frame may be needed."""
        from cache.moments import kept_moments

        found = {}
        for modality, keys in held.items():
            source = self.extraction.source(modality)
            layer = layers.get(modality, source.usual_layer)
            moments = kept_moments(self.features, source, layer, keys)
            if moments is not None:
                found[modality] = moments
        return found
