"""`extract --check N`: the cache against transformers' own pipeline, one utterance at a time.

Nothing of Emopool takes part but decoding and text normalisation: `AutoFeatureExtractor` or
`AutoTokenizer`, `AutoModel`, hidden states. So batching, padding, the front end in torch, layer
numbers, storage and reading are all checked.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import AutoFeatureExtractor, AutoModel, AutoTokenizer
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from cache.audio import load_audio
from cache.encoders.audio_encoder import KEY_MAPPING
from cache.encoders.files import maximum_tokens
from cache.encoders.grid import SAMPLE_RATE, read_config
from cache.encoders.hidden_states import quiet
from cache.extract.plan import Plan
from cache.extract.summary import CheckReport, StreamCheck
from cache.extract.targets import Target, targets_of
from cache.keys import text_read
from cache.lookup import FrameCache
from cache.moments import DEVIATION, MEAN
from cache.stream import FrameStream
from corpora.base.terminal import progress_bar
from corpora.base.work import Work
from corpora.manifest import Manifest, Utterance
from corpora.utterance import where_of

# Two units in the last place of float16, relative (2 · 2^-10), for the rounding when it is stored.
_RELATIVE = {"float16": 2.0**-9, "float32": 2.0**-20}
# What the encoder adds, of the layer's root mean square: the front ends agree to 1e-3 and layers
# pass that on. In bf16 every operation rounds to 2^-8, and kernels differ with the batch's shape.
_ENCODER = {"fp32": 1e-3, "bf16": 0.2}

Array = NDArray[np.float64]
Pipeline = Callable[[Utterance], Sequence[Array]]


def check(
    work: Work, manifest: Manifest, plan: Plan, count: int, *, show_progress: bool = False
) -> CheckReport:
    """Compare random utterances of the cache.

    Args:
        work: the work folder.
        manifest: whose utterances.
        plan: which streams.
        count: how many utterances of each modality, fewer if there are not so many. Others are
            drawn each time.
        show_progress: a bar on standard error.

    Raises:
        ConfigError: an encoder cannot be loaded.
        CacheError: a part is damaged.
    """
    keys = FrameCache(work).keys(manifest.utterances)
    found: list[StreamCheck] = []
    windowed = 0
    for kind, directory in plan.directories.items():
        source = plan.extraction.source(kind)
        streams = {
            target: FrameStream.open(work.features / target.path)
            for target in targets_of(source)
            if target.layer is not None and (work.features / target.path).is_dir()
        }
        there = [
            u
            for u in manifest.utterances
            if any(
                source.held_key(stream, keys[u.id].get(kind, "")) in stream
                for stream in streams.values()
            )
        ]
        drawn = random.Random().sample(there, min(count, len(there)))
        pipeline = _pipeline(kind, directory, plan)
        compared: dict[Target, list[StreamCheck]] = {}
        with progress_bar(f"checking {kind}", len(drawn), "utterances", show=show_progress) as bar:
            for utterance in drawn:
                key = keys[utterance.id][kind]
                whole = {t: s for t, s in streams.items() if key in s}
                windowed += not whole
                if whole:
                    states = pipeline(utterance)
                    for target, stream in whole.items():
                        one = _compare(utterance, target, stream.read(key), states, plan)
                        compared.setdefault(target, []).append(one)
                bar.update(1)
        found += map(_together, compared.values())
    return CheckReport(tuple(found), windowed, _tolerance(plan))


def _compare(
    utterance: Utterance,
    target: Target,
    stored: NDArray[Any],
    states: Sequence[Array],
    plan: Plan,
) -> StreamCheck:
    """One utterance of one stream against the pipeline's hidden states."""
    assert target.layer is not None
    expected = states[target.layer]
    scale = float(np.sqrt(np.mean(np.square(expected))))
    if target.moments:
        expected = np.stack([expected.mean(axis=0), expected.std(axis=0)])
        assert (MEAN, DEVIATION) == (0, 1)
    if expected.shape != stored.shape:
        return StreamCheck(target.path, 1, float("inf"), float("inf"), utterance.id)
    compute = plan.compute_dtype if target.recipe.kind == "audio" else "fp32"
    relative = _RELATIVE[str(target.recipe.fields["stored_dtype"])]
    allowed = relative * np.abs(expected) + _ENCODER[compute] * scale
    difference = np.abs(stored.astype(np.float64) - expected)
    largest = float(difference.max())
    return StreamCheck(target.path, 1, largest, float((difference / allowed).max()), utterance.id)


