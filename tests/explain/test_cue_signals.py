"""Cues of sounds whose cues are known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from cache.encoders.grid import Grid, convolution_grid, fbank_grid
from explain.cues.descriptors import (
    DEFAULT,
    alpha_ratio,
    band_slope,
    default_cues,
    loudness,
    power_spectra,
)
from explain.cues.egemaps import COLUMNS, on_grid

RATE = 16_000
GRID = fbank_grid(2)
F0, LOUD, SLOPE, ALPHA, HNR = range(5)


def voice(hertz: float, seconds: float = 0.6, tilt: float = 1.0) -> NDArray[np.float32]:
    """Harmonics that fall by 1/k to the power of `tilt`."""
    time = np.arange(round(seconds * RATE)) / RATE
    orders = range(1, int(7000 / hertz))
    harmonics = [np.cos(2 * np.pi * hertz * k * time + k) / k**tilt for k in orders]
    wave = np.sum(harmonics, axis=0)
    return np.asarray(0.3 * wave / np.abs(wave).max(), dtype=np.float32)


def noise(seconds: float, level: float, seed: int = 0) -> NDArray[np.float32]:
    generator = np.random.default_rng(seed)
    return (level * generator.standard_normal(round(seconds * RATE))).astype(np.float32)


@pytest.mark.parametrize("hertz", [75, 110, 180, 260, 400, 550])
def test_f0_is_that_of_the_voice(hertz: float) -> None:
    found = default_cues(voice(hertz), GRID)[2:-2, F0]
    expected = 12 * np.log2(hertz / 27.5)
    np.testing.assert_allclose(found, expected, atol=0.1)


def test_f0_follows_a_glide() -> None:
    time = np.arange(RATE) / RATE
    hertz = 120 * 2**time
    phase = 2 * np.pi * np.cumsum(hertz) / RATE
    wave = np.sum([np.cos(k * phase) / k for k in range(1, 15)], axis=0) / 5
    found = default_cues(wave.astype(np.float32), GRID)[3:-3, F0]
    at = GRID.centres(RATE)[3:-3]
    np.testing.assert_allclose(found, 12 * np.log2(hertz[at] / 27.5), atol=0.3)


@pytest.mark.parametrize("decibel", [0, 10, 20])
def test_harmonicity_is_the_ratio_of_harmonics_to_noise(decibel: float) -> None:
    clean = voice(150, 1.0)
    level = float(np.sqrt(np.square(clean).mean())) * 10 ** (-decibel / 20)
    found = default_cues(clean + noise(1.0, level), GRID)[3:-3, HNR]
    assert abs(np.nanmean(found) - decibel) < 1.5


@pytest.mark.parametrize("sound", [noise(0.6, 0.1), np.zeros(9600, np.float32)])
def test_noise_and_silence_have_no_voiced_cues(sound: NDArray[np.float32]) -> None:
    found = default_cues(sound, GRID)
    assert np.isnan(found[:, [F0, SLOPE, ALPHA, HNR]]).all()
    assert np.isfinite(found[:, LOUD]).all()


def test_frames_of_a_voice_between_pauses_are_where_it_is() -> None:
    pause = noise(0.5, 1e-4)
    sound = np.concatenate([pause, voice(150, 0.5), pause])
    voiced = ~np.isnan(default_cues(sound, GRID)[:, F0])
    at = GRID.centres(len(sound)) / RATE
    inside = (at > 0.53) & (at < 0.97)
    outside = (at < 0.46) | (at > 1.04)
    assert voiced[inside].all()
    assert not voiced[outside].any()


def test_loudness_grows_with_the_level_by_a_cube_root() -> None:
    sound, centres = voice(150), np.array([4000])
    once, eightfold = (loudness(power_spectra(g * sound, centres))[0] for g in (1.0, 8**0.5))
    assert eightfold / once == pytest.approx(2.0, rel=1e-6)


def test_a_darker_voice_has_less_energy_above_1_khz_and_a_steeper_slope() -> None:
    centres = np.array([4000])
    bright, dark = (power_spectra(voice(150, tilt=tilt), centres) for tilt in (0.5, 2.0))
    assert alpha_ratio(bright)[0] > alpha_ratio(dark)[0] + 10
    assert band_slope(bright)[0] > band_slope(dark)[0] + 5


def test_the_slope_of_a_known_spectrum_is_its_slope() -> None:
    kilohertz = np.fft.rfftfreq(512, 1 / RATE) / 1000
    power = 10 ** ((-12 * kilohertz + 3) / 10)[None]
    assert band_slope(power)[0] == pytest.approx(-12)


@pytest.mark.parametrize(
    "grid", [GRID, convolution_grid([10, 3, 3, 3, 3, 2, 2], [5, 2, 2, 2, 2, 2, 2])]
)
def test_cues_lie_on_the_encoders_grid(grid: Grid) -> None:
    for samples in (grid.window, 5000, 12345):
        sound = voice(150, 1.0)[:samples]
        assert default_cues(sound, grid).shape == (grid.frames(samples), len(DEFAULT.cues))


def test_open_smiles_zeros_are_missing_and_rows_are_averaged_over_a_hop() -> None:
    names = list(COLUMNS)
    rows = np.zeros((30, len(names)))
    pitch_column, loud = names.index("F0semitoneFrom27.5Hz_sma3nz"), names.index("Loudness_sma3")
    jitter = names.index("jitterLocal_sma3nz")
    rows[:, loud] = np.arange(30)
    rows[10:20, pitch_column] = 30.0
    rows[12:20, jitter] = 0.02
    found = on_grid(rows, GRID, 5000)
    assert np.isnan(found[:3, pitch_column]).all()
    assert np.nanmax(found[:, pitch_column]) == 30.0
    assert np.nanmin(found[:, pitch_column]) == 30.0
    assert np.isnan(found[:, jitter]).sum() > np.isnan(found[:, pitch_column]).sum()
    # A frame's centre is at 17.5 ms + 20 ms a frame; rows' spectra are at 10 ms + 10 ms a row.
    middle = found[3:12, loud]
    np.testing.assert_allclose(np.diff(middle), 2.0)
    assert abs(middle[0] - (17.5 + 60 - 10) / 10) <= 0.5


def test_our_f0_and_loudness_agree_with_open_smiles() -> None:
    pytest.importorskip("opensmile")
    from explain.cues.egemaps import egemaps_set

    time = np.arange(2 * RATE) / RATE
    hertz = 140 + 40 * np.sin(2 * np.pi * 0.7 * time)
    phase = 2 * np.pi * np.cumsum(hertz) / RATE
    wave = np.sum([np.cos(k * phase) / k for k in range(1, 20)], axis=0) * (0.05 + 0.05 * time)
    sound = wave.astype(np.float32) + noise(2.0, 1e-3)
    ours, theirs = default_cues(sound, GRID), egemaps_set().compute(sound, GRID)
    names = [cue.name for cue in egemaps_set().cues]
    both = ~np.isnan(ours[:, F0]) & ~np.isnan(theirs[:, names.index("f0")])
    assert both.mean() > 0.9
    apart = np.abs(ours[both, F0] - theirs[both, names.index("f0")])
    assert np.median(apart) < 0.3
    loud = names.index("loudness")
    known = ~np.isnan(theirs[:, loud])
    assert np.corrcoef(ours[known, LOUD], theirs[known, loud])[0, 1] > 0.95
