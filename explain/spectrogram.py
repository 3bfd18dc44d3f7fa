"""A mel spectrogram to look at. What encoders see is made elsewhere (`cache.encoders.fbank`)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cache.encoders.grid import FBANK_HOP, FBANK_WINDOW, SAMPLE_RATE
from explain.ragged import Floats

BANDS = 64
LOWEST, HIGHEST = 50.0, 8000.0  # Hz
RANGE_DB = 70.0
_FFT = 512


def mel(hertz: Floats | float) -> Floats:
    """Hz to mel (O'Shaughnessy 1987)."""
    converted: Floats = 2595.0 * np.log10(1.0 + np.asarray(hertz, dtype=np.float64) / 700.0)
    return converted


def mel_spectrogram(waveform: NDArray[np.float32]) -> Floats:
    """`[bands, T]` in dB below the loudest, not below −70; 25 ms windows every 10 ms.

    A recording shorter than a window is filled up with zeros.
    """
    padded = np.pad(waveform, (0, max(0, FBANK_WINDOW - len(waveform))))
    windows = np.lib.stride_tricks.sliding_window_view(padded, FBANK_WINDOW)[::FBANK_HOP]
    power = np.abs(np.fft.rfft(windows * np.hanning(FBANK_WINDOW), _FFT)) ** 2
    levels = 10 * np.log10(np.maximum(power @ _filters().T, 1e-12)).T
    shown: Floats = np.maximum(levels - levels.max(), -RANGE_DB)
    return shown


def _filters() -> Floats:
    """`[bands, bins]`, triangles that are evenly spaced in mel."""
    bins = np.arange(_FFT // 2 + 1) * SAMPLE_RATE / _FFT
    at = mel(bins)[None, :]
    edges = np.linspace(float(mel(LOWEST)), float(mel(HIGHEST)), BANDS + 2)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (at - low) / (middle - low), (high - at) / (high - middle)
    triangles: Floats = np.clip(np.minimum(rising, falling), 0, None)
    # A narrow band between two bins would be empty: it takes the nearest bin.
    empty = np.flatnonzero(triangles.sum(axis=1) == 0)
    triangles[empty, np.abs(at - middle[empty]).argmin(axis=1)] = 1.0
    return triangles
