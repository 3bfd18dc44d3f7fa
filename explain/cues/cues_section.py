"""Acoustic cues in the report: what there is, both questions, and what could not be told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cache.lookup import FrameCache
from corpora.base.report import Cell, Figure, Report, Table
from explain.cues.descriptors import Directions, read_directions
from explain.cues.measure import CORRECT, OUTCOMES, CueAnalysis, analyse
from explain.cues.stream import CueFrames, cue_set, load_cues
from explain.cues.within import FEWEST_DONORS, FEWEST_FRAMES, TOP
from explain.finding import Finding, ends_text, strength, strongest
from explain.ragged import Floats, interval_note, ints
from explain.subject import Subject

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas


SIGNIFICANT = 0.05
# With more cues than this, the maps of right and wrong predictions lie one above the other.
SIDE_BY_SIDE = 8
ARROWS = {1: "↑", -1: "↓"}
WORDS = {1: "up", -1: "down"}


def effect_table(found: CueAnalysis, picked: str) -> Table:
    """Question (a)."""
    rows: list[list[Cell]] = []
    for (label, outcome, cue), effect in found.effects.items():
        mean = effect.mean
        known = bool(mean.count)
        rows.append(
            [
                label, outcome, cue, mean.count, effect.without,
                mean.value if known else None, mean.low, mean.high,
                _number(effect.p), _number(effect.corrected),
            ]
        )  # fmt: skip
    columns = (
        "predicted", "prediction", "cue", "utterances", "with too few frames",
        "effect (deviations)", "low", "high", "p (exchange)", "p (Holm)",
    )  # fmt: skip
    title = f"Within an utterance: cues at {picked} frames less those at its other speech frames"
    return Table("cues-within", columns, rows, title, digits=4)


def level_table(found: CueAnalysis, picked: str) -> Table:
    """Question (b)."""
    rows: list[list[Cell]] = []
    for (label, outcome, cue), level in found.levels.items():
        mean, agrees = level.mean, level.agrees
        share = level.agreeing if level.agreeing is not None and level.agreeing.count else None
        rows.append(
            [
                label, outcome, cue, mean.count, mean.value if mean.count else None,
                mean.low, mean.high,
                None if level.expected is None else WORDS[level.expected.sign],
                None if agrees is None else ("yes" if agrees else "no"),
                None if share is None else share.value + 0.5,
                None if share is None or share.low is None else share.low + 0.5,
                None if share is None or share.high is None else share.high + 0.5,
                None if level.expected is None else "; ".join(level.expected.sources),
            ]
        )  # fmt: skip
    columns = (
        "predicted", "prediction", "cue", "utterances", "difference (deviations)", "low", "high",
        "expected", "agrees", "share of utterances that agree", "low ", "high ", "source",
    )  # fmt: skip
    title = f"Cues at {picked} frames, against the same speaker's neutral utterances"
    return Table("cues-levels", columns, rows, title)


def score_table(found: CueAnalysis, picked: str) -> Table:
    """The published scores."""
    rows: list[list[Cell]] = [
        [
            label, outcome, cue, scores.coverage.count,
            scores.similarity.value if scores.similarity.count else None,
            scores.similarity.low, scores.similarity.high,
            scores.coverage.value, scores.coverage.value - scores.above_chance.value,
            scores.above_chance.low, scores.above_chance.high,
        ]
        for (label, outcome, cue), scores in found.scores.items()
    ]  # fmt: skip
    columns = (
        "predicted", "prediction", "cue", "utterances", "similarity", "low", "high",
        "coverage", "coverage by chance", "above chance: low", "above chance: high",
    )  # fmt: skip
    title = f"Five most {picked} windows of 150 ms against the five most extreme ones"
    return Table("cues-windows", columns, rows, title)


def effect_figure(found: CueAnalysis, picked: str) -> Figure:
    """Heat maps of question (a)."""

    def cell(label: str, outcome: str, cue: str) -> tuple[float, str]:
        effect = found.effects[label, outcome, cue]
        star = "*" if effect.corrected < SIGNIFICANT else ""
        return effect.mean.value, star

    note = f"{picked} less other frames, in deviations; * p < {SIGNIFICANT:g} after Holm"
    title = f"Cues at {picked} against other frames of the same utterance"
    return _figure("cues-within", title, note, found, found.labels, cell)


def level_figure(found: CueAnalysis, picked: str) -> Figure:
    """Heat maps of question (b)."""
    labels = tuple(dict.fromkeys(label for label, _, _ in found.levels))

    def cell(label: str, outcome: str, cue: str) -> tuple[float, str]:
        level = found.levels[label, outcome, cue]
        arrow = "" if level.expected is None else f" {ARROWS[level.expected.sign]}"
        return level.mean.value, arrow

    note = "above the speaker's neutral speech, in deviations; arrow: the expected direction"
    title = f"Cues at {picked} frames against neutral speech"
    return _figure("cues-levels", title, note, found, labels, cell)


def _figure(
    name: str,
    title: str,
    note: str,
    found: CueAnalysis,
    labels: Sequence[str],
    cell: Callable[[str, str, str], tuple[float, str]],
) -> Figure:
    """One heat map an outcome, with the same colours."""
    many = len(found.cues) > SIDE_BY_SIDE

    def draw(canvas: Canvas) -> None:
        every = {
            outcome: [[cell(label, outcome, cue.name) for cue in found.cues] for label in labels]
            for outcome in OUTCOMES
        }
        sizes = [abs(v) for rows in every.values() for row in rows for v, _ in row if v == v]
        limit = max([0.1, *sizes])
        shape = (len(OUTCOMES), 1) if many else (1, len(OUTCOMES))
        panels = canvas.subplots(*shape)
        for axes, (outcome, rows) in zip(panels, every.items(), strict=True):
            counts = [found.counts[label, outcome] for label in labels]
            names = [f"{label} ({count})" for label, count in zip(labels, counts, strict=True)]
            _heat(axes, rows, names, [cue.title for cue in found.cues], limit)
            axes.set_title(f"{outcome} predictions (utterances)")
        canvas.supxlabel(note, fontsize="medium")

    width = 1.1 + max(2.6, 0.62 * len(found.cues))
    height = 1.9 + 0.42 * len(labels)
    return Figure(name, draw, title, (width, 2 * height) if many else (2 * width, height))


def _heat(
    axes: Axes,
    rows: Sequence[Sequence[tuple[float, str]]],
    labels: Sequence[str],
    cues: Sequence[str],
    limit: float,
) -> None:
    values: Floats = np.array([[value for value, _ in row] for row in rows])
    axes.set_facecolor("0.9")
    axes.imshow(np.ma.masked_invalid(values), cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
    axes.set_xticks(range(len(cues)), cues, rotation=35, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    axes.tick_params(length=0)
    for row, cells in enumerate(rows):
        for column, (value, mark) in enumerate(cells):
            known = not np.isnan(value)
            text = f"{value:+.2f}{mark}" if known else "–"
            dark = known and abs(value) > 0.65 * limit
            colour = "white" if dark else "black"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize="small")


def _number(value: float) -> float | None:
    return None if np.isnan(value) else value


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


def cues_section(subject: Subject, cache: FrameCache, config: CueConfig | None = None) -> Report:
    """Cues at attended frames, from the cache or computed now.

    Raises:
        ConfigError: unknown cues.
        MissingExtraError: they need openSMILE, which is not installed.
    """
    config = config or CueConfig()
    chosen = cue_set(config.cues)
    if subject.grid is None:
        return Report(TITLE, (f"This head {subject.deaf}: it hears no cues.",))
    offsets = ints(subject.frames["audio"].offsets)
    frames = load_cues(
        cache, subject.utterances, subject.grid, offsets, chosen, progress=config.progress
    )
    return cue_frames_section(subject, frames, config)


def cue_frames_section(subject: Subject, frames: CueFrames, config: CueConfig) -> Report:
    """The same from cues at hand."""
    if len(frames.problems) == len(subject):
        reason = next(iter(frames.problems.values()))
        return Report(TITLE, (f"No cue of any utterance is known. The first: {reason}",))
    directions = read_directions()
    found = analyse(subject, frames, directions, share=config.share, seed=config.seed)
    text = [*_setting(subject, frames, config, found), *_missing(subject, found, directions)]
    text += _within_text(found, subject.methods["audio"])
    tables: list[Table] = [effect_table(found, subject.picked)]
    figures: list[Figure] = [effect_figure(found, subject.picked)]
    if found.levels:
        text += _level_text(found, subject.picked)
        tables.append(level_table(found, subject.picked))
        figures.append(level_figure(found, subject.picked))
    if found.scores:
        text += _score_text(found, subject.picked)
        tables.append(score_table(found, subject.picked))
    data = {**strongest(_findings(found)), **_summary(found)}
    return Report(TITLE, (*text, *figures, *tables), data=data)


def _findings(found: CueAnalysis) -> list[Finding]:
    """Levels of right answers against neutral speech where research expects something."""
    titles = {cue.name: cue.title for cue in found.cues}
    findings = []
    # Where there are no intervals the first counts, and that is the largest.
    largest = sorted(found.levels.items(), key=lambda own: -abs(own[1].mean.value))
    for (label, outcome, cue), level in largest:
        mean = level.mean
        if outcome != CORRECT or level.agrees is None or mean.count < FEWEST_UTTERANCES:
            continue
        ends = mean.low, mean.high
        agrees = "as" if level.agrees else "against what"
        text = (
            f"Where it hears {label}, {titles[cue]} is {mean.value:+.1f} deviations from the same "
            f"speaker's neutral speech{ends_text(ends, 1)}, {agrees} research expects."
        )
        findings.append(Finding(text, "cues-levels", strength(mean.value, ends)))
    return findings


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
        f"Cues: {names}. {subject.picked.capitalize()} is {meant} of {subject.methods['audio']}; "
        "only frames that a voice activity detector calls speech take part, and "
        f"{found.voiced:.0%} of these are voiced. Elsewhere voiced cues are missing, not zero."
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


def _level_text(found: CueAnalysis, picked: str) -> list[str]:
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
        f"(b) Levels at {picked} frames lie where research expects them, against the same "
        f"speaker's neutral speech, in this many emotions and cues: {agreement} (counted with "
        f"{FEWEST_UTTERANCES} utterances and more). Wrong predictions are under the emotion they "
        "were taken for. Where no source says, nothing is expected."
    ]


def _score_text(found: CueAnalysis, picked: str) -> list[str]:
    right = [s for (_, outcome, _), s in found.scores.items() if outcome == CORRECT]
    if not right:
        return []
    coverage = float(np.mean([s.coverage.value for s in right]))
    above = float(np.mean([s.above_chance.value for s in right]))
    return [
        "For reference, the scores of Nasr et al. (2025) with formulas of our own, since theirs "
        f"are not available to us: the five most {picked} windows cover "
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
