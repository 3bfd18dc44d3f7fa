"""The plots of a study: drawn as PNG and SVG, the same each time, refused without matplotlib."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from corpora.base.errors import MissingExtraError
from heads.search import plots
from tests.heads.searches import small_search

pytest.importorskip("matplotlib", reason="matplotlib is an extra")

AXES: dict[str, BaseDistribution] = {
    "rate": FloatDistribution(0, 1),
    "noise": FloatDistribution(0, 1),
}


def study_trials(count: int) -> list[FrozenTrial]:
    """Completed trials whose score is their rate."""
    study = optuna.create_study(direction="maximize")
    for k in range(count):
        params = {"rate": k / count, "noise": (k * 7 % count) / count}
        study.add_trial(create_trial(params=params, distributions=AXES, value=params["rate"]))
    return study.trials


def test_a_search_writes_its_plots(tmp_path: Path) -> None:
    report = small_search(tmp_path / "search", 13, epochs=3, plots=True)
    for name in ("history", "poolings", "importance"):
        png, svg = (tmp_path / "search" / "plots" / f"{name}{end}" for end in (".png", ".svg"))
        assert {png, svg} <= {*report.files}
        assert png.read_bytes().startswith(b"\x89PNG")
        assert "<svg" in svg.read_text()


def test_the_axis_that_decides_is_the_important_one() -> None:
    importance = plots.axis_importance(study_trials(30))
    assert list(importance) == ["rate", "noise"]
    assert importance["rate"] > 0.8
    assert sum(importance.values()) == pytest.approx(1)


def test_few_trials_or_equal_scores_have_no_importance() -> None:
    assert plots.axis_importance(study_trials(5)) == {}
    equal = [
        create_trial(params={"rate": k / 20, "noise": 0.5}, distributions=AXES, value=0.5)
        for k in range(20)
    ]
    assert plots.axis_importance(equal) == {}


def test_axes_that_cannot_be_measured_are_named_and_not_drawn_as_0() -> None:
    from matplotlib.figure import Figure

    axes: dict[str, BaseDistribution] = {
        **AXES,
        "fixed": FloatDistribution(0, 1),
        "single": CategoricalDistribution(["none"]),
    }
    study = optuna.create_study(direction="maximize")
    for k in range(30):
        rate = k / 30
        params = {"rate": rate, "noise": (k * 7 % 30) / 30, "fixed": 0.5, "single": "none"}
        own = {**axes, "scorer_rate": FloatDistribution(0, 1)} if k % 2 else axes
        params |= {"scorer_rate": 0.1} if k % 2 else {}
        study.add_trial(create_trial(params=params, distributions=own, value=rate))
    assert set(plots.axis_importance(study.trials)) == {"rate", "noise"}
    canvas = Figure().add_subplot()
    plots._draw_importance(canvas, study.trials)
    assert [label.get_text() for label in canvas.get_yticklabels()] == ["noise", "rate"]
    assert "not measured: fixed, single, scorer_rate" in canvas.get_xlabel()


def test_kinds_of_untied_poolings_are_named_for_both() -> None:
    trial = create_trial(state=TrialState.PRUNED)
    trial.params = {"audio_pooling": "max", "text_pooling": "average", "audio_queries": 1}
    assert plots.pooling_kind(trial) == "audio max, text average"


def test_without_matplotlib_a_search_with_plots_is_refused_before_it_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("corpora.base.report.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"emopool\[plots\]"):
        small_search(tmp_path / "search", 1, plots=True)
    assert not (tmp_path / "search").exists()
