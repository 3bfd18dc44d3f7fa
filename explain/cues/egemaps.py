"""Low-level descriptors of eGeMAPS (Eyben et al. 2016) by openSMILE, on the frame grid.

openSMILE is free for research and not for products: an extra, imported only here.
"""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from cache.encoders.grid import SAMPLE_RATE, Grid
from corpora.base.errors import MissingExtraError
from explain.cues.descriptors import (
    ALPHA,
    F0,
    HARMONICITY,
    LOUDNESS,
    SLOPE,
    Cue,
    CueSet,
)
from explain.ragged import Floats

_F0, _SLOPE = "F0semitoneFrom27.5Hz_sma3nz", "slope500-1500_sma3"
#: openSMILE's columns for each cue.
COLUMNS = {
    _F0: F0,
    "Loudness_sma3": LOUDNESS,
    _SLOPE: SLOPE,
    "alphaRatio_sma3": ALPHA,
    "HNRdBACF_sma3nz": HARMONICITY,
    "jitterLocal_sma3nz": Cue("jitter", "jitter", "share of the period", voiced=True),
    "shimmerLocaldB_sma3nz": Cue("shimmer", "shimmer", "dB", voiced=True),
    "spectralFlux_sma3": Cue("spectral_flux", "spectral flux", "", voiced=False),
    "F1frequency_sma3nz": Cue("f1", "F1", "Hz", voiced=True),
    "F2frequency_sma3nz": Cue("f2", "F2", "Hz", voiced=True),
    "F3frequency_sma3nz": Cue("f3", "F3", "Hz", voiced=True),
    **{f"mfcc{n}_sma3": Cue(f"mfcc{n}", f"MFCC {n}", "", voiced=False) for n in range(1, 5)},
}
# A row of openSMILE starts every 10 ms; its spectra see 20 ms. Where a tone is switched on and
# off, F0 and what follows from it come out in the middle of the tone with 20 ms (measured).
SPECTRUM_CENTRE, VOICE_CENTRE = 0.010, 0.020
# Eyben et al.'s own step.
STEP = 0.010


def egemaps_set() -> CueSet:
    """The descriptors as a set of cues.

    Raises:
        MissingExtraError: openSMILE is not installed.
    """
    if find_spec("opensmile") is None:
        raise MissingExtraError(
            "eGeMAPS cues need openSMILE, which is free for research and not for products, and is "
            "not installed: pip install 'emopool[cues]', or explain with --cues default."
        )
    import opensmile

    smile = opensmile.Smile(
        opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.LowLevelDescriptors
    )

    def compute(waveform: NDArray[np.float32], grid: Grid) -> Floats:
        described = smile.process_signal(waveform, SAMPLE_RATE)
        rows = described[list(COLUMNS)].to_numpy().astype(np.float64)
        rows[:, list(COLUMNS).index(_SLOPE)] *= 1000  # openSMILE gives dB/Hz
        return on_grid(rows, grid, len(waveform))

    fields = {"set": "egemaps", "version": 1, "opensmile": opensmile.__version__}
    return CueSet("egemaps", tuple(COLUMNS.values()), compute, fields)


def on_grid(rows: Floats, grid: Grid, samples: int) -> Floats:
    """Descriptors `[rows, cues]` every 10 ms as `[frames, cues]`: means over a frame's hop.

    A frame has a voiced cue where a row of its hop is voiced; openSMILE writes 0 for missing.
    """
    rows = rows.copy()
    pitch_column = list(COLUMNS).index(_F0)
    voiced = rows[:, pitch_column] > 0
    for column, (name, cue) in enumerate(COLUMNS.items()):
        if cue.voiced:
            absent = ~voiced | ((rows[:, column] == 0) & name.endswith("nz"))
            rows[absent, column] = np.nan
    centres = grid.centres(samples)
    result = np.full((len(centres), rows.shape[1]), np.nan)
    for column, name in enumerate(COLUMNS):
        offset = VOICE_CENTRE if name.endswith("nz") else SPECTRUM_CENTRE
        at = (np.arange(len(rows)) * STEP + offset) * SAMPLE_RATE
        frame = np.rint((at - grid.first_centre) / grid.hop).astype(np.int64)
        held = (frame >= 0) & (frame < len(centres)) & ~np.isnan(rows[:, column])
        total = np.bincount(frame[held], rows[held, column], minlength=len(centres))
        count = np.bincount(frame[held], minlength=len(centres))
        there = count > 0
        result[there, column] = total[there] / count[there]
    return result
