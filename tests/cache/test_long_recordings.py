"""Long recordings: windows that tile them, close to the whole, under a key of their own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

from cache.audio import load_audio
from cache.config import ExtractConfig
from cache.encoders.audio_encoder import AudioEncoder, load_audio_encoder
from cache.encoders.names import resolve_encoder
from cache.encoders.signal import Signal
from cache.extract.encoding import encode_in_windows, windows
from cache.extract.extract import extract
from cache.last_extraction import read_failures
from cache.lookup import FrameCache
from cache.stream import FrameStream
from corpora.base.work import Work
from corpora.manifest import Manifest
from tests.cache.recordings import change, make_manifest, write_tone

TINY = ExtractConfig(audio_encoder="tiny", text_encoder="", device="cpu", max_seconds=2.2)
WINDOWED = replace(TINY, long="window")


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("encoders")
    resolve_encoder("tiny", "audio", root)
    return root / "encoders"


@pytest.fixture
def work(tmp_path: Path, encoders: Path) -> Work:
    root = tmp_path / "work"
    root.mkdir()
    (root / "encoders").symlink_to(encoders)
    return Work(root)


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """Utterance 5 is 7 s long, the others under 2 s."""
    long = write_tone(tmp_path / "long.wav", 7.0, seed=9)
    return change(make_manifest(tmp_path), 5, audio=long)


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cache.extract.encoding.WINDOW_SECONDS", 3.0)
    monkeypatch.setattr("cache.extract.encoding.CONTEXT_SECONDS", 1.0)


def waveform_encoder(folder: Path) -> AudioEncoder:
    """A small wav2vec 2.0 that normalises its input and takes padded batches."""
    torch.manual_seed(0)
    config = Wav2Vec2Config(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        conv_dim=(32,) * 7,
        feat_extract_norm="layer",
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
    )
    Wav2Vec2Model(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)
    return load_audio_encoder(folder)


@given(frames=st.integers(1, 500), length=st.integers(3, 60), context=st.integers(0, 29))
def test_kept_parts_tile_a_recording_and_have_their_context(
    frames: int, length: int, context: int
) -> None:
    context = min(context, (length - 1) // 2)
    found = windows(frames, length, context)
    assert [n for one in found for n in range(one.first, one.last)] == list(range(frames))
    for one in found:
        assert one.stop - one.start == min(length, frames)
        assert 0 <= one.start <= one.first < one.last <= one.stop <= frames
        assert one.start == 0 or one.first - one.start >= context
        assert one.stop == frames or one.stop - one.last >= context


def test_a_window_needs_room_beside_its_context() -> None:
    with pytest.raises(ValueError, match="no room"):
        windows(100, 10, 5)


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize("kind", ["tiny", "waveform"])
def test_windows_come_close_to_the_whole_recording(
    kind: str, encoders: Path, tmp_path: Path, manifest: Manifest
) -> None:
    encoder = (
        load_audio_encoder(encoders / "tiny-audio")
        if kind == "tiny"
        else waveform_encoder(tmp_path / "encoder")
    )
    waveform = load_audio(manifest.utterances[5].audio)
    layers = [0, encoder.layers]
    with torch.inference_mode():
        whole = encoder([waveform], layers)
        found = encode_in_windows(
            encoder, Signal.of([waveform], "cpu"), layers, dtype=torch.float32, batch_frames=300
        )
    for layer in layers:
        expected = whole[layer].values
        assert found[layer].shape == expected.shape
        error = (found[layer] - expected).square().mean().sqrt() / expected.std()
        # The input of the first layer sees no other frames, so it is exact. Random layers attend to
        # all frames alike, which is the worst that can happen to a window.
        assert error < (1e-4 if layer == 0 else 0.15)


def test_one_window_is_the_whole(encoders: Path, manifest: Manifest) -> None:
    encoder = load_audio_encoder(encoders / "tiny-audio")
    waveform = load_audio(manifest.utterances[5].audio)
    with torch.inference_mode():
        found = encode_in_windows(
            encoder, Signal.of([waveform], "cpu"), [3], dtype=torch.float32, batch_frames=1
        )
        torch.testing.assert_close(found[3], encoder([waveform], [3])[3].values)


@pytest.mark.usefixtures("small_windows")
def test_all_streams_of_a_long_recording_have_its_frames(work: Work, manifest: Manifest) -> None:
    extract(work, manifest, WINDOWED)
    collection = FrameCache(work).find(manifest, ["audio"])
    assert len(collection.utterances) == 6
    frames = collection.load("audio")
    assert int(frames.lengths[5]) == 349  # 1 + (112,000 - 560) // 320
    assert frames.speech is not None
    mean, deviation = FrameCache(work).moments(manifest.utterances, "audio", 3)
    rows = frames.utterance(5).double().numpy()
    np.testing.assert_allclose(mean[5], rows.mean(0), atol=2e-6)
    np.testing.assert_allclose(deviation[5], rows.std(0), atol=2e-6)
    (energy,) = work.features.glob("energy-*/values")
    assert 349 in FrameStream.open(energy).lengths().tolist()


def test_without_windows_a_long_recording_is_refused_by_name_with_what_to_do(
    work: Work, manifest: Manifest
) -> None:
    extract(work, manifest, TINY)
    assert "--long window" in read_failures(work.failures)["u5"]
    report = extract(work, manifest, WINDOWED).report
    assert report is not None
    assert set(report.added.values()) == {1}  # all others were there
    assert not work.failures.exists()
    assert extract(work, manifest, WINDOWED).report is None


def test_what_was_encoded_whole_is_not_encoded_in_windows(work: Work, manifest: Manifest) -> None:
    extract(work, manifest, replace(TINY, max_seconds=10))
    assert extract(work, manifest, WINDOWED).report is None
    assert len(FrameCache(work).find(manifest, ["audio"]).utterances) == 6


def test_refusing_again_leaves_a_windowed_recording_out(work: Work, manifest: Manifest) -> None:
    extract(work, manifest, WINDOWED)
    extract(work, manifest, TINY)
    assert set(FrameCache(work).find(manifest, ["audio"]).failed) == {"u5"}


def test_a_recording_that_fits_no_part_is_refused(
    work: Work, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cache.extract.audio_pass.MAX_PART_BYTES", 60_000)
    extract(work, manifest, WINDOWED)
    assert "one piece" in read_failures(work.failures)["u5"]
