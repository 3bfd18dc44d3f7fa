"""Every fold a test set: the whole search repeated inside each, and the predictions pooled.

In each repetition one fold is tested on. The layer, the head and the reference are chosen on the
others alone, trained on them, and say what the left-out utterances are: each is scored once, by a
head that had no part of it. The searches lie in folders of their own, so a stopped run goes on.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cache.encoders.device import choose_device
from cache.lookup import FrameCache
from cache.recipe import layers_text
from corpora.base.codec import Jsonable
from corpora.base.errors import ConfigError, ManifestError
from corpora.base.files import write_json
from corpora.base.report import Part, Report, Table
from corpora.base.work import Work, command_line
from corpora.manifest import Manifest
from corpora.splits import UNITS, Division, divide, folds_by, folds_of_count
from corpora.utterance import ATTRIBUTES
from heads.attributes import AttributeScores, attributes_table
from heads.bootstrap import Difference
from heads.config import SearchConfig
from heads.dataset import Dataset, speaker_notes
from heads.folds import MOST_FOLDS, Selection, make_folds, refuse_shared_recordings
from heads.gold import Gold, Optimism, objective_name
from heads.load import aimed, load_dataset, read_origin
from heads.metrics import Scores, score_cells
from heads.predict import predict
from heads.records import (
    TEST_FOLD_PREDICTIONS,
    TEST_FOLDS,
    TEST_FOLDS_FOLDER,
    load_head,
    write_predictions,
)
from heads.reference import best_layers
from heads.ridge import best_ridge_layers
from heads.search.report import SearchReport, trial_title
from heads.search.score_tables import fold_note, selection_score, verdict
from heads.search.search import search_heads
from heads.vector_store import VectorStore

FORMAT, VERSION = "emopool-test-folds", 1
CHOICES = "speaker, session, protocol, or a number of folds from 3 on"


@dataclass(frozen=True)
class OuterFold(Jsonable):
    """One repetition.

    Attributes:
        name: of the fold that was tested on.
        head: what was chosen, in words.
        layers: by modality the layers that the head reads.
        reference: what the regression is, in words.
        report: of the head on the fold; None without classes.
        reference_report: of the regression on it.
        attributes: of the head on the fold; None without attributes.
        reference_attributes: of the regression on it.
        score: of the head, what heads are compared by.
        reference_score: of the regression.
        optimism: how much of the score of selection is the luck of being chosen, as the search
            itself estimates it on the other folds.
    """

    json_entries = "* -score -reference_score"
    json_optional = "attributes reference_attributes optimism"

    name: str
    head: str
    layers: str
    reference: str
    report: Scores | None
    reference_report: Scores | None
    attributes: AttributeScores | None
    reference_attributes: AttributeScores | None
    score: float
    reference_score: float
    optimism: Optimism | None = None


@dataclass(frozen=True)
class OuterFoldsReport(Jsonable):
    """What all repetitions found.

    Attributes:
        unit: what a fold is, in words.
        report: of the heads on all folds together; None without classes.
        reference: of the regressions on them.
        attributes: of the heads on all folds together; None without attributes.
        reference_attributes: of the regressions on them.
        lead: head minus reference, what heads are compared by.
        objective: what that is called.
        difference: head minus reference; None where speakers are too few to say.
        reason: why there is none; "" otherwise.
        folds: each by itself.
        notes: what the user should know.
        files: what was written.
        work: the work folder.
    """

    json_entries = (
        "unit report reference attributes reference_attributes difference reason folds notes files"
    )
    json_optional = "attributes reference_attributes"

    unit: str
    report: Scores | None
    reference: Scores | None
    attributes: AttributeScores | None
    reference_attributes: AttributeScores | None
    lead: float
    objective: str
    difference: Difference | None
    reason: str
    folds: tuple[OuterFold, ...]
    notes: tuple[str, ...]
    files: tuple[Path, ...]
    work: Path

    def to_text(self, manifest: Path | None = None) -> str:
        """For a terminal; the next command gets a manifest named in place of the folder's own."""
        rows = [
            (
                fold.name,
                f"{fold.head}, {fold.layers}",
                f"{fold.score:.3f}",
                f"{fold.reference_score:.3f}",
                f"{_counted(fold):,}",
            )
            for fold in self.folds
        ]
        notes = (
            *[f"Search minus reference: {self.difference}."] * (self.difference is not None),
            *[f"No paired interval: {self.reason}."] * bool(self.reason),
        )
        each = ("test fold", "head", self.objective, "reference", "utterances")
        parts: tuple[Part, ...] = (
            *verdict(
                self.difference,
                self.lead,
                "all folds",
                classes=self.report is not None,
                attributes=self.attributes is not None,
            ),
            f"The whole search was repeated for each {self.unit} as the test set; the predictions "
            f"of {len(self.folds)} searches are scored together.",
            *(f"Note: {note}" for note in self.notes),
            Table("", each, rows, right=(2, 3, 4)),
            *self._tables(notes),
        )
        step = command_line("search", self.work, manifest)
        steps = (f"{step}   (a head to use, chosen on train and dev)",)
        return Report("", parts, self.files, steps).to_text()

    def _tables(self, notes: Sequence[str]) -> list[Table]:
        """Search and reference on all folds: of classes, and of attributes."""
        found = []
        if self.report is not None and self.reference is not None:
            scored = (("search", self.report), ("reference", self.reference))
            rows = [(title, *score_cells(own), f"{own.weighted_f1:.3f}") for title, own in scored]
            own_notes = (
                *self.report.interval_notes,
                *(notes if self.attributes is None else ()),
                *fold_note([fold.report for fold in self.folds if fold.report]),
            )
            columns = ("", "macro-F1", "UA", "WA", "utterances", "weighted F1")
            found.append(Table("", columns, rows, right=(4, 5), notes=own_notes))
        if self.attributes is not None and self.reference_attributes is not None:
            rated = {"search": self.attributes, "reference": self.reference_attributes}
            own_notes = (*self.attributes.interval_notes, *notes)
            found.append(attributes_table("", rated, own_notes))
        return found


