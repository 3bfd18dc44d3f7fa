"""What the classifier reads of each recording, as a file: `.npz` for programs, `.csv` to look at.

An `.npz` holds `ids` `[n]`, `embeddings` `[n, D]` float32 and `columns` `[D]`, and is read without
pickle; a CSV has the columns `id` and those. A column is `<modality>_<number>`, for the members of
an ensemble `model2.<modality>_<number>`, and the modalities stand as the classifier reads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from corpora.base.files import atomic_path, write_text
from corpora.base.report import csv_text
from finetune.predict.answering import Prediction


def write_embeddings(path: Path, predictions: Sequence[Prediction]) -> tuple[int, int]:
    """Write the embeddings of predictions, at least one, at once or not at all.

    Args:
        path: ends in `.npz` or `.csv`.
        predictions: made with `embeddings`.

    Returns:
        How many there are, and their dimension.
    """
    parts = predictions[0].embedding
    columns = [f"{name}_{number}" for name, own in parts.items() for number in range(len(own))]
    ids = [one.id for one in predictions]
    values = np.stack([np.concatenate(list(one.embedding.values())) for one in predictions])
    if path.suffix == ".csv":
        rows = ([name, *row] for name, row in zip(ids, values.tolist(), strict=True))
        write_text(path, csv_text(["id", *columns], list(rows)))
    else:
        with atomic_path(path) as temporary:
            np.savez(temporary, ids=np.array(ids), embeddings=values, columns=np.array(columns))
    count, size = values.shape
    return count, size
