"""The scores of a head or a model on a split: as data, as files, as text.

`WORK/evaluation/<head or model>-<split>/` holds `report.json` (the scores, and what was scored on
what) and `predictions.csv` (id, split, gold and a probability for each label).
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from corpora.errors import ConfigError
from corpora.files import read_json, write_json
from corpora.manifest import Manifest
from corpora.work import Work
from heads.dataset import Dataset
from heads.metrics import Report, format_report
from heads.origin import manifest_digest
from heads.results import report_from_json
from heads.search.tables import write_predictions

FORMAT, VERSION = "emopool-evaluation", 1
REPORT, PREDICTIONS = "report.json", "predictions.csv"
SUBJECTS = {"head": "searched head, on cached frames", "model": "fine-tuned model, on recordings"}


@dataclass(frozen=True)
class Evaluation:
    """Scores of a head or a model on one split.

    Attributes:
        subject: `head` or `model`.
        source: its file or directory.
        split: the split scored.
        corpus: the manifest's name for it.
        synthetic: the recordings are not human speech.
        encoders: by modality, as the user named them.
        layers: by modality, the hidden state read.
        report: the scores.
        skipped: reasons by id for utterances that could not be read.
        folder: where report and predictions were written.
        note: what has to be said before the scores; "" for nothing.
    """

    subject: str
    source: Path
    split: str
    corpus: str
    synthetic: bool
    encoders: Mapping[str, str]
    layers: Mapping[str, int]
    report: Report
    skipped: Mapping[str, str]
    folder: Path
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "note": self.note,
            "subject": self.subject,
            "source": str(self.source),
            "split": self.split,
            "corpus": self.corpus,
            "synthetic": self.synthetic,
            "encoders": dict(self.encoders),
            "layers": dict(self.layers),
            "report": self.report.to_json(),
            "skipped": dict(self.skipped),
        }

    def to_text(self) -> str:
        """For a terminal."""
        lines = [
            *([f"Note: {self.note}"] if self.note else []),
            f"The {SUBJECTS[self.subject]} ({self.source}): {self.report.n:,} utterances of "
            f"{self.corpus or 'the manifest'}, {self.split} split",
            f"Encoders: {encoders_text(self.encoders, self.layers)}.",
            *caveats(self.encoders, synthetic=self.synthetic),
            "",
            format_report(self.report),
            "",
        ]
        if self.skipped:
            first = next(iter(self.skipped.values()))
            lines.append(f"{len(self.skipped):,} utterances could not be used. First: {first}")
        lines.append("Wrote:")
        lines += [f"  {self.folder / name}" for name in (REPORT, PREDICTIONS)]
        return "\n".join(lines)


def write_evaluation(
    evaluation: Evaluation, manifest: Manifest, dataset: Dataset, probabilities: Tensor
) -> Evaluation:
    """Write report and predictions (`[n, C]`, of the data set's split); returns the evaluation."""
    rows = dataset.rows(evaluation.split)
    write_predictions(
        evaluation.folder / PREDICTIONS, dataset, {evaluation.split: (rows, probabilities)}
    )
    described = {**evaluation.to_json(), "manifest_sha256": manifest_digest(manifest)}
    write_json(evaluation.folder / REPORT, {"format": FORMAT, "version": VERSION, **described})
    return evaluation


def read_report(work: Work, subject: str, split: str) -> Report | None:
    """The scores of the last evaluation of a head or model; None where there was none."""
    path = evaluation_folder(work, subject, split) / REPORT
    if not path.is_file():
        return None
    return report_from_json(read_json(path, kind=FORMAT, version=VERSION)["report"])


def evaluation_folder(work: Work, subject: str, split: str) -> Path:
    """Where an evaluation is written."""
    return work.evaluation / f"{subject}-{split}"


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


def encoders_text(encoders: Mapping[str, str], layers: Mapping[str, int]) -> str:
    """The encoders in one line."""
    return "; ".join(f"{name} {encoders[name]}, layer {layers[name]}" for name in encoders)


def caveats(encoders: Mapping[str, str], *, synthetic: bool) -> list[str]:
    """What has to be said beside every figure."""
    lines = []
    if synthetic:
        lines.append("The speech is synthetic: these figures say nothing about people.")
    if "tiny" in encoders.values():
        lines.append("Tiny encoders begin with random weights: a working pipeline, not accuracy.")
    return lines
