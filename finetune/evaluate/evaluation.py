"""The scores of a head or a model on a split: as data, as files, as text.

`WORK/evaluation/<head, model or ensemble>-<split>/` holds `report.json` (the scores, and what was
scored on what), `predictions.csv` (id, split, gold and a probability for each label, as they come,
without temperature) and, where they were asked for, pictures and the scores as votes (`votes.csv`,
`votes-by-entropy.csv`). The temperature that was fitted
stands in `report.json` alone: it belongs to one development set, while a model goes to others.

An evaluation as pictures: the confusion matrix, and how sure against how right.

Needs matplotlib, which the extra `plots` installs.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from cache.recipe import LayersRead, layers_text
from corpora.base.codec import Jsonable
from corpora.base.errors import ConfigError
from corpora.base.files import read_json, write_json, write_text
from corpora.base.report import Figure, Part, Report, Table, csv_text
from corpora.manifest import Manifest
from corpora.utterance import split_name
from finetune.evaluate.calibration import Calibration, Reliability, calibration_table
from heads.attributes import AttributeScores, attributes_table
from heads.bootstrap import Difference
from heads.dataset import Dataset
from heads.metrics import Scores, scores_parts, scores_table
from heads.records import LayerWeights, layer_weights_text, manifest_digest, write_predictions
from heads.votes import VOTE_TABLES, VoteScores, votes_tables

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas


@dataclass(frozen=True)
class Against(Jsonable):
    """A comparison with one other head or model.

    Attributes:
        kind: of the other, `head` or `model`.
        source: of the other.
        n: utterances that both could use.
        own: score of the one compared, on them.
        other: score of the other on them.
        difference: own less other, with its interval and p; None where a bootstrap says nothing.
        reason: why there is none, or what makes it doubtful; else "".
        note: what has to be said about the other's manifest; "" for nothing.
        objective: what the score is called.
    """

    kind: str
    source: Path
    n: int
    own: float
    other: float
    difference: Difference | None
    reason: str
    note: str = ""
    objective: str = "macro-F1"


def against_table(compared: Sequence[Against]) -> Table:
    """All of them, at least one."""
    first = compared[0]
    rows = [
        (
            f"{one.kind} {one.source}",
            f"{one.own:.3f}",
            f"{one.other:.3f}",
            str(one.difference) if one.difference else f"{one.own - one.other:+.3f}",
        )
        for one in compared
    ]
    how = "; paired bootstrap over speakers" if first.difference else ""
    how += ", p corrected for the number of comparisons" if how and len(compared) > 1 else ""
    label = "Note" if first.difference else "No interval"
    notes = (
        f"[{first.n:,} utterances, those that all could use{how}]",
        *[f"{label}: {first.reason}."] * bool(first.reason),
        *(f"Note on {one.source}: {one.note}" for one in compared if one.note),
    )
    shown = "difference, 95 % interval" if first.difference else "difference"
    columns = ("compared with", first.objective, "of the other", shown)
    return Table("", columns, rows, notes=notes)


FORMAT, VERSION = "emopool-evaluation", 1
REPORT, PREDICTIONS = "report.json", "predictions.csv"
SUBJECTS = {"head": "searched head, on cached frames", "model": "fine-tuned model, on recordings"}
ENSEMBLE = "ensemble"
MEMBER = "member of the ensemble"


@dataclass(frozen=True)
class Evaluation(Jsonable):
    """Scores of a head, a model or an ensemble on one split.

    Attributes:
        subject: `head`, `model` or `ensemble`.
        source: its file or directory; of an ensemble the first member's.
        split: the split scored; `all` is every labelled utterance.
        corpus: the manifest's name for it.
        synthetic: the recordings are not human speech.
        encoders: by modality, as the user named them.
        layers: by modality, the hidden state read, or those weighed; without those that members
            differ in.
        classes: the scores on classes; None where there are none.
        skipped: reasons by id for utterances that could not be read.
        folder: where report and predictions were written.
        note: what has to be said before the scores; "" for nothing.
        shared_speakers: the manifest's splits share speakers, by declaration.
        by_corpus: the scores on each corpus, where the split has several.
        by_sex: the scores by the speakers' sex, where it is given and differs.
        protocol: a sentence on the published evaluation that the rows follow; "" for none.
        calibration: how sure against how right; None where it was not asked for or cannot be.
        calibration_reason: why not; "" where it was not asked for.
        members: of an ensemble, each with its own scores on the same utterances.
        against: comparisons with other heads and models.
        pictures: names of files in the folder.
        sha256: of the source's JSON file, which says which model it was.
        layer_weights: by modality the weight of each layer, where several are weighed.
        only_labels: the labels asked for, over which probabilities are renormalised; empty for all.
        left_out: utterances of other labels, where only some are asked for.
        votes: the scores as votes; None where they were not asked for.
        attributes: the scores on attributes; None where there are none.
        attributes_by: these by `corpus`, by `sex` and by member, where classes are scored so.
        manifest_sha256: of the manifest scored, where the evaluation is read back.
    """

    json_entries = (
        "note subject source sha256 split corpus synthetic encoders layers layer_weights protocol "
        "shared_speakers only_labels left_out report=classes votes members by_corpus by_sex "
        "calibration calibration_reason against skipped attributes attributes_by files"
    )
    json_optional = "attributes attributes_by"

    subject: str
    source: Path
    split: str
    corpus: str
    synthetic: bool
    encoders: Mapping[str, str]
    layers: Mapping[str, LayersRead]
    classes: Scores | None
    skipped: Mapping[str, str]
    folder: Path
    note: str = ""
    shared_speakers: bool = False
    by_corpus: Mapping[str, Scores] = field(default_factory=dict)
    by_sex: Mapping[str, Scores] = field(default_factory=dict)
    protocol: str = ""
    calibration: Calibration | None = None
    calibration_reason: str = ""
    members: Mapping[str, Scores] = field(default_factory=dict)
    against: tuple[Against, ...] = ()
    pictures: tuple[str, ...] = ()
    sha256: str = ""
    layer_weights: LayerWeights = field(default_factory=dict)
    only_labels: tuple[str, ...] = ()
    left_out: int = 0
    votes: VoteScores | None = None
    attributes: AttributeScores | None = None
    attributes_by: Mapping[str, Mapping[str, AttributeScores]] = field(default_factory=dict)
    manifest_sha256: str = ""

    @property
    def report(self) -> Scores:
        """The scores on classes, of what tells some apart."""
        assert self.classes is not None, "it says attributes alone"
        return self.classes

    @property
    def vote_tables(self) -> Sequence[Table]:
        """The scores as votes; none where they were not asked for."""
        return () if self.votes is None else votes_tables(self.votes, self.subject)

    @property
    def files(self) -> tuple[Path, ...]:
        """What was written."""
        tables = [f"{table.name}.csv" for table in self.vote_tables]
        return tuple(self.folder / name for name in (REPORT, PREDICTIONS, *tables, *self.pictures))

    def to_text(self) -> str:
        """For a terminal."""
        return self.to_report().to_text()

    def to_report(self) -> Report:
        """In parts."""
        weights = layer_weights_text(self.layer_weights, self.layers)
        groups = {"corpus": self.by_corpus, "sex": self.by_sex, MEMBER: self.members}
        rated = {self.split: self.attributes} if self.attributes else {}
        counts = [f"{self.classes.n:,} utterances"] if self.classes else []
        counts += [f"{max(one.n for one in own.per_attribute):,} rated" for own in rated.values()]
        first = next(iter(self.skipped.values()), "")
        parts: tuple[Part, ...] = (
            *[f"Note: {self.note}"] * bool(self.note),
            f"{self._title()}: {', '.join(counts)} of {self.corpus or 'the manifest'}, "
            f"{split_name(self.split).removeprefix('the ')}",
            f"Encoders: {encoders_text(self.encoders, self.layers)}.",
            *[
                f"Only {', '.join(self.only_labels)}: probabilities are renormalised over these "
                f"labels, and {self.left_out:,} utterances of others are left out."
            ]
            * bool(self.only_labels),
            *[self.protocol] * bool(self.protocol),
            *[f"Layer weights: {weights}."] * bool(weights),
            *caveats(self.encoders, synthetic=self.synthetic, shared_speakers=self.shared_speakers),
            "",
            *([] if self.classes is None else scores_parts(self.classes)),
            *(attributes_table("split", rated, own.interval_notes) for own in rated.values()),
            *self.vote_tables,
            *(scores_table(name, own) for name, own in groups.items() if own),
            *(attributes_table(name, own) for name, own in self.attributes_by.items()),
            *([] if self.calibration is None else [calibration_table(self.calibration)]),
            *[f"No calibration: {self.calibration_reason}."] * bool(self.calibration_reason),
            *([against_table(self.against)] if self.against else []),
            *[f"{len(self.skipped):,} utterances could not be used. First: {first}"] * bool(first),
        )
        return Report("", parts, self.files)

    def _title(self) -> str:
        if self.subject == ENSEMBLE:
            members = self.members or self.attributes_by[MEMBER]
            return f"The ensemble of {len(members)} (the mean of what they say)"
        return f"The {SUBJECTS[self.subject]} ({self.source})"


def write_evaluation(
    evaluation: Evaluation, manifest: Manifest, dataset: Dataset, probabilities: Tensor
) -> Evaluation:
    """Write report and predictions (`[n, C]`, of the data set); returns the evaluation."""
    rows = {name: dataset.rows(name) for name in dict.fromkeys(u.split for u in dataset.utterances)}
    write_predictions(
        evaluation.folder / PREDICTIONS,
        dataset,
        {name: (own, probabilities[own]) for name, own in rows.items()},
    )
    for name in VOTE_TABLES:  # an earlier evaluation's would be taken for this one's
        (evaluation.folder / f"{name}.csv").unlink(missing_ok=True)
    for table in evaluation.vote_tables:
        text = csv_text(table.columns, table.rows)
        write_text(evaluation.folder / f"{table.name}.csv", text)
    described = {**evaluation.to_json(), "manifest_sha256": manifest_digest(manifest)}
    write_json(evaluation.folder / REPORT, {"format": FORMAT, "version": VERSION, **described})
    return evaluation


def read_report(folder: Path, subject: str, split: str) -> Scores | None:
    """The scores of the last evaluation of a head or model; None where there was none."""
    path = evaluation_folder(folder, subject, split) / REPORT
    return read_evaluation(path).classes if path.is_file() else None


def read_evaluation(path: Path) -> Evaluation:
    """Read the `report.json` of an evaluation back.

    Raises:
        FormatVersionError: it is of another version, or altered.
    """
    value = read_json(path, kind=FORMAT, version=VERSION)
    return Evaluation.from_json({**value, "classes": value["report"], "folder": path.parent})


def evaluation_folder(
    folder: Path, subject: str, split: str, other: str = "", *, name: str = ""
) -> Path:
    """Where an evaluation is written.

    Args:
        folder: of all evaluations.
        subject: `head`, `model` or `ensemble`.
        split: train, dev, test or all.
        other: the name of another corpus than the one trained on; its scores get a folder of their
            own.
        name: of another head or model than the work folder's own.
    """
    parts = [re.sub(r"[^\w.+-]+", "_", part) for part in (subject, name, split, other)]
    return folder / "-".join(part for part in parts if part)


def check_writable(folder: Path) -> None:
    """Make sure that results can be written, before hours are spent on them.

    Raises:
        ConfigError: they cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(
            f"the scores would go to {folder}, which cannot be written to "
            f"({error.strerror or error}). Make it writable, or copy the work folder to a place "
            "that is."
        ) from error


