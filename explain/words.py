"""Which words are attended, in sound and in text, and whether they are the informative ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cache.keys import normalise_text
from corpora.alignments import Aligned, frame_intervals, plain
from corpora.base.report import Cell, Figure, Report, Table
from explain.picture import BY_MODALITY, GREY
from explain.ragged import Floats, correlations, floats, ints, ranks_within
from explain.subject import Reading, Subject, frame_attention, read_texts, special_mass

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas


# A word that occurs less often says more about its utterances than about itself.
MINIMUM_OCCURRENCES = 3
# Of fewer words in an utterance a correlation is a matter of chance.
MINIMUM_WORDS = 3


@dataclass(frozen=True)
class Attended:
    """An occurrence of a word.

    Attributes:
        utterance: its number.
        word: in lower case, without punctuation around it.
        mass: of attention.
        even: what an even attention would give it, from its frames or tokens.
    """

    utterance: int
    word: str
    mass: float
    even: float


@dataclass(frozen=True)
class Ranked:
    """A word over all its occurrences.

    Attributes:
        word: in lower case.
        count: occurrences.
        relative: attention received over what an even attention would have given.
        surprisal: bits; None for a word that the corpus's texts have not.
    """

    word: str
    count: int
    relative: float
    surprisal: float | None


@dataclass(frozen=True, eq=False)
class Informativeness:
    """Correlation within utterances of a word's attention with its surprisal.

    Attributes:
        pearson: `[m]`, of the utterances that have one.
        spearman: `[m]`.
    """

    pearson: Floats
    spearman: Floats


def surprisals(texts: Iterable[str]) -> dict[str, float]:
    """−log2 of each word's share in the words of a corpus."""
    counts = Counter(
        word for text in texts for word in map(plain, normalise_text(text).split()) if word
    )
    total = sum(counts.values())
    return {word: float(-np.log2(count / total)) for word, count in counts.items()}


def heard_words(subject: Subject, aligned: Aligned, modality: str) -> list[Attended]:
    """Attention of frames that have times on the words of the TextGrids."""
    weights, times = floats(frame_attention(subject, modality)), subject.times[modality]
    offsets = ints(subject.frames[modality].offsets)
    found = []
    for number, alignment in enumerate(aligned.alignments):
        if alignment is None or not alignment.words:
            continue
        here = slice(offsets[number], offsets[number + 1])
        own = weights[here]
        held = frame_intervals(alignment.words, times[here])
        inside = held >= 0
        size = len(alignment.words)
        mass = np.bincount(held[inside], own[inside], size)
        frames = np.bincount(held[inside], minlength=size)
        for interval, m, f in zip(alignment.words, mass, frames, strict=True):
            word = plain(interval.label)
            if word and f:
                found.append(Attended(number, word, float(m), float(f / len(own))))
    return found


def read_words(readings: Sequence[Reading]) -> list[Attended]:
    """Attention of text tokens on words, among the tokens that are words."""
    found = []
    for number, reading in enumerate(readings):
        tokens = sum(len(word.tokens) for word in reading.words)
        total = sum(word.mass for word in reading.words)
        for word in reading.words:
            name = plain(word.text)
            if name and total > 0:
                found.append(Attended(number, name, word.mass / total, len(word.tokens) / tokens))
    return found


def rank_words(
    occurrences: Sequence[Attended],
    surprisal: Mapping[str, float],
    minimum: int = MINIMUM_OCCURRENCES,
) -> list[Ranked]:
    """Words with enough occurrences, the most attended first."""
    grouped: dict[str, list[Attended]] = {}
    for one in occurrences:
        grouped.setdefault(one.word, []).append(one)
    ranked = [
        Ranked(
            word,
            len(own),
            sum(one.mass for one in own) / sum(one.even for one in own),
            surprisal.get(word),
        )
        for word, own in grouped.items()
        if len(own) >= minimum
    ]
    return sorted(ranked, key=lambda r: (-r.relative, r.word))


def informativeness(
    occurrences: Sequence[Attended], surprisal: Mapping[str, float]
) -> Informativeness:
    """Correlate words' relative attention with their surprisal, within utterances.

    Relative to a word's frames or tokens: informative words are long, and long words get more of
    any attention.
    """
    by_utterance: dict[int, list[tuple[float, float]]] = {}
    for one in occurrences:
        if one.word in surprisal:
            pair = (one.mass / one.even, surprisal[one.word])
            by_utterance.setdefault(one.utterance, []).append(pair)
    kept = [pairs for pairs in by_utterance.values() if len(pairs) >= MINIMUM_WORDS]
    if not kept:
        return Informativeness(np.zeros(0), np.zeros(0))
    attended, bits = np.array([pair for pairs in kept for pair in pairs]).T
    offsets = np.cumsum([0, *(len(pairs) for pairs in kept)])
    pearson = correlations(attended, bits, offsets)
    ranks = ranks_within(attended, offsets), ranks_within(bits, offsets)
    spearman = correlations(ranks[0], ranks[1], offsets)
    there = ~np.isnan(pearson)
    return Informativeness(pearson[there], spearman[there])


# A corpus of fewer different texts cannot tell how common a word is.
FEW_TEXTS = 100
SHOWN = 12
# Words named in the text.
TOLD = 5


def words_section(subject: Subject, aligned: Aligned, texts: Iterable[str]) -> Report:
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
    for name in subject.times:
        heard = heard_words(subject, aligned, name)
        if heard:
            occurrences[name] = heard
    if subject.times and not occurrences:
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
            text.append(f"Most {subject.picked} in {name} (1 = even): {top}.")
        else:
            text.append(f"No word occurs {MINIMUM_OCCURRENCES} times in {name}: no ranking.")
    tables, figures = [], []
    shown = {name: found for name, found in ranked.items() if found}
    if shown:
        least = f"Words with at least {MINIMUM_OCCURRENCES} occurrences"
        title = f"{least}, the most {subject.picked} first"
        measure = f"{subject.weighing} (1 = even)"
        columns = ("modality", "word", "occurrences", measure, "surprisal (bits)")
        tables.append(Table("words", columns, rows, title, 2))
        size = (7.0, 1.0 + 0.19 * min(2 * SHOWN, max(len(f) for f in shown.values())))
        caption = f"Words by {subject.weighing}; in brackets: occurrences"
        figures.append(Figure("words", lambda canvas: _draw(canvas, shown, measure), caption, size))
    found = _informativeness(occurrences, surprisal, len({*said} - {""}), subject.weighing)
    text += found.text
    tables += found.tables
    return Report("Words", (*text, *figures, *tables), data={**summary, **found.data})


def _informativeness(
    occurrences: dict[str, list[Attended]],
    surprisal: dict[str, float],
    distinct: int,
    method: str,
) -> Report:
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
        return Report("", text, data=summary)
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
    return Report("", (*text, table), data=summary)


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
