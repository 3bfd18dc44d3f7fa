"""The search space: published points, limits set by the data, reading back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import optuna
import pytest

from heads.axes import Choice, Range
from heads.head import Head, HeadConfig
from heads.pooling import pooling_class, pooling_config, searched_kinds
from heads.runs import seed_from
from heads.search.space import (
    PROBES,
    PUBLISHED,
    PUBLISHED_REST,
    STARTS,
    Space,
    fitting_poolings,
    start_params,
    trial_configs,
    trial_seed,
)
from heads.training import SCORER_RATE
from tests.heads import references
from tests.heads.searches import BEGINNINGS
from tests.heads.synthetic import LABELS

SPACE = Space(LABELS, {"audio": 32, "text": 24}, speech=True)
PRESETS: dict[str, dict[str, Any]] = {
    "average": {"kind": "average"},
    "max": {"kind": "max"},
    "statistics": {"kind": "statistics"},
    "AS": {"kind": "as"},
    "SA": {"kind": "sa"},
    "MHA": {"kind": "mha"},
    "MQMHA 2/2": {"kind": "mqmha", "queries": 2, "heads": 2},
    "MQMHA 2/4": {"kind": "mqmha", "queries": 2, "heads": 4},
    "MQMHA 4/4": {"kind": "mqmha", "queries": 4, "heads": 4},
    "vad_average": {"kind": "vad_average"},
    "average+vad_average": {"kind": "average+vad_average"},
}


def needs_speech(kind: str) -> bool:
    return pooling_class(kind).needs_speech


def draws(space: Space, count: int = 100) -> list[HeadConfig]:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [trial_configs(study.ask(), space, seed=0)[0] for _ in range(count)]


@pytest.mark.parametrize("name", PRESETS)
def test_a_published_configuration_is_the_preset_of_that_name(name: str) -> None:
    params = start_params(SPACE)[0][name]
    head, training = trial_configs(optuna.trial.FixedTrial(params), SPACE, seed=5)
    assert pooling_config(head.pooling["audio"]) == pooling_config(PRESETS[name])
    assert head.modalities == ("audio", "text")
    assert (head.input_norm, head.mlp_width, head.dropout) == ("standardise", 256, 0.1)
    assert (training.loss.kind, training.loss.class_weight) == ("cross_entropy", True)
    assert (training.learning_rate, training.scorer_rate) == (3e-3, SCORER_RATE)
    assert (training.weight_decay, training.seed) == (0.01, 5)
    assert all(params[axis] == value for axis, value in PUBLISHED_REST.items())


@pytest.mark.parametrize("name", PROBES)
def test_a_probe_is_a_linear_classifier_of_a_fixed_pooling(name: str) -> None:
    params = start_params(SPACE)[0][name]
    head, training = trial_configs(optuna.trial.FixedTrial(params), SPACE, seed=5)
    assert head.mlp_width == 0
    assert {pooling["kind"] for pooling in head.pooling.values()} <= {"average", "statistics"}
    assert not Head(head).scorer_parameters()
    own = {name: getattr(training, name) for name in ("learning_rate", "weight_decay")}
    assert own == {axis: PROBES[name][axis] for axis in own}
    assert head.input_norm == PROBES[name]["input_norm"]
    assert params["loss"] == PUBLISHED_REST["loss"]


def test_probes_come_first_then_published_configurations_then_later_kinds() -> None:
    params, notes = start_params(SPACE)
    assert list(STARTS) == [*PROBES, *PRESETS]
    assert list(params) == [*STARTS, *fitting_poolings(SPACE)] == list(BEGINNINGS)
    assert notes == ()
    assert list(PUBLISHED) == list(PRESETS)
    assert list(start_params(SPACE, PUBLISHED)[0]) == list(PRESETS)


def test_starts_lie_within_what_is_drawn() -> None:
    for params in start_params(SPACE)[0].values():
        for name, value in params.items():
            axis = SPACE.axes[name]
            if isinstance(axis, Range):
                assert axis.low <= value <= axis.high
            else:
                assert value in axis.values


def test_axes_of_training_are_those_that_frozen_features_need() -> None:
    axes = SPACE.axes
    assert axes["mlp_width"] == Choice((0, 64, 256))
    drawn = {
        name: (axis.low, axis.high, axis.log)
        for name, axis in axes.items()
        if isinstance(axis, Range)
    }
    assert drawn["learning_rate"] == (3e-4, 3e-2, True)
    assert drawn["weight_decay"] == (1e-3, 10.0, True)
    assert drawn["scorer_rate"] == (1e-2, 1.0, True)
    assert drawn["dropout"] == (0.0, 0.5, False)


def test_only_heads_with_attention_draw_a_rate_of_scorers() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen = set()
    for _ in range(60):
        trial = study.ask()
        head, training = trial_configs(trial, SPACE, seed=0)
        kind = head.pooling[head.modalities[0]]["kind"]
        assert ("scorer_rate" in trial.params) == references.learns_weights(kind)
        assert training.scorer_rate == trial.params.get("scorer_rate", SCORER_RATE)
        seen.add(kind)
    assert len(seen) > 3
    assert "mqmha" in seen


@pytest.mark.parametrize(
    ("axis", "limits"),
    [
        (Range(0.0, 0.5), (0.0, 0.5)),
        (Range(0.1, 0.5, least=0.0), (0.0, 0.5)),
        (Range(0.1, 0.5, most=2.0), (0.1, 2.0)),
        (Range(0.1, 0.5, least=0.05, most=2.0), (0.05, 2.0)),
    ],
)
def test_limits_of_an_axis_are_its_range_unless_they_are_said(
    axis: Range, limits: tuple[float, float]
) -> None:
    assert axis.limits == limits


def test_published_heads_that_do_not_divide_the_features_are_left_out_with_a_note() -> None:
    params, notes = start_params(replace(SPACE, dims={"audio": 32, "text": 6}))
    assert set(STARTS) - set(params) == {"MQMHA 2/4", "MQMHA 4/4"}
    assert len(notes) == len(BEGINNINGS) - len(params)
    assert "do not divide 32 and 6" in notes[0]


def test_heads_that_do_not_divide_the_features_are_never_drawn() -> None:
    for head in draws(replace(SPACE, dims={"audio": 32, "text": 6})):
        assert head.pooling[head.modalities[0]].get("heads", 1) in (1, 2)


def test_kinds_that_need_speech_are_left_out_without_it() -> None:
    space = replace(SPACE, speech=False)
    of_speech = {name for name, kind in searched_kinds().items() if needs_speech(kind)}
    assert of_speech >= {"vad_average", "average+vad_average"}
    assert not any(needs_speech(head.pooling[head.modalities[0]]["kind"]) for head in draws(space))
    params, notes = start_params(space)
    assert set(BEGINNINGS) - set(params) == of_speech
    assert len(notes) == len(of_speech)


def test_kinds_that_need_words_come_with_them_and_average_text() -> None:
    without, notes = start_params(SPACE)
    space = replace(SPACE, words=True)
    assert set(start_params(space)[0]) - set(without) == {"informative_average"}
    assert notes == ()
    assert start_params(SPACE, fitting_poolings(space))[1] == (
        "informative_average is left out: it needs audio with TextGrids (manifest column "
        "`alignment`, which `transcribe --word-times` fills in) and `extract --surprisal-model`.",
    )
    own = [head for head in draws(space, 300) if head.needs_words]
    assert {head.pooling["audio"]["share"] for head in own} == {0.25, 0.5, 0.75}
    assert {head.pooling.get("text", {}).get("kind") for head in own} <= {"average", None}
    assert not any(head.needs_words for head in draws(SPACE))


def test_text_has_no_silence_so_speech_kinds_average_it() -> None:
    params = start_params(SPACE)[0]["vad_average"]
    head, _ = trial_configs(optuna.trial.FixedTrial(params), SPACE, seed=0)
    assert head.pooling["text"] == {"kind": "average"}


def test_tied_modalities_are_pooled_in_the_same_way() -> None:
    both = [head for head in draws(SPACE) if len(head.modalities) == 2]
    assert both
    for head in both:
        if not needs_speech(head.pooling["audio"]["kind"]):
            assert head.pooling["audio"] == head.pooling["text"]


def test_untied_modalities_are_also_pooled_in_different_ways() -> None:
    both = [head for head in draws(replace(SPACE, tied=False)) if len(head.modalities) == 2]
    assert any(head.pooling["audio"] != head.pooling["text"] for head in both)


@pytest.mark.parametrize("tied", [True, False])
def test_starts_pool_both_modalities_tied_or_not(tied: bool) -> None:
    for params in start_params(replace(SPACE, tied=tied))[0].values():
        head, _ = trial_configs(optuna.trial.FixedTrial(params), replace(SPACE, tied=tied), seed=0)
        kinds = {name: pooling["kind"] for name, pooling in head.pooling.items()}
        assert kinds["text"] in (kinds["audio"], "average")


@pytest.mark.parametrize("modality", ["audio", "text"])
def test_one_modality_is_searched_alone(modality: str) -> None:
    space = Space(LABELS, {modality: 32}, speech=modality == "audio")
    assert {head.modalities for head in draws(space, 20)} == {(modality,)}
    params, _ = start_params(space)
    assert {p["modalities"] for p in params.values()} == {modality}


@pytest.mark.parametrize("tied", [True, False])
def test_every_draw_is_a_head_that_can_be_built(tied: bool) -> None:
    for config in draws(replace(SPACE, tied=tied), 50):
        Head(config)


def test_configurations_are_read_back_from_a_finished_trial() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    for _ in range(20):
        trial = study.ask()
        drawn = trial_configs(trial, SPACE, seed=3)
        study.tell(trial, 0.0)
        assert trial_configs(study.trials[-1], SPACE, seed=3) == drawn


def test_trials_and_studies_have_seeds_of_their_own() -> None:
    seeds = {trial_seed(study, number) for study in range(20) for number in range(100)}
    assert len(seeds) == 2000
    assert trial_seed(1, 2) == trial_seed(1, 2)
    assert seed_from(1, 2) != seed_from(2, 1)
