"""Which analyses the report holds, in its order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cache.lookup import FrameCache
from corpora.alignments import Aligned, plain
from corpora.base.report import Cell, Figure, Report, Table
from corpora.manifest import Manifest
from explain.config import ExplainConfig
from explain.cues.cues_section import TITLE as CUES
from explain.cues.cues_section import CueConfig, cues_section
from explain.curves import CurveConfig
from explain.faithfulness import faithfulness_section
from explain.item import Item, listen
from explain.localisation_section import localisation_section
from explain.occlusion import OcclusionConfig
from explain.phones_section import phones_section
from explain.picture import utterance_figure
from explain.probing_section import TITLE as PROBING
from explain.probing_section import ProbingConfig, probing_section
from explain.ragged import Floats
from explain.structure import structure_section
from explain.subject import ATTENTION, Subject
from explain.words import words_section
from finetune.model import EmotionModel

# Most attended frames and words named of an item.
NAMED = 3
# Of each kind: right ones of different labels, and errors.
RIGHT, WRONG = 3, 3


def choose_examples(items: Sequence[Item]) -> list[int]:
    """The most confident right ones, of different labels, and the most confident errors."""
    order = sorted(range(len(items)), key=lambda number: -items[number].confidence)
    right: dict[str, int] = {}
    for number in order:
        if items[number].right:
            right.setdefault(items[number].predicted, number)
    wrong = [number for number in order if items[number].right is False]
    chosen = [*list(right.values())[:RIGHT], *wrong[:WRONG]]
    return chosen or order[: RIGHT + WRONG]


def pictures_section(subject: Subject, items: Sequence[Item], numbers: Sequence[int]) -> Report:
    """The pictures of these utterances, one below the other."""
    notes: dict[str, list[str]] = {}
    figures: list[Figure] = []
    for number in numbers:
        sound = listen(subject, number)
        figures.append(utterance_figure(items[number], sound))
        for note in (sound.problem, *sound.notes):
            notes.setdefault(note, []).append(items[number].utterance.id)
    text = [f"{', '.join(names)}: {note}" for note, names in notes.items() if note]
    if any(item.columns is not None and item.columns.shape[1] > 1 for item in items):
        text.insert(0, "Grey curves: the attention of each query and head; blue: their mean.")
    return Report("Pictures", (*text, *figures))


def items_section(items: Sequence[Item]) -> Report:
    """What is said about each of a few utterances, in sentences and as a table."""
    rows: list[list[Cell]] = []
    text = []
    most = "most attended" if items[0].method == ATTENTION else f"highest {items[0].method}"
    ranked = any(item.strengths for item in items)
    for item in items:
        times = "" if item.attention is None else _most_attended(item.times, item.attention)
        heard = [] if item.reading is None else sorted(item.reading.words, key=lambda w: -w.mass)
        words = ", ".join(plain(word.text) or word.text for word in heard[:NAMED])
        rows.append(
            [
                item.utterance.id,
                item.utterance.label or None,
                item.predicted,
                item.confidence,
                *[item.strength] * ranked,
                times or None,
                words or None,
            ]
        )
        said = f"labelled {item.utterance.label}, " if item.utterance.label else ""
        heard_as = item.answer or f"{said}heard as {item.predicted} ({item.confidence:.2f})"
        parts = [f"{item.utterance.id}: {heard_as}"]
        if item.strength is not None:
            parts.append(f"of strength {item.strength:.2f}")
        parts += [f"{most} at {times} s"] * bool(times)
        for name, (at, own) in item.beside.items():
            parts.append(f"{most} of {name} at {_most_attended(at, own)} s")
        parts += [f"{most} of words: {words}"] * bool(words)
        text.append("; ".join(parts) + ".")
    columns = ("utterance", "label", "predicted", "probability", *["strength"] * ranked)
    table = Table("items", (*columns, f"{most} (s)", f"{most} words"), rows, "Utterances", 2)
    return Report("Answers", (*text, table))


def _most_attended(times: Floats, attention: Floats) -> str:
    order = (-attention).argsort(kind="stable")[:NAMED]
    return ", ".join(f"{times[frame]:.2f}" for frame in order)


@dataclass(frozen=True, eq=False)
class Context:
    """What analyses may read.

    Attributes:
        subject: what is explained.
        aligned: the TextGrids of its utterances.
        manifest: all utterances of the corpus, other splits too.
        cache: of the work folder.
        config: the options.
        model: for occlusion: the subject's encoders with its head; None leaves it out.
        show_progress: whether to draw progress bars.
    """

    subject: Subject
    aligned: Aligned
    manifest: Manifest
    cache: FrameCache
    config: ExplainConfig
    model: EmotionModel | None = None
    show_progress: bool = False


def _localisation(context: Context) -> Report:
    return localisation_section(context.subject)


def _phones(context: Context) -> Report:
    return phones_section(context.subject, context.aligned, context.config.attended)


def _words(context: Context) -> Report:
    texts = [u.text for u in context.manifest.utterances]
    return words_section(context.subject, context.aligned, texts)


_CLASSES_ALONE = (
    "Not made of an attribute: it is about emotions, predicted and labelled. A head that tells "
    "them apart has it."
)


def _cues(context: Context) -> Report:
    if context.subject.attribute is not None:
        return Report(CUES, (_CLASSES_ALONE,))
    asked = context.config
    config = CueConfig(asked.cues, asked.attended, asked.seed, context.show_progress)
    return cues_section(context.subject, context.cache, config)


def _faithfulness(context: Context) -> Report:
    asked = context.config
    config = CurveConfig(seed=asked.seed, progress=context.show_progress)
    occlusion = OcclusionConfig(
        limit=asked.occlusion, seed=asked.seed, progress=context.show_progress
    )
    return faithfulness_section(context.subject, config, context.model, occlusion)


def _probing(context: Context) -> Report:
    if context.subject.attribute is not None:
        return Report(PROBING, (_CLASSES_ALONE,))
    asked = context.config
    config = ProbingConfig(asked.cues, seed=asked.seed, progress=context.show_progress)
    return probing_section(context.subject, context.cache, context.manifest, config)


def _structure(context: Context) -> Report:
    return structure_section(
        context.subject, context.aligned, context.cache, context.manifest, context.config.seed
    )


#: By name, in the report's order.
ANALYSES: Mapping[str, Callable[[Context], Report]] = {
    "localisation": _localisation,
    "faithfulness": _faithfulness,
    "phones": _phones,
    "words": _words,
    "cues": _cues,
    "probing": _probing,
    "structure": _structure,
}
