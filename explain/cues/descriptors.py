"""What a cue is, and the set of them that needs no further package.

Loudness and the tilt of the spectrum, frame by frame.

As eGeMAPS describes them (Eyben et al. 2016, IEEE Transactions on Affective Computing 7(2)), from
25 ms Hamming windows around each frame's centre. Frames beyond an end see silence there.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.encoders.grid import SAMPLE_RATE, Grid
from cache.recipe import JSON
from explain.cues.pitch import pitch, pitch_fields
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


#: Musicians' 0 of eGeMAPS (Eyben et al. 2016): A0, below any voice.
SEMITONE_ZERO_HZ = 27.5


@dataclass(frozen=True)
class Cue:
    """One acoustic cue.

    Attributes:
        name: as in tables and in the file of expected directions.
        title: for people.
        unit: of its values.
        voiced: whether it is only defined in voiced frames.
    """

    name: str
    title: str
    unit: str
    voiced: bool


@dataclass(frozen=True)
class CueSet:
    """Cues that are computed together.

    Attributes:
        name: `default` or `egemaps`.
        cues: in the order of their columns.
        compute: from a waveform `[samples]` at 16 kHz and a grid to `[frames, cues]`; NaN where a
            cue is missing.
        fields: what decides the numbers besides samples and grid, for the stream's recipe.
    """

    name: str
    cues: tuple[Cue, ...]
    compute: Callable[[NDArray[np.float32], Grid], Floats]
    fields: Mapping[str, JSON]


F0 = Cue("f0", "F0", "semitones above 27.5 Hz", voiced=True)
LOUDNESS = Cue("loudness", "loudness", "auditory loudness", voiced=False)
SLOPE = Cue("slope_500_1500", "slope 500–1500 Hz", "dB/kHz", voiced=True)
ALPHA = Cue("alpha_ratio", "energy above 1 kHz", "dB re 50–1000 Hz", voiced=True)
HARMONICITY = Cue("hnr", "harmonicity", "dB", voiced=True)


def default_cues(waveform: NDArray[np.float32], grid: Grid) -> Floats:
    """`[frames, 5]`: F0, loudness, spectral slope, alpha ratio, harmonicity.

    All but loudness are missing (NaN) in unvoiced frames: a pause has no pitch, and the slope of
    its noise says nothing about a voice.
    """
    centres = grid.centres(len(waveform))
    frequency, harmonicity = pitch(waveform, centres, grid.hop)
    power = power_spectra(waveform, centres)
    voiced = ~np.isnan(frequency)
    columns = [
        12 * np.log2(frequency / SEMITONE_ZERO_HZ),
        loudness(power),
        np.where(voiced, band_slope(power), np.nan),
        np.where(voiced, alpha_ratio(power), np.nan),
        harmonicity,
    ]
    return np.stack(columns, axis=1)


DEFAULT = CueSet(
    "default",
    (F0, LOUDNESS, SLOPE, ALPHA, HARMONICITY),
    default_cues,
    {"set": "default", "version": 1, **pitch_fields(), **spectrum_fields()},
)


SIGNS = {"up": 1, "down": -1}
NEUTRAL = "neutral"


@dataclass(frozen=True)
class Expected:
    """What is expected of one cue in one emotion, against neutral.

    Attributes:
        sign: 1 up, -1 down.
        sources: who says so, in full.
    """

    sign: int
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Directions:
    """The file's content.

    Attributes:
        emotions: the file's own name of an emotion by label, in lower case.
        cells: what is expected, by emotion and cue; empty where nothing is.
        window_signs: by emotion, whether published windows look for high (1) or low (-1) values.
        sources: in full, by short name.
    """

    emotions: Mapping[str, str]
    cells: Mapping[tuple[str, str], Expected]
    window_signs: Mapping[str, int]
    sources: Mapping[str, str]

    def emotion(self, label: str) -> str | None:
        """The file's name of a label's emotion, None where it has none."""
        return self.emotions.get(label.strip().lower())

    def expected(self, label: str, cue: str) -> Expected | None:
        """What is expected of a cue for a label; None where no source says."""
        return self.cells.get((self.emotion(label) or "", cue))

    def window_sign(self, label: str) -> int | None:
        """Where published windows look for a label: 1 high, -1 low, None nowhere."""
        return self.window_signs.get(self.emotion(label) or "")


@cache
def read_directions() -> Directions:
    """Read the file beside this module."""
    text = (files("explain.cues") / "expected.toml").read_text(encoding="utf-8")
    value: dict[str, Any] = tomllib.loads(text)
    sources, labels, windows = (value.pop(name) for name in ("sources", "labels", "windows"))
    cells = {
        (emotion, cue): Expected(
            SIGNS[cell["direction"]], tuple(sources[name] for name in cell["sources"])
        )
        for emotion, cues in value.items()
        for cue, cell in cues.items()
    }
    return Directions(
        {label: emotion for emotion, names in labels.items() for label in names},
        cells,
        {name: sign for key, sign in (("high", 1), ("low", -1)) for name in windows[key]},
        sources,
    )
