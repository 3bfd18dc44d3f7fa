"""Localisation in the report: curves, correlations with energy and speech, places, lengths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from corpora.base.report import Cell, Figure, Report, Table
from explain.finding import Finding, strength, strongest
from explain.localisation import (
    BAND,
    HELD,
    PLACES,
    POINTS,
    Concentration,
    Correlation,
    concentration,
    places,
    with_energy,
    with_speech,
)
from explain.picture import BLUE, BY_MODALITY, GREY, ORANGE, RED
from explain.position import position_part
from explain.ragged import Floats, floats, ints, speaker_means
from explain.subject import Subject, frame_attention

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

PUBLISHED_SHARE, PUBLISHED_ENERGY = 0.15, (0.20, 0.13)
"""Leygue et al., Interspeech 2025, AS head."""
MOST_BARS = 40


def draw_curves(canvas: Canvas, found: Mapping[str, Concentration], method: str) -> None:
    """Cumulative attention of each modality, or what stands for it; with a band over utterances."""
    axes = canvas.add_subplot()
    for name, c in found.items():
        colour = BY_MODALITY[name]
        low, high = np.percentile(c.curves, BAND, axis=0)
        axes.fill_between(100 * POINTS, 100 * low, 100 * high, color=colour, alpha=0.15, lw=0)
        share = c.of_mean_curve()
        label = f"{name}: {share:.0%} hold {HELD:.0%} (mean curve)"
        axes.plot(100 * POINTS, 100 * c.curves.mean(axis=0), color=colour, label=label)
        axes.plot([100 * share], [100 * HELD], "o", color=colour)
    axes.plot([100 * PUBLISHED_SHARE], [100 * HELD], "X", color=RED, ms=9)
    axes.annotate(
        "published (audio, AS): 15 %",
        (100 * PUBLISHED_SHARE, 100 * HELD),
        (100 * PUBLISHED_SHARE + 2, 100 * HELD + 8),
        color=RED,
    )
    axes.plot([0, 100], [0, 100], ":", color=GREY, label=f"even {method}")
    axes.axhline(100 * HELD, color=GREY, lw=0.6, ls="--")
    axes.set(
        xlabel=f"frames, those with most {method} first (%)",
        ylabel=f"{method} held (%)",
        xlim=(0, 100),
        ylim=(0, 102),
        title=f"Cumulative {method}; band: {BAND[0]:g}th to {BAND[1]:g}th percentile",
    )
    canvas.legend(loc="outside lower center", ncols=2)


def draw_places(canvas: Canvas, frames: Floats, attention: Floats, method: str) -> None:
    """Shares of frames and of attention, `[3]` each, on speech, pauses and edges."""
    axes = canvas.add_subplot()
    height = np.arange(len(PLACES))
    axes.barh(height + 0.2, 100 * frames, 0.38, color=GREY, label="of frames")
    axes.barh(height - 0.2, 100 * attention, 0.38, color=BLUE, label=f"of {method}")
    axes.set_yticks(height, PLACES)
    axes.invert_yaxis()
    axes.set(xlabel="share (%)", xlim=(0, 100))
    canvas.legend(loc="outside right center")


def draw_lengths(canvas: Canvas, found: Mapping[str, Concentration]) -> None:
    """How many frames utterances have, for each modality."""
    every = canvas.subplots(1, len(found), squeeze=False)[0]
    for axes, (name, c) in zip(every, found.items(), strict=True):
        low, high = int(c.counts.min()), int(c.counts.max())
        # Whole numbers to a bar, all bars alike.
        step = -(-(high - low + 1) // MOST_BARS)
        axes.hist(c.counts, np.arange(low, high + step + 1, step) - 0.5, color=BY_MODALITY[name])
        middle = float(np.median(c.counts))
        axes.axvline(middle, color=BLUE if name == "text" else ORANGE, lw=1.5)
        what = "text tokens" if name == "text" else f"{name} frames"
        axes.set(xlabel=f"{what} per utterance (line: median {middle:g})", ylabel="utterances")


SHARE_COLUMNS = (
    "modality", "class", "utterances",
    "share of frames (mean curve)", "share of frames (mean)", "deviation", "Gini (mean)",
)  # fmt: skip


CORRELATION_COLUMNS = (
    "Pearson mean", "Pearson deviation", "Spearman mean",
    "Spearman deviation", "utterances", "undefined",
)  # fmt: skip


def localisation_section(subject: Subject) -> Report:
    """All of it, for each modality the head reads."""
    found = {
        name: concentration(floats(frame_attention(subject, name)), ints(batch.offsets))
        for name, batch in subject.frames.items()
    }
    text = [_sentence(name, subject.methods[name], c) for name, c in found.items()]
    position, findings = position_part(subject)
    text += position.text
    tables = [_share_table(subject, found), *position.tables]
    by_column = _column_table(subject)
    if by_column is not None:
        tables.append(by_column)
        text.append(
            "These are the mean weights over queries and heads, which spread wider than any one of "
            "them; the table by column has each."
        )
    figures = [
        Figure(
            "cumulative",
            lambda canvas: draw_curves(canvas, found, subject.weighing),
            f"Share of {subject.weighing} held by the frames with most of it",
            (7.0, 4.2),
        ),
        *position.figures,
    ]
    for name in subject.frames:
        if name != "text":
            own = _beside_sound(subject, name)
            text += [line for line in own.text if line not in text]
            tables += own.tables
            figures += own.figures
    figures.append(
        Figure(
            "frames-per-item",
            lambda canvas: draw_lengths(canvas, found),
            "Frames per utterance",
            (7.0, 3.0),
        )
    )
    summary = {
        name: {
            "share_of_mean_curve": c.of_mean_curve(),
            "mean_share": float(c.shares.mean()),
            "gini": float(c.gini.mean()),
        }
        for name, c in found.items()
    }
    findings += [_finding(subject, name, c) for name, c in found.items()]
    data = {**summary, **strongest(findings)}
    return Report("Localisation", (*text, *figures, *tables), data=data)


def _finding(subject: Subject, modality: str, c: Concentration) -> Finding:
    """Whether what frames are weighed by is narrow or even."""
    [mean] = speaker_means(c.shares[:, None], subject.speakers)
    what = "tokens" if modality == "text" else f"{modality} frames"
    even = "nearly even" if mean.value > HELD - 0.15 else "uneven"
    even = "narrow" if mean.value < HELD / 2 else even
    text = (
        f"Its {subject.methods[modality]} is {even}: {mean.value:.0%} of the {what} hold "
        f"{HELD:.0%} of it, where even weights need {HELD:.0%}."
    )
    return Finding(text, "localisation", strength(mean.value, (mean.low, mean.high), HELD))


def _beside_sound(subject: Subject, modality: str) -> Report:
    """Attention on frames in time beside what else is known of these, as a part of the section."""
    method = subject.methods[modality]
    # Files of tables and figures are called by what they hold, and audio's by nothing else.
    suffix = "" if modality == "audio" else f"-{modality}"
    related = {"speech probability": with_speech(subject, modality)}
    if modality == "audio":
        related = {"energy (dB)": with_energy(subject), **related}
    text: list[str] = []
    tables: list[Table] = []
    figures: list[Figure] = []
    rows = [_correlation_row(name, c) for name, c in related.items() if c is not None]
    if rows:
        tables.append(
            Table(
                f"correlations{suffix}",
                (f"{modality} {method} with", *CORRELATION_COLUMNS),
                rows,
                "Correlation over the frames of an utterance",
                2,
            )
        )
        text += [
            _correlation_text(f"{method} on {modality}", name, c)
            for name, c in related.items()
            if c is not None
        ]
        if modality == "audio":
            mean, spread = PUBLISHED_ENERGY
            text.append(
                f"Published for energy: {mean:.2f} ± {spread:.2f} (Leygue et al. 2025, AS head; "
                "which coefficient and which scale of energy are not stated)."
            )
    for name, c in related.items():
        if c is None:
            text.append(f"Correlation with {name}: not extracted, so not known.")
        elif c.undefined:
            text.append(
                f"Correlation with {name}: undefined in {c.undefined:,} of {len(subject):,} "
                "utterances (one frame, or one of the two does not vary), which are left out."
            )
    spots = places(subject, modality)
    if spots is not None:
        text += _places_text(len(subject), len(spots.rows))
        if len(spots.rows):
            shares, mass = spots.frames.mean(axis=0), spots.attention.mean(axis=0)
            title = f"Where {modality} {method} lies (means over utterances)"
            tables.append(_places_table(f"places{suffix}", shares, mass, method, title))
            figures.append(
                Figure(
                    f"places{suffix}",
                    lambda canvas: draw_places(canvas, shares, mass, method),
                    f"{method.capitalize()} on speech, pauses and edges",
                    (7.0, 2.4),
                )
            )
    return Report("", (*text, *figures, *tables))


def _sentence(name: str, method: str, c: Concentration) -> str:
    what = "tokens" if name == "text" else "frames"
    published = f" Published: {PUBLISHED_SHARE:.0%} (Leygue et al. 2025, AS head)."
    return (
        f"{name.capitalize()} ({method}): {c.of_mean_curve():.0%} of the {what} hold {HELD:.0%} of "
        f"the mass on the mean curve; as the mean over utterances it is {c.shares.mean():.0%} "
        f"(± {c.shares.std():.0%}; even weights: 80%).{published if name == 'audio' else ''}"
    )


def _column_table(subject: Subject) -> Table | None:
    """Each query and head by itself: their mean is wider than any of them."""
    rows: list[list[Cell]] = []
    for name, weights in subject.weights.items():
        offsets = ints(subject.frames[name].offsets)
        if weights.shape[1] > 1:
            for column in range(weights.shape[1]):
                c = concentration(floats(weights[:, column]), offsets)
                rows.append([name, column + 1, c.of_mean_curve(), float(c.gini.mean())])
    if not rows:
        return None
    columns = ("modality", "column", "share of frames (mean curve)", "Gini (mean)")
    title = "The same for each query and head (query by query, its heads in order)"
    return Table("localisation-columns", columns, rows, title)


def _share_table(subject: Subject, found: dict[str, Concentration]) -> Table:
    """By modality and class; unlabelled utterances count in `all` alone."""
    targets = subject.targets.numpy()
    rows: list[list[Cell]] = []
    for name, c in found.items():
        groups = {"all": np.ones(len(targets), dtype=np.bool_)}
        groups |= {label: targets == number for number, label in enumerate(subject.labels)}
        for label, chosen in groups.items():
            count = int(chosen.sum())
            values: list[Cell] = [None, None, None, None]
            if count:
                mean = float(c.shares[chosen].mean())
                deviation = float(c.shares[chosen].std())
                gini = float(c.gini[chosen].mean())
                values = [c.of_mean_curve(chosen), mean, deviation, gini]
            rows.append([name, label, count, *values])
    title = f"Share of frames that holds {HELD:.0%} of the {subject.weighing}"
    return Table("localisation", SHARE_COLUMNS, rows, title)


def _correlation_text(what: str, name: str, c: Correlation) -> str:
    kept = ~np.isnan(c.pearson)
    if not kept.any():
        return f"Correlation of {what} with {name}: undefined in all utterances."
    pearson, spearman = c.pearson[kept], c.spearman[kept]
    return (
        f"Correlation of {what} with {name}, over the frames of an utterance: Pearson "
        f"{pearson.mean():.2f} ± {pearson.std():.2f}, Spearman {spearman.mean():.2f} ± "
        f"{spearman.std():.2f} (mean ± deviation over utterances)."
    )


def _correlation_row(name: str, c: Correlation) -> list[Cell]:
    kept = ~np.isnan(c.pearson)
    if not kept.any():
        return [name, None, None, None, None, 0, c.undefined]
    pearson, spearman = c.pearson[kept], c.spearman[kept]
    values = (pearson.mean(), pearson.std(), spearman.mean(), spearman.std())
    return [name, *(float(v) for v in values), int(kept.sum()), c.undefined]


def _places_text(utterances: int, spoken: int) -> list[str]:
    lines = [
        "Edges are the frames before the first and after the last one that the voice activity "
        "detector calls speech; pauses lie between."
    ]
    if spoken < utterances:
        lines.append(
            f"The detector finds no speech in {utterances - spoken:,} of {utterances:,} "
            "utterances, which are left out of the places."
        )
    return lines


def _places_table(file: str, frames: Floats, attention: Floats, method: str, title: str) -> Table:
    rows: list[list[Cell]] = [
        [name, float(f), float(a), float(a / f) if f else None]
        for name, f, a in zip(PLACES, frames, attention, strict=True)
    ]
    columns = ("place", "share of frames", f"share of {method}", "ratio")
    return Table(file, columns, rows, title)
