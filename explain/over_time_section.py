"""Emotion over time in the report: the curve of each recording that is long enough for one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from cache.audio import audio_seconds
from corpora.base.errors import AudioError
from corpora.base.report import Cell, Report, Table
from corpora.stretches import evenly
from corpora.utterance import Utterance
from explain.picture import file_name
from finetune.model import EmotionModel
from finetune.predict.over_time import WINDOW_SECONDS, over_time
from finetune.predict.timeline import Moment, Timeline, clock, timeline_figure
from finetune.utterance_seconds import UtteranceSeconds

# A curve has some points: so many windows side by side, of which two overlap by a half.
LEAST_WINDOWS = 2


def recordings_over_time(
    model: EmotionModel,
    utterances: Sequence[Utterance],
    lengths: UtteranceSeconds | None,
    limit: float,
) -> dict[str, Timeline]:
    """By id, the recordings that are long enough; those that cannot be read are left to others.

    Args:
        model: listens, or there are none.
        utterances: whole recordings.
        lengths: of the utterances trained on, where that is known.
        limit: seconds that are heard at once.
    """
    if model.audio_encoder is None:
        return {}
    window = min(WINDOW_SECONDS if lengths is None else lengths.median, limit)
    found = {}
    for one in utterances:
        try:
            if audio_seconds(one.audio) >= LEAST_WINDOWS * window:
                found[one.id] = over_time(
                    [model],
                    one,
                    lambda _, duration, __: evenly(duration, window / 2, window),
                    lengths=lengths,
                )
        except AudioError:  # the analyses name it, with its reason
            continue
    return found


def telling_parts(
    utterances: Sequence[Utterance], timelines: Mapping[str, Timeline], limit: float
) -> list[Utterance]:
    """The recordings, and of those longer than `limit` the windows that tell most.

    Of each label the one that is surest of it; of attributes alone, where they are lowest and
    highest.
    """
    parts: list[Utterance] = []
    for one in utterances:
        timeline = timelines.get(one.id)
        if timeline is None or timeline.seconds <= limit:
            parts.append(one)
            continue
        for moment in sorted(_telling(timeline), key=lambda moment: moment.start):
            name = f"{one.id} {moment.start:.2f}-{moment.end:.2f}"
            # An alignment's times are the recording's, and its text is of all of it.
            bare = replace(one, id=name, text="", alignment=None)
            parts.append(replace(bare, start=moment.start, end=moment.end))
    return parts


def _telling(timeline: Timeline) -> list[Moment]:
    best: dict[str, Moment] = {}
    for moment in sorted(timeline.moments, key=lambda one: one.probability or 0.0):
        best[moment.label] = moment
    if timeline.labels:
        return list(best.values())
    ends = [
        end(timeline.moments, key=lambda one: one.attributes[name])
        for name in timeline.scales
        for end in (min, max)
    ]
    return list({moment.start: moment for moment in ends}.values())


def over_time_section(
    timelines: Mapping[str, Timeline], limit: float, *, reads: bool = False
) -> Report:
    """The curves, and their numbers as a table."""
    text = []
    rows: list[list[Cell]] = []
    for name, timeline in timelines.items():
        first = timeline.moments[0]
        what = "most probable: " if timeline.labels else ""
        text.append(
            f"{name}: {len(timeline.moments):,} windows of {first.end - first.start:.2f} s in "
            f"{clock(timeline.seconds)}, each heard by itself; {what}{timeline.summary()}."
        )
        if timeline.seconds > limit:
            text.append(
                f"{name} is longer than the {limit:g} s that are heard at once: what is explained "
                "of it are the windows that "
                + ("are surest of each label." if timeline.labels else "are lowest and highest.")
            )
        for one in timeline.moments:
            said = [*one.probabilities.values(), *one.attributes.values()]
            rows.append([name, one.start, one.end, one.label or None, one.length, *said])
    if {one.length for timeline in timelines.values() for one in timeline.moments} == {"unknown"}:
        text.append("How long the utterances trained on were is not known.")
    if reads:
        text.append("The head also reads: over time it read empty texts.")
    any_one = next(iter(timelines.values()))
    columns = ("recording", "start", "end", "label", "length", *any_one.labels, *any_one.scales)
    what = "Probabilities" if any_one.labels else "Attributes"
    table = Table("over-time", columns, rows, f"{what} over time")
    figures = [
        timeline_figure(timeline, f"over-time-{file_name(name)}")
        for name, timeline in timelines.items()
    ]
    data = {
        name: {**(timeline.shares() if timeline.labels else {}), **timeline.means()}
        for name, timeline in timelines.items()
    }
    return Report("Over time", (*text, *figures, table), data=data)
