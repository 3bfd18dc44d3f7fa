"""Training: company changes nothing, leaving changes nothing, signals are learnt."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest
import torch

from corpora.base.errors import ConfigError
from heads.head import Head, HeadConfig
from heads.losses import LossConfig
from heads.predict import predict
from heads.training import (
    SCORER_RATE,
    TRAINED_FRAMES,
    Cohort,
    Schedule,
    TrainingConfig,
    parameter_groups,
)
from heads.vector_store import VectorStore
from tests.heads.synthetic import LABELS, make_configs, make_dataset
from tests.scorers import draw_scorers

CONFIGS = make_configs()
TRAINING = [
    TrainingConfig(
        learning_rate=1e-3 * (1 + seed),
        weight_decay=0.01 * seed,
        loss=LossConfig("focal" if seed % 2 else "cross_entropy", class_weight=seed % 3 > 0),
        seed=seed,
    )
    for seed in range(len(CONFIGS))
]


def make_cohort(
    members: list[int],
    store: VectorStore,
    epochs: int = 10,
    frames: int | None = TRAINED_FRAMES,
) -> Cohort:
    heads = [draw_scorers(Head(CONFIGS[k], TRAINING[k].seed), k) for k in members]
    rows = store.dataset.rows("train")
    schedule = Schedule(epochs, 10, frames=frames)
    return Cohort(heads, [TRAINING[k] for k in members], store, rows, schedule)


@pytest.mark.parametrize("frames", [None, 4])
def test_a_trial_alone_equals_the_trial_in_a_cohort_after_50_steps(frames: int | None) -> None:
    store = VectorStore(make_dataset())
    rows = store.dataset.rows("dev")
    cohort = make_cohort(list(range(len(CONFIGS))), store, frames=frames)
    for _ in range(10):
        cohort.run_epoch()
    assert cohort.step == 50
    together = predict(cohort.heads, store, rows)
    for k in range(len(CONFIGS)):
        alone = make_cohort([k], store, frames=frames)
        for _ in range(10):
            alone.run_epoch()
        torch.testing.assert_close(
            predict(alone.heads, store, rows)[0], together[k], atol=1e-4, rtol=0
        )


def test_those_who_stay_are_not_changed_by_those_who_leave() -> None:
    store = VectorStore(make_dataset())
    rows = store.dataset.rows("dev")
    halved, whole = (make_cohort([0, 2, 4, 6], store, frames=4) for _ in range(2))
    for epoch in range(4):
        if epoch == 2:
            halved.keep([1, 3])
        halved.run_epoch()
        whole.run_epoch()
    expected = predict(whole.heads, store, rows)[[1, 3]]
    torch.testing.assert_close(predict(halved.heads, store, rows), expected, atol=1e-4, rtol=0)


def test_a_signal_is_learnt_by_every_kind() -> None:
    store = VectorStore(make_dataset(180, signal=2.0))
    rows = store.dataset.rows("test")
    training = [TrainingConfig(1e-2, seed=k) for k in range(len(CONFIGS))]
    heads = [Head(config, k) for k, config in enumerate(CONFIGS)]
    cohort = Cohort(heads, training, store, store.dataset.rows("train"), Schedule(20, 16))
    for _ in range(20):
        cohort.run_epoch()
    hits = predict(heads, store, rows).argmax(-1) == store.dataset.targets(rows)
    assert (hits.double().mean(1) > 0.7).all()


def test_training_is_reproducible_from_its_seeds() -> None:
    store = VectorStore(make_dataset())
    first, second = make_cohort([0, 1], store, 2), make_cohort([0, 1], store, 2)
    for cohort in (first, second):
        cohort.run_epoch()
    for one, other in zip(first.heads, second.heads, strict=True):
        for name, value in one.state_dict().items():
            assert torch.equal(value, other.state_dict()[name])


def test_standardise_uses_training_frames_only() -> None:
    store = VectorStore(make_dataset())
    dataset = store.dataset
    rows = dataset.rows("train")
    cohort = make_cohort([3], store)
    frames = dataset.frames["audio"].select(rows).values.double()
    head = cohort.heads[0]
    torch.testing.assert_close(
        head.get_buffer("audio_shift").double(), frames.mean(0), atol=1e-5, rtol=1e-5
    )
    torch.testing.assert_close(
        head.get_buffer("audio_scale").double(),
        frames.std(0, correction=0),
        atol=1e-5,
        rtol=1e-5,
    )


def test_every_epoch_sees_every_utterance_once_in_another_order() -> None:
    cohort = make_cohort([0], VectorStore(make_dataset()))
    first = torch.cat(list(cohort.batches(0)))
    second = torch.cat(list(cohort.batches(1)))
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(len(cohort.rows)))
    assert not torch.equal(first, second)


def test_the_schedule_rises_linearly_then_falls_as_a_cosine() -> None:
    schedule = Schedule(epochs=1, warmup=0.1)
    factors = [schedule.factor(step, 100) for step in range(100)]
    assert factors[:10] == pytest.approx([(k + 1) / 10 for k in range(10)])
    assert factors[55] == pytest.approx(0.5)
    assert factors[10] == 1.0
    assert factors[99] < 0.001


def test_training_without_a_row_is_refused() -> None:
    store = VectorStore(make_dataset())
    config = HeadConfig(LABELS, {"audio": 16}, {"audio": {"kind": "average"}})
    with pytest.raises(ConfigError, match="no labelled utterance"):
        Cohort(
            [Head(config)], [TRAINING[0]], store, torch.tensor([], dtype=torch.int64), Schedule(1)
        )


def test_training_configuration_round_trips_through_json() -> None:
    for config in (TRAINING[3], replace(TRAINING[3], scorer_rate=0.7)):
        assert TrainingConfig.from_json(config.to_json()) == config
    assert TRAINING[3].scorer_rate == SCORER_RATE < 1


def test_configurations_from_before_scorers_had_a_rate_have_one_rate() -> None:
    value = TRAINING[3].to_json()
    del value["scorer_rate"]
    assert TrainingConfig.from_json(value) == replace(TRAINING[3], scorer_rate=1.0)


def test_a_schedule_round_trips_and_one_from_before_thinning_reads_all_frames() -> None:
    for schedule in (Schedule(9), Schedule(9, frames=None), Schedule(3, 8, 0.1, 2.0, 5, 7)):
        assert Schedule.from_json(json.loads(json.dumps(asdict(schedule)))) == schedule
    before = asdict(Schedule(9, 32, 0.05, 1.0, 3))
    del before["frames"]
    assert Schedule.from_json(before) == Schedule(9, 32, 0.05, 1.0, 3, frames=None)


@pytest.mark.parametrize("member", range(len(CONFIGS)))
def test_parameters_are_in_a_group_for_each_rate(member: int) -> None:
    head, config = Head(CONFIGS[member]), TrainingConfig(2e-3, scorer_rate=0.25)
    groups = parameter_groups(head, config)
    assert sorted(id(p) for group in groups for p in group["params"]) == sorted(
        id(p) for p in head.parameters()
    )
    assert [group["peak"] for group in groups] == [2e-3, 5e-4][: 1 + bool(head.scorer_parameters())]
    if len(groups) == 2:
        assert {id(p) for p in groups[1]["params"]} == {id(p) for p in head.scorer_parameters()}


def test_a_head_without_attention_has_one_group() -> None:
    kinds = [{pooling["kind"] for pooling in config.pooling.values()} for config in CONFIGS]
    groups = [len(parameter_groups(Head(config), TRAINING[0])) for config in CONFIGS]
    assert groups == [2 if own & {"as", "sa", "mha", "mqmha"} else 1 for own in kinds]


@pytest.mark.parametrize("scorer_rate", [1.0, 0.25, 0.0])
@pytest.mark.parametrize("member", [0, 2, 3, 6])
def test_scorers_move_by_their_share_of_the_rate(member: int, scorer_rate: float) -> None:
    """AdamW's first step moves every parameter that has a gradient by the whole rate."""
    store = VectorStore(make_dataset())
    config = TrainingConfig(1e-3, weight_decay=0.0, scorer_rate=scorer_rate, seed=3)
    head = draw_scorers(Head(CONFIGS[member], 3))
    rows = store.dataset.rows("train")
    cohort = Cohort([head], [config], store, rows, Schedule(1, len(rows), warmup=0.0))
    before = {name: value.detach().clone() for name, value in head.named_parameters()}
    cohort.run_epoch()
    assert cohort.step == 1
    scorers = {id(parameter) for parameter in head.scorer_parameters()}
    for name, value in head.named_parameters():
        moved = float((value.detach() - before[name]).abs().max())
        share = scorer_rate if id(value) in scorers else 1.0
        assert moved == pytest.approx(1e-3 * share, rel=0.02, abs=1e-9), name


