"""Samples on a device, and the front ends that read them, against transformers' extractors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from transformers import (
    SeamlessM4TFeatureExtractor,
    Wav2Vec2FeatureExtractor,
    WhisperFeatureExtractor,
)

from cache.encoders import front_ends
from cache.encoders.files import CHUNK
from cache.encoders.front_ends import FbankSettings, Samples, WhisperMels
from cache.encoders.grid import SAMPLE_RATE, Padding, convolution_grid
from cache.encoders.signal import LEAD, STEP, Signal

GRID = convolution_grid((10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2))
PADDING = Padding(tail=16_000, step=8_000, limit=480_000)


def noise(*lengths: int) -> list[NDArray[np.float32]]:
    random = np.random.default_rng(0)
    return [(random.standard_normal(n) * 0.1 + 0.02).astype(np.float32) for n in lengths]


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=5), st.data())
def test_recordings_stand_in_silence_and_side_by_side(lengths: list[int], data: Any) -> None:
    waves = noise(*lengths)
    signal = Signal.of(waves, "cpu")
    assert Signal.of(signal, "cpu") is signal
    silent = signal.values.clone()
    for start, wave in zip(signal.starts, waves, strict=True):
        assert start % STEP == 0
        end = start + -(-len(wave) // CHUNK) * CHUNK
        assert start >= LEAD
        assert not signal.values[start - LEAD : start].any()
        assert not signal.values[start + len(wave) : end].any()
        assert end <= len(signal.values)
        np.testing.assert_array_equal(signal.values[start : start + len(wave)], wave)
        silent[start : start + len(wave)] = 0
    assert not silent.any()
    numbers = data.draw(st.lists(st.sampled_from(range(len(waves))), min_size=1, max_size=5))
    longest = max(lengths[number] for number in numbers) + data.draw(st.integers(0, 4000))
    rows, valid = signal.select(numbers).padded(longest)
    assert rows.shape == valid.shape == (len(numbers), longest)
    for row, there, number in zip(rows, valid, numbers, strict=True):
        np.testing.assert_array_equal(row[there], waves[number])
        assert not row[lengths[number] :].any()


@pytest.mark.parametrize("normalises", [True, False])
def test_waveforms_are_the_extractors(normalises: bool) -> None:
    extractor = Wav2Vec2FeatureExtractor(do_normalize=normalises, padding_value=0.5)
    waves = noise(16_000, 400, 7_321)
    front_end = Samples(extractor, GRID, masked=True)
    found = front_end.inputs(Signal.of(waves, "cpu"))
    expected = extractor(
        waves,
        sampling_rate=SAMPLE_RATE,
        padding=True,
        return_attention_mask=True,
        return_tensors="pt",
    )
    assert torch.equal(found["attention_mask"], expected["attention_mask"])
    torch.testing.assert_close(
        found["input_values"], expected["input_values"], rtol=0, atol=1e-6 if normalises else 0
    )
    (alone,) = front_end.inputs(Signal.of(waves[2:], "cpu"))["input_values"]
    assert torch.equal(alone, found["input_values"][2, :7_321])


@pytest.mark.parametrize("mels", [80, 128])
def test_whispers_log_mels_are_the_extractors(mels: int) -> None:
    extractor = WhisperFeatureExtractor(feature_size=mels)
    waves = noise(16_000, 15_000, 300)
    found = WhisperMels(extractor, PADDING).inputs(Signal.of(waves, "cpu"))["input_features"]
    expected = extractor(
        waves,
        sampling_rate=SAMPLE_RATE,
        padding="max_length",
        max_length=PADDING.padded(16_000),
        return_tensors="pt",
    )["input_features"]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_a_batch_is_normalised_together_as_one_by_one() -> None:
    """What a GPU does."""
    settings = FbankSettings.from_extractor(SeamlessM4TFeatureExtractor())
    signal = Signal.of(noise(5_000, 560, 16_161, 9_000), "cpu")
    expected, mask = front_ends.log_mels(signal, settings)
    logs = front_ends._log_spectra(signal.values, settings)
    starts = [start // STEP for start in signal.starts]
    counts = [1 + (samples - 400) // STEP for samples in signal.lengths]
    for more in (0, 7):  # as many frames as the longest has, and filled up
        width = mask.shape[1] + more
        found = front_ends._normalised_together(logs, starts, counts, width * settings.stride)
        found = found.reshape(len(counts), width, -1)[:, : mask.shape[1]]
        assert found.shape == expected.shape
        torch.testing.assert_close(found[mask], expected[mask], rtol=0, atol=1e-6)
