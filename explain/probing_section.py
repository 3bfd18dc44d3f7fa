"""Probing in the report: which layer and which pooling say what about the voice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cache.lookup import FrameCache
from corpora.base.report import Cell, Figure, Report, Table
from corpora.base.terminal import progress_bar
from corpora.manifest import Manifest
from corpora.splits import deal
from corpora.utterance import Utterance, speaker_key, split_name
from explain.cues.measure import present_means
from explain.cues.stream import CueFrames, cue_set, load_cues
from explain.cues.within import FEWEST_FRAMES
from explain.finding import Finding, ends_text, strength, strongest
from explain.picture import BLUE, GREEN, GREY, ORANGE, PURPLE, RED
from explain.pooled import one_thread_each
from explain.probing import (
    MEAN,
    Probe,
    Targets,
    Vectors,
    cached_vectors,
    has_cached_vectors,
    probe,
    probe_dimensions,
    shuffled_within,
    subject_vectors,
)
from explain.ragged import Bools, Floats, Ints
from explain.subject import Subject
from heads.bootstrap import MIN_CLUSTERS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas


COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE)
MARKS = "os^Dv"
EMOTION = "emotion (UA)"
# More lines than colours and marks tell apart are not drawn.
MOST_LINES = len(COLOURS)


@dataclass(frozen=True, eq=False)
class ProbeRow:
    """A probe and the vectors it read."""

    layer: int | None
    pooling: str
    probe: Probe

    @property
    def name(self) -> str:
        """Such as `layer 24, mean`."""
        return self.pooling if self.layer is None else f"layer {self.layer}, {self.pooling}"


def probe_table(rows: Sequence[ProbeRow], cues: Sequence[str], classes: int) -> Table:
    """R² of each cue with its control; the emotion last, with what chance gives."""
    cells: list[list[Cell]] = []
    for row in rows:
        for number, cue in enumerate(cues):
            interval = row.probe.intervals[number]
            low, high = (None, None) if interval is None else interval
            r2, control = _number(row.probe.r2[number]), _number(row.probe.control[number])
            cells.append([row.layer, row.pooling, cue, r2, low, high, control])
        cells.append([row.layer, row.pooling, EMOTION, row.probe.recall, None, None, 1 / classes])
    columns = ("layer", "pooling", "target", "R²", "low", "high", "control")
    title = "What a linear probe reads from utterance vectors, on unheard speakers"
    return Table("probing", columns, cells, title)


def dimension_table(
    every: Probe, parts: Mapping[str, Floats], cues: Sequence[str], layer: int | None
) -> Table:
    """R² from all dimensions, the tenth that tells emotions apart, and as many random ones."""
    cells: list[list[Cell]] = [
        [cue, _number(every.r2[number]), *(_number(part[number]) for part in parts.values())]
        for number, cue in enumerate(cues)
    ]
    where = "" if layer is None else f" of layer {layer}"
    return Table(
        "probing-dimensions",
        ("cue", "all dimensions", *(f"{name} tenth" for name in parts)),
        cells,
        f"R² from all dimensions of the mean{where}, and from a tenth of them",
    )


def probe_figure(rows: Sequence[ProbeRow], cues: Sequence[str], classes: int) -> Figure:
    """The sweep over layers; with one layer, its poolings side by side."""
    layers = sorted({row.layer for row in rows if row.layer is not None})

    def draw(canvas: Canvas) -> None:
        axes = canvas.add_subplot()
        if len(layers) > 1:
            _draw_sweep(axes, [row for row in rows if row.pooling == MEAN], cues)
        else:
            _draw_poolings(axes, rows, cues)
        axes.axhline(0, color=GREY, lw=0.6)
        axes.axhline(1 / classes, color="black", lw=0.6, ls=":")
        axes.set_ylabel(f"R²; black: UA of the emotion (dotted: chance, {1 / classes:.2f})")
        drawn = np.concatenate(
            [values for row in rows for values in (row.probe.r2, row.probe.control)]
        )
        lowest = min(0.0, float(np.nanmin(drawn)))
        axes.set_ylim(max(lowest, -0.5) - 0.05, 1.05)
        canvas.legend(fontsize="small", ncols=3, loc="outside lower center")

    title = "Cues and emotion in each layer" if len(layers) > 1 else "Cues and emotion by pooling"
    return Figure("probing", draw, title, (8.0, 4.2))


def _draw_sweep(axes: Axes, rows: Sequence[ProbeRow], cues: Sequence[str]) -> None:
    layers = [row.layer or 0 for row in rows]
    for number, cue in enumerate(cues[:MOST_LINES]):
        colour, mark = COLOURS[number], MARKS[number]
        r2 = [row.probe.r2[number] for row in rows]
        axes.plot(layers, r2, color=colour, marker=mark, label=cue)
        control = [row.probe.control[number] for row in rows]
        axes.plot(layers, control, color=colour, marker=mark, ms=3, lw=0.7, ls="--")
    axes.plot(layers, [row.probe.recall for row in rows], color="black", lw=2, label="emotion (UA)")
    axes.set_xticks(layers)
    axes.set(xlabel="layer (mean over the utterance); dashed: shuffled control")


def _draw_poolings(axes: Axes, rows: Sequence[ProbeRow], cues: Sequence[str]) -> None:
    place = np.arange(len(rows))
    shown = list(cues[:MOST_LINES])
    width = 0.8 / (len(shown) + 1)
    for number, cue in enumerate(shown):
        at = place + (number - len(shown) / 2) * width
        r2 = [row.probe.r2[number] for row in rows]
        axes.bar(at, r2, width, color=COLOURS[number], label=cue)
        control = [row.probe.control[number] for row in rows]
        axes.hlines(control, at - width / 2, at + width / 2, color="black", lw=1.2)
    recall = [row.probe.recall for row in rows]
    axes.bar(place + len(shown) / 2 * width, recall, width, color="black", label="emotion (UA)")
    axes.set_xticks(place, [row.name for row in rows])
    axes.set(xlabel="utterance vector; line in a bar: shuffled control")


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


TITLE = "Probing"
FOLDS = 5
# Fewer say nothing about a regression on a hundred dimensions and more.
FEWEST_UTTERANCES = 40


@dataclass(frozen=True)
class ProbingConfig:
    """How vectors are probed.

    Attributes:
        cues: see `explain.cues.cues_section.CueConfig`.
        limit: most utterances, drawn at random.
        seed: of draws, shuffles and bootstraps.
        progress: whether to show bars.
    """

    cues: str = "default"
    limit: int = 3000
    seed: int = 0
    progress: bool = False


def probing_section(
    subject: Subject, cache: FrameCache, manifest: Manifest, config: ProbingConfig | None = None
) -> Report:
    """Probe every cached layer, on the subject's utterances or, with few speakers, on all.

    Args:
        subject: with audio frames.
        cache: of the work folder.
        manifest: all utterances of the corpus.
        config: see `ProbingConfig`.

    Raises:
        ConfigError: unknown cues.
        MissingExtraError: they need openSMILE, which is not installed.
    """
    config = config or ProbingConfig()
    if subject.grid is None:
        return Report(TITLE, (f"This head {subject.deaf}: no vectors of speech to probe.",))
    utterances, own = _chosen(subject, cache, manifest, config)
    cues = load_cues(
        cache, utterances, subject.grid, cues=cue_set(config.cues), progress=config.progress
    )
    targets, kept = _targets(utterances, cues, subject.labels, config.seed)
    text = [_setting(subject, utterances, kept, own)]
    if targets is None:
        text.append(
            f"That is too few: {FEWEST_UTTERANCES} utterances of two speakers, with at least two "
            "emotions, are the least."
        )
        return Report(TITLE, tuple(text))
    vectors = _vectors(subject, cache, utterances, own)

    def work_on(one: Vectors) -> ProbeRow:
        found = probe(one.values[kept], targets, seed=config.seed)
        bar.update(1)
        return ProbeRow(one.layer, one.pooling, found)

    with (
        progress_bar("Probes", len(vectors), "probe", show=config.progress) as bar,
        one_thread_each() as threads,
    ):
        rows = list(threads.map(work_on, vectors))
    basis = next(one for one in reversed(vectors) if one.pooling == MEAN)
    every = next(row.probe for row in reversed(rows) if row.pooling == MEAN)
    parts = probe_dimensions(basis.values[kept], targets, seed=config.seed)
    names = [cue.title for cue in cues.cues]
    text += _findings(rows, names)
    tables = (
        probe_table(rows, targets.cues, len(subject.labels)),
        dimension_table(every, parts, targets.cues, basis.layer),
    )
    return Report(
        TITLE,
        (*text, probe_figure(rows, names, len(subject.labels)), *tables),
        data={
            **strongest(
                _finding(row, cue.title, k)
                for row in rows
                for k, cue in enumerate(cues.cues)
                if row.probe.r2[k] > row.probe.control[k]
            ),
            "probes": [_json(row, targets) for row in rows],
        },
    )


def _finding(row: ProbeRow, cue: str, number: int) -> Finding:
    r2, control, ends = row.probe.r2[number], row.probe.control[number], row.probe.intervals[number]
    text = (
        f"{cue} can be read from the encoder's frames: on unheard speakers a linear probe of "
        f"{row.name} explains {r2:.2f}{ends_text(ends)} of its variance (R²), {control:.2f} where "
        "its values are shuffled."
    )
    return Finding(text, "probing", strength(r2, ends, control))


def _chosen(
    subject: Subject, cache: FrameCache, manifest: Manifest, config: ProbingConfig
) -> tuple[list[Utterance], bool]:
    """The utterances to probe on, and whether they are the subject's."""
    # What a fine-tuned model hears is not in the cache, so its own utterances have to do.
    if subject.kind == "head" and len(set(subject.speakers) - {""}) < MIN_CLUSTERS:
        failed = cache.failed
        labelled = [u for u in manifest.utterances if u.label and u.id not in failed]
        picked = _drawn(labelled, config)
        if len(picked) > len(subject) and has_cached_vectors(cache, picked):
            return picked, False
    return _drawn(list(subject.utterances), config), True


