"""Energy: the level of each frame in dB, on the audio encoder's grid."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cache.encoders.grid import Grid
from cache.recipe import JSON

#: dB re full scale; below the quietest step of 16-bit audio, so that silence is a finite number.
FLOOR_DB = -120.0


def energy(waveform: NDArray[np.float32], grid: Grid) -> NDArray[np.float32]:
    """RMS level of each frame.

    20 log10 sqrt(mean x²) over the samples of its window, not below -120 dB. A full scale square
    wave is 0 dB.

    Args:
        waveform: `[samples]` at 16 kHz, full scale ±1.
        grid: the audio encoder's grid.

    Returns:
        `[frames]` in dB.
    """
    squares = np.zeros(len(waveform) + 1)
    np.cumsum(np.square(waveform, dtype=np.float64), out=squares[1:])
    starts, stops = grid.bounds(len(waveform))
    # Differences of sums may round to a little below zero in silence.
    power = np.maximum(squares[stops] - squares[starts], 0.0) / (stops - starts)
    floor = 10.0 ** (FLOOR_DB / 10.0)
    level: NDArray[np.float64] = 10.0 * np.log10(np.maximum(power, floor))
    return level.astype(np.float32)


def energy_fields() -> dict[str, JSON]:
    """What decides the numbers besides the samples and the grid."""
    return {"level": "rms", "unit": "dB", "floor": FLOOR_DB}
