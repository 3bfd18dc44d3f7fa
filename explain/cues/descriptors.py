"""What a cue is, and the set of them that needs no further package."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cache.encoders.grid import Grid
from cache.recipe import JSON
from explain.cues.pitch import pitch, pitch_fields
from explain.cues.spectrum import alpha_ratio, band_slope, loudness, power_spectra, spectrum_fields
from explain.ragged import Floats

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
