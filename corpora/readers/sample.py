"""The embedded sample corpus: synthetic speech, as `corpora.speech_synth` writes it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from corpora.readers.registry import Options, ReadResult, register
from corpora.readers.table import read_table
from corpora.readers.tree import wrong_root
from corpora.sample_design import LABELS

TABLE = "metadata.csv"


@register(
    "sample",
    title="Emopool's sample corpus: SYNTHETIC English speech by espeak-ng",
    licence="made on your machine; use it as you like",
    source="made by `demo`",
    needs=f"the folder that the sample-corpus generator wrote, with {TABLE}",
)
def read_sample(root: Path, options: Options) -> ReadResult:
    """Read the folder's table; the result says that the speech is synthetic."""
    table = root / TABLE
    if not table.is_file():
        raise wrong_root(root, "the sample corpus", f"{TABLE}, as the generator writes it")
    result = read_table(table, corpus="sample")
    note = "SYNTHETIC speech: a score on it shows that the pipeline works, and nothing else."
    labels = tuple(label for label in LABELS if label in result.labels)
    return replace(result, labels=labels, notes=(*result.notes, note), synthetic=True)