def _drawn(utterances: Sequence[Utterance], config: ProbingConfig) -> list[Utterance]:
    random = np.random.default_rng(config.seed)
    rows = random.permutation(len(utterances))[: config.limit]
    return [utterances[row] for row in np.sort(rows)]


def _targets(
    utterances: Sequence[Utterance], cues: CueFrames, labels: Sequence[str], seed: int
) -> tuple[Targets | None, Bools]:
    """What is probed for, and the utterances `[n]` that have it all."""
    every = np.ones(len(cues.values), dtype=np.bool_)
    means = present_means(cues.values, every, cues.offsets)
    classes = np.array([labels.index(u.label) if u.label in labels else -1 for u in utterances])
    kept = ~np.isnan(means).any(axis=1) & (classes >= 0)
    chosen = [u for u, there in zip(utterances, kept, strict=True) if there]
    keys = [speaker_key(u) for u in chosen]
    speakers = ["" if key is None else "/".join(key) for key in keys]
    groups: dict[str | int, list[int]] = {}
    for row, name in enumerate(speakers):
        groups.setdefault(name or row, []).append(row)
    if len(chosen) < FEWEST_UTTERANCES or len(groups) < 2 or len(set(classes[kept])) < 2:
        return None, kept
    dealt = deal(list(groups.values()), [u.label for u in chosen], min(FOLDS, len(groups)))
    folds: Ints = np.array([dealt[row] for row in range(len(chosen))], dtype=np.int64)
    names = tuple(cue.name for cue in cues.cues)
    mixed = shuffled_within(means[kept], speakers, seed)
    return Targets(names, means[kept], mixed, classes[kept], folds, tuple(speakers)), kept


