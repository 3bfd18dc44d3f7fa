"""Phase 2 from the cache: what the frozen lower layers give is extracted once.

The boundary is the hidden state below the lowest layer that is trained. It lies in the cache as a
stream of its own, beside that of the layer the head reads: same recipe but for the stored dtype.
Where a head weighs layers, those below the boundary come from the cache with it: nothing that is
trained changes them.
float16 halves each value's digits (11 bits: losses differ from those of recordings in the third or
fourth digit); float32 is for comparisons to the last digits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from cache.encoders.padding import recorded_padding
from cache.extracting.config import ExtractConfig
from cache.extracting.plan import Plan, make_plan
from cache.extracting.summary import is_complete
from cache.extracting.targets import Item
from cache.extraction import layer_name, read_extraction
from cache.frames import Frames
from cache.inputs import utterance_keys
from cache.layers import layers_text
from cache.stream import FrameStream
from corpora.base.ranks import current_rank
from corpora.base.work import Work
from corpora.manifest import Manifest, Utterance
from finetune.engine.upper import Upper, upper_layers
from finetune.model import EmotionModel
from finetune.phases import lowest_trained

# No recording is refused for its length: fine-tuning would take it too. (A day, in seconds.)
ANY_LENGTH = 86_400.0


@dataclass(frozen=True, eq=False)
class Boundary:
    """Cached hidden states of some modalities, and the layers that are run from them.

    Attributes:
        uppers: by modality.
        streams: of the hidden states, by modality, in the order of `Upper.given`.
        speech: of the voice activity detector's output, where the head needs it.
        keys: of each utterance by id, as `cache.inputs.utterance_keys` gives them.
        recordings: a stream of what the head reads, where the hidden states hold the silence behind
            recordings too: it knows how long these are.
    """

    uppers: Mapping[str, Upper]
    streams: Mapping[str, tuple[FrameStream, ...]]
    speech: FrameStream | None
    keys: Mapping[str, Mapping[str, str]]
    recordings: FrameStream | None = None

    def lengths(self, utterances: Sequence[Utterance]) -> dict[str, Tensor]:
        """`[B]`, frames of each recording, for modalities whose states hold more than these."""
        if self.recordings is None:
            return {}
        found = self.recordings.lengths(self._keys("audio", utterances))
        return {"audio": torch.as_tensor(found, dtype=torch.int64)}

    def states(self, utterances: Sequence[Utterance]) -> dict[str, Frames]:
        """The hidden states of a batch, by modality, beside one another, on the CPU."""
        found = {
            name: Frames.beside([one.load(self._keys(name, utterances)) for one in streams])
            for name, streams in self.streams.items()
        }
        if self.speech is not None and "audio" in found:
            speech = self.speech.load(self._keys("audio", utterances))
            rows = speech.values[:, 0].float().split(speech.lengths.tolist())
            # Where the states go on behind the recording there is none.
            filled = [
                functional.pad(row, (0, length - len(row)))
                for row, length in zip(rows, found["audio"].lengths.tolist(), strict=True)
            ]
            found["audio"] = found["audio"].with_speech(torch.cat(filled))
        return found

    def _keys(self, modality: str, utterances: Sequence[Utterance]) -> list[str]:
        return [self.keys[utterance.id][modality] for utterance in utterances]


def open_boundary(
    work: Work,
    manifest: Manifest,
    model: EmotionModel,
    unfreeze_layers: int | None,
    *,
    stored_dtype: str,
    device: str,
    show_progress: bool = False,
) -> tuple[Boundary | None, list[str]]:
    """Extract the boundary of phase 2 where it is missing, and open it.

    Args:
        work: the work folder of the extraction that the head's frames come from.
        manifest: with the utterances that are trained and scored on, and no others.
        model: frozen, in eval mode.
        unfreeze_layers: see `finetune.phases.trainable_parts`.
        stored_dtype: `float16` or `float32`.
        device: `cpu` or `cuda`.
        show_progress: whether to draw progress bars.

    Returns:
        The boundary, None where no encoder's upper layers can be run from one; and what to tell.
    """
    uppers, told = {}, []
    for name, encoder in (("audio", model.audio_encoder), ("text", model.text_encoder)):
        if encoder is None:
            continue
        start = lowest_trained(model, name, unfreeze_layers) - 1
        found = upper_layers(encoder, start, model.layers[name])
        if isinstance(found, Upper):
            uppers[name] = found
        else:
            told.append(f"No boundary cache for the {name} encoder: {found}.")
    if not uppers:
        return None, told
    extraction = read_extraction(work)
    padding = recorded_padding(extraction.source("audio").recipe) if "audio" in uppers else None
    config = ExtractConfig(
        audio_encoder=extraction.source("audio").encoder if "audio" in uppers else "",
        text_encoder=extraction.source("text").encoder if "text" in uppers else "",
        audio_layers=uppers["audio"].given if "audio" in uppers else (),
        text_layers=uppers["text"].given if "text" in uppers else (),
        stored_dtype=stored_dtype,
        device=device,
        max_seconds=ANY_LENGTH,
        padding=padding.name if padding is not None else "short",
        whole=True,
    )
    plan = _boundary_alone(make_plan(work, manifest, config), uppers)
    if not is_complete(plan):
        from cache.extracting.passes import run_plan

        run_plan(work, plan, rank=current_rank(), show_progress=show_progress)
    streams = {
        name: tuple(FrameStream.open(work.features / _path(plan, name, n)) for n in upper.given)
        for name, upper in uppers.items()
    }
    keys = utterance_keys(work, manifest.utterances)
    needed = [(name, keys[u.id].get(name, "")) for u in manifest.utterances for name in streams]
    missing = sum(any(key not in one for one in streams[name]) for name, key in needed)
    if missing:
        told.append(f"No boundary cache: {missing} inputs could not be extracted.")
        return None, told
    speech = None
    if model.detector is not None and "audio" in uppers:
        speech = FrameStream.open(work.features / extraction.source("speech").stream())
    layers = " and ".join(f"{name} {layers_text(upper.given)}" for name, upper in uppers.items())
    told.append(f"Trains from cached hidden states: {layers}, {stored_dtype}.")
    recordings = None
    if "audio" in uppers and uppers["audio"].reads_silence:
        recordings = FrameStream.open(work.features / extraction.source("audio").stream())
    return Boundary(uppers, streams, speech, keys, recordings), told


def _boundary_alone(plan: Plan, uppers: Mapping[str, Upper]) -> Plan:
    """A plan without what else an extraction makes: moments, token kinds, energy, speech."""
    paths = {_path(plan, name, n) for name, upper in uppers.items() for n in upper.given}

    def kept(items: Sequence[Item]) -> tuple[Item, ...]:
        reduced = (
            replace(item, targets=tuple(t for t in item.targets if t.path in paths), derived=())
            for item in items
        )
        return tuple(item for item in reduced if item.targets)

    streams = tuple(path for path in plan.streams if path in paths)
    return replace(plan, audio=kept(plan.audio), text=kept(plan.text), streams=streams, changes={})


def _path(plan: Plan, modality: str, layer: int) -> str:
    return f"{plan.extraction.source(modality).recipe.folder}/{layer_name(layer)}"
