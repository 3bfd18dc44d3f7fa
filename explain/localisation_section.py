"""Localisation in the report: curves, correlations, places and lengths."""

from __future__ import annotations

import numpy as np

from corpora.base.report import Cell, Figure, Section, Table
from explain.localisation import (
    HELD,
    PLACES,
    PUBLISHED_ENERGY,
    PUBLISHED_SHARE,
    Concentration,
    Correlation,
    concentration,
    places,
    with_energy,
    with_speech,
)
from explain.localisation_figures import draw_curves, draw_lengths, draw_places
from explain.ragged import Floats, floats, ints
from explain.subject import Subject, frame_attention

SHARE_COLUMNS = (
    "modality", "class", "utterances",
    "share of frames (mean curve)", "share of frames (mean)", "deviation", "Gini (mean)",
)  # fmt: skip
CORRELATION_COLUMNS = (
    "Pearson mean", "Pearson deviation", "Spearman mean",
    "Spearman deviation", "utterances", "undefined",
)  # fmt: skip


def localisation_section(subject: Subject) -> Section:
    """All of it, for each modality the head reads."""
    found = {
        name: concentration(floats(frame_attention(subject, name)), ints(batch.offsets))
        for name, batch in subject.frames.items()
    }
    text = [_sentence(name, subject.methods[name], c) for name, c in found.items()]
    tables = [_share_table(subject, found)]
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
            f"Share of {subject.weighing} held by the most attended frames",
            (7.0, 4.2),
        )
    ]
    related = {"energy (dB)": with_energy(subject), "speech probability": with_speech(subject)}
    rows = [_correlation_row(name, c) for name, c in related.items() if c is not None]
    if rows:
        tables.append(
            Table(
                "correlations",
                (f"audio {subject.methods['audio']} with", *CORRELATION_COLUMNS),
                rows,
                "Correlation over the frames of an utterance",
                2,
            )
        )
        text += [
            _correlation_text(subject.methods["audio"], name, c)
            for name, c in related.items()
            if c is not None
        ]
        mean, spread = PUBLISHED_ENERGY
        text.append(
            f"Published for energy: {mean:.2f} ± {spread:.2f} (Leygue et al. 2025, AS head; which "
            "coefficient and which scale of energy are not stated)."
        )
    for name, c in related.items():
        if c is None and "audio" in subject.frames:
            text.append(f"Correlation with {name}: not extracted, so not known.")
        elif c is not None and c.undefined:
            text.append(
                f"Correlation with {name}: undefined in {c.undefined:,} of {len(subject):,} "
                "utterances (one frame, or one of the two does not vary), which are left out."
            )
    spots = places(subject)
    if spots is not None:
        text += _places_text(len(subject), len(spots.rows))
        if len(spots.rows):
            mean_frames, mean_mass = spots.frames.mean(axis=0), spots.attention.mean(axis=0)
            method = subject.methods["audio"]
            tables.append(_places_table(mean_frames, mean_mass, method))
            figures.append(
                Figure(
                    "places",
                    lambda canvas: draw_places(canvas, mean_frames, mean_mass, method),
                    f"{method.capitalize()} on speech, pauses and edges",
                    (7.0, 2.4),
                )
            )
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
    return Section("Localisation", tuple(text), tuple(tables), tuple(figures), summary)


def _sentence(name: str, method: str, c: Concentration) -> str:
    what = "frames" if name == "audio" else "tokens"
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


def _correlation_text(method: str, name: str, c: Correlation) -> str:
    kept = ~np.isnan(c.pearson)
    if not kept.any():
        return f"Correlation of {method} on audio with {name}: undefined in all utterances."
    pearson, spearman = c.pearson[kept], c.spearman[kept]
    return (
        f"Correlation of {method} on audio with {name}, over the frames of an utterance: Pearson "
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


def _places_table(frames: Floats, attention: Floats, method: str) -> Table:
    rows: list[list[Cell]] = [
        [name, float(f), float(a), float(a / f) if f else None]
        for name, f, a in zip(PLACES, frames, attention, strict=True)
    ]
    columns = ("place", "share of frames", f"share of {method}", "ratio")
    return Table("places", columns, rows, f"Where audio {method} lies (means over utterances)")