def encoders_text(encoders: Mapping[str, str], layers: Mapping[str, LayersRead]) -> str:
    """The encoders in one line."""
    layer = {name: f", {layers_text(layers[name])}" if name in layers else "" for name in encoders}
    return "; ".join(f"{name} {encoders[name]}{layer[name]}" for name in encoders)


def caveats(
    encoders: Mapping[str, str], *, synthetic: bool, shared_speakers: bool = False
) -> list[str]:
    """What has to be said beside every figure."""
    lines = []
    if shared_speakers:
        lines.append("The splits share speakers, as declared: figures do not show new speakers.")
    if synthetic:
        lines.append("The speech is synthetic: these figures say nothing about people.")
    if "tiny" in encoders.values():
        lines.append("Tiny encoders begin with random weights: a working pipeline, not accuracy.")
    return lines


# Inches: of a cell, and around all of them for labels, title and colour bar.
CELL, AROUND = 0.62, 2.6
# Counts are written into cells down to this size; more classes leave the colours alone.
MOST_CLASSES = 24
# From this share on a cell is dark, and what is written in it white.
DARK = 0.6


def evaluation_figures(evaluation: Evaluation, title: str) -> list[Figure]:
    """The pictures of an evaluation, each under this title."""
    report, calibration = evaluation.classes, evaluation.calibration
    figures = [confusion_figure(report, title)] if report else []
    return figures + ([reliability_figure(calibration, title)] if calibration else [])


