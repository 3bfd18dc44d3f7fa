"""The results of a whole run beside one another: reference, searched head, fine-tuned model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from corpora.base.errors import ConfigError
from corpora.base.terminal import aligned
from corpora.base.work import Work
from corpora.manifest import read_manifest
from finetune.evaluate.evaluation import caveats, read_report
from heads.metrics import Report, score_cells
from heads.records import REFERENCE, load_head
from heads.reference import read_reference


@dataclass(frozen=True)
class Results:
    """The test scores that a work folder holds.

    Attributes:
        work: the folder.
        corpus: the manifest's name for it.
        synthetic: the recordings are not human speech.
        labels: the label order.
        encoders: by modality, as the user named them.
        trial: the searched head's number.
        reference: of the logistic regression; None where there is none.
        head: of the searched head, likewise.
        model: of the fine-tuned model, likewise.
    """

    work: Work
    corpus: str
    synthetic: bool
    labels: tuple[str, ...]
    encoders: Mapping[str, str]
    trial: int
    reference: Report | None
    head: Report | None
    model: Report | None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        scored = {"reference": self.reference, "head": self.head, "model": self.model}
        return {
            "work": str(self.work.root),
            "corpus": self.corpus,
            "synthetic": self.synthetic,
            "labels": list(self.labels),
            "encoders": dict(self.encoders),
            "trial": self.trial,
            **{name: report and report.to_json() for name, report in scored.items()},
        }

    def to_text(self) -> str:
        """As a table, and what to try next."""
        scored = [
            ("logistic regression (reference)", self.reference),
            (f"searched head (trial {self.trial})", self.head),
            ("fine-tuned model (phases 2 and 3)", self.model),
        ]
        rows: list[tuple[str, ...]] = [("test set", "macro-F1", "UA", "WA", "utterances")]
        rows += [(name, *score_cells(report)) for name, report in scored if report is not None]
        return "\n".join(
            [
                "",
                f"Results on {self.corpus}",
                *aligned(rows),
                f"Guessing gives a UA of {1 / len(self.labels):.3f}.",
                *caveats(self.encoders, synthetic=self.synthetic),
                "",
                "Try next, with recordings of your own (a CSV with the columns audio and label):",
                "  python cli.py prepare csv my_corpus.csv --work my_work",
                "  python cli.py extract --work my_work      "
                "(W2V-BERT 2.0 and DeBERTa-v3, on a GPU)",
                "  python cli.py search --trials 100 --work my_work",
                "  python cli.py finetune --best --work my_work",
            ]
        )


def check_demo_folder(work: Work) -> None:
    """Refuse to replace somebody's own manifest.

    Raises:
        ConfigError: the work folder holds another corpus than the sample corpus.
    """
    if work.manifest.is_file():
        corpus = read_manifest(work.manifest).corpus
        if corpus != "sample":
            raise ConfigError(
                f"{work.root} holds a manifest of {corpus or 'another corpus'}, "
                "which the demo would replace. Name another folder with --work."
            )


def read_results(work: Work) -> Results:
    """Read the test scores that a work folder holds.

    Raises:
        MissingStepError: there is no searched head.
    """
    record = load_head(work.search)[1]
    reference = read_reference(work.search / REFERENCE)
    return Results(
        work=work,
        corpus=record.origin.corpus,
        synthetic=record.origin.synthetic,
        labels=record.head.labels,
        encoders={name: record.origin.encoders[name] for name in record.head.modalities},
        trial=record.trial,
        reference=reference.scores.get("test") if reference else None,
        head=record.scores.get("test"),
        model=read_report(work, "model", "test"),
    )
