"""Whisper as a speech encoder, against transformers' own on the same padded input."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import nn
from transformers import (
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
)

from cache.audio import load_audio
from cache.config import ExtractConfig
from cache.encoders.audio_encoder import AudioEncoder, load_audio_encoder
from cache.encoders.files import encoder_fields
from cache.encoders.grid import CENTRES, SAMPLE_RATE, Grid, Padding, read_grid, read_padding
from cache.encoders.names import is_packaged, resolve_encoder
from cache.encoders.signal import Signal
from cache.extract.encoding import encode_in_windows
from cache.extract.extract import extract
from cache.lookup import FrameCache
from cache.stream import FrameStream
from corpora.base.errors import AudioError, ConfigError
from corpora.base.work import Work
from corpora.manifest import Manifest, Utterance
from tests.cache.whispers import save_whisper

LAYERS = 3


@pytest.fixture(scope="module", params=[80, 128])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random Whisper with 80 or 128 mel bins."""
    return save_small(tmp_path_factory.mktemp("whisper") / "small", request.param)


def save_small(folder: Path, mels: int = 80) -> Path:
    config = WhisperConfig(
        vocab_size=16,
        num_mel_bins=mels,
        d_model=32,
        encoder_layers=LAYERS,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        suppress_tokens=[],
        begin_suppress_tokens=[],
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        WhisperForConditionalGeneration(config).save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=mels).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def encoder(folder: Path) -> AudioEncoder:
    return load_audio_encoder(folder)


