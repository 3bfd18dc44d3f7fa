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
from dataclasses import replace

from cache.config import ExtractConfig
from cache.encoders.grid import recorded_padding
from cache.extract.plan import Plan, make_plan
from cache.extract.summary import is_complete
from cache.extract.targets import Item
from cache.last_extraction import layer_name
from cache.lookup import FrameCache
from cache.recipe import layers_text
from cache.stream import FrameStream
from corpora.base.work import current_rank
from corpora.manifest import Manifest
from finetune.model import EmotionModel
from finetune.phases import lowest_trained
from finetune.upper import Boundary, Upper, upper_layers

# No recording is refused for its length: fine-tuning would take it too. (A day, in seconds.)
ANY_LENGTH = 86_400.0


def open_boundary(
    cache: FrameCache,
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
        cache: of the extraction that the head's frames come from.
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
    for name, encoder in model.encoders.items():
        start = lowest_trained(model, name, unfreeze_layers) - 1
        found = upper_layers(encoder, start, model.layers[name])
        if isinstance(found, Upper):
            uppers[name] = found
        else:
            told.append(f"No boundary cache for the {name} encoder: {found}.")
    if not uppers:
        return None, told
    extraction = cache.extraction
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
    plan = _boundary_alone(make_plan(cache, manifest, config), uppers)
    if not is_complete(plan):
        from cache.extract.passes import run_plan

        run_plan(cache.features, plan, rank=current_rank(), show_progress=show_progress)
    streams = {
        name: tuple(FrameStream.open(cache.features / _path(plan, name, n)) for n in upper.given)
        for name, upper in uppers.items()
    }
    keys = cache.keys(manifest.utterances)
    needed = [(name, keys[u.id].get(name, "")) for u in manifest.utterances for name in streams]
    missing = sum(any(key not in one for one in streams[name]) for name, key in needed)
    if missing:
        told.append(f"No boundary cache: {missing} inputs could not be extracted.")
        return None, told
    speech = None
    if model.detector is not None and "audio" in uppers:
        speech = cache.stream("speech")
    layers = " and ".join(f"{name} {layers_text(upper.given)}" for name, upper in uppers.items())
    told.append(f"Trains from cached hidden states: {layers}, {stored_dtype}.")
    recordings = None
    if "audio" in uppers and uppers["audio"].reads_silence:
        recordings = cache.stream("audio")
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
