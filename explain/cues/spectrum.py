"""Loudness and the tilt of the spectrum, frame by frame.

As eGeMAPS describes them (Eyben et al. 2016, IEEE Transactions on Affective Computing 7(2)), from
25 ms Hamming windows around each frame's centre. Frames beyond an end see silence there.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cache.encoders.grid import SAMPLE_RATE
from cache.recipe import JSON
from explain.ragged import Floats

WINDOW = 400  # samples, 25 ms
FFT = 512
MEL_BANDS, LOWEST_HZ, HIGHEST_HZ = 26, 20.0, 8000.0
SLOPE_HZ = (500.0, 1500.0)
LOW_BAND_HZ, HIGH_BAND_HZ = (50.0, 1000.0), (1000.0, 5000.0)
# Below the noise of any 16-bit recording: silence gets a finite level.
FLOOR = 1e-12


def spectrum_fields() -> dict[str, JSON]:
    """What decides these numbers besides samples and grid."""
    return {"window": WINDOW, "fft": FFT, "mel_bands": MEL_BANDS}


def power_spectra(waveform: NDArray[np.float32], centres: NDArray[np.int64]) -> Floats:
    """Power `[frames, 257]` around each centre; a full-scale sine has about 1/4 in its peak."""
    window = np.hamming(WINDOW)
    padded = np.pad(waveform.astype(np.float64), WINDOW)
    starts = centres + WINDOW - WINDOW // 2
    cut = padded[starts[:, None] + np.arange(WINDOW)] * (window / window.sum())
    power: Floats = np.square(np.abs(np.fft.rfft(cut, FFT, axis=1)))
    return power


def loudness(power: Floats) -> Floats:
    """Loudness `[frames]` as perceived: Σ over 26 mel bands of (equal-loudness-weighted power)^1/3.

    The auditory spectrum of perceptual linear prediction (Hermansky 1990). Its scale depends on
    the recording level, so it is compared within a recording or a speaker.
    """
    bands, centres = _mel_bands()
    square = np.square(2 * np.pi * centres)
    weight = (square + 56.8e6) * np.square(square)
    weight /= np.square(square + 6.3e6) * (square + 0.38e9)
    perceived: Floats = np.cbrt(power @ bands.T * weight).sum(axis=1)
    return perceived


def band_slope(power: Floats) -> Floats:
    """Slope `[frames]` of the level between 500 and 1500 Hz, dB/kHz (least squares)."""
    chosen = _within(*SLOPE_HZ)
    kilohertz = _frequencies()[chosen] / 1000
    level = 10 * np.log10(np.maximum(power[:, chosen], FLOOR))
    centred = kilohertz - kilohertz.mean()
    slope: Floats = level @ centred / np.square(centred).sum()
    return slope


def alpha_ratio(power: Floats) -> Floats:
    """Energy at 1–5 kHz over that at 50–1000 Hz, `[frames]` in dB: high for a bright voice."""
    low, high = (
        np.maximum(power[:, _within(*band)].sum(axis=1), FLOOR)
        for band in (LOW_BAND_HZ, HIGH_BAND_HZ)
    )
    ratio: Floats = 10 * np.log10(high / low)
    return ratio


def _frequencies() -> Floats:
    frequencies: Floats = np.fft.rfftfreq(FFT, 1 / SAMPLE_RATE).astype(np.float64)
    return frequencies


def _within(low: float, high: float) -> NDArray[np.bool_]:
    frequencies = _frequencies()
    return (frequencies >= low) & (frequencies < high)


def _mel_bands() -> tuple[Floats, Floats]:
    """Triangular bands `[26, 257]`, evenly spaced in mel, and their centres in Hz."""
    lowest, highest = (1127 * float(np.log1p(hertz / 700)) for hertz in (LOWEST_HZ, HIGHEST_HZ))
    edges = 700 * np.expm1(np.linspace(lowest, highest, MEL_BANDS + 2) / 1127)
    frequencies = _frequencies()
    rising = (frequencies - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - frequencies) / np.diff(edges)[1:, None]
    return np.clip(np.minimum(rising, falling), 0, None), edges[1:-1]
