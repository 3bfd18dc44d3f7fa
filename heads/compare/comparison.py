"""What a comparison found; as text it is in `text`, its tables in `tables`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from heads.compare.config import CompareConfig
from heads.compare.lines import Line, Table
from heads.compare.rows import CAVEAT, SOURCE
from heads.metrics import Report
from heads.records import Origin


@dataclass(frozen=True)
class Finetuned:
    """A row that was taken on with its encoders.

    Attributes:
        title: of the row.
        phases: what was done, in words.
        directory: of the model.
        dev: macro-F1 on dev at the start of the phases and at their best.
        head: the head of the first seed on the test split, before; None without such a split.
        model: the fine-tuned model on it.
        notes: what the user should know.
    """

    title: str
    phases: str
    directory: Path
    dev: tuple[float, float]
    head: Report | None
    model: Report | None
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "title": self.title,
            "phases": self.phases,
            "directory": str(self.directory),
            "dev": list(self.dev),
            "head": self.head and self.head.to_json(),
            "model": self.model and self.model.to_json(),
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class CompareReport:
    """The summary of one comparison.

    Attributes:
        folder: where its files are.
        name: what they are called: `compare` or `layers`.
        origin: corpus and encoders.
        tables: with all lines.
        division: what is trained on and scored, in words.
        folded: scored on the folds of a protocol.
        config: seeds, and what was tuned.
        epochs: of every run.
        sizes: by scored split, utterances and known speakers.
        reasons: by split why there are no intervals, or what makes them too narrow; "" otherwise.
        heads: JSON file of each row's head, by its key, where one is kept.
        notes: what the user should know.
        files: what was written.
        finetuned: rows that were taken on.
    """

    folder: Path
    name: str
    origin: Origin
    tables: tuple[Table, ...]
    division: str
    folded: bool
    config: CompareConfig
    epochs: int
    sizes: Mapping[str, tuple[int, int]]
    reasons: Mapping[str, str]
    heads: Mapping[str, Path]
    notes: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    finetuned: tuple[Finetuned, ...] = ()

    def find(self, title: str) -> Line | None:
        """The line of this title in the first table that has it; case makes no difference."""
        for table in self.tables:
            for line in table.lines:
                if line.title.lower() == title.lower():
                    return line
        return None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        config = self.config
        return {
            **{name: getattr(self, name) for name in ("name", "division", "folded", "epochs")},
            "seeds": config.seeds,
            "batch_size": config.batch_size,
            "scorer_rates": list(config.scorer_rates),
            "input_norms": list(config.input_norms),
            "folder": str(self.folder),
            "learning_rates": list(config.learning_rates),
            "origin": self.origin.to_json(),
            "sizes": {
                split: {"utterances": utterances, "speakers": speakers}
                for split, (utterances, speakers) in self.sizes.items()
            },
            "reasons": dict(self.reasons),
            "published": {"caveat": CAVEAT, "source": SOURCE},
            "tables": [
                {
                    "name": table.name,
                    "title": table.title,
                    "best_on_dev": table.best,
                    "best_head_on_dev": table.best_head,
                    "lines": [_line_json(line) for line in table.lines],
                }
                for table in self.tables
            ],
            "heads": {key: str(path) for key, path in self.heads.items()},
            "finetuned": [row.to_json() for row in self.finetuned],
            "notes": list(self.notes),
            "files": [str(path) for path in self.files],
        }

    @property
    def introduction(self) -> list[str]:
        """What was compared, in sentences."""
        origin = self.origin
        encoders = ", ".join(
            f"{name} {encoder}" + (f" layer {origin.layers[name]}" if name in origin.layers else "")
            for name, encoder in origin.encoders.items()
        )
        corpus = f"{origin.corpus or 'unnamed corpus'}{', synthetic speech' * origin.synthetic}"
        sizes = ", ".join(
            f"{split} {utterances:,} utterances of {speakers} speakers"
            for split, (utterances, speakers) in self.sizes.items()
        )
        config = self.config
        rates = ", ".join(f"{rate:g}" for rate in config.learning_rates)
        scorers = ", ".join(f"{rate:g}" for rate in config.scorer_rates)
        lines = [
            f"Heads on frozen frames (phase 1) of {corpus}; encoders: {encoders}.",
            f"Scored: {sizes}. {self.division[0].upper()}{self.division[1:]}.",
            f"{config.seeds} seeds (parameters, dropout, batch order), {self.epochs} epochs, "
            f"batches of {config.batch_size}. Tuned for every row alike, with the first seed on "
            f"dev: learning rate {rates}; relative rate of scorers, where there are any, "
            f"{scorers}; input normalisation {', '.join(config.input_norms)}.",
        ]
        if "tiny" in origin.encoders.values():
            lines.append(
                "Tiny encoders show that the pipeline works; they say nothing about speech."
            )
        return lines


def _line_json(line: Line) -> dict[str, Any]:
    return {
        "title": line.title,
        "key": line.key,
        "layer": line.layer,
        "params": dict(line.params),
        "tunings": [tuning.to_json() for tuning in line.tunings],
        "rate_at_edge": line.at_edge,
        "selection": {tuning.key: score for tuning, score in line.selection.items()},
        "reference_strengths": list(line.strengths),
        "published": line.published and asdict(line.published),
        **{split: outcome.to_json() for split, outcome in line.outcomes.items()},
    }
