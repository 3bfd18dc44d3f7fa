"""What a head or a model says about every utterance, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from corpora.base.tables import write_table
from heads.dataset import Dataset


def write_predictions(
    path: Path, dataset: Dataset, probabilities: Mapping[str, tuple[Tensor, Tensor]]
) -> None:
    """Columns id, split, gold and `p_<label>`; by split the rows `[n]` and probabilities `[n, C]`.

    Probabilities have seven digits after the point.
    """
    columns = ["id", "split", "gold", *(f"p_{label}" for label in dataset.labels)]
    rows = []
    for split, (numbers, values) in probabilities.items():
        for number, row in zip(numbers.tolist(), values.tolist(), strict=True):
            utterance = dataset.utterances[number]
            cells = [f"{value:.7f}" for value in row]
            rows.append(
                dict(zip(columns, [utterance.id, split, utterance.label, *cells], strict=True))
            )
    write_table(path, columns, rows)