def _counted(fold: OuterFold) -> int:
    """Utterances that a fold was scored on."""
    rated = fold.attributes.per_attribute if fold.attributes else ()
    return max([fold.report.n if fold.report else 0, *(one.n for one in rated)])


def search_test_folds(
    work: Work,
    manifest: Manifest,
    config: SearchConfig,
    *,
    fresh: bool = False,
    show_progress: bool = False,
) -> OuterFoldsReport:
    """Repeat the search for every fold as the test set; results go to `WORK/search`.

    Args:
        work: the work folder that `extract` filled.
        manifest: the utterances. Its splits have no part in it, but for rows without one.
        config: of each search. Its `test_folds` are `speaker` or `session`, one fold each;
            `protocol`, the manifest's own folds; or a number of groups of speakers.
        fresh: remove earlier searches first.
        show_progress: whether to draw progress bars.

    Raises:
        ConfigError: another word, or a study in a database.
        ManifestError: the utterances do not say which speaker, session or fold they are of, or
            there are fewer than three.
    """
    if config.shared:
        raise ConfigError(
            "--test-folds makes a study for each fold, and --storage names one. Leave one out."
        )
    cache = FrameCache(work)
    manifest, attributes = aimed(manifest, config.targets)
    dataset = load_dataset(
        cache,
        manifest,
        config.modalities,
        choose_device(config.device),
        others=True,
        attributes=attributes,
    )
    utterances, names = _fold_names(dataset, config.test_folds)
    dataset = replace(dataset, utterances=utterances)
    keys = cache.keys(utterances)
    found: list[OuterFold] = []
    norms: set[str] = set()
    pooled: list[tuple[Tensor, Tensor, Tensor]] = []  # rows, what heads and references say of them
    folds = divide(utterances, names).folds
    root = work.search / TEST_FOLDS_FOLDER
    if fresh:  # also those of another number of folds
        shutil.rmtree(root, ignore_errors=True)
    for number, name in enumerate(folds, start=1):
        division = divide(utterances, names, name)
        refuse_shared_recordings(division.utterances, keys)
        own = _with_chosen_layers(replace(dataset, utterances=division.utterances), config)
        divided = replace(manifest, utterances=division.utterances)
        origin = read_origin(cache, divided, own.frames, attributes)
        origin = replace(origin, layers=_layers(own))
        folder = root / _folder_name(number, name)
        title = f"Fold {name} ({number} of {len(folds)})"
        report = search_heads(
            own, folder, origin, config, fresh=fresh, show_progress=show_progress, title=title
        )
        rows = own.rows("test")
        said = predict([load_head(folder)[0]], VectorStore(own), rows)[0]
        other = torch.from_numpy(report.references.said("test", len(dataset.labels)))
        pooled.append((rows, said, other))
        found.append(_fold(name, report))
        norms.add(report.best.head.input_norm)
    rows, said, other = (torch.cat(parts) for parts in zip(*pooled, strict=True))
    gold = Gold.of(dataset, rows)
    own_said, other_said = said.double().numpy(), other.numpy()
    differences, reason = gold.differences([own_said], other_said)
    root.mkdir(parents=True, exist_ok=True)
    files = (work.search / TEST_FOLDS, work.search / TEST_FOLD_PREDICTIONS, root)
    result = OuterFoldsReport(
        unit=config.test_folds if config.test_folds in UNITS else "fold",
        report=gold.class_scores(said.numpy()),
        reference=gold.class_scores(other_said),
        attributes=gold.attribute_scores(own_said),
        reference_attributes=gold.attribute_scores(other_said),
        lead=gold.score(own_said) - gold.score(other_said),
        objective=objective_name(dataset.labels, attributes),
        difference=differences[0] if differences else None,
        reason="" if differences else reason,
        folds=tuple(found),
        notes=(*_notes(dataset, divide(utterances, names)), *speaker_notes(dataset, norms)),
        files=files,
        work=work.root,
    )
    write_predictions(files[1], dataset, {"test": (rows, said)})
    write_json(files[0], {"format": FORMAT, "version": VERSION, **result.to_json()})
    return result


