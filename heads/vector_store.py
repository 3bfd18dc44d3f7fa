"""What batches are made of: frames as heads see them, and vectors of all utterances, made once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from cache.encoders.device import to_device
from cache.frames import Frames
from cache.mapped import MappedFrames
from heads.batches import PlannedStep, Thinning
from heads.dataset import Dataset
from heads.head import Inputs, ViewKey, layer_normalised
from heads.pooling.segments import VARIANCE_FLOOR, Place, share_utterances, side_by_side
from heads.pooling.view import View
from heads.speakers import SPEAKER, SpeakerMaps, overall

# Frames that are held at once while utterance vectors are made: on a CPU so few that they stay in
# its cache (8 MB at 1024-d), which is nearly three times as fast as 32,768; on a GPU many.
CHUNK_FRAMES = {"cpu": 2_048, "cuda": 131_072}
# Centred frames up to this are kept between batches, where training is on a CPU.
KEPT_BYTES = 1_000_000_000


class VectorStore:
    """What batches are made of: frames, and parameter-free vectors of all utterances, made once.

    A batch has frames, or none where every head of the company needs vectors alone. It is to be
    used before the next one is made.

    Args:
        dataset: the frames and what they are of.
        precision: of a batch's centred frames, and so of the products with them: `fp32`, or
            `bf16`. Centred first, stored second: around a mean of 8, bfloat16 is coarser than a
            deviation of .05; around 0 it keeps every deviation to .4 %.
        device: where batches are needed, and vectors kept.
        recorded: whether steps on a GPU are recorded as CUDA graphs and replayed.
        targets: by modality the training frames' mean and deviation that the view `speaker` gives
            to every speaker; by default those of the data set's training rows.
    """

    def __init__(
        self,
        dataset: Dataset,
        precision: str = "fp32",
        device: torch.device | str = "cpu",
        recorded: bool = False,
        targets: Mapping[str, tuple[Tensor, Tensor]] | None = None,
    ) -> None:
        self.dataset = dataset
        self.device = torch.device(device)
        self.recorded = recorded
        self._half = torch.bfloat16 if precision == "bf16" else None
        self._targets = dict(targets or {})
        self._vectors: dict[tuple[str, ViewKey], dict[str, Tensor]] = {}
        self._speaker_maps: dict[tuple[str, ViewKey], SpeakerMaps] = {}
        self._centred_frames: dict[str, list[Tensor]] = {}
        # One set a thread: companies are trained beside one another.
        self._buffers = threading.local()
        # What one company makes, another one that needs it too waits for.
        self._making = threading.Lock()

    def vectors(
        self, modality: str, input_norm: str, name: str, layer: int | None = None
    ) -> Tensor:
        """`[n, D]` of a vector of `View.vector`, the frames seen as with this normalisation."""
        return self._kept(modality, (input_norm, 1, layer), [name])[name]

    def _kept(self, modality: str, view: ViewKey, names: Sequence[str]) -> Mapping[str, Tensor]:
        """The vectors of a view, these names and those that were asked for before."""
        view = norm, layers, layer = self._usual(modality, view)
        kept = self._vectors.setdefault((modality, view), {})
        if not set(names) <= set(kept):
            if norm == SPEAKER:
                self._maps(modality, layers, layer)
            with self._making:
                self._make(modality, view, names, kept)
        return kept

    def _usual(self, modality: str, view: ViewKey) -> ViewKey:
        """The same view, where it is of the usual layer without its number."""
        norm, layers, layer = view
        return norm, layers, None if layer == self.dataset.layers.get(modality) else layer

    def _make(
        self, modality: str, view: ViewKey, names: Sequence[str], kept: dict[str, Tensor]
    ) -> None:
        """Add the vectors of these names that are missing, in one pass over the frames."""
        input_norm, layers, layer = view
        if view == ("none", 1, None) and modality in self.dataset.moments:
            mean, deviation = self.dataset.moments[modality]
            # With the floor that poolings put under every deviation.
            floor = VARIANCE_FLOOR**0.5
            kept["mean"] = mean.to(self.device)
            kept["deviation"] = deviation.to(self.device).clamp_min(floor)
        if input_norm == SPEAKER and not {"mean", "deviation"} <= set(kept):
            maps = self._maps(modality, layers, layer)
            plain = self._vectors[modality, ("none", layers, layer)]
            kept["mean"] = plain["mean"] * maps.gain[maps.of] + maps.offset[maps.of]
            kept["deviation"] = plain["deviation"] * maps.gain[maps.of]
        # Several layers are read from disk: what one head wants of them another will want too.
        wanted = names if layers == 1 else ["mean", "deviation", *names]
        missing = [name for name in dict.fromkeys(wanted) if name not in kept]
        if not missing:
            return
        lengths = self.dataset.frames[modality].lengths.tolist()

        def make(rows: Sequence[int]) -> list[Tensor]:
            frames = self.dataset.select(modality, rows, layers, layer).to(self.device)
            seen = View(self._seen(frames, rows, modality, view))
            return [seen.vector(name) for name in missing]

        runs = chunks(lengths, CHUNK_FRAMES[self.device.type] // layers)
        with torch.no_grad():
            beside = self.device.type == "cpu"
            parts = side_by_side(make, runs) if beside else [make(rows) for rows in runs]
        columns = [list(column) for column in zip(*parts, strict=True)]
        del parts
        for name in missing:
            kept[name] = torch.cat(columns.pop(0))

    def inputs(
        self,
        rows: Tensor,
        needs: Mapping[str, Mapping[ViewKey, Sequence[str]]],
        *,
        with_frames: Collection[tuple[str, ViewKey]],
        thinning: Thinning | None = None,
    ) -> dict[str, Inputs]:
        """A batch.

        Args:
            rows: `[B]` utterance numbers, on the CPU.
            needs: modality → normalisation (`none` or `layernorm`) and number of layers → names of
                vectors.
            with_frames: modalities and views of one layer of which frames are needed besides.
            thinning: which of an utterance's frames are read; None: all. Vectors are of all.
        """

        def framed(modality: str, key: ViewKey, ready: Mapping[str, Tensor]) -> View:
            lengths = self.dataset.frames[modality].lengths[rows].tolist()
            read = None if thinning is None else thinning.slices(lengths)
            if read is not None:
                lengths = [
                    len(range(length)[own]) for length, own in zip(lengths, read, strict=True)
                ]
            centred = self._centred(modality, key, rows, ready["mean"], lengths, read)
            return View.of_centred(centred, lengths, ready)

        return self._views(to_device(rows, self.device), needs, with_frames, framed)

    def padded_inputs(
        self,
        step: PlannedStep,
        needs: Mapping[str, Mapping[ViewKey, Sequence[str]]],
        *,
        with_frames: Collection[tuple[str, ViewKey]],
        sent: Mapping[tuple[str, int | None], Tensor],
    ) -> dict[str, Inputs]:
        """A batch of utterances padded to one length, made on the device without a look at it.

        Args:
            step: what is read.
            needs: as for `inputs`.
            with_frames: likewise.
            sent: by modality and layer the frames that are kept elsewhere.
        """
        places = {name: step.places(name) for name in dict.fromkeys(n for n, _ in with_frames)}

        def framed(modality: str, key: ViewKey, ready: Mapping[str, Tensor]) -> View:
            norm, _, layer = key
            own, padding = places[modality]
            values = sent.get((modality, layer))
            if values is None:
                frames = self.dataset.one_layer(modality, layer)
                assert isinstance(frames, Frames), "others are sent"
                values = frames.values.index_select(0, own)
            mean = ready["mean"]
            values = values.unflatten(0, (len(mean), -1))
            if norm == SPEAKER:
                values = self._maps(modality, 1, layer).mapped_rows(values, step.utterances)
            elif norm != "none":
                values = F.layer_norm(values.to(mean.dtype), values.shape[2:])
            centred = (values - mean[:, None]).to(self._half or mean.dtype).flatten(0, 1)
            lengths = [step.widths[modality]] * len(mean)
            return View.of_centred(centred, lengths, ready, padding)

        return self._views(step.utterances, needs, with_frames, framed)

    def elsewhere(
        self, with_frames: Collection[tuple[str, ViewKey]]
    ) -> list[tuple[str, int | None]]:
        """The modalities and layers whose frames are not on the device."""
        found = []
        for modality, layer in dict.fromkeys((name, view[2]) for name, view in with_frames):
            frames = self.dataset.one_layer(modality, layer)
            if not isinstance(frames, Frames) or frames.device.type != "cuda":
                found.append((modality, layer))
        return found

    def sent(self, step: PlannedStep, modality: str, layer: int | None) -> Tensor:
        """`[B·T, D]`, the frames of a step that are kept elsewhere, on their way to the device.

        They lie in pinned memory until it has fetched them, which is not waited for.
        """
        frames = self.dataset.one_layer(modality, layer)
        parts = [
            frames.utterance(row)[own]
            for row, own in step.slices(modality, self.dataset.frames[modality].offsets)
        ]
        width, dtype = step.widths[modality], parts[0].dtype
        room = torch.empty(len(parts), width, frames.dim, dtype=dtype, pin_memory=True)
        for place, values in zip(room, parts, strict=True):
            place[: len(values)] = values
            place[len(values) :] = 0  # any number would do, but for NaN
        return room.flatten(0, 1).to(self.device, non_blocking=True)

    def _views(
        self,
        there: Tensor,
        needs: Mapping[str, Mapping[ViewKey, Sequence[str]]],
        with_frames: Collection[tuple[str, ViewKey]],
        framed: Callable[[str, ViewKey, Mapping[str, Tensor]], View],
    ) -> dict[str, Inputs]:
        """The inputs of utterances `[B]`, given on the device; `framed` makes views with frames."""
        batch = {}
        for modality, by_view in needs.items():
            views = {}
            for key, names in by_view.items():
                framing = (modality, key) in with_frames
                wanted = list(dict.fromkeys([*names, "mean"] if framing else names))
                kept = self._kept(modality, key, wanted)
                ready = {name: kept[name].index_select(0, there) for name in wanted}
                views[key] = framed(modality, key, ready) if framing else View(None, ready)
            batch[modality] = Inputs(views)
        return batch

    def _centred(
        self,
        modality: str,
        view: ViewKey,
        rows: Tensor,
        means: Tensor,
        lengths: Sequence[int],
        read: Sequence[slice] | None,
    ) -> Tensor:
        """`[N, D]`, the frames of a batch with these means `[B, D]` taken out.

        Args:
            modality: which.
            view: how they are seen.
            rows: `[B]` utterance numbers.
            means: of all frames of each.
            lengths: frames of each that are read.
            read: which these are; None: all.
        """
        norm, _, layer = view
        frames = self.dataset.one_layer(modality, layer)
        chosen = rows.tolist()
        every = [slice(None)] * len(chosen) if read is None else read
        if self.device.type == "cuda":
            if isinstance(frames, Frames) and frames.device.type == "cuda":
                ends = torch.stack([frames.offsets[rows], frames.offsets[rows + 1]], dim=1).tolist()
                places = torch.cat(
                    [torch.arange(*both)[own] for both, own in zip(ends, every, strict=True)]
                )
                values = frames.values.index_select(0, to_device(places, self.device))
            else:
                parts = [frames.utterance(at)[own] for at, own in zip(chosen, every, strict=True)]
                values = to_device(torch.cat(parts), self.device)
            picked = Frames(values, torch.tensor([0, *lengths]).cumsum(0))
            seen = self._seen(picked, chosen, modality, (norm, 1, layer))
            return View(seen, {"mean": means}).centred.to(self._half or means.dtype)
        total = sum(lengths)
        # In memory that the next batch uses again: the system clears each page of fresh memory,
        # which would cost more than filling it.
        name = f"{modality} {norm} {layer}"
        buffer = getattr(self._buffers, name, None)
        if buffer is None or len(buffer) < total:
            buffer = torch.empty(total, frames.dim, dtype=self._half or means.dtype)
            setattr(self._buffers, name, buffer)
        ready = self._all_centred(modality, view, frames, means.dtype)

        def centre(run: Sequence[Place]) -> None:
            for at, own in run:
                if ready is not None:
                    buffer[own] = ready[chosen[at]][every[at]]
                    continue
                values = self._one_seen(frames, chosen[at], modality, view, means.dtype, every[at])
                torch.sub(values, means[at], out=buffer[own])

        share_utterances(centre, lengths)
        return buffer[:total]

    def _all_centred(
        self, modality: str, view: ViewKey, frames: Frames | MappedFrames, dtype: torch.dtype
    ) -> list[Tensor] | None:
        """By utterance its centred frames, kept where they are few; None where they are not."""
        norm, _, layer = view
        size = (self._half or dtype).itemsize
        if frames.total * frames.dim * size > KEPT_BYTES:
            return None
        name = f"{modality} {norm} {layer}"
        if name not in self._centred_frames:
            means = self._kept(modality, view, ["mean"])["mean"]
            with self._making:
                if name not in self._centred_frames:
                    found = []
                    for number in range(len(self.dataset)):
                        values = self._one_seen(frames, number, modality, view, dtype)
                        found.append((values - means[number]).to(self._half or dtype))
                    self._centred_frames[name] = found
        return self._centred_frames[name]

    def frame_statistics(
        self, modality: str, rows: Tensor, layers: int = 1, layer: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Mean and deviation `[D]` over all frames of the given utterances.

        From each utterance's mean and deviation: the variance is that within plus that between.
        """
        there = rows.to(self.device)
        lengths = self.dataset.frames[modality].lengths[rows].to(self.device)
        kept = self._kept(modality, ("none", layers, layer), ["mean", "deviation"])
        return overall(kept["mean"][there], kept["deviation"][there], lengths)

    def speakers_target(
        self, modality: str, layers: int = 1, layer: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Mean and deviation `[D]` that the view `speaker` gives to each speaker's frames."""
        if modality in self._targets:
            return self._targets[modality]
        return self.frame_statistics(modality, self.dataset.rows("train"), layers, layer)

    def _maps(self, modality: str, layers: int, layer: int | None) -> SpeakerMaps:
        """How the frames of a speaker are seen as `speaker`."""
        _, layers, layer = name = self._usual(modality, (SPEAKER, layers, layer))
        if (modality, name) not in self._speaker_maps:
            kept = self._kept(modality, ("none", layers, layer), ["mean", "deviation"])
            self._speaker_maps[modality, name] = SpeakerMaps.to(
                self.speakers_target(modality, layers, layer),
                (kept["mean"], kept["deviation"]),
                self.dataset.frames[modality].lengths.to(self.device),
                self.dataset.speakers(torch.arange(len(self.dataset))),
            )
        return self._speaker_maps[modality, name]

    def _seen(self, frames: Frames, rows: Sequence[int], modality: str, view: ViewKey) -> Frames:
        """The frames of these utterances as heads with this view read them."""
        norm, layers, layer = view
        if norm == SPEAKER:
            return self._maps(modality, layers, layer).mapped(frames, rows)
        return frames if norm == "none" else layer_normalised(frames, layers)

    def _one_seen(
        self,
        frames: Frames | MappedFrames,
        number: int,
        modality: str,
        view: ViewKey,
        dtype: torch.dtype,
        read: slice = slice(None),
    ) -> Tensor:
        """`[T, D]`, some frames of one utterance and one layer, as `_seen`."""
        norm, layers, layer = view
        values = frames.utterance(number)[read].to(dtype)
        if norm == "layernorm":
            return F.layer_norm(values, (frames.dim,))
        if norm == SPEAKER:
            maps = self._maps(modality, layers, layer)
            own = maps.of[number]
            return torch.addcmul(maps.offset[own], values, maps.gain[own])
        return values


def chunks(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Utterance numbers in runs of at most so many frames (at least one utterance each)."""
    runs: list[list[int]] = [[]]
    frames = 0
    for number, length in enumerate(lengths):
        if runs[-1] and frames + length > most:
            runs.append([])
            frames = 0
        runs[-1].append(number)
        frames += length
    return runs
