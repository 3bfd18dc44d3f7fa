"""Emotion over time: what is said about the stretches of a recording, written and drawn.

| file | holds |
|---|---|
| `.csv` | a row a stretch: recording, start, end, from, to, name, label, probability, length, |
| | `p_<label>` of every label; with strength also strength and `strength_<label>`; a column for |
| | each attribute, in the units of its scale (of attributes alone neither label nor p) |
| `.jsonl` | the same, one JSON object a line |
| `.TextGrid` | of one recording the tiers emotion, probability, one for each attribute, length, |
| | and name if there is any |
| `.rttm` | a SPEAKER line a stretch, the emotion where the speaker's name stands |
| `.png`, `.svg` | of one recording the probabilities, and attributes on their scales, as curves |

RTTM knows no emotion. As in the scoring of emotion diarisation by diarisation tools (Wu, Zhang and
Woodland 2023, TEER) its label takes the field of the speaker's name, its probability that of the
confidence, and `short` or `long` that of the subtype, which scorers do not read.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corpora.base.codec import Jsonable
from corpora.base.errors import ConfigError
from corpora.base.files import write_bytes, write_text
from corpora.base.report import Figure, csv_text, legend_beside, render, require_matplotlib
from corpora.base.terminal import aligned
from corpora.stretches import rttm_line
from corpora.textgrid import Interval, fill_gaps, format_textgrid
from finetune.utterance_seconds import LONG, SHORT, UNKNOWN

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

PICTURES = (".png", ".svg")
# Lines of a terminal's table; the files hold all of them.
MOST_LINES = 40


@dataclass(frozen=True)
class Moment(Jsonable):
    """What is said about one stretch.

    Attributes:
        recording: its id, or its name as it was given.
        start: of what was heard, seconds.
        end: the same.
        since: of what it stands for: of overlapping windows the moments nearest to its middle.
        until: the same.
        name: what the source of the stretch calls it; "" for nothing.
        label: the most probable one; "" where attributes alone are said.
        probability: of the label; None without.
        length: against the utterances trained on: `usual`, `short`, `long`, or `unknown`.
        probabilities: of every label.
        text: what the model read; "" for none.
        text_source: see `finetune.predict.prediction.Prediction`.
        strengths: likewise.
        attributes: likewise.
    """

    json_entries = (
        "recording start end from=since to=until name label probability length probabilities text "
        "text_source attributes strengths strength"
    )
    json_optional = "label probability probabilities attributes strengths strength"

    recording: str
    start: float
    end: float
    since: float
    until: float
    name: str
    label: str
    probability: float | None
    length: str
    probabilities: Mapping[str, float]
    text: str = ""
    text_source: str = ""
    strengths: Mapping[str, float] = field(default_factory=dict)
    attributes: Mapping[str, float] = field(default_factory=dict)

    @property
    def strength(self) -> float | None:
        """Of the label; None where it is not known, or the label stands for no emotion."""
        return self.strengths.get(self.label)


@dataclass(frozen=True)
class Timeline:
    """One recording over time.

    Attributes:
        id: the recording's id, or its name as it was given.
        audio: its file.
        seconds: its length.
        moments: by their starts, at least one.
        scales: the lowest and highest value of each attribute that is said.
    """

    id: str
    audio: Path
    seconds: float
    moments: tuple[Moment, ...]
    scales: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def labels(self) -> tuple[str, ...]:
        """In the model's order."""
        return tuple(self.moments[0].probabilities)

    def shares(self) -> dict[str, float]:
        """By label, the largest first, its share of the time that anything is said about."""
        spans: dict[str, float] = {}
        for one in self.moments:
            spans[one.label] = spans.get(one.label, 0.0) + one.until - one.since
        total = sum(spans.values())
        ordered = sorted(spans.items(), key=lambda item: -item[1])
        return {label: span / total for label, span in ordered}

    def means(self) -> dict[str, float]:
        """By attribute, its mean over the time that anything is said about."""
        spans = [one.until - one.since for one in self.moments]
        return {
            name: sum(s * one.attributes[name] for s, one in zip(spans, self.moments, strict=True))
            / sum(spans)
            for name in self.scales
        }

    def summary(self) -> str:
        """Each label's share of the time, and the mean of each attribute."""
        shares = self.shares() if self.labels else {}
        said = [f"{label} {share:.0%}" for label, share in shares.items()]
        said += [f"mean {name} {value:.2f}" for name, value in self.means().items()]
        return ", ".join(said)