def confusion_figure(report: Scores, title: str) -> Figure:
    """The confusion matrix: share of each gold class by colour, counts in the cells.

    Args:
        report: the scores.
        title: above it.
    """
    size = CELL * len(report.labels)
    draw = partial(_draw_confusion, report, title)
    return Figure("confusion", draw, "Confusion matrix", (size + AROUND + 0.8, size + AROUND))


def _draw_confusion(report: Scores, title: str, canvas: Canvas) -> None:
    labels = report.labels
    rows = [[n / max(1, sum(row)) for n in row] for row in report.confusion]
    axes = canvas.add_subplot()
    image = axes.imshow(rows, cmap="Blues", vmin=0, vmax=1)
    for y, (shares, counts) in enumerate(zip(rows, report.confusion, strict=True)):
        for x, (share, count) in enumerate(zip(shares, counts, strict=True)):
            if len(labels) <= MOST_CLASSES and count:
                colour = "white" if share >= DARK else "black"
                text = f"{count:,}\n{100 * share:.0f} %"
                axes.text(x, y, text, ha="center", va="center", color=colour, fontsize=8)
    places = range(len(labels))
    axes.set_xticks(places, labels, rotation=40, ha="right", rotation_mode="anchor")
    supports = [sum(row) for row in report.confusion]
    axes.set_yticks(places, [f"{label} ({n:,})" for label, n in zip(labels, supports, strict=True)])
    axes.set(xlabel="predicted", ylabel="gold (utterances)")
    axes.set_title(
        f"{title}\nmacro-F1 {report.macro_f1:.3f}, UA {report.uar:.3f}, WA {report.accuracy:.3f}",
        fontsize="medium",
    )
    canvas.colorbar(image, ax=axes, label="share of the gold class", shrink=0.8)


