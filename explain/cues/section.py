"""Acoustic cues in the report: what there is, both questions, and what could not be told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from corpora.base.report import Figure, Section, Table
from corpora.base.work import Work
from explain.cues.analysis import CORRECT, OUTCOMES, CueAnalysis, analyse
from explain.cues.directions import Directions, read_directions
from explain.cues.stream import CueFrames, cue_set, load_cues
from explain.cues.tables import (
    SIGNIFICANT,
    effect_figure,
    effect_table,
    level_figure,
    level_table,
    score_table,
)
from explain.cues.windows import TOP
from explain.cues.within import FEWEST_DONORS, FEWEST_FRAMES
from explain.intervals import interval_note
from explain.ragged import ints
from explain.subject import Subject

TITLE = "Acoustic cues"
# A cell of fewer is in the table, but is not counted as agreeing or not.
FEWEST_UTTERANCES = 5
# Findings named in the text; the table has all of them.
NAMED = 8


@dataclass(frozen=True)
class CueConfig:
    """How cues are analysed.

    Attributes:
        cues: `default`, or `egemaps` (openSMILE, in the extra `cues`).
        share: of the attention that attended frames hold; None: the top frame alone.
        seed: of exchanged attention and bootstraps.
        progress: whether to show a bar while cues are computed.
    """

    cues: str = "default"
    share: float | None = 0.5
    seed: int = 0
    progress: bool = False


def cues_section(subject: Subject, work: Work, config: CueConfig | None = None) -> Section:
    """Cues at attended frames, from the cache or computed now.

    Raises:
        ConfigError: unknown cues.
        MissingExtraError: they need openSMILE, which is not installed.
    """
    config = config or CueConfig()
    chosen = cue_set(config.cues)
    if "audio" not in subject.frames or subject.grid is None:
        return Section(TITLE, ("This head reads text alone: it hears no cues.",))
    offsets = ints(subject.frames["audio"].offsets)
    frames = load_cues(
        work, subject.utterances, subject.grid, offsets, chosen, progress=config.progress
    )
    return cue_frames_section(subject, frames, config)


def cue_frames_section(subject: Subject, frames: CueFrames, config: CueConfig) -> Section:
    """The same from cues at hand."""
    if len(frames.problems) == len(subject):
        reason = next(iter(frames.problems.values()))
        return Section(TITLE, (f"No cue of any utterance is known. The first: {reason}",))
    directions = read_directions()
    found = analyse(subject, frames, directions, share=config.share, seed=config.seed)
    text = [*_setting(subject, frames, config, found), *_missing(subject, found, directions)]
    text += _within_text(found, subject.methods["audio"])
    tables: list[Table] = [effect_table(found)]
    figures: list[Figure] = [effect_figure(found)]
    if found.levels:
        text += _level_text(found)
        tables.append(level_table(found))
        figures.append(level_figure(found))
    if found.scores:
        text += _score_text(found)
        tables.append(score_table(found))
    return Section(TITLE, tuple(text), tuple(tables), tuple(figures), _summary(found))


def _setting(
    subject: Subject, frames: CueFrames, config: CueConfig, found: CueAnalysis
) -> list[str]:
    meant = (
        "the top frame"
        if config.share is None
        else (f"the smallest set of frames that holds {config.share:.0%} of the mass")
    )
    names = ", ".join(f"{cue.title} ({cue.unit})" if cue.unit else cue.title for cue in frames.cues)
    lines = [
        f"Cues: {names}. Attended is {meant} of {subject.methods['audio']}; only frames that a "
        f"voice activity detector calls speech take part, and {found.voiced:.0%} of these are "
        "voiced. Elsewhere voiced cues are missing, not zero."
    ]
    if subject.frames["audio"].speech is None:
        lines.append("No speech detection is in the cache, so pauses take part too.")
    if config.cues == "egemaps":
        lines.append(
            "These are eGeMAPS descriptors by openSMILE, which is free for research and not for "
            "products."
        )
    if frames.problems:
        name, reason = next(iter(frames.problems.items()))
        lines.append(
            f"{len(frames.problems):,} of {len(subject):,} utterances have no known cues and are "
            f"left out. The first: {name}: {reason}"
        )
    note = interval_note(subject.speakers)
    if note:
        lines.append(note[0].upper() + note[1:] + ".")
    return lines


def _missing(subject: Subject, found: CueAnalysis, directions: Directions) -> list[str]:
    lines = []
    empty = [
        f"{label} ({outcome})"
        for outcome in OUTCOMES
        for label in found.labels
        if not found.counts[label, outcome]
    ]
    if empty:
        lines.append(f"No utterance, so nothing to say: {', '.join(empty)}.")
    unlabelled = int((subject.targets < 0).sum())
    if unlabelled:
        lines.append(f"{unlabelled:,} utterances without a known label are left out.")
    lacking = {
        cue: sum(e.without for (_, _, name), e in found.effects.items() if name == cue.name)
        for cue in found.cues
    }
    few = [f"{cue.title} {count:,}" for cue, count in lacking.items() if count]
    if few:
        lines.append(
            f"Utterances with fewer than {FEWEST_FRAMES} frames that have the cue on a side, or "
            f"where it does not vary, are left out of the comparison within: {', '.join(few)}."
        )
    untold = dict.fromkeys(
        f"{label} ({outcome})"
        for (label, outcome, _), effect in found.effects.items()
        if effect.mean.count and np.isnan(effect.p)
    )
    if untold:
        lines.append(
            f"Fewer than {FEWEST_DONORS} other utterances have the same prediction, so that what "
            f"chance gives cannot be told: {', '.join(untold)}."
        )
    if found.relative is None:
        lines.append(
            "Levels against neutral speech: no utterance here is labelled neutral, so there is "
            "nothing to compare with."
        )
    else:
        if found.relative.without_reference:
            lines.append(
                f"{found.relative.without_reference:,} utterances are of speakers without a "
                "neutral one, and are left out of the levels."
            )
        if found.relative.pooled_strangers:
            lines.append(
                f"{found.relative.pooled_strangers:,} utterances of unknown speakers are compared "
                "with one another as if one person spoke."
            )
    outside = [label for label in found.labels if directions.emotion(label) is None]
    if outside:
        lines.append(
            f"No source is on file for {', '.join(outside)}: nothing is expected of their cues."
        )
    short = int(found.windows.short.sum())
    if short:
        lines.append(
            f"{short:,} utterances have no more than {TOP} windows of 150 ms and no window scores."
        )
    return lines


def _within_text(found: CueAnalysis, method: str) -> list[str]:
    tests = {k: e for k, e in found.effects.items() if not np.isnan(e.corrected)}
    sure = {k: e for k, e in tests.items() if e.corrected < SIGNIFICANT}
    titles = {cue.name: cue.title for cue in found.cues}
    ranked = sorted(sure.items(), key=lambda item: -abs(item[1].mean.value))
    named = [
        f"{titles[cue]} {effect.mean.value:+.2f} in {label} ({outcome})"
        for (label, outcome, cue), effect in ranked[:NAMED]
    ]
    more = f", and {len(sure) - NAMED} more in the table" if len(sure) > NAMED else ""
    return [
        f"(a) Within an utterance, {len(sure)} of {len(tests)} differences are larger than "
        f"exchanged {method} gives (p < {SIGNIFICANT:g} after Holm's correction)"
        + (f"; the largest, in deviations: {'; '.join(named)}{more}." if named else ".")
        + f" Exchanged {method} is that of another utterance with the same prediction, at the same "
        "relative place within speech."
    ]


def _level_text(found: CueAnalysis) -> list[str]:
    parts = []
    for outcome in OUTCOMES:
        known = [
            level.agrees
            for (_, own, _), level in found.levels.items()
            if own == outcome and level.agrees is not None and level.mean.count >= FEWEST_UTTERANCES
        ]
        if known:
            parts.append(f"{sum(known)} of {len(known)} for {outcome} predictions")
    agreement = "; ".join(parts) if parts else "none could be checked"
    return [
        "(b) Levels at attended frames lie where research expects them, against the same "
        f"speaker's neutral speech, in this many emotions and cues: {agreement} (counted with "
        f"{FEWEST_UTTERANCES} utterances and more). Wrong predictions are under the emotion they "
        "were taken for. Where no source says, nothing is expected."
    ]


def _score_text(found: CueAnalysis) -> list[str]:
    right = [s for (_, outcome, _), s in found.scores.items() if outcome == CORRECT]
    if not right:
        return []
    coverage = float(np.mean([s.coverage.value for s in right]))
    above = float(np.mean([s.above_chance.value for s in right]))
    return [
        "For reference, the scores of Nasr et al. (2025) with formulas of our own, since theirs "
        "are not available to us: the five most attended windows cover "
        f"{coverage:.0%} of the five most extreme ones (mean over emotions and cues, correct "
        f"predictions; {coverage - above:.0%} by chance)."
    ]


def _summary(found: CueAnalysis) -> dict[str, Any]:
    def number(value: float) -> float | None:
        return None if np.isnan(value) else value

    return {
        "within": [
            {
                "predicted": label, "prediction": outcome, "cue": cue,
                "utterances": effect.mean.count, "effect": number(effect.mean.value),
                "p": number(effect.p), "p_holm": number(effect.corrected),
            }
            for (label, outcome, cue), effect in found.effects.items()
        ],
        "against_neutral": [
            {
                "predicted": label, "prediction": outcome, "cue": cue,
                "utterances": level.mean.count, "difference": number(level.mean.value),
                "expected": None if level.expected is None else level.expected.sign,
                "agrees": level.agrees,
            }
            for (label, outcome, cue), level in found.levels.items()
        ],
    }  # fmt: skip