def _fold_names(dataset: Dataset, how: str) -> tuple[tuple[Any, ...], list[str]]:
    """The utterances that count, and the fold of each."""
    if how == "protocol":
        names = [u.fold if dataset.is_annotated(u) else "" for u in dataset.utterances]
        if not any(names):
            raise ManifestError(
                "The manifest has no folds. Prepare the corpus with a protocol of folds "
                "(`prepare CORPUS ROOT --protocol NAME`), or ask for --test-folds speaker."
            )
        return dataset.utterances, names
    # A row without a split was left out by the user or a protocol.
    bare = dict.fromkeys(ATTRIBUTES)
    utterances = tuple(
        u if u.split else replace(u, label="", **bare)  # type: ignore[arg-type]
        for u in dataset.utterances
    )
    # Folds are made of what has a label, and alike in labels.
    marked = [
        replace(u, label=(u.label if dataset.labels else "") or "rated")
        if dataset.is_annotated(u)
        else replace(u, label="")
        for u in utterances
    ]
    if how in UNITS:
        names = folds_by(marked, how)
    elif how.isdecimal() and 3 <= int(how) <= MOST_FOLDS:
        names = folds_of_count(marked, int(how), seed=0)
    else:
        raise ConfigError(f"--test-folds {how}: expected {CHOICES} (at most {MOST_FOLDS}).")
    count = len(set(names) - {""})
    if count > MOST_FOLDS:
        raise ConfigError(
            f"--test-folds {how} would be {count} searches, {MOST_FOLDS} is the most. Ask for a "
            "number of folds."
        )
    return utterances, names


def _with_chosen_layers(dataset: Dataset, config: SearchConfig) -> Dataset:
    """The data set with the layer of each modality that its own train and dev choose."""
    several = [name for name in dataset.frames if len(dataset.numbers(name)) > 1]
    if not several:
        return dataset
    best = best_layers if dataset.labels else best_ridge_layers
    layers = best(VectorStore(dataset), Selection.of(dataset, make_folds(dataset, config.folds)))
    return dataset.with_layers({name: layers[name] or 0 for name in several})


def _layers(dataset: Dataset) -> dict[str, int]:
    return {name: numbers[-1] for name in dataset.frames if (numbers := dataset.numbers(name))}


def _folder_name(number: int, name: str) -> str:
    """A folder's name for a fold, whatever characters its own name has."""
    plain = "".join(c if c.isascii() and c.isalnum() else "-" for c in name)
    return f"{number:02}-{plain}"[:60]


def _fold(name: str, report: SearchReport) -> OuterFold:
    best, logistic, ridge = report.best, report.logistic, report.ridge
    reference = " ".join(one.to_text() for one in (logistic, ridge) if one)
    layers = ", ".join(
        f"{modality} {layers_text(best.origin.layers[modality])}"
        for modality in best.head.modalities
        if modality in best.origin.layers
    )
    return OuterFold(
        name,
        trial_title(best.start, best.params),
        layers,
        reference,
        best.scores.get("test"),
        logistic.scores.get("test") if logistic else None,
        best.attribute_scores.get("test"),
        ridge.scores.get("test") if ridge else None,
        selection_score(best.scores, best.attribute_scores, "test"),
        report.references.score("test"),
        report.optimism,
    )


def _notes(dataset: Dataset, division: Division) -> list[str]:
    """What was chosen before the folds were made."""
    notes = [dataset.residence] if dataset.residence else []
    single = [name for name in dataset.frames if len(dataset.numbers(name)) == 1]
    if single:
        notes.append(
            f"One layer of {' and '.join(single)} is cached. If `extract` chose it (auto), it did "
            "so on training utterances of the manifest's splits, some of which are tested on here: "
            "a little flattering. With --audio-layers all each fold chooses its own layer."
        )
    lost = sum(not utterance.split for utterance in division.utterances)
    if lost:
        notes.append(f"Not scored, without label, split or fold: {lost:,} utterances.")
    return notes
