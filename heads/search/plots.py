"""The study as pictures: its history, which axes mattered, and how the pooling kinds did.

Needs matplotlib, which the extra `plots` installs.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState

from corpora.base.report import Figure, legend_beside, write_figure
from heads.search.trials import START, final_value

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

# Fewer completed trials than this say nothing about which axis mattered.
FEWEST_FOR_IMPORTANCE = 8
NOTE_WIDTH = 90  # letters that fit below the axes


def write_plots(
    folder: Path, trials: Sequence[FrozenTrial], objective: str = "macro-F1"
) -> list[str]:
    """Draw the study as PNG and SVG.

    Args:
        folder: where to.
        trials: of the study, at least one completed.
        objective: what the score of selection is called.

    Returns:
        The names of the files, with the folder's name.
    """
    return [
        f"{folder.name}/{file}"
        for figure in study_figures(trials, objective)
        for file in write_figure(folder, figure)
    ]


def study_figures(trials: Sequence[FrozenTrial], objective: str = "macro-F1") -> list[Figure]:
    """The pictures of a study; see `write_plots`."""
    return [
        Figure(name, partial(_on_axes, draw, trials), title)
        for name, title, draw in (
            ("history", "Every trial's score", partial(_draw_history, objective=objective)),
            ("poolings", "Scores by pooling kind", partial(_draw_poolings, objective=objective)),
            ("importance", "How much each axis matters", _draw_importance),
        )
    ]


def _on_axes(
    draw: Callable[[Axes, Sequence[FrozenTrial]], None],
    trials: Sequence[FrozenTrial],
    canvas: Canvas,
) -> None:
    draw(canvas.add_subplot(), trials)


def _draw_history(axes: Axes, trials: Sequence[FrozenTrial], objective: str) -> None:
    """Every trial's score, and the best so far."""
    complete = _completed(trials)
    halved = [trial for trial in trials if trial.state == TrialState.PRUNED]
    for title, group, colour in (
        ("halved (score when it left)", halved, "0.7"),
        ("completed", [t for t in complete if START not in t.user_attrs], "tab:blue"),
        ("completed, starts", [t for t in complete if START in t.user_attrs], "tab:orange"),
    ):
        if group:
            scores = [final_value(trial) for trial in group]
            axes.scatter([t.number for t in group], scores, s=18, color=colour, label=title)
    best, line = float("-inf"), []
    for trial in complete:
        best = max(best, final_value(trial))
        line.append(best)
    numbers = [trial.number for trial in complete]
    axes.step(numbers, line, where="post", color="tab:red", label="best so far")
    axes.set(xlabel="trial", ylabel=f"{objective} (selection)", title="Optimisation history")
    legend_beside(axes)


def _draw_poolings(axes: Axes, trials: Sequence[FrozenTrial], objective: str) -> None:
    """Completed trials by pooling kind, the best kind on top; a bar at the median."""
    kinds: dict[str, list[float]] = {}
    for trial in _completed(trials):
        kinds.setdefault(pooling_kind(trial), []).append(final_value(trial))
    ordered = sorted(kinds, key=lambda kind: max(kinds[kind]))
    for row, kind in enumerate(ordered):
        scores = sorted(kinds[kind])
        axes.scatter(scores, [row] * len(scores), s=18, color="tab:blue", alpha=0.7)
        middle = (scores[(len(scores) - 1) // 2] + scores[len(scores) // 2]) / 2
        axes.vlines(middle, row - 0.3, row + 0.3, color="tab:red")
    labels = [f"{kind} ({len(kinds[kind])})" for kind in ordered]
    axes.set_yticks(range(len(ordered)), labels)
    axes.set(
        xlabel=f"{objective} (selection); bar: median",
        title="Completed trials by pooling kind (number)",
    )


def _draw_importance(axes: Axes, trials: Sequence[FrozenTrial]) -> None:
    """How much each axis decides whether a trial is among the better ones."""
    importance = axis_importance(trials)
    axes.set_title("Importance of the axes (PED-ANOVA)")
    if not importance:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "too few completed trials, or all alike", ha="center", va="center")
        return
    names = list(importance)[::-1]
    axes.barh(names, [importance[name] for name in names], color="tab:blue")
    every = dict.fromkeys(axis for trial in _completed(trials) for axis in trial.params)
    others = ", ".join(axis for axis in every if axis not in importance)
    note = "\n".join(textwrap.wrap(f"not measured: {others}", NOTE_WIDTH)) if others else ""
    axes.set_xlabel(f"share (among axes that vary, and that all completed trials have)\n{note}")


def axis_importance(trials: Sequence[FrozenTrial]) -> dict[str, float]:
    """Importance of each axis that can be measured, the largest first; sums to 1.

    PED-ANOVA (Watanabe et al. 2023). An axis that is not in it, because only some completed trials
    have it or all have one value of it, may matter all the same. Empty where completed trials are
    too few or all score alike.
    """
    complete = _completed(trials)
    if len(complete) < FEWEST_FOR_IMPORTANCE or len({t.value for t in complete}) < 2:
        return {}
    study = optuna.create_study(direction="maximize")
    study.add_trials(complete)
    # Axes that only some have, such as the rate of scorers, would be judged by one or two trials.
    # One that never varied would be given 0, as if it had been tried and made no difference.
    measured = [
        axis
        for axis in complete[0].params
        if all(axis in t.params for t in complete) and len({t.params[axis] for t in complete}) > 1
    ]
    if not measured:
        return {}
    evaluator = PedAnovaImportanceEvaluator()
    return dict(get_param_importances(study, evaluator=evaluator, params=measured))


def pooling_kind(trial: FrozenTrial) -> str:
    """A trial's pooling kind; untied ones as `audio kind, text kind`."""
    kinds = {
        name.removesuffix("pooling").rstrip("_"): str(value)
        for name, value in trial.params.items()
        if name.endswith("pooling")
    }
    return ", ".join(f"{prefix} {kind}".strip() for prefix, kind in kinds.items())


def _completed(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    return [trial for trial in trials if trial.state == TrialState.COMPLETE]