def test_the_rates_of_both_groups_follow_the_schedule() -> None:
    store = VectorStore(make_dataset())
    head, config = Head(CONFIGS[0]), TrainingConfig(1e-3, scorer_rate=0.5)
    schedule = Schedule(2, 10, warmup=0.3)
    cohort = Cohort([head], [config], store, store.dataset.rows("train"), schedule)
    for positions in cohort.batches(0):
        cohort.run_step(positions)
        factor = schedule.factor(cohort.step - 1, 2 * cohort.steps_per_epoch)
        rates = [group["lr"] for group in cohort._optimiser.groups[0]]
        assert rates == pytest.approx([1e-3 * factor, 5e-4 * factor])


def test_only_a_scorer_rate_makes_a_difference_to_attention() -> None:
    """At a rate of 0 attention stays uniform: the head is one of statistics."""
    store = VectorStore(make_dataset())
    config = replace(CONFIGS[3], dropout=0.0)
    head = Head(config, 1)
    training = TrainingConfig(1e-2, scorer_rate=0.0)
    cohort = Cohort([head], [training], store, store.dataset.rows("train"), Schedule(3, 10))
    for _ in range(3):
        cohort.run_epoch()
    assert not any(name.endswith(".weight") and value.any() for name, value in scorers_of(head))


def scorers_of(head: Head) -> list[tuple[str, torch.Tensor]]:
    own = {id(parameter) for parameter in head.scorer_parameters()}
    return [(name, value) for name, value in head.named_parameters() if id(value) in own]
