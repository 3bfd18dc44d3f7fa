"""The model on raw input says what the head says on cached frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from cache.audio import load_audio
from cache.lookup import FrameCache
from corpora.base.errors import AudioError, ConfigError
from corpora.base.work import Work
from corpora.manifest import Manifest
from finetune.assembly import assemble
from finetune.model import EmotionModel
from finetune.phases import trainable_parts, unfreeze
from heads.head import Head
from heads.pooling import pooling_config, pooling_kinds
from tests.finetune.corpus import LAST, make_head, make_model

# Of every kind; small where the usual is large.
OPTIONS: dict[str, dict[str, Any]] = {
    "as": {"hidden": 8},
    "sa": {"hidden": 8},
    "mqmha": {"queries": 2, "heads": 2},
}
# One that reads words is refused by models: of a recording alone they are not known.
POOLINGS = [
    {"kind": kind, **OPTIONS.get(kind, {})}
    for kind in pooling_kinds()
    if not pooling_config({"kind": kind}).needs_words
]
# What the cache stores decides how near raw input and cached frames can come.
TOLERANCE = {"float32": 1e-4, "float16": 2e-2}


def both_logits(
    work: Work, dtype: str, manifest: Manifest, head: Head, layers: dict[str, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of twelve utterances: on cached frames, and on recordings and texts."""
    modalities = head.config.modalities
    found = FrameCache(work).find(manifest, modalities, layers=layers)
    frames = {name: found.load(name) for name in modalities}
    with torch.no_grad():
        expected = head({name: batch.select(range(12)) for name, batch in frames.items()})
    directories = {name: work.encoders / f"tiny-{name}" for name in modalities}
    model = assemble(head, directories, layers, speech_dtype=dtype)
    some = manifest.utterances[:12]
    with torch.no_grad():
        logits = model([load_audio(u.audio) for u in some], [u.text for u in some])
    return logits, expected


@pytest.mark.parametrize("pooling", POOLINGS, ids=lambda pooling: pooling["kind"])
def test_logits_on_raw_input_equal_the_heads_on_cached_frames(
    pooling: dict[str, Any], cached: tuple[Work, str], manifest: Manifest
) -> None:
    work, dtype = cached
    found, expected = both_logits(work, dtype, manifest, make_head(pooling), LAST)
    torch.testing.assert_close(found, expected, atol=TOLERANCE[dtype], rtol=0)


@pytest.mark.parametrize("input_norm", ["layernorm", "standardise"])
def test_logits_of_a_head_with_normalised_input_equal_those_on_cached_frames(
    input_norm: str, cached: tuple[Work, str], manifest: Manifest
) -> None:
    work, dtype = cached
    head = make_head({"kind": "mqmha", "queries": 2, "heads": 2}, input_norm=input_norm)
    if input_norm == "standardise":
        for modality, dim in head.config.dims.items():
            head.set_input_statistics(modality, torch.full((dim,), 0.1), torch.full((dim,), 0.8))
    found, expected = both_logits(work, dtype, manifest, head, LAST)
    torch.testing.assert_close(found, expected, atol=TOLERANCE[dtype], rtol=0)


@pytest.mark.parametrize("layers", [{"audio": 0, "text": 1}, {"audio": 2, "text": 0}], ids=str)
def test_logits_of_a_head_on_lower_layers_equal_those_on_cached_frames(
    layers: dict[str, int], cached: tuple[Work, str], manifest: Manifest
) -> None:
    work, dtype = cached
    head = make_head({"kind": "statistics"})
    found, expected = both_logits(work, dtype, manifest, head, layers)
    torch.testing.assert_close(found, expected, atol=TOLERANCE[dtype], rtol=0)


@pytest.mark.parametrize("modality", ["audio", "text"])
def test_a_head_on_one_modality_needs_and_loads_that_one_alone(
    modality: str, cached: tuple[Work, str], manifest: Manifest
) -> None:
    work, dtype = cached
    head = make_head({"kind": "mha"}, (modality,))
    found, expected = both_logits(work, dtype, manifest, head, LAST)
    torch.testing.assert_close(found, expected, atol=TOLERANCE[dtype], rtol=0)
    assert list(make_model(work.encoders, modalities=(modality,)).layers) == [modality]


def test_texts_are_normalised_as_in_extraction(encoders: Path) -> None:
    model = make_model(encoders, modalities=("text",))
    with torch.no_grad():
        torch.testing.assert_close(
            model(None, ["  I miss\n you "]), model(None, ["I miss you"]), atol=0, rtol=0
        )


def test_an_input_that_is_missing_or_uneven_is_named(encoders: Path) -> None:
    model = make_model(encoders)
    noise = torch.rand(8_000) - 0.5
    with pytest.raises(ConfigError, match="needs waveforms"):
        model(None, ["stop"])
    with pytest.raises(ConfigError, match="needs texts"):
        model([noise], None)
    with pytest.raises(ConfigError, match="as many waveforms as texts"):
        model([noise], ["stop", "now"])


def test_layers_above_the_one_read_are_left_out(encoders: Path) -> None:
    model = make_model(encoders, layers={"audio": 1, "text": 2})
    assert model.audio_encoder is not None
    assert model.text_encoder is not None
    assert (model.audio_encoder.layers, model.text_encoder.layers) == (1, 2)


def test_training_mode_reaches_what_is_trainable_and_nothing_else(encoders: Path) -> None:
    model = make_model(encoders, {"kind": "average+vad_average"})
    unfreeze(model, trainable_parts(model, 2))
    model.train()
    modes = {name: module.training for name, module in model.named_modules() if name}
    upper = ("audio_encoder.model.encoder.layers.2", "text_encoder.model.encoder.layer.2")
    expected = {
        name
        for name in modes
        if name.startswith((*(f"{layer}." for layer in upper), "head.")) or name in (*upper, "head")
    }
    assert {name for name, training in modes.items() if training} == expected


def test_a_model_without_trainable_parts_has_no_dropout_in_training_mode(encoders: Path) -> None:
    model: EmotionModel = make_model(encoders)
    noise = torch.rand(8_000) - 0.5
    with torch.no_grad():
        first = model.train()([noise], ["stop"])
        torch.testing.assert_close(model([noise], ["stop"]), first, atol=0, rtol=0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")], ids=str)
def test_a_waveform_that_is_not_finite_is_refused(encoders: Path, value: float) -> None:
    waveform = torch.zeros(8_000)
    waveform[17] = value
    with pytest.raises(AudioError, match="waveform 1 has samples that are not finite"):
        make_model(encoders)([torch.zeros(8_000), waveform.numpy()], ["", ""])


def test_integer_samples_and_channels_are_refused(encoders: Path) -> None:
    model = make_model(encoders)
    for waveform in (torch.zeros(8_000, dtype=torch.int16), torch.zeros(2, 8_000)):
        with pytest.raises(ConfigError, match=r"waveform 0 is torch.*expected \[samples\]"):
            model([waveform], [""])