def waveforms(*lengths: int) -> list[NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    return [(rng.standard_normal(length) * 0.1).astype(np.float32) for length in lengths]


def reference(
    folder: Path, waveform: NDArray[np.float32], padded: int, layers: int = LAYERS
) -> list[torch.Tensor]:
    """All hidden states by transformers' own encoder, its positions cut to the input's length."""
    model: Any = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    encoder = model.eval().model.encoder
    frames = padded // 320
    encoder.config.max_source_positions = frames
    encoder.embed_positions = nn.Embedding.from_pretrained(encoder.embed_positions.weight[:frames])
    inputs = WhisperFeatureExtractor.from_pretrained(folder)(
        waveform, sampling_rate=SAMPLE_RATE, max_length=padded, return_tensors="pt"
    )
    with torch.inference_mode():
        output = encoder(inputs["input_features"], output_hidden_states=True)
    states = [*output.hidden_states[:layers], output.last_hidden_state]
    return [state[0, : -(-len(waveform) // 320)] for state in states]


@pytest.mark.parametrize("seconds", [0.02, 0.2, 1.0, 4.31, 29.0, 30.0])
def test_every_layer_is_that_of_transformers_on_the_same_padded_input(
    folder: Path, encoder: AudioEncoder, seconds: float
) -> None:
    (waveform,) = waveforms(round(seconds * SAMPLE_RATE))
    padded = encoder.front_end.padded(len(waveform))
    with torch.inference_mode():
        found = encoder([waveform], range(LAYERS + 1))
    for layer, expected in enumerate(reference(folder, waveform, padded)):
        torch.testing.assert_close(found[layer].values, expected, rtol=0, atol=1e-5)


def test_full_padding_is_whisper_as_it_was_trained(folder: Path) -> None:
    padding = read_padding(folder, "full")
    assert padding is not None
    (waveform,) = waveforms(20_000)
    assert padding.padded(len(waveform)) == 30 * SAMPLE_RATE
    with torch.inference_mode():
        found = load_audio_encoder(folder, padding=padding)([waveform], [LAYERS])[LAYERS]
    expected = reference(folder, waveform, 30 * SAMPLE_RATE)[LAYERS]
    torch.testing.assert_close(found.values, expected, rtol=0, atol=1e-5)


def test_batch_mates_change_nothing(encoder: AudioEncoder) -> None:
    batch = waveforms(8000, 3000, 50_000, 700, 3001, 7999)
    layers = range(LAYERS + 1)
    with torch.inference_mode():
        together = encoder(batch, layers)
        for index, waveform in enumerate(batch):
            alone = encoder([waveform], layers)
            for layer in layers:
                torch.testing.assert_close(
                    together[layer].utterance(index), alone[layer].values, rtol=0, atol=1e-5
                )


@given(samples=st.integers(1, 30 * SAMPLE_RATE))
def test_the_padded_length_follows_from_the_recordings_own(samples: int) -> None:
    padding = Padding(tail=16_000, step=8_000, limit=480_000)
    padded = padding.padded(samples)
    assert padded % padding.step == 0
    assert samples <= padded <= padding.limit
    assert padded - samples >= padding.tail or padded == padding.limit
    assert padded - samples < padding.tail + padding.step


def test_longer_recordings_are_refused_or_cut_into_windows(encoder: AudioEncoder) -> None:
    (waveform,) = waveforms(31 * SAMPLE_RATE)
    with pytest.raises(AudioError, match=r"31\.0 s is longer than the 30 s .* --long window"):
        encoder([waveform], [LAYERS])
    with torch.inference_mode():
        found = encode_in_windows(
            encoder, Signal.of([waveform], "cpu"), [LAYERS], dtype=torch.float32, batch_frames=1500
        )
    assert found[LAYERS].shape == (31 * 50, 32)
    assert torch.isfinite(found[LAYERS]).all()


def test_windows_of_what_fits_into_one_are_the_recording_without_silence(
    folder: Path, encoder: AudioEncoder
) -> None:
    (waveform,) = waveforms(30 * SAMPLE_RATE)
    with torch.inference_mode():
        found = encode_in_windows(
            encoder, Signal.of([waveform], "cpu"), [1], dtype=torch.float32, batch_frames=1500
        )
    expected = reference(folder, waveform, 30 * SAMPLE_RATE)[1]
    torch.testing.assert_close(found[1], expected, rtol=0, atol=1e-5)


def test_frames_are_centred_every_20_ms(folder: Path) -> None:
    grid = read_grid(folder)
    assert grid == Grid(320, 1040, CENTRES)
    assert [grid.frames(n) for n in (0, 1, 320, 321, 480_000)] == [0, 1, 1, 2, 1500]
    assert grid.centres(700).tolist() == [0, 320, 640]
    starts, stops = grid.bounds(700)
    assert starts.tolist() == [0, 0, 120]
    assert stops.tolist() == [520, 700, 700]


def test_a_frame_sees_its_window_and_nothing_else(encoder: AudioEncoder) -> None:
    """Layer 0, which no attention has mixed, but for the loudness that all is relative to."""
    (before,) = waveforms(16_000)
    before[0] = 1.0  # the loudest moment stays the same
    after = before.copy()
    after[9_000] += 0.05
    with torch.inference_mode():
        one, other = (encoder([w], [0])[0].values for w in (before, after))
    changed = set((one - other).abs().amax(dim=1).gt(1e-7).nonzero().flatten().tolist())
    starts, stops = encoder.grid.bounds(16_000)
    seeing = {t for t in range(50) if starts[t] <= 9_000 < stops[t]}
    assert changed
    assert changed <= seeing


def test_the_padding_is_part_of_the_recipe(folder: Path) -> None:
    short, full = (
        encoder_fields(folder, "audio", padding=read_padding(folder, name))
        for name in ("short", "full")
    )
    assert short == encoder_fields(folder, "audio")
    assert {name for name in short if short[name] != full[name]} == {"padding"}


def test_an_encoder_saved_alone_is_the_same(
    folder: Path, encoder: AudioEncoder, tmp_path: Path
) -> None:
    """As `finetune` writes encoders: without the names of the whole model before its weights."""
    model: Any = encoder.model
    model.config.save_pretrained(tmp_path)
    save_file(model.state_dict(), tmp_path / "model.safetensors", metadata={"format": "pt"})
    shutil.copy(folder / "preprocessor_config.json", tmp_path)
    (waveform,) = waveforms(9_000)
    with torch.inference_mode():
        found = load_audio_encoder(tmp_path)([waveform], [LAYERS])[LAYERS].values
        expected = encoder([waveform], [LAYERS])[LAYERS].values
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_the_front_end_of_a_whole_processor_will_do(tmp_path: Path) -> None:
    """transformers 5 saves a processor's front end in `processor_config.json`."""
    folder = save_small(tmp_path / "whole")
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").unlink()
    (folder / "processor_config.json").write_text(
        json.dumps({"feature_extractor": settings, "processor_class": "WhisperProcessor"})
    )
    (waveform,) = waveforms(9_000)
    assert resolve_encoder(str(folder), "audio", tmp_path) == folder
    with torch.inference_mode():
        found = load_audio_encoder(folder)([waveform], [1])[1]
    assert len(found.values) == 29


@pytest.mark.parametrize("name", ["WhisperProcessor"])
def test_what_transformers_saves_of_a_processor_is_read(name: str, tmp_path: Path) -> None:
    folder = save_small(tmp_path / "small")
    other = save_whisper(tmp_path / "spoken")
    processor = WhisperProcessor.from_pretrained(other)
    (folder / "preprocessor_config.json").unlink()
    processor.save_pretrained(folder)
    assert read_grid(folder).rule == CENTRES
    load_audio_encoder(folder)


def test_a_folder_without_a_front_end_is_refused(tmp_path: Path) -> None:
    folder = save_small(tmp_path / "bare")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ConfigError, match=r"preprocessor_config\.json is missing"):
        read_grid(folder)


def test_a_decoder_alone_is_refused(tmp_path: Path) -> None:
    folder = save_small(tmp_path / "whole")
    model = WhisperForConditionalGeneration.from_pretrained(folder)
    state = {n: v for n, v in model.state_dict().items() if ".decoder." in n}
    model.save_pretrained(folder, state_dict=state)
    with pytest.raises(ConfigError, match=r"weights lack \d+ parameters .* such as conv1"):
        load_audio_encoder(folder)


def test_a_converted_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"\x06\x00\x00\x00")
    (tmp_path / "config.json").write_text('{"lang_ids": []}')
    with pytest.raises(ConfigError, match=r"CTranslate2.*openai/whisper-base"):
        resolve_encoder(str(tmp_path), "audio", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("stored", "near"), [("float32", 1e-4), ("float16", 2e-2)])
@pytest.mark.parametrize("name", ["small", "whisper-tiny.en"])
def test_fifty_recordings_through_extract_are_what_transformers_makes_of_them(
    name: str, stored: str, near: float, tmp_path: Path
) -> None:
    """All layers, .2 to 29 s, in batches as extraction makes them."""
    if name != "small" and not is_packaged(name):
        pytest.skip(f"the packages of {name} are not installed")
    work = Work(tmp_path / "work")
    work.root.mkdir()
    directory = (
        save_small(tmp_path / "small")
        if name == "small"
        else resolve_encoder(name, "audio", work.root)
    )
    rng = np.random.default_rng(0)
    utterances = []
    for number, seconds in enumerate(np.geomspace(0.2, 29.0, 50)):
        path = tmp_path / f"{number}.wav"
        time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
        voice = np.sin(2 * np.pi * rng.uniform(90, 300) * time) * np.sin(2 * np.pi * 3 * time) ** 2
        soundfile.write(path, 0.3 * voice + 0.01 * rng.standard_normal(len(time)), SAMPLE_RATE)
        utterances.append(Utterance(id=str(number), audio=path, label="one"))
    manifest = Manifest(tuple(utterances), ("one",), corpus="made up")
    config = ExtractConfig(
        audio_encoder=str(directory),
        text_encoder="",
        audio_layers="all",
        stored_dtype=stored,
        device="cpu",
    )
    extract(work, manifest, config)
    source = FrameCache(work).extraction.source("audio")
    keys = FrameCache(work).keys(manifest.utterances)
    streams = [FrameStream.open(work.features / source.stream(layer)) for layer in source.layers]
    padding = read_padding(directory)
    assert padding is not None
    largest = 0.0
    for u in manifest.utterances:
        waveform = load_audio(u.audio)
        expected = reference(directory, waveform, padding.padded(len(waveform)), len(streams) - 1)
        for stream, states in zip(streams, expected, strict=True):
            found = torch.from_numpy(np.array(stream.read(keys[u.id]["audio"]))).float()
            assert found.shape == states.shape
            largest = max(largest, float((found - states).abs().max()))
    assert largest < near
