"""F0 and harmonicity from autocorrelation (Boersma 1993), on the frame grid.

P. Boersma, "Accurate short-term analysis of the fundamental frequency and the harmonics-to-noise
ratio of a sampled sound", IFA Proceedings 17, 97-110. The autocorrelation of a windowed stretch
over that of the window is that of the sound itself; its highest peak at a lag τ is the period, and
its height r the part of the power that is periodic: harmonicity = 10 log10 (r / (1 - r)). The best
path through the peaks of all frames avoids jumps.

Ours instead of a package: pyworld comes without wheels and does not import beside a current
setuptools, librosa's pYIN brings a compiler along, parselmouth is under the GPL.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cache.encoders.grid import SAMPLE_RATE
from cache.recipe import JSON
from explain.ragged import Floats

FLOOR_HZ, CEILING_HZ = 60.0, 600.0
# Three periods of the lowest pitch: Boersma's window for pitch.
WINDOW = round(3 / FLOOR_HZ * SAMPLE_RATE)
FFT = 2048
PEAKS = 8
# The costs of Boersma (1993) and of Praat's "To Pitch (ac)", with which they became usual.
SILENCE, VOICING, OCTAVE = 0.03, 0.45, 0.01
OCTAVE_JUMP, VOICE_CHANGE = 0.35, 0.14
# They are meant for steps of 10 ms.
COST_STEP = 0.01
# A perfectly periodic frame has r = 1; rounding and windows hide what lies beyond 50 dB.
HIGHEST_R = 1 - 1e-5


def pitch_fields() -> dict[str, JSON]:
    """What decides these numbers besides samples and grid."""
    return {
        "pitch": "autocorrelation",
        "pitch_hz": [FLOOR_HZ, CEILING_HZ],
        "pitch_costs": [SILENCE, VOICING, OCTAVE, OCTAVE_JUMP, VOICE_CHANGE],
    }


def pitch(
    waveform: NDArray[np.float32], centres: NDArray[np.int64], hop: int
) -> tuple[Floats, Floats]:
    """F0 in Hz and harmonicity in dB of each frame, both `[frames]`; NaN where unvoiced.

    Args:
        waveform: `[samples]` at 16 kHz.
        centres: `[frames]`, the sample in the middle of each.
        hop: samples from one frame to the next.
    """
    if not len(centres):
        return np.empty(0), np.empty(0)
    correlation, peak = _autocorrelation(waveform, centres)
    lags, heights = _peaks(correlation)
    frequency = np.where(heights > 0, SAMPLE_RATE / lags, np.nan)
    # The last candidate is "unvoiced": good in quiet frames and without a clear peak.
    largest = max(float(np.abs(waveform).max()), 1e-9)
    quiet = np.maximum(0.0, 2 - (peak / largest) / (SILENCE / (1 + VOICING)))
    with np.errstate(invalid="ignore"):
        strength = heights - OCTAVE * np.log2(FLOOR_HZ * lags / SAMPLE_RATE)
    strength = np.where(heights > 0, strength, -np.inf)
    strengths = np.concatenate([strength, (VOICING + quiet)[:, None]], axis=1)
    octaves = np.concatenate([np.log2(frequency), np.full((len(peak), 1), np.nan)], axis=1)
    path = _best_path(strengths, octaves, COST_STEP * SAMPLE_RATE / hop)
    every = np.arange(len(path))
    chosen = np.minimum(path, PEAKS - 1)
    voiced = path < PEAKS
    r = np.clip(heights[every, chosen], 1e-6, HIGHEST_R)
    harmonicity = 10 * np.log10(r / (1 - r))
    return (
        np.where(voiced, frequency[every, chosen], np.nan),
        np.where(voiced, harmonicity, np.nan),
    )


def _autocorrelation(
    waveform: NDArray[np.float32], centres: NDArray[np.int64]
) -> tuple[Floats, Floats]:
    """`[frames, lags]`, normalised, and the largest sample `[frames]` of each window."""
    # A Hann window that is not 0 at its ends, so that no sample is lost.
    window = 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(WINDOW) + 0.5) / WINDOW)
    padded = np.pad(waveform.astype(np.float64), WINDOW)
    starts = centres + WINDOW - WINDOW // 2
    frames = padded[starts[:, None] + np.arange(WINDOW)]
    frames -= frames.mean(axis=1, keepdims=True)
    peak = np.abs(frames).max(axis=1)
    longest = int(SAMPLE_RATE / FLOOR_HZ) + 2
    of_sound = np.fft.irfft(np.square(np.abs(np.fft.rfft(frames * window, FFT))), FFT)
    of_window = np.fft.irfft(np.square(np.abs(np.fft.rfft(window, FFT))), FFT)
    power = np.maximum(of_sound[:, :1], 1e-12)
    correlation = of_sound[:, :longest] / power / (of_window[:longest] / of_window[0])
    return correlation, peak


def _peaks(correlation: Floats) -> tuple[Floats, Floats]:
    """The highest peaks of each frame: lags in samples and heights, `[frames, PEAKS]`.

    Between samples by a parabola. Heights above 1 (of short lags) are turned over, as Boersma
    does; where a frame has fewer peaks, the height is 0.
    """
    shortest = int(SAMPLE_RATE / CEILING_HZ)
    before, here, after = (
        correlation[:, shortest + k : correlation.shape[1] - 2 + k] for k in (0, 1, 2)
    )
    is_peak = (here > before) & (here >= after) & (here > 0)
    curve = np.where(is_peak, before - 2 * here + after, -1.0)
    move = np.where(is_peak, 0.5 * (before - after) / curve, 0.0)
    height = np.where(is_peak, here - 0.25 * (before - after) * move, 0.0)
    height = np.where(height > 1, 1 / np.maximum(height, 1), height)
    lag: Floats = np.arange(height.shape[1], dtype=np.float64) + shortest + 1 + move
    # Octave cost decides between equal peaks, so it takes part in the choice of candidates.
    rank = np.where(height > 0, height - OCTAVE * np.log2(lag), -np.inf)
    best = np.argpartition(-rank, PEAKS, axis=1)[:, :PEAKS]
    return np.take_along_axis(lag, best, axis=1), np.take_along_axis(height, best, axis=1)


def _best_path(strengths: Floats, octaves: Floats, scale: float) -> NDArray[np.int64]:
    """`[frames]`, the candidate of each on the path of the highest strength less costs (Viterbi).

    Args:
        strengths: `[frames, candidates]`, the last one unvoiced.
        octaves: log2 of their frequencies; NaN for unvoiced.
        scale: of the costs.
    """
    count, candidates = strengths.shape
    voiced = ~np.isnan(octaves)
    height = np.where(voiced, octaves, 0.0)
    jump = np.abs(height[:-1, :, None] - height[1:, None, :]) * OCTAVE_JUMP
    same = voiced[:-1, :, None] & voiced[1:, None, :]
    change = voiced[:-1, :, None] != voiced[1:, None, :]
    cost = scale * np.where(same, jump, np.where(change, VOICE_CHANGE, 0.0))
    came = np.zeros((count, candidates), dtype=np.int64)
    score = strengths[0]
    every = np.arange(candidates)
    for frame in range(1, count):
        through = score[:, None] - cost[frame - 1]
        came[frame] = through.argmax(axis=0)
        score = through[came[frame], every] + strengths[frame]
    path = np.zeros(count, dtype=np.int64)
    path[-1] = int(score.argmax())
    for frame in range(count - 1, 0, -1):
        path[frame - 1] = came[frame, path[frame]]
    return path
