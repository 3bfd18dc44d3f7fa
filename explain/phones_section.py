"""Phones in the report: which are attended, by name and by class, and when in the phone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from corpora.alignments import Aligned, frame_intervals
from corpora.base.report import Cell, Figure, Report, Table
from explain.finding import Finding, ends_text, strength, strongest
from explain.phones import (
    MINIMUM_FRAMES,
    SILENCE,
    UNKNOWN,
    Onsets,
    Phone,
    PhoneSet,
    Ratio,
    Ratios,
    around_onsets,
    find_phone_set,
    likelihood_ratios,
)
from explain.picture import BLUE, GREY, LIGHT, RED
from explain.ragged import Ints, attended_frames, floats, ints, positions, segments
from explain.subject import Subject, frame_attention

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

SHARE = 0.5
"""Of the mass: attended is the smallest set of frames that holds it, unless the user says."""
# What aligners leave empty is silence, and so are frames outside all intervals.
NO_PHONE = ""
# More bars are too many to read; the table has all.
BARS = 40
# Named in the text: of the phones left out, and of the highest and the lowest ratios.
NAMED, TOLD = 12, 5
COLUMNS = ("name", "frames", "attended", "ratio", "95 % low", "95 % high")


def phones_section(subject: Subject, aligned: Aligned, share: float | None = SHARE) -> Report:
    """Likelihood ratios of phones and their classes, and attention around onsets.

    Args:
        subject: what is explained.
        aligned: its alignments.
        share: what "attended" means: the smallest set of frames with this share of the mass; None
            is the top frame of each utterance.
    """
    title = "Phones"
    name = subject.timed
    if not name:
        why = "This head does not listen: it has no audio frames."
        if "audio" in subject.frames:
            why = "When its audio frames are is not known: they were imported without a clock."
        return Report(title, (why,))
    labels = [p.label for a in aligned.alignments if a is not None for p in a.phones]
    if not labels:
        return Report(title, (*aligned.problems, "So nothing is known about phones."))
    phone_set = find_phone_set(labels)
    known = {label: phone_set.phone(label) for label in {*labels, NO_PHONE}}
    weights = floats(frame_attention(subject, name))
    offsets = ints(subject.frames[name].offsets)
    attended = attended_frames(weights, offsets, share)
    codes, every = phone_frames(subject, aligned, NO_PHONE)
    owners = segments(offsets)

    def ratios(name_of: Callable[[Phone], str]) -> Ratios:
        names: dict[str, int] = {}
        new = [names.setdefault(name_of(known[label]), len(names)) for label in every]
        named = np.array([*new, -1])[codes]  # -1 stays -1
        return likelihood_ratios(named, list(names), attended, owners, subject.speakers)

    picked = subject.picked
    by_phone = ratios(lambda phone: phone.name)
    text = [*aligned.problems, *_text(subject, aligned, phone_set, by_phone, share)]
    tables = [_table("phones", "Phones, the most salient first", by_phone.ratios)]
    figures = [
        _bars("phone-ratios", f"How much more often phones are {picked}", by_phone.ratios, picked)
    ]
    plain = {phone.name for phone in known.values()} | {SILENCE}
    classes = [
        r
        for name_of in (_kind, _manner, _stress)
        for r in ratios(name_of).ratios
        if r.name not in plain
    ]
    if classes:
        tables.append(_table("phone-classes", "Classes of phones", classes))
        figures.append(_bars("phone-class-ratios", "Classes of phones", classes, picked))
    hop, first = subject.step(name), float(subject.times[name][0])
    even = first + hop * positions(offsets)
    onsets = None
    if np.abs(subject.times[name] - even).max() < hop / 2:  # lags are counted in frames
        starts = [
            [] if a is None else [p.start for p in a.phones if _spoken(known[p.label])]
            for a in aligned.alignments
        ]
        onsets = around_onsets(weights, offsets, list(map(np.array, starts)), hop, first)
    measure = f"{subject.methods[name]} (1 = even)"
    if onsets is not None:
        figures.append(
            Figure(
                "phone-onsets",
                lambda canvas: _draw_onsets(canvas, onsets, measure),
                f"{subject.methods[name].capitalize()} around phone onsets",
                (7.0, 3.2),
            )
        )
        tables.append(_onset_table(onsets, measure))
    named = [("phone-classes", r) for r in classes] + [("phones", r) for r in by_phone.ratios]
    # Without intervals the first counts: of classes, which have many frames, the least even.
    named.sort(key=lambda one: (one[0] == "phones", -abs(np.log(max(one[1].ratio, 0.01)))))
    found = strongest(_finding(subject, ratio, table) for table, ratio in named)
    summary = {
        **found,
        "phone_set": phone_set.name,
        "attended": "top frame" if share is None else share,
        "ratios": {r.name: [r.ratio, r.low, r.high] for r in by_phone.ratios},
    }
    return Report(title, (*text, *figures, *tables), data=summary)


def _finding(subject: Subject, ratio: Ratio, table: str) -> Finding:
    ends = ratio.low, ratio.high
    name, occurs = f"{ratio.name.capitalize()} are", "they occur"
    if table == "phones" or ratio.name in (SILENCE, UNKNOWN):
        one = f"The phone {ratio.name}" if table == "phones" else ratio.name.capitalize()
        name, occurs = f"{one} is", "it occurs"
    text = f"{name} {subject.picked} {ratio.ratio:.1f} times as often as {occurs}{ends_text(ends)}."
    return Finding(text, table, strength(ratio.ratio, ends, 1.0))


def _kind(phone: Phone) -> str:
    return f"{phone.kind}s" if phone.kind else phone.name


def _manner(phone: Phone) -> str:
    return f"{phone.manner}s" if phone.manner else phone.name


def _stress(phone: Phone) -> str:
    return f"vowels, {phone.stress}" if phone.stress else phone.name


def _spoken(phone: Phone) -> bool:
    return phone.name not in (SILENCE, UNKNOWN)


def _text(
    subject: Subject, aligned: Aligned, phone_set: PhoneSet, found: Ratios, share: float | None
) -> list[str]:
    if share is None:
        meant = "the top frame of each utterance"
    else:
        meant = (
            f"the smallest set of frames that holds {share:.0%} of an utterance's "
            f"{subject.methods[subject.timed]}"
        )
    picked = subject.picked
    lines = [
        f"{aligned.count:,} of {len(subject):,} utterances have an alignment. "
        f"{picked.capitalize()}: {meant}. The ratio is P(phone | {picked}) / P(phone), both "
        f"counted in frames, silence included: above 1 a phone is {picked} more often than it "
        "occurs.",
        f"Phone set: {phone_set.name}."
        if phone_set.name
        else "The phone labels belong to no set that is known here (ARPAbet, IPA, SAMPA as in "
        "EMO-DB), so there are no classes.",
    ]
    if found.note:
        lines.append(f"Intervals over speakers: {found.note}.")
    told = [f"{r.name} {r.ratio:.2f}" for r in found.ratios]
    if len(told) > 2 * TOLD:
        highest, lowest = ", ".join(told[:TOLD]), ", ".join(told[-TOLD:])
        lines.append(f"Highest ratios: {highest}. Lowest: {lowest}.")
    elif told:
        lines.append(f"Ratios: {', '.join(told)}.")
    if found.rare:
        named = ", ".join(found.rare[:NAMED])
        more = f" and {len(found.rare) - NAMED} more" if len(found.rare) > NAMED else ""
        lines.append(f"Left out, with fewer than {MINIMUM_FRAMES} frames: {named}{more}.")
    return lines


def _table(name: str, title: str, ratios: Sequence[Ratio]) -> Table:
    rows: list[list[Cell]] = [
        [r.name, r.frames, r.attended, r.ratio, r.low, r.high] for r in ratios
    ]
    return Table(name, COLUMNS, rows, title, 2)


def _bars(name: str, title: str, ratios: Sequence[Ratio], picked: str) -> Figure:
    shown = list(ratios)
    if len(shown) > BARS:
        shown = [*shown[: BARS // 2], *shown[-(BARS // 2) :]]
        title += f" ({BARS // 2} highest and lowest)"
    height = 0.9 + 0.19 * len(shown)
    return Figure(name, lambda canvas: _draw_ratios(canvas, shown, picked), title, (7.0, height))


def _draw_ratios(canvas: Canvas, ratios: Sequence[Ratio], picked: str) -> None:
    axes = canvas.add_subplot()
    rows = np.arange(len(ratios))
    values = np.array([r.ratio for r in ratios])
    for row, r in enumerate(ratios):
        if r.low is not None and r.high is not None:
            axes.plot([r.low, r.high], [row, row], color=LIGHT, lw=4, solid_capstyle="butt")
    axes.plot(values, rows, "o", color=BLUE, ms=4)
    axes.axvline(1, color=GREY, lw=0.8, ls="--")
    axes.set_yticks(rows, [f"{r.name}  ({r.frames:,})" for r in ratios])
    axes.set_ylim(len(ratios) - 0.5, -0.5)
    band = "; bar: 95 % over speakers" if any(r.low is not None for r in ratios) else ""
    axes.set(xlabel=f"P(phone | {picked}) / P(phone){band}; in brackets: frames")


def _onset_table(onsets: Onsets, measure: str) -> Table:
    rows: list[list[Cell]] = [
        [round(1000 * float(lag)), float(o), float(low), float(high)]
        for lag, o, low, high in zip(
            onsets.lags, onsets.observed, onsets.low, onsets.high, strict=True
        )
    ]
    columns = ("ms from the onset", measure, "shifted 2.5 %", "shifted 97.5 %")
    return Table("phone-onsets", columns, rows, f"Around {onsets.count:,} phone onsets")


def _draw_onsets(canvas: Canvas, onsets: Onsets, measure: str) -> None:
    axes = canvas.add_subplot()
    lags = 1000 * onsets.lags
    axes.fill_between(
        lags, onsets.low, onsets.high, color=LIGHT, label="shifted onsets (95 % of draws)"
    )
    axes.plot(lags, onsets.observed, "o-", color=BLUE, ms=3, label="phone onsets")
    axes.axvline(0, color=RED, lw=0.8)
    axes.set(
        xlabel="ms from the onset",
        ylabel=measure,
        title=f"Mean over {onsets.count:,} onsets",
    )
    canvas.legend(loc="outside lower center", ncols=2)


def phone_frames(subject: Subject, aligned: Aligned, silence: str) -> tuple[Ints, list[str]]:
    """The phone of every frame of the aligned utterances.

    Args:
        subject: whose frames have times; those of `subject.timed` are looked at.
        aligned: its alignments.
        silence: the label of frames in no phone.

    Returns:
        `[N]` numbers into the labels, -1 in utterances without phones; and the labels, silence
        first.
    """
    numbers: dict[str, int] = {silence: 0}
    codes: list[Ints] = []
    ends = ints(subject.frames[subject.timed].offsets)[1:-1]
    times = np.split(subject.times[subject.timed], ends)
    for alignment, own in zip(aligned.alignments, times, strict=True):
        if alignment is None or not alignment.phones:
            codes.append(np.full(len(own), -1, dtype=np.int64))
            continue
        phones = alignment.phones
        held = frame_intervals(phones, own)
        coded = np.array([numbers.setdefault(p.label, len(numbers)) for p in phones] + [0])
        codes.append(coded[held])  # -1 takes the last, silence
    return np.concatenate(codes), list(numbers)