def reliability_figure(calibration: Calibration, title: str) -> Figure:
    """Accuracy over confidence before and after temperature scaling, with counts below."""
    draw = partial(_draw_reliability, calibration, title)
    return Figure("reliability", draw, "Reliability", (8.4, 5.0))


def _draw_reliability(calibration: Calibration, title: str, figure: Canvas) -> None:
    grid = figure.add_gridspec(2, 2, height_ratios=(3, 1))
    both = (
        (calibration.before, "as it is"),
        (calibration.after, f"at temperature {calibration.temperature:.2f}"),
    )
    for column, (found, name) in enumerate(both):
        upper = figure.add_subplot(grid[0, column])
        lower = figure.add_subplot(grid[1, column], sharex=upper)
        _draw_bins(upper, lower, found)
        perfect = f"a perfectly calibrated model: about {found.ece_if_perfect:.3f}"
        upper.set_title(f"{name}: ECE {found.ece:.3f}\n({perfect})", fontsize="small")
        if column == 0:
            upper.set_ylabel("accuracy")
            lower.set_ylabel("utterances")
            figure.legend(
                *upper.get_legend_handles_labels(),
                fontsize="small",
                loc="outside lower center",
                ncols=3,
            )
    figure.suptitle(title, fontsize="medium")


def _draw_bins(upper: Axes, lower: Axes, found: Reliability) -> None:
    width = 1 / len(found.bins)
    used = [one for one in found.bins if one.count]
    left = [one.low for one in used]
    style: dict[str, Any] = {"width": width, "align": "edge", "edgecolor": "white"}
    upper.bar(left, [one.accuracy for one in used], color="tab:blue", label="accuracy", **style)
    upper.plot([0, 1], [0, 1], "--", color="0.5", label="perfectly calibrated")
    upper.plot(
        [one.confidence for one in used],
        [one.accuracy for one in used],
        "o",
        color="tab:red",
        markersize=4,
        label="at the mean confidence of the bin",
    )
    upper.set(xlim=(0, 1), ylim=(0, 1.04))  # points at 1 are seen whole
    upper.tick_params(labelbottom=False)
    lower.bar(left, [one.count for one in used], color="0.6", **style)
    lower.set_xlabel("confidence (largest probability)")
