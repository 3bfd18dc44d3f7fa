"""The average of the best heads' probabilities, evaluated like a head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from corpora.base.files import write_json
from heads.metrics import Report

FORMAT, VERSION = "emopool-ensemble", 1


@dataclass(frozen=True)
class Ensemble:
    """An ensemble of trials.

    Attributes:
        trials: their numbers, the best first.
        scores: reports by split, as in `HeadRecord`.
    """

    trials: tuple[int, ...]
    scores: Mapping[str, Report]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        scores = {split: report.to_json() for split, report in self.scores.items()}
        return {"trials": list(self.trials), "scores": scores}


def write_ensemble(path: Path, ensemble: Ensemble) -> None:
    """Write an ensemble's members and scores as JSON."""
    write_json(path, {"format": FORMAT, "version": VERSION, **ensemble.to_json()})


def average(probabilities: Sequence[Tensor]) -> Tensor:
    """The mean of several heads' probabilities `[n, C]`."""
    return torch.stack(list(probabilities)).mean(0)
