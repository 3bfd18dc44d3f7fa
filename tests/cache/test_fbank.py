from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from transformers import SeamlessM4TFeatureExtractor

from cache.encoders import front_ends
from cache.encoders.front_ends import FbankSettings, log_mels
from cache.encoders.signal import Signal
from corpora.base.errors import ConfigError

EMODB = Path(__file__).parents[2].parent / "shared" / "data" / "emodb" / "wav"
EXTRACTOR: Any = SeamlessM4TFeatureExtractor()
SETTINGS = FbankSettings.from_extractor(EXTRACTOR)


def ours(waveforms: list[NDArray[np.float32]]) -> tuple[Tensor, Tensor]:
    return log_mels(Signal.of(waveforms, "cpu"), SETTINGS)


def assert_equal_to_the_extractor(
    waveforms: list[NDArray[np.float32]], tolerance: float = 1e-3
) -> None:
    features, mask = ours(waveforms)
    reference = EXTRACTOR(waveforms, sampling_rate=16000, return_tensors="pt")
    expected_mask = reference["attention_mask"].bool()
    assert mask.sum(1).tolist() == expected_mask.sum(1).tolist()
    expected = reference["input_features"][expected_mask]
    torch.testing.assert_close(features[mask], expected, rtol=0, atol=tolerance)


def speech() -> list[NDArray[np.float32]]:
    if not EMODB.is_dir():
        pytest.skip("the shared EMO-DB recordings are not here")
    files = sorted(EMODB.glob("*.wav"))[:120:20]
    return [soundfile.read(path, dtype="float32")[0] for path in files]


def noise(samples: int, level: float, seed: int = 0) -> NDArray[np.float32]:
    values = np.random.default_rng(seed).standard_normal(samples) * level
    return values.astype(np.float32)


def test_real_speech_gives_the_extractors_features() -> None:
    assert_equal_to_the_extractor(speech())


def test_speech_upsampled_from_8_khz_gives_the_extractors_features() -> None:
    narrow = [soxr.resample(waveform, 16000, 8000, quality="VHQ") for waveform in speech()]
    wide = [soxr.resample(waveform, 8000, 16000, quality="VHQ") for waveform in narrow]
    assert_equal_to_the_extractor(wide)


def test_bands_emptied_by_upsampling_give_the_extractors_features() -> None:
    narrow = noise(16000, 0.1)
    wide = soxr.resample(narrow, 8000, 16000, quality="VHQ")
    assert_equal_to_the_extractor([wide])


def test_near_silence_gives_the_extractors_features() -> None:
    assert_equal_to_the_extractor([noise(samples, 1e-5) for samples in (1600, 16000, 16161)])


def test_dither_of_one_bit_gives_the_extractors_features() -> None:
    bits = np.round(noise(48000, 0.3)) / 32768
    assert_equal_to_the_extractor([bits.astype(np.float32)])


def test_digital_silence_around_speech_gives_the_extractors_features() -> None:
    silence = np.zeros(8000, dtype=np.float32)
    assert_equal_to_the_extractor([np.concatenate([silence, noise(16000, 0.1), silence])])


def test_digital_silence_alone_is_exactly_zero() -> None:
    """The extractor gives its float32 mean's rounding error divided by sqrt(1e-7): up to .003."""
    features, mask = ours([np.zeros(48000, dtype=np.float32)])
    assert features[mask].abs().max() == 0


@pytest.mark.parametrize("seconds", [0.1, 1.0, 30.0])
def test_lengths_from_a_tenth_to_thirty_seconds(seconds: float) -> None:
    assert_equal_to_the_extractor([noise(round(seconds * 16000), 0.1)])


@settings(max_examples=40)
@given(st.lists(st.integers(1600, 6000), min_size=1, max_size=5), st.integers(0, 1000))
def test_any_ragged_batch_gives_the_extractors_features(lengths: list[int], seed: int) -> None:
    assert_equal_to_the_extractor([noise(n, 0.1, seed + i) for i, n in enumerate(lengths)])


@settings(max_examples=20)
@given(st.lists(st.integers(560, 9000), min_size=2, max_size=4))
def test_features_do_not_depend_on_batch_mates(lengths: list[int]) -> None:
    waveforms = [noise(n, 0.1, i) for i, n in enumerate(lengths)]
    features, mask = ours(waveforms)
    for row, waveform in enumerate(waveforms):
        alone, _ = ours([waveform])
        torch.testing.assert_close(features[row][mask[row]], alone[0], rtol=0, atol=1e-6)


def test_features_do_not_depend_on_the_chunks_they_are_computed_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waveforms = [noise(20000, 0.1), noise(9000, 0.1, 1)]
    whole, _ = ours(waveforms)
    monkeypatch.setattr(front_ends, "_CHUNK_CPU", 7)
    torch.testing.assert_close(ours(waveforms)[0], whole, rtol=0, atol=1e-6)


def test_padded_frames_hold_the_padding_value() -> None:
    features, mask = ours([noise(16000, 0.1), noise(2000, 0.1)])
    assert (features[~mask] == EXTRACTOR.padding_value).all()


@pytest.mark.parametrize("spectra", [2, 3, 8, 9])
def test_an_odd_last_spectrum_is_dropped(spectra: int) -> None:
    _, mask = ours([noise(400 + 160 * (spectra - 1), 0.1)])
    assert mask.sum() == spectra // 2


def test_less_than_one_frame_is_refused() -> None:
    with pytest.raises(ValueError, match="waveform 1 has 559 samples"):
        ours([noise(560, 0.1), noise(559, 0.1)])


def test_another_front_end_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected a SeamlessM4TFeatureExtractor"):
        FbankSettings.from_extractor(object())


@pytest.mark.gpu
def test_a_gpu_gives_the_features_of_the_cpu() -> None:
    waveforms = [noise(n, 0.1) for n in (16000, 48000, 700)]
    features, mask = ours(waveforms)
    on_gpu, mask_on_gpu = log_mels(Signal.of(waveforms, "cuda"), SETTINGS)
    frames = mask.shape[1]
    assert on_gpu.shape[1] == mask_on_gpu.shape[1] == -(-frames // 16) * 16
    assert not mask_on_gpu[:, frames:].any()
    assert torch.equal(mask_on_gpu[:, :frames].cpu(), mask)
    torch.testing.assert_close(on_gpu[:, :frames].cpu(), features, rtol=0, atol=1e-4)
