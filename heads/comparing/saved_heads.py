"""The heads of a comparison as files that `finetune --head` takes: of each row the first seed's.

The seed is not chosen: the best of several would be a choice the tables do not show.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from heads.comparing.config import CompareConfig
from heads.comparing.grid import Plan
from heads.comparing.lines import Line
from heads.comparing.outcomes import Scorer
from heads.comparing.passes import head_config, training_config
from heads.comparing.units import HEAD, HEAD_WEIGHTS, Kept, Unit
from heads.head import Head
from heads.origin import Origin
from heads.results import HeadRecord, package_versions, save_head
from heads.training import Schedule


def save_heads(
    plan: Plan,
    kept: Kept,
    origin: Origin,
    config: CompareConfig,
    scorer: Scorer,
    lines: Mapping[str, Line],
    epochs: int,
) -> dict[str, Path]:
    """Write the first seed's head of each row with its chosen tuning.

    Args:
        plan: the rows.
        kept: the runs.
        origin: what they were trained on.
        config: of the comparison.
        scorer: for the score on dev.
        lines: by key, with the tuning.
        epochs: of every run.

    Returns:
        The JSON file of each row, by key.
    """
    titles = {entry.key: entry.title for table in plan.tables for entry in table.entries}
    found = {}
    for number, (key, row) in enumerate(plan.rows.items()):
        (tuning,) = lines[key].tunings  # of the one part that splits make
        unit, shape = Unit(key, tuning, 0), head_config(row, tuning)
        head = Head(shape)
        head.load_state_dict(kept.weights(unit))
        record = HeadRecord(
            trial=number,
            start=titles[key],
            params={**row.params, **tuning.to_json()},
            head=shape,
            training=training_config(row, tuning, 0, 0),
            schedule=Schedule(epochs, config.batch_size, data_seed=0),
            origin=origin,
            study_seed=0,
            versions=package_versions(),
            dev_macro_f1=scorer.selection("dev", kept.answers(unit)["dev"][None])[0],
        )
        path = kept.folder / key / HEAD
        save_head(path, path.with_name(HEAD_WEIGHTS), head, record)
        found[key] = path
    return found
