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
from finetune.predict.timeline import Timeline, clock, timeline_figure
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
    """The recordings, and of those longer than `limit` the window that is surest of each label."""
    parts: list[Utterance] = []
    for one in utterances:
        timeline = timelines.get(one.id)
        if timeline is None or timeline.seconds <= limit:
            parts.append(one)
            continue
        best = {}
        for moment in sorted(timeline.moments, key=lambda moment: moment.probability):
            best[moment.label] = moment
        for moment in sorted(best.values(), key=lambda moment: moment.start):
            name = f"{one.id} {moment.start:.2f}-{moment.end:.2f}"
            # An alignment's times are the recording's, and its text is of all of it.
            bare = replace(one, id=name, text="", alignment=None)
            parts.append(replace(bare, start=moment.start, end=moment.end))
    return parts


def over_time_section(
    timelines: Mapping[str, Timeline], limit: float, *, reads: bool = False
) -> Report:
    """The curves, and their numbers as a table."""
    text = []
    rows: list[list[Cell]] = []
    for name, timeline in timelines.items():
        first = timeline.moments[0]
        shares = ", ".join(f"{label} {share:.0%}" for label, share in timeline.shares().items())
        text.append(
            f"{name}: {len(timeline.moments):,} windows of {first.end - first.start:.2f} s in "
            f"{clock(timeline.seconds)}, each heard by itself; most probable: {shares}."
        )
        if timeline.seconds > limit:
            text.append(
                f"{name} is longer than the {limit:g} s that are heard at once: what is explained "
                "of it are the windows that are surest of each label."
            )
        for one in timeline.moments:
            rows.append(
                [name, one.start, one.end, one.label, one.length, *one.probabilities.values()]
            )
    if {one.length for timeline in timelines.values() for one in timeline.moments} == {"unknown"}:
        text.append("How long the utterances trained on were is not known.")
    if reads:
        text.append("The head also reads: over time it read empty texts.")
    labels = next(iter(timelines.values())).labels
    columns = ("recording", "start", "end", "label", "length", *labels)
    table = Table("over-time", columns, rows, "Probabilities over time")
    figures = [
        timeline_figure(timeline, f"over-time-{file_name(name)}")
        for name, timeline in timelines.items()
    ]
    data = {name: timeline.shares() for name, timeline in timelines.items()}
    return Report("Over time", (*text, *figures, table), data=data)