def _vectors(
    subject: Subject, cache: FrameCache, utterances: Sequence[Utterance], own: bool
) -> list[Vectors]:
    """All vectors of the utterances; those the head attends to where they are the subject's."""
    cached: list[Vectors] = []
    if subject.kind == "head" and has_cached_vectors(cache, utterances):
        cached = list(cached_vectors(cache, utterances))
    if not own:
        return cached
    place = {u.id: row for row, u in enumerate(subject.utterances)}
    rows = [place[u.id] for u in utterances]
    made = [
        Vectors(one.layer, one.pooling, one.values[rows])
        for one in subject_vectors(subject, subject.layers, moments=not cached)
    ]
    return cached + made


def _setting(subject: Subject, utterances: Sequence[Utterance], kept: Bools, own: bool) -> str:
    whose = (
        f"{int(kept.sum()):,} utterances of {split_name(subject.split or 'given')}"
        if own
        else f"{int(kept.sum()):,} utterances of the whole manifest, because "
        f"{split_name(subject.split or 'given')} has too few speakers"
    )
    left = len(utterances) - int(kept.sum())
    out = (
        f" {left:,} are left out: no label, no cues, or fewer than {FEWEST_FRAMES} frames with one."
        if left
        else ""
    )
    return (
        f"Ridge regression from utterance vectors to utterance means of cues, on {whose}; every "
        "prediction is for a speaker the regression never heard. The control deals the cue values "
        f"out anew among the utterances of a speaker: what is left is the voice itself.{out}"
    )


def _findings(rows: Sequence[ProbeRow], cues: Sequence[str]) -> list[str]:
    lines = []
    for number, cue in enumerate(cues):
        best = max(rows, key=lambda row: float(np.nan_to_num(row.probe.r2[number], nan=-np.inf)))
        lines.append(
            f"{cue} {best.probe.r2[number]:.2f} ({best.name}; control "
            f"{best.probe.control[number]:.2f})"
        )
    emotion = max(rows, key=lambda row: row.probe.recall)
    return [
        f"Best R² of each cue: {', '.join(lines)}. These are maxima over {len(rows)} kinds of "
        "vector, so a little optimistic.",
        f"The emotion itself is read best from {emotion.name}: UA {emotion.probe.recall:.3f} by a "
        "linear probe on unheard speakers.",
    ]


def _json(row: ProbeRow, targets: Targets) -> dict[str, Any]:
    found: Probe = row.probe

    def numbers(values: Any) -> dict[str, float | None]:  # noqa: ANN401 - [K] floats
        return {
            cue: None if np.isnan(value) else float(value)
            for cue, value in zip(targets.cues, values, strict=True)
        }

    return {
        "layer": row.layer,
        "pooling": row.pooling,
        "r2": numbers(found.r2),
        "control": numbers(found.control),
        "ua": found.recall,
    }
