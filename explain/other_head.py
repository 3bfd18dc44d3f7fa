"""Which other head of a search can be explained by its attention, where the best one has none."""

from __future__ import annotations

from pathlib import Path

from corpora.base.files import read_json
from heads.pooling import pooling_config
from heads.results import FORMAT, TRIALS_FOLDER, VERSION, HeadRecord


def attends(record: HeadRecord) -> bool:
    """Whether the pooling of every modality learns weights."""
    return all(pooling_config(one).learns_weights for one in record.head.pooling.values())


def other_head_note(record: HeadRecord, search: Path) -> str:
    """A sentence on the best kept head with attention; "" where this one has it or none has.

    Args:
        record: of the head that is explained.
        search: the search's folder.
    """
    if attends(record):
        return ""
    kept = [
        HeadRecord.from_json(read_json(path, kind=FORMAT, version=VERSION))
        for path in sorted((search / TRIALS_FOLDER).glob("*.json"))
    ]
    best = max(filter(attends, kept), key=lambda one: one.dev_macro_f1, default=None)
    if best is None:
        return ""
    return (
        f"The best kept head with attention is trial {best.trial} (macro-F1 "
        f"{best.dev_macro_f1:.3f} on {best.selected_on}): --trial {best.trial} explains that one."
    )
