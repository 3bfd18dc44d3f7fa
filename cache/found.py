"""Found: the frames of a manifest's utterances, found in the cache, read when they are wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cache.encoders.grid import SAMPLE_RATE, Grid
from cache.last_extraction import SURPRISAL
from cache.stream import FrameStream
from corpora.base.errors import CacheError
from corpora.utterance import Utterance

if TYPE_CHECKING:
    from torch import Tensor

    from cache.frames import Frames
    from cache.mapped import MappedFrames, Residence

Floats = npt.NDArray[np.float64]

SPEECH = "speech"
#: Times that differ by less are the same: tables round them, and float32 does an hour into a file.
SAME_SECONDS = 5e-4


def input_kind(stream: str) -> str:
    """By which of an utterance's keys a stream is kept: its recording's, `audio`, or its `text`'s.

    Frames of its video are kept by its recording's.
    """
    return "text" if stream in ("text", SURPRISAL) else "audio"


@dataclass(frozen=True, eq=False)
class Found:
    """The frames of utterances, found in the cache but not read.

    Attributes:
        utterances: in the manifest's order, without those that failed at extraction.
        failed: reasons by id, for the utterances left out.
        streams: by modality, and `speech` where it was asked for.
        keys: for each stream those of the utterances, in that order.
        moments: mean and deviation `[n, D]` of each modality's utterances, where they were kept.
        others: by modality and layer the frames of further layers, where several were asked for.
        layers: by modality the number of the layer of its stream, where it is an encoder's.
        clocks: by stream the grid that its frames lie on, or the stream of their times.
    """

    utterances: tuple[Utterance, ...]
    failed: Mapping[str, str]
    streams: Mapping[str, FrameStream]
    keys: Mapping[str, tuple[str, ...]]
    moments: Mapping[str, tuple[Tensor, Tensor]]
    others: Mapping[str, Mapping[int, MappedFrames]]
    layers: Mapping[str, int]
    clocks: Mapping[str, Grid | FrameStream]

    @property
    def modalities(self) -> tuple[str, ...]:
        """Those asked for."""
        return tuple(name for name in self.streams if name != SPEECH)

    @property
    def nbytes(self) -> int:
        """Of all frames but those of further layers, as they are stored."""
        return sum(
            int(stream.lengths(self.keys[name]).sum()) * stream.frame_bytes
            for name, stream in self.streams.items()
        )

    def load(self, modality: str, device: str = "cpu") -> Frames:
        """All frames of a modality, in the memory of a device."""
        frames = self.streams[modality].load(self.keys[modality], device=device)
        speech = self.speech(modality)
        return frames if speech is None else frames.with_speech(speech.to(device))

    def mapped(self, modality: str) -> MappedFrames:
        """All frames of a modality, read from disk when they are asked for."""
        from cache.mapped import MappedFrames

        speech = self.speech(modality)
        return MappedFrames(self.streams[modality], self.keys[modality], speech=speech)

    def read(self, device: str = "cpu") -> tuple[dict[str, Frames | MappedFrames], Residence]:
        """All frames by modality, kept where they fit, and where that is.

        Args:
            device: where batches are needed: they stay there, in memory, or mapped.
        """
        from cache.mapped import choose_residence  # imports torch

        residence = choose_residence(self.nbytes, device)
        if residence.place == "disk":
            return {name: self.mapped(name) for name in self.modalities}, residence
        home = device if residence.place == "gpu" else "cpu"
        return {name: self.load(name, home) for name in self.modalities}, residence

    def all_layers(self) -> dict[str, Frames]:
        """By modality the frames of all layers asked for beside one another, lowest layer first."""
        from cache.frames import Frames

        everything = range(len(self.utterances))
        found = {}
        for name in self.modalities:
            parts = {n: one.select(everything) for n, one in self.others.get(name, {}).items()}
            parts[self.layers.get(name, 0)] = self.load(name)
            found[name] = Frames.beside([parts[n] for n in sorted(parts)])
        return found

    def times(self, name: str) -> list[Floats] | None:
        """Of each utterance `[T]`, the middle of each frame of a modality, or of `speech`.

        Returns:
            Seconds from the utterance's start; None where nothing tells them, as of text.
        """
        clock = self.clocks.get(name)
        lengths = self.streams[name].lengths(self.keys[name])
        if isinstance(clock, Grid):
            first, hop = clock.first_centre / SAMPLE_RATE, clock.hop / SAMPLE_RATE
            return [first + hop * np.arange(count, dtype=np.float64) for count in lengths]
        if clock is None:
            return None
        laid = clock.load(self.keys[name]).values[:, 0].double().numpy()
        return np.split(laid, lengths.cumsum()[:-1])

    def speech(self, modality: str) -> Tensor | None:
        """`[N]`, how probable speech is in each frame of a modality; None where it is not known.

        Frames on a clock of their own have the mean of what the detector says in their span.
        """
        if SPEECH not in self.streams or input_kind(modality) == "text":
            return None
        import torch

        found = self.streams[SPEECH].load(self.keys[SPEECH])
        said = found.values[:, 0].float()
        if not isinstance(self.clocks.get(modality), FrameStream):
            return said  # they lie on the detector's frames
        own, known = self.times(modality), self.times(SPEECH)
        assert own is not None
        assert known is not None, "the detector's recipe has its grid"
        parts = np.split(said.double().numpy(), found.offsets[1:-1].numpy())
        return torch.from_numpy(np.concatenate(list(map(onto, parts, known, own)))).float()


def further_layers(
    found: Found,
    streams: Mapping[tuple[str, int | None], FrameStream],
    keys: Mapping[tuple[str, int | None], Sequence[str]],
) -> dict[str, dict[int, MappedFrames]]:
    """The further layers, which have to lie on the frames of the first (CacheError)."""
    from cache.mapped import MappedFrames

    speech = {kind: found.speech(kind) for kind in {kind for kind, _ in streams}}
    others: dict[str, dict[int, MappedFrames]] = {}
    for (kind, layer), stream in streams.items():
        assert layer is not None
        own = tuple(keys[kind, layer])
        frames = MappedFrames(stream, own, speech=speech[kind])
        if (frames.lengths.numpy() != found.streams[kind].lengths(found.keys[kind])).any():
            raise CacheError(
                f"layer {layer} of the {kind} encoder has other numbers of frames than layer "
                f"{found.layers[kind]}. Run `cache verify`, or extract into another work folder."
            )
        others.setdefault(kind, {})[layer] = frames
    return others


def onto(values: Floats, at: Floats, times: Floats) -> Floats:
    """`[T]`, what is known at other times: the mean over each frame's span, else the nearest.

    A frame's span reaches half-way to its neighbours, and as far at the ends. So on a clock with
    one of these values a frame, such as that of a copy of their frames, it is these very values.

    Args:
        values: `[M]`.
        at: `[M]`, when these are, seconds, ascending.
        times: `[T]`, when the frames are, likewise.
    """
    middles = (times[1:] + times[:-1]) / 2
    # Of a single frame: from the start on, and as far behind it.
    first = 2 * times[0] - middles[0] if len(middles) else 0.0
    last = 2 * times[-1] - middles[-1] if len(middles) else 2 * times[0]
    edges = np.concatenate([[first], middles, [last]])
    span = np.searchsorted(edges, at + SAME_SECONDS, side="right") - 1
    inside = (span >= 0) & (span < len(times))
    counts = np.bincount(span[inside], minlength=len(times))
    sums = np.bincount(span[inside], values[inside], len(times))
    nearest = values[np.searchsorted((at[1:] + at[:-1]) / 2, times)]
    return np.where(counts > 0, sums / np.maximum(counts, 1), nearest)
