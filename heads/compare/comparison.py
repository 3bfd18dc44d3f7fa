"""What a comparison found; its files are in `rendering`, its tables in `tables`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from corpora.base.codec import Jsonable
from heads.compare.lines import Line, RowTable
from heads.compare.rows import CAVEAT, SOURCE
from heads.config import CompareConfig
from heads.gold import objective_key, objective_name
from heads.metrics import Scores
from heads.records import Origin


@dataclass(frozen=True)
class Finetuned(Jsonable):
    """A row that was taken on with its encoders.

    Attributes:
        title: of the row.
        phases: what was done, in words.
        directory: of the model.
        dev: macro-F1 on dev at the start of the phases and at their best.
        head: the head of the first seed on the test split, before; None without such a split.
        model: the fine-tuned model on it.
        notes: what the user should know.
        trained: parameters of the phase that trains most; 0 where that was not kept.
    """

    title: str
    phases: str
    directory: Path
    dev: tuple[float, float]
    head: Scores | None
    model: Scores | None
    notes: tuple[str, ...] = ()
    trained: int = 0


@dataclass(frozen=True)
class CompareReport(Jsonable):
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
        attributes: those that were learnt, with the ends of their scales.
    """

    json_optional = "attributes"

    json_entries = (
        "name division folded epochs seeds=config.seeds batch_size=config.batch_size "
        "scorer_rates=config.scorer_rates input_norms=config.input_norms folder "
        "learning_rates=config.learning_rates origin sizes=sizes_by_name reasons published tables "
        "heads finetuned notes files attributes"
    )

    folder: Path
    name: str
    origin: Origin
    tables: tuple[RowTable, ...]
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
    attributes: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`, without the scores by which tunings were chosen."""
        tables = [
            {
                **table,
                "best": table["best_on_dev"],
                "best_head": table["best_head_on_dev"],
                "lines": [_line_fields(line, value["sizes"]) for line in table["lines"]],
            }
            for table in value["tables"]
        ]
        sizes = {split: tuple(own.values()) for split, own in value["sizes"].items()}
        names = ("seeds", "batch_size", "scorer_rates", "input_norms", "learning_rates")
        config = CompareConfig(**{name: value[name] for name in names})
        return super().from_json({**value, "config": config, "sizes": sizes, "tables": tables})

    @property
    def objective(self) -> str:
        """The score that rows are chosen and compared by."""
        return objective_key(self.origin.labels, self.attributes)

    @property
    def objective_name(self) -> str:
        """The same in words."""
        return objective_name(self.origin.labels, self.attributes)

    @property
    def sizes_by_name(self) -> dict[str, dict[str, int]]:
        """The sizes with their names, for JSON."""
        return {split: {"utterances": u, "speakers": s} for split, (u, s) in self.sizes.items()}

    @property
    def published(self) -> dict[str, str]:
        """What is said of the published figures, for JSON."""
        return {"caveat": CAVEAT, "source": SOURCE}

    def find(self, title: str) -> Line | None:
        """The line of this title in the first table that has it; case makes no difference."""
        for table in self.tables:
            for line in table.lines:
                if line.title.lower() == title.lower():
                    return line
        return None

    @property
    def introduction(self) -> list[str]:
        """What was compared, in sentences."""
        origin = self.origin
        encoders = ", ".join(
            f"{name} {encoder}" + (f" layer {origin.layers[name]}" if name in origin.layers else "")
            for name, encoder in origin.encoders.items()
        )
        sizes = ", ".join(
            f"{split} {utterances:,} utterances of {speakers} speakers"
            for split, (utterances, speakers) in self.sizes.items()
        )
        config = self.config
        rates = ", ".join(f"{rate:g}" for rate in config.learning_rates)
        scorers = ", ".join(f"{rate:g}" for rate in config.scorer_rates)
        lines = [
            f"Heads on frozen frames (phase 1) of {origin.corpus_name}; encoders: {encoders}.",
            f"Scored: {sizes}. {self.division[0].upper()}{self.division[1:]}.",
            f"{config.seeds} seeds (parameters, dropout, batch order), {self.epochs} epochs, "
            f"batches of {config.batch_size}. Tuned for every row alike, with the first seed on "
            f"dev: learning rate {rates}; relative rate of scorers, where there are any, "
            f"{scorers}; input normalisation {', '.join(config.input_norms)}.",
        ]
        if self.attributes:
            ends = ", ".join(
                f"{n} {low:g} to {high:g}" for n, (low, high) in self.attributes.items()
            )
            lines.append(f"Attributes on their scales: {ends}; MAE is in these units.")
        if "tiny" in origin.encoders.values():
            lines.append(
                "Tiny encoders show that the pipeline works; they say nothing about speech."
            )
        return lines


def _line_fields(line: Mapping[str, Any], splits: Iterable[str]) -> dict[str, Any]:
    """The fields of a `Line` from its JSON, where outcomes and their scores stand with others."""
    others = ("difference", "to_reference", "under_trained")
    outcomes = {
        split: {**line[split], "scores": {k: v for k, v in line[split].items() if k not in others}}
        for split in splits
    }
    own = {"at_edge": line["rate_at_edge"], "strengths": line["reference_strengths"]}
    return {**line, **own, "selection": {}, "outcomes": outcomes}
