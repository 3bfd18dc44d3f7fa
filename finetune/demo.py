"""The results of a whole run beside one another: reference, searched head, fine-tuned model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from corpora.base.codec import Jsonable
from corpora.base.errors import ConfigError
from corpora.base.report import Report
from corpora.base.work import Work
from corpora.manifest import read_manifest
from finetune.evaluate.evaluation import caveats, read_report
from heads.metrics import Scores, scores_table
from heads.records import REFERENCE, load_head
from heads.reference import Reference

_NEXT = """\
Try next, with recordings of your own (a CSV with the columns audio and label):
  python cli.py prepare csv my_corpus.csv --work my_work
  python cli.py extract --work my_work      (W2V-BERT 2.0 and DeBERTa-v3, on a GPU)
  python cli.py search --trials 100 --work my_work
  python cli.py finetune --best --work my_work"""


@dataclass(frozen=True)
class Results(Jsonable):
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

    json_entries = "work=work.root corpus synthetic labels encoders trial reference head model"

    work: Work
    corpus: str
    synthetic: bool
    labels: tuple[str, ...]
    encoders: Mapping[str, str]
    trial: int
    reference: Scores | None
    head: Scores | None
    model: Scores | None

    def to_text(self) -> str:
        """As a table, and what to try next."""
        scored = {
            "logistic regression (reference)": self.reference,
            f"searched head (trial {self.trial})": self.head,
            "fine-tuned model (phases 2 and 3)": self.model,
        }
        there = {name: own for name, own in scored.items() if own is not None}
        notes = (
            f"Guessing gives a UA of {1 / len(self.labels):.3f}.",
            *caveats(self.encoders, synthetic=self.synthetic),
        )
        parts = (
            f"Results on {self.corpus}",
            scores_table("test set", there, notes=notes),
            _NEXT,
        )
        return Report("", parts).to_text()


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
    reference = Reference.read(work.search / REFERENCE)
    return Results(
        work=work,
        corpus=record.origin.corpus,
        synthetic=record.origin.synthetic,
        labels=record.head.labels,
        encoders={name: record.origin.encoders[name] for name in record.head.modalities},
        trial=record.trial,
        reference=reference.scores.get("test") if reference else None,
        head=record.scores.get("test"),
        model=read_report(work.evaluation, "model", "test"),
    )