def timeline_lines(timeline: Timeline) -> list[str]:
    """For a terminal: what prevails, and runs of one label; of attributes alone each segment."""
    count = len(timeline.moments)
    many = "" if count == 1 else "s"
    whole = f"{timeline.id}: {clock(timeline.seconds)}, {count:,} segment{many}."
    lines = [f"{whole} {timeline.summary()}."]
    ranked = any(one.strengths for one in timeline.moments)
    labelled = bool(timeline.labels)
    named = not labelled and any(one.name for one in timeline.moments)
    columns = ("from", "to", *["label", "p"] * labelled, *["name"] * named)
    rows = [(*columns, *["strength"] * ranked, *timeline.scales, "")]
    runs = [[one] for one in timeline.moments]
    if labelled:
        alike = groupby(timeline.moments, lambda one: (one.label, one.name))
        runs = [list(run) for _, run in alike]
    for run in runs[:MOST_LINES]:
        odd = [one.length for one in run if one.length in (SHORT, LONG)]
        said = f"{', '.join(sorted(set(odd)))}: {len(odd)} of {len(run)}" if odd else ""
        label = f"{run[0].label} ({run[0].name})" if run[0].name else run[0].label
        cells = [clock(run[0].since), clock(run[-1].until), *[run[0].name] * named]
        if labelled:
            cells.append(label)
            cells.append(f"{sum(one.probabilities[one.label] for one in run) / len(run):.2f}")
        if ranked:
            strengths = [one.strength for one in run if one.strength is not None]
            cells.append(f"{sum(strengths) / len(strengths):.2f}" if strengths else "–")
        means = replace(timeline, moments=tuple(run)).means()
        rows.append((*cells, *(f"{value:.2f}" for value in means.values()), said))
    lines += aligned(rows, (0, 1))
    if len(runs) > MOST_LINES:
        what = "runs of one label" if labelled else "segments"
        lines.append(f"and {len(runs) - MOST_LINES:,} more {what} (--out has them all)")
    return lines


def clock(seconds: float) -> str:
    """Such as 1:02:03.40, without what is zero in front."""
    minutes, rest = divmod(round(seconds * 100), 6000)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02}:{rest / 100:05.2f}"
    return f"{minutes}:{rest / 100:05.2f}"


def _csv(timelines: Sequence[Timeline]) -> str:
    labels = timelines[0].labels
    columns = ["recording", "start", "end", "from", "to", "name"]
    columns += [*["label", "probability"] * bool(labels), "length"]
    ranked = timelines[0].moments[0].strengths
    more = [*(f"p_{label}" for label in labels), *["strength"] * bool(ranked)]
    more += [*(f"strength_{label}" for label in ranked), *timelines[0].scales]
    rows = []
    for one in (moment for timeline in timelines for moment in timeline.moments):
        cells: dict[str, Any] = one.to_json()
        if one.probability is not None:
            cells["probability"] = f"{one.probability:.7f}"
        cells |= {name: f"{value:.4f}" for name, value in one.attributes.items()}
        cells |= {name: f"{cells[name]:.3f}" for name in ("start", "end", "from", "to")}
        cells |= {f"p_{name}": f"{p:.7f}" for name, p in one.probabilities.items()}
        cells |= {f"strength_{name}": f"{value:.4f}" for name, value in one.strengths.items()}
        if one.strength is not None:
            cells["strength"] = f"{one.strength:.4f}"
        rows.append(cells)
    return csv_text([*columns, *more], rows)


def _json_lines(timelines: Sequence[Timeline]) -> str:
    moments = [moment for timeline in timelines for moment in timeline.moments]
    return "".join(json.dumps(one.to_json(), ensure_ascii=False) + "\n" for one in moments)


def _rttm(timelines: Sequence[Timeline]) -> str:
    if not timelines[0].labels:
        raise ConfigError(
            f"RTTM names labels, and {' and '.join(timelines[0].scales)} are numbers. Take .csv, "
            ".jsonl, .TextGrid or a picture for --out."
        )
    lines = [
        rttm_line(
            timeline.audio,
            one.since,
            one.until,
            one.label,
            one.probabilities[one.label],
            one.length if one.length in (SHORT, LONG) else "",
        )
        for timeline in timelines
        for one in timeline.moments
    ]
    return "".join(f"{line}\n" for line in lines)


def _textgrid(timeline: Timeline) -> str:
    moments = timeline.moments
    if any(left.until > right.since + 1e-9 for left, right in pairwise(moments)):
        raise ConfigError(
            f"{timeline.id}: segments overlap, which a tier of a TextGrid cannot. Take .csv, "
            ".jsonl or .rttm for --out."
        )
    said: dict[str, Callable[[Moment], str]] = {}
    if timeline.labels:
        said["emotion"] = lambda one: one.label
        said["probability"] = lambda one: f"{one.probability:.3f}"
    for name in timeline.scales:
        said[name] = partial(_value, name)
    said["length"] = lambda one: one.length
    if any(one.name for one in moments):
        said["name"] = lambda one: one.name
    tiers = {
        tier: fill_gaps(
            [Interval(one.since, one.until, words(one)) for one in moments], timeline.seconds, ""
        )
        for tier, words in said.items()
    }
    return format_textgrid(tiers, timeline.seconds)


def _value(name: str, moment: Moment) -> str:
    return f"{moment.attributes[name]:.3f}"


_TOGETHER: Mapping[str, Callable[[Sequence[Timeline]], str]] = {
    ".csv": _csv,
    ".jsonl": _json_lines,
    ".rttm": _rttm,
}
_ALONE = (".textgrid", *PICTURES)
SUFFIXES = (*_TOGETHER, ".TextGrid", *PICTURES)


