"""`prepare describe`: how an utterance sounds, in words that a text encoder can read.

After DEVA (Wu et al. 2024, arXiv 2412.10460), which gives a text encoder descriptions of acoustic
cues. Four cues, each a functional of eGeMAPS (Eyben et al. 2016):

    pitch      median of F0 over voiced frames, semitones
    loudness   80th percentile over all frames
    rate       loudness peaks a second, between the first and the last; a peak is voiced and stands
               out by 2 dB, as de Jong & Wempe (2009) find the nuclei of syllables
    range      80th less 20th percentile of F0

Voices differ more than emotions do, so a cue is low, medium or high by the terciles of its
speaker's utterances; where there are too few of these, or nobody knows who speaks, by those of the
training rows. A cue that is missing gets no word, and neither does one that does not vary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from scipy.signal import find_peaks

from cache.encoders.grid import SAMPLE_RATE, whisper_grid
from cache.lookup import FrameCache
from corpora.base.errors import AudioError, ManifestError
from corpora.base.work import Work
from corpora.manifest import Utterance, read_manifest, speaker_key, write_manifest
from corpora.manifest_fields import keep_both
from corpora.manifest_tools import ToolReport, report_on
from explain.cues.descriptors import DEFAULT, F0, LOUDNESS
from explain.cues.stream import load_cues
from explain.cues.within import FEWEST_FRAMES
from explain.ragged import Bools, Floats

# Low, medium and high of each cue, in the order of `cue_levels`.
WORDS = (
    ("low pitch", "medium pitch", "high pitch"),
    ("quiet", "medium loudness", "loud"),
    ("slow", "medium speed", "fast"),
    ("narrow range", "medium range", "wide range"),
)
# Whatever encoder is used: words must not change with it. Frames of 20 ms, in recordings of any
# length.
GRID = whisper_grid()
# Of utterances that show a cue, and of peaks: three words need three values, a rate two intervals.
FEWEST = 3
# dB. Loudness is about the cube root of power: 30 log10 of it is a level again.
PROMINENCE, DECIBELS = 2.0, 30.0


def cue_levels(values: Floats) -> Floats:
    """`[4]`, pitch, loudness, rate and range of an utterance; NaN where one is missing.

    Args:
        values: `[frames, 5]`, the default cues on `GRID`, NaN where a cue is missing.
    """
    f0, loudness = (values[:, DEFAULT.cues.index(cue)] for cue in (F0, LOUDNESS))
    voiced = f0[~np.isnan(f0)]
    levels = np.full(len(WORDS), np.nan)
    if len(voiced) >= FEWEST_FRAMES:
        low, levels[0], high = np.percentile(voiced, (20, 50, 80))
        levels[3] = high - low
    loud = float(np.percentile(loudness, 80))
    levels[1] = loud if loud > 0 else np.nan  # digital silence has no loudness to speak of
    levels[2] = _rate(loudness, ~np.isnan(f0))
    return levels


def _rate(loudness: Floats, voiced: Bools) -> float:
    """Voiced peaks of loudness a second; NaN with fewer than three."""
    level = DECIBELS * np.log10(np.maximum(loudness, np.finfo(np.float64).tiny))
    # Not smoothed first, as eGeMAPS is: a mean of three frames (60 ms) takes syllables away. On
    # EMO-DB rates then agree less with the vowels a second of the texts (ranks: .51, not .63).
    peaks, _ = find_peaks(level, prominence=PROMINENCE)
    peaks = peaks[voiced[peaks]]
    if len(peaks) < FEWEST:
        return float("nan")
    return float((len(peaks) - 1) * SAMPLE_RATE / (GRID.hop * (peaks[-1] - peaks[0])))


def descriptions(levels: Floats, utterances: Sequence[Utterance]) -> tuple[list[str], int]:
    """Each utterance's levels `[n, 4]` in words, and how many went by the training rows.

    Args:
        levels: NaN where a cue is missing.
        utterances: whose they are; their speakers and splits count.
    """
    groups: dict[tuple[str, str] | None, list[int]] = {}
    for row, utterance in enumerate(utterances):
        groups.setdefault(speaker_key(utterance), []).append(row)
    training = [row for row, utterance in enumerate(utterances) if utterance.split == "train"]
    words: list[list[str]] = [[] for _ in utterances]
    strangers: set[int] = set()
    for cue, three in enumerate(WORDS):
        usual = _terciles(levels[training, cue])
        for speaker, rows in groups.items():
            own = None if speaker is None else _terciles(levels[rows, cue])
            known = [row for row in rows if not np.isnan(levels[row, cue])]
            strangers.update(known if own is None else ())
            low, high = own or usual or (np.nan, np.nan)
            for row in known:
                if low < high:
                    value = levels[row, cue]
                    words[row].append(three[int(value > low) + int(value >= high)])
    return [", ".join(said) for said in words], len(strangers)


def _terciles(values: Floats) -> tuple[float, float] | None:
    """Of the values that are known; None of fewer than three."""
    known = values[~np.isnan(values)]
    if len(known) < FEWEST:
        return None
    low, high = np.quantile(known, (1 / 3, 2 / 3))
    return float(low), float(high)


def describe(work: Work, path: Path, out: Path, *, show_progress: bool = False) -> ToolReport:
    """Fill the column `description` of a manifest. Cues are computed, or read from the cache.

    Args:
        work: whose cache keeps the cues.
        path: the manifest's CSV.
        out: the CSV to write; where it is the same, the manifest as it was is kept aside.
        show_progress: a bar on standard error.

    Raises:
        AudioError: no recording can be read.
        ManifestError: nothing can be compared: no speaker has three utterances, and no three
            training rows are there; or the manifest cannot be used.
        MissingStepError: there is no such manifest.
    """
    manifest = read_manifest(path)
    rows = manifest.utterances
    found = load_cues(FrameCache(work), rows, GRID, progress=show_progress)
    if len(found.problems) == len(rows):
        reason = next(iter(found.problems.values()))
        raise AudioError(f"none of the {len(rows):,} recordings can be read. The first: {reason}")
    levels = np.stack(
        [
            np.full(len(WORDS), np.nan)
            if utterance.id in found.problems
            else cue_levels(found.values[start:end])
            for utterance, (start, end) in zip(rows, pairwise(found.offsets), strict=True)
        ]
    )
    said, strangers = descriptions(levels, rows)
    heard = int((~np.isnan(levels)).any(axis=1).sum())
    if heard and not any(said):
        raise ManifestError(
            f"{path}: nothing to compare with: no known speaker has {FEWEST} utterances whose cues "
            f"vary, and neither has train. Fill in the column speaker, or run `prepare split`."
        )
    written = replace(
        manifest,
        utterances=tuple(replace(u, description=d) for u, d in zip(rows, said, strict=True)),
    )
    notes = _notes(said, strangers, found.problems)
    if out.resolve() == path.resolve() and written != manifest:
        kept = keep_both(path, lambda number: f"{path.stem}.before-describe-{number}.csv")
        notes.append(f"The manifest as it was is kept in {kept}.")
    write_manifest(written, out)
    shown = [f' {u.id} is "{one}"' for u, one in zip(rows, said, strict=True) if one]
    did = f"Described {len(shown):,} of {len(rows):,} utterances{':'.join(['', *shown[:1]])}."
    return report_on(did, written, out, notes)


def _notes(said: Sequence[str], strangers: int, problems: Mapping[str, str]) -> list[str]:
    """What was compared otherwise, and what could not be."""
    notes = []
    if strangers:
        notes.append(
            f"{strangers:,} utterances are of unknown speakers, or of speakers with fewer than "
            f"{FEWEST}: they are compared with the training rows, so their words tell voices apart "
            "too."
        )
    if problems:
        name, reason = next(iter(problems.items()))
        notes.append(f"{len(problems):,} recordings cannot be read. The first: {name}: {reason}")
    silent = list(said).count("") - len(problems)
    if silent:
        notes.append(f"{silent:,} utterances have no voice to describe, and no description.")
    return notes
