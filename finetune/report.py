"""What a fine-tuning did, as data and as text to read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corpora.base.terminal import aligned, wrapped
from corpora.base.work import command_line
from finetune.evaluation import PREDICTIONS, REPORT, Evaluation, caveats, encoders_text
from finetune.retraining import SEEDS
from finetune.training import PhaseResult
from heads.layers import layer_weights_text
from heads.metrics import score_cells
from heads.results import HeadRecord


@dataclass(frozen=True)
class FinetuneReport:
    """The summary of one `finetune`.

    Attributes:
        directory: where the model is.
        record: the searched head it started from.
        synthetic: the recordings are not human speech.
        shared_speakers: the splits share speakers, by declaration.
        phases: what each phase did.
        head: the searched head on the test split; None where there is no such split.
        model: the fine-tuned model on it.
        notes: what the user should know.
        curves: losses and scores by step, and their picture.
    """

    directory: Path
    record: HeadRecord
    synthetic: bool
    phases: tuple[PhaseResult, ...]
    head: Evaluation | None
    model: Evaluation | None
    notes: tuple[str, ...]
    shared_speakers: bool = False
    curves: tuple[Path, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """What was written."""
        scored = [evaluation for evaluation in (self.head, self.model) if evaluation is not None]
        return (
            self.directory,
            *self.curves,
            *(evaluation.folder / name for evaluation in scored for name in (REPORT, PREDICTIONS)),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "directory": str(self.directory),
            "trial": self.record.trial,
            "synthetic": self.synthetic,
            "shared_speakers": self.shared_speakers,
            "phases": [phase.to_json() for phase in self.phases],
            "head": self.head and self.head.to_json(),
            "model": self.model and self.model.to_json(),
            "notes": list(self.notes),
            "files": [str(path) for path in self.files],
        }

    def to_text(self, manifest: Path | None = None) -> str:
        """For a terminal; the next command gets a manifest named in place of the folder's own."""
        origin, modalities = self.record.origin, self.record.head.modalities
        encoders = {name: origin.encoders[name] for name in modalities}
        split = "" if self.model is not None else " --split dev"
        after = self.model
        weights = "" if after is None else layer_weights_text(after.layer_weights, after.layers)
        return "\n".join(
            [
                f"Fine-tuned the head of trial {self.record.trial} with its encoders on "
                f"{origin.corpus or 'the manifest'}.",
                f"Encoders: {encoders_text(encoders, origin.layers)}.",
                *([f"Layer weights: {weights}."] if weights else []),
                *caveats(encoders, synthetic=self.synthetic, shared_speakers=self.shared_speakers),
                *(f"Note: {note}" for note in self.notes),
                "",
                *_phase_table(self.phases),
                "",
                *self._score_lines(),
                "",
                "Wrote:",
                *(f"  {path}" for path in self.files),
                "",
                f"Next: {command_line(f'evaluate{split}', self.directory.parent, manifest)}",
            ]
        )

    def _score_lines(self) -> list[str]:
        if self.head is None or self.model is None:
            return ["There is no labelled test split, so there is no result to report."]
        report = self.model.report
        lines = aligned(
            [
                ("test", "macro-F1", "UA", "WA", "utterances"),
                ("searched head", *score_cells(self.head.report)),
                ("fine-tuned model", *score_cells(report)),
            ]
        )
        if report.intervals is not None:
            coverage = f"{100 * report.confidence:g} % interval"
            over = f"{report.speakers} speakers" if report.speakers else "utterances"
            lines.append(f"[{coverage}, bootstrap over {over}]")
        if report.interval_reason:
            label = "Note" if report.intervals else "No interval"
            lines.append(f"{label}: {report.interval_reason}.")
        return lines


def _phase_table(phases: Sequence[PhaseResult]) -> list[str]:
    columns = ("phase", "rate", "trained", "epochs", "dev macro-F1 at start", "kept", "of epoch")
    rows: list[tuple[str, ...]] = [(*columns, "crosswise", "to beat")]
    for result in phases:
        rows.append(
            (
                str(result.config.phase),
                f"{result.config.learning_rate:g}",
                f"{sum(row.parameters for row in result.table):,}",
                str(result.epochs),
                f"{result.start.macro_f1:.3f}",
                f"{result.best.macro_f1:.3f}",
                str(result.best_epoch) if result.best_epoch else "0 (its start)",
                *("-" if own is None else f"{own:.3f}" for own in (result.crosswise, result.bar)),
            )
        )
    lines = aligned(rows)
    if any(result.crosswise is not None for result in phases):
        lines += wrapped(
            "Crosswise: half of the dev speakers choose an epoch, the other half score it. A phase "
            "is kept where that is above what it has to beat: the phase before, or the mean of "
            f"heads like the searched one from {SEEDS} other seeds."
        )
    return lines