def check_out(paths: Sequence[str | Path]) -> None:
    """Refuse names that do not say what to write, and pictures that cannot be drawn.

    Raises:
        ConfigError: a suffix is none of those above.
        MissingExtraError: matplotlib is not installed.
    """
    for path in map(Path, paths):
        if path.suffix.lower() not in (*_TOGETHER, *_ALONE):
            raise ConfigError(
                f"--out {path}: its suffix says what is written. Expected {', '.join(SUFFIXES)}."
            )
        if path.suffix.lower() in PICTURES:
            require_matplotlib("predict without a picture among its --out")


def write_timelines(paths: Sequence[str | Path], timelines: Sequence[Timeline]) -> list[Path]:
    """Write each file in the format of its suffix; returns what was written.

    A TextGrid and a picture hold one recording: of several, each gets a file of its own, whose name
    ends in the recording's.

    Raises:
        ConfigError: segments overlap and are to be a TextGrid, or two recordings share a name.
        MissingExtraError: a picture is to be drawn, and matplotlib is not installed.
    """
    written = []
    for path in map(Path, paths):
        suffix = path.suffix.lower()
        if suffix in _TOGETHER:
            write_text(path, _TOGETHER[suffix](timelines))
            written.append(path)
            continue
        names = [one.audio.stem for one in timelines]
        twice = sorted(name for name, count in Counter(names).items() if count > 1)
        if twice:
            raise ConfigError(
                f"--out {path}: several recordings are called {twice[0]}, and each needs a file of "
                "its own. Take .csv, .jsonl or .rttm, or one recording at a time."
            )
        for name, one in zip(names, timelines, strict=True):
            own = path if len(timelines) == 1 else path.with_stem(f"{path.stem}-{name}")
            if suffix in PICTURES:
                write_bytes(own, render(timeline_figure(one), (suffix,))[suffix])
            else:
                write_text(own, _textgrid(one))
            written.append(own)
    return written


def timeline_figure(timeline: Timeline, name: str = "over-time") -> Figure:
    """Probabilities over time, and under them the most probable label; odd lengths are hatched.

    Attributes have a panel each, as high as their scale.
    """
    title = f"{timeline.id}: emotion over time"
    height = (3.6 if timeline.labels else 0.8) + 1.4 * len(timeline.scales)
    return Figure(name, partial(_draw, timeline, title), title, (10.0, height))


def _draw(timeline: Timeline, title: str, canvas: Canvas) -> None:
    from matplotlib import colormaps

    palette = colormaps["tab10" if len(timeline.labels) <= 10 else "tab20"].colors  # type: ignore[attr-defined]
    colours = {
        label: palette[number % len(palette)] for number, label in enumerate(timeline.labels)
    }
    labelled = bool(colours)
    heights = [6] * labelled + [3] * len(timeline.scales) + [1]
    panels = canvas.subplots(len(heights), 1, sharex=True, height_ratios=heights)
    strip = panels[-1]
    unit, scale = ("min", 60.0) if timeline.seconds > 300 else ("s", 1.0)
    if labelled:
        for label, colour in colours.items():
            curve = _curve(timeline, scale, [one.probabilities[label] for one in timeline.moments])
            panels[0].plot(*curve, color=colour, lw=1.0, label=label.replace("$", r"\$"))
        panels[0].set(ylabel="probability", ylim=(0, 1))
        legend_beside(panels[0])
    for axes, (name, ends) in zip(panels[labelled:-1], timeline.scales.items(), strict=True):
        values = [one.attributes[name] for one in timeline.moments]
        axes.plot(*_curve(timeline, scale, values), color="0.2", lw=1.0)
        axes.axhline(sum(ends) / 2, color="0.7", lw=0.8, ls=":")
        axes.set(ylabel=name, ylim=ends)
    for one in timeline.moments:
        odd = one.length in (SHORT, LONG)
        strip.axvspan(
            one.since / scale,
            one.until / scale,
            facecolor=colours.get(one.label, "0.8"),
            hatch="////" if odd else None,
            edgecolor="white" if odd else "none",
            linewidth=0,
        )
    panels[0].set(xlim=(0, timeline.seconds / scale))
    panels[0].set_title(title.replace("$", r"\$"), fontsize=10)
    marks = {one.length for one in timeline.moments}
    said = (
        "" if marks.isdisjoint((SHORT, LONG)) else "  (hatched: shorter or longer than trained on)"
    )
    if UNKNOWN in marks:
        said = "  (lengths trained on: unknown)"
    strip.set(yticks=[], xlabel=f"{unit}{said}", ylabel="label" if labelled else "")


def _curve(
    timeline: Timeline, scale: float, values: Sequence[float]
) -> tuple[list[float], list[float]]:
    """Times and heights of a step curve of one value a moment; broken where nothing is said."""
    times: list[float] = []
    heights: list[float] = []
    for one, value in zip(timeline.moments, values, strict=True):
        if times and one.since / scale > times[-1] + 1e-9:
            times.append(times[-1])
            heights.append(float("nan"))
        times += [one.since / scale, one.until / scale]
        heights += [value] * 2
    return times, heights
