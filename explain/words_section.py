"""Words in the report: special tokens, words ranked by attention, informativeness."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from corpora.base.report import Cell, Figure, Section, Table
from explain.alignments import Aligned
from explain.attention import read_texts, special_mass
from explain.style import BY_MODALITY, GREY
from explain.subject import Subject
from explain.words import (
    MINIMUM_OCCURRENCES,
    MINIMUM_WORDS,
    Attended,
    Ranked,
    heard_words,
    informativeness,
    rank_words,
    read_words,
    surprisals,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

# A corpus of fewer different texts cannot tell how common a word is.
FEW_TEXTS = 100
SHOWN = 12
# Words named in the text.
TOLD = 5


def words_section(subject: Subject, aligned: Aligned, texts: Iterable[str]) -> Section:
    """Attention on words in sound and in text.

    Args:
        subject: what is explained.
        aligned: its alignments, for words in sound.
        texts: of all utterances of the corpus, which tell how common words are.
    """
    said = list(texts)
    surprisal = surprisals(said)
    text: list[str] = []
    occurrences: dict[str, list[Attended]] = {}
    if "audio" in subject.frames:
        heard = heard_words(subject, aligned)
        if heard:
            occurrences["audio"] = heard
        else:
            text += [*aligned.problems, "So nothing is known about words in sound."]
    summary: dict[str, object] = {}
    if "text" in subject.frames:
        readings = read_texts(subject)
        if readings is None:
            text.append(
                "Which text tokens are words is not in the cache, so words in text are left out."
            )
        else:
            occurrences["text"] = read_words(readings)
            mass = special_mass(readings)
            summary["special_token_mass"] = float(mass.mean())
            text.append(
                f"Special tokens such as [CLS] and [SEP] hold {mass.mean():.0%} (± {mass.std():.0%}"
                " over utterances) of the mass on text; words below are compared with one another."
            )
    rows: list[list[Cell]] = []
    ranked: dict[str, list[Ranked]] = {}
    for name, own in occurrences.items():
        ranked[name] = rank_words(own, surprisal)
        rows += [[name, r.word, r.count, r.relative, r.surprisal] for r in ranked[name]]
        if ranked[name]:
            top = ", ".join(f"{r.word} {r.relative:.2f}" for r in ranked[name][:TOLD])
            text.append(f"Most attended in {name} (1 = even): {top}.")
        else:
            text.append(f"No word occurs {MINIMUM_OCCURRENCES} times in {name}: no ranking.")
    tables, figures = [], []
    shown = {name: found for name, found in ranked.items() if found}
    if shown:
        title = f"Words with at least {MINIMUM_OCCURRENCES} occurrences, the most attended first"
        measure = f"{subject.weighing} (1 = even)"
        columns = ("modality", "word", "occurrences", measure, "surprisal (bits)")
        tables.append(Table("words", columns, rows, title, 2))
        size = (7.0, 1.0 + 0.19 * min(2 * SHOWN, max(len(f) for f in shown.values())))
        caption = f"Words by {subject.weighing}; in brackets: occurrences"
        figures.append(Figure("words", lambda canvas: _draw(canvas, shown, measure), caption, size))
    found = _informativeness(occurrences, surprisal, len({*said} - {""}), subject.weighing)
    text += found.text
    tables += found.tables
    return Section(
        "Words", tuple(text), tuple(tables), tuple(figures), {**summary, **found.summary}
    )


def _informativeness(
    occurrences: dict[str, list[Attended]],
    surprisal: dict[str, float],
    distinct: int,
    method: str,
) -> Section:
    """Correlation with surprisal, as a part of the section."""
    rows: list[list[Cell]] = []
    text: list[str] = []
    summary = {}
    for name, own in occurrences.items():
        found = informativeness(own, surprisal)
        if not len(found.pearson):
            text.append(
                f"Informativeness of words in {name}: no utterance has {MINIMUM_WORDS} words that "
                f"differ in surprisal and {method}."
            )
            continue
        summary[f"{name}_surprisal_spearman"] = float(found.spearman.mean())
        means = [f(own) for own in (found.pearson, found.spearman) for f in (np.mean, np.std)]
        rows.append([name, *map(float, means), len(found.pearson)])
    if not rows:
        return Section("", tuple(text), (), (), summary)
    text.append(
        f"Surprisal is −log2 of a word's share in the corpus's own {distinct:,} different texts. "
        f"{method.capitalize()} is relative to a word's frames or tokens, for informative words "
        "are long."
    )
    if distinct < FEW_TEXTS:
        text.append(
            f"With {distinct} different texts surprisal hardly tells common words from rare ones: "
            "read this correlation as a check of the method alone."
        )
    columns = (f"{method} in", "Pearson mean", "deviation", "Spearman mean", "deviation ")
    table = Table(
        "word-informativeness",
        (*columns, "utterances"),
        rows,
        f"Correlation of {method} on words with surprisal, within utterances",
        2,
    )
    return Section("", tuple(text), (table,), (), summary)


def _draw(canvas: Canvas, ranked: dict[str, list[Ranked]], measure: str) -> None:
    every = canvas.subplots(1, len(ranked), squeeze=False)[0]
    for axes, (name, words) in zip(every, ranked.items(), strict=True):
        shown = _ends(words)
        rows = np.arange(len(shown))
        axes.barh(rows, [r.relative for r in shown], color=BY_MODALITY[name])
        axes.set_yticks(rows, [f"{r.word}  ({r.count})" for r in shown])
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.axvline(1, color=GREY, lw=0.8, ls="--")
        more = f", {SHOWN} highest and lowest" if len(words) > len(shown) else ""
        axes.set(xlabel=measure, title=f"in {name}{more}")


def _ends(words: Sequence[Ranked]) -> list[Ranked]:
    return list(words) if len(words) <= 2 * SHOWN else [*words[:SHOWN], *words[-SHOWN:]]
