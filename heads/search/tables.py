"""The tables of a search: every trial, and what the best head says about every utterance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from optuna.trial import FrozenTrial

from corpora.base.tables import write_table
from heads.search.study import SECONDS, SEED, START

# Axes whose draws the report counts, and the fewest sampled trials that it does so for.
SHOWN_AXES = ("pooling", "input_norm", "mlp_width", "loss", "audio_layer", "text_layer")
FEWEST_DRAWS = 20


def write_trials(path: Path, trials: Sequence[FrozenTrial]) -> None:
    """One row a trial: number, state, value (of a halved one the last), epochs, seed, all axes.

    `dev_macro_f1` is the score of selection: with folds, their pooled macro-F1. `seconds` is its
    share of the time that its cohort was trained for.
    """
    axes = list(dict.fromkeys(axis for trial in trials for axis in trial.params))
    columns = ["number", "start", "state", "dev_macro_f1", "epochs", "seconds", "seed", *axes]
    rows = []
    for trial in trials:
        rows.append(
            {
                "number": trial.number,
                "start": trial.user_attrs.get(START, ""),
                "state": trial.state.name.lower(),
                "dev_macro_f1": trial.value,
                "epochs": trial.last_step,
                "seconds": trial.user_attrs.get(SECONDS),
                "seed": trial.user_attrs.get(SEED, ""),
                **trial.params,
            }
        )
    write_table(path, columns, rows)


def drawn_shares(trials: Sequence[FrozenTrial]) -> list[str]:
    """A note on how often each listed value was drawn, by whoever drew; none for too few trials."""
    sampled = [trial.params for trial in trials if START not in trial.user_attrs]
    if len(sampled) < FEWEST_DRAWS:
        return []
    parts = []
    for axis in SHOWN_AXES:
        counts = Counter(str(params[axis]) for params in sampled if axis in params)
        if len(counts) > 1:
            own = ", ".join(f"{v} {n / counts.total():.0%}" for v, n in counts.most_common())
            parts.append(f"{axis}: {own}")
    return [f"Drawn in {len(sampled)} sampled trials: {'; '.join(parts)}."] if parts else []
