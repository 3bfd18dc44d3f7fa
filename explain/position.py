"""When in an utterance attention lies: early, in the middle, or late.

Attention that leans to the end of everything says little of one utterance's words and phones, for
those at its end get it whatever they are.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from corpora.base.report import Cell, Figure, Report, Table
from explain.finding import Finding, ends_text, strength
from explain.picture import BY_MODALITY, GREY
from explain.ragged import Floats, Mean, floats, ints, running_shares, speaker_means
from explain.subject import Subject, frame_attention

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

PARTS = ("first", "second", "third", "fourth", "last")
EVEN = 1 / len(PARTS)
TABLE = "position"


def position_part(subject: Subject) -> tuple[Report, list[Finding]]:
    """Shares of attention by fifths of the utterance, and for each modality the one with most."""
    rows: list[list[Cell]] = []
    findings, means = [], {}
    for name, batch in subject.frames.items():
        edges = np.linspace(0.0, 1.0, len(PARTS) + 1)
        held = running_shares(floats(frame_attention(subject, name)), ints(batch.offsets), edges)
        means[name] = speaker_means(np.diff(held, axis=1), subject.speakers)
        rows += [
            [name, part, one.value, one.low, one.high]
            for part, one in zip(PARTS, means[name], strict=True)
        ]
        number = max(range(len(PARTS)), key=lambda k: means[name][k].value)
        findings.append(_finding(name, subject.methods[name], PARTS[number], means[name][number]))
    columns = ("modality", "fifth", f"share of {subject.weighing}", "95 % low", "95 % high")
    title = f"{subject.weighing.capitalize()} by fifths of the utterance (even: {EVEN:.2f})"
    text = [
        f"{one.text} What lies there is weighed more whatever it is: words and phones included."
        for one in findings
    ]
    figure = Figure(TABLE, partial(_draw, means, subject.weighing), title, (7.0, 2.6))
    return Report("", (*text, figure, Table(TABLE, columns, rows, title))), findings


def _finding(modality: str, method: str, part: str, mean: Mean) -> Finding:
    ends = mean.low, mean.high
    text = (
        f"The {part} fifth of an utterance holds {mean.value:.0%}{ends_text(ends)} of its {method} "
        f"on {modality}, where even weights hold {EVEN:.0%}."
    )
    return Finding(text, TABLE, strength(mean.value, ends, EVEN))


def _draw(means: dict[str, list[Mean]], method: str, canvas: Canvas) -> None:
    axes = canvas.add_subplot()
    at = np.arange(len(PARTS))
    for name, own in means.items():
        values: Floats = np.array([one.value for one in own])
        axes.plot(at, 100 * values, "o-", color=BY_MODALITY[name], label=name)
        for place, one in zip(at, own, strict=True):
            if one.low is not None and one.high is not None:
                axes.vlines(place, 100 * one.low, 100 * one.high, color=BY_MODALITY[name])
    axes.axhline(100 * EVEN, color=GREY, ls=":", label="even")
    axes.set_xticks(at, [f"{part} fifth" for part in PARTS])
    axes.set(ylabel=f"{method} (%)", ylim=(0, None))
    canvas.legend(loc="outside right center")