def _together(checks: Sequence[StreamCheck]) -> StreamCheck:
    """Those of one stream's utterances as one: their number, the worst of their differences."""
    worst = max(checks, key=lambda one: one.of_tolerance)
    return replace(worst, utterances=len(checks), largest=max(one.largest for one in checks))


def _pipeline(kind: str, directory: Path, plan: Plan) -> Pipeline:
    """From an utterance to the hidden states `[T, D]` of all layers, 0 first."""
    padding = plan.padding if kind == "audio" else None
    with quiet():
        model: Any = (WhisperEncoder if padding else AutoModel).from_pretrained(
            directory,
            local_files_only=True,
            dtype=torch.float32,
            key_mapping=KEY_MAPPING if padding else None,
        )
        model = model.eval().to(plan.device)
        if kind == "audio":
            extractor = AutoFeatureExtractor.from_pretrained(directory, local_files_only=True)
        else:
            tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)

    def run(
        inputs: Mapping[str, torch.Tensor], context: AbstractContextManager[Any]
    ) -> list[Array]:
        moved = {name: value.to(plan.device) for name, value in inputs.items()}
        with torch.inference_mode(), context:
            output = model(**moved, output_hidden_states=True)
        # The last hidden state, which in some encoders is a layer norm behind the last layer.
        states = [*output.hidden_states[:-1], output.last_hidden_state]
        # The log-mel front end fills up to whole frames; its mask says which are the recording's.
        fills = "input_features" in inputs
        count = int(inputs["attention_mask"].sum()) if fills else states[0].shape[1]
        return [state[0, :count].double().cpu().numpy() for state in states]

    def audio(utterance: Utterance) -> list[Array]:
        waveform = load_audio(
            utterance.audio, utterance.start, utterance.end, where=where_of(utterance)
        )
        half = plan.compute_dtype == "bf16"
        bf16 = torch.autocast(torch.device(plan.device).type, torch.bfloat16, enabled=half)
        if padding is None:
            return run(extractor(waveform, sampling_rate=SAMPLE_RATE, return_tensors="pt"), bf16)
        inputs = extractor(
            waveform,
            sampling_rate=SAMPLE_RATE,
            max_length=padding.padded(len(waveform)),
            return_attention_mask=True,
            return_tensors="pt",
        )
        _cut_positions(model, inputs["input_features"].shape[2] // 2)
        # Two frames of the mask are one of the encoder's.
        inputs["attention_mask"] = inputs["attention_mask"][:, ::2]
        return run(inputs, bf16)

    def text(utterance: Utterance) -> list[Array]:
        inputs = tokenizer(
            text_read(utterance, plan.config.describe),
            truncation=True,
            max_length=limit,
            return_tensors="pt",
        )
        return run(inputs, nullcontext())

    if kind == "audio":
        return audio
    limit = min(maximum_tokens(read_config(directory, "config.json")), tokenizer.model_max_length)
    return text


def _cut_positions(encoder: Any, frames: int) -> None:  # noqa: ANN401 (untyped library)
    """Make transformers' Whisper encoder one of fewer positions: it takes no shorter input."""
    whole = getattr(encoder, "whole_positions", encoder.embed_positions.weight)
    encoder.whole_positions = whole
    encoder.config.max_source_positions = frames
    encoder.embed_positions = nn.Embedding.from_pretrained(whole[:frames])


def _tolerance(plan: Plan) -> str:
    stored = plan.config.stored_dtype
    encoder = _ENCODER[plan.compute_dtype]
    return (
        f"2 units in the last place of {stored}, plus {encoder:g} of the layer's root mean square "
        f"for the encoder in {plan.compute_dtype}"
    )
