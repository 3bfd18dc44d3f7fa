from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.audio import energy
from cache.encoders.grid import Grid

GRID = Grid(320, 560)


@given(st.integers(560, 4000), st.integers(0, 2**32 - 1), st.floats(1e-5, 1.0))
def test_energy_is_the_level_of_each_frames_samples(samples: int, seed: int, level: float) -> None:
    noise = np.random.default_rng(seed).uniform(-level, level, samples).astype(np.float32)
    expected = [
        20 * np.log10(np.sqrt(np.mean(noise[t * 320 : t * 320 + 560].astype(np.float64) ** 2)))
        for t in range(GRID.frames(samples))
    ]
    np.testing.assert_allclose(energy(noise, GRID), np.maximum(expected, -120), atol=1e-3)


def test_silence_is_the_floor() -> None:
    found = energy(np.zeros(1600, dtype=np.float32), GRID)
    np.testing.assert_array_equal(found, np.full(GRID.frames(1600), -120, dtype=np.float32))


def test_silence_after_ten_minutes_of_loud_noise_is_the_floor() -> None:
    noise = np.random.default_rng(0).uniform(-1, 1, 600 * 16000).astype(np.float32)
    noise[-16000:] = 0
    np.testing.assert_array_equal(energy(noise, GRID)[-40:], np.full(40, -120, dtype=np.float32))


@pytest.mark.parametrize(("level", "decibels"), [(1.0, 0.0), (0.1, -20.0), (0.5, -6.0206)])
def test_a_constant_level_is_relative_to_full_scale(level: float, decibels: float) -> None:
    found = energy(np.full(8000, level, dtype=np.float32), GRID)
    np.testing.assert_allclose(found, decibels, atol=1e-3)
    assert found.dtype == np.float32
