"""Training: company changes nothing, leaving changes nothing, signals are learnt."""

from __future__ import annotations

import pytest
import torch

from corpora.errors import ConfigError
from heads.dataset import VectorStore
from heads.head import Head, HeadConfig
from heads.losses import LossConfig
from heads.training import Cohort, Schedule, TrainingConfig, predict
from tests.heads.synthetic import LABELS, make_configs, make_dataset

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


def make_cohort(members: list[int], store: VectorStore, epochs: int = 10) -> Cohort:
    heads = [Head(CONFIGS[k], TRAINING[k].seed) for k in members]
    rows = store.dataset.rows("train")
    return Cohort(heads, [TRAINING[k] for k in members], store, rows, Schedule(epochs, 10))


def test_a_trial_alone_equals_the_trial_in_a_cohort_after_50_steps() -> None:
    store = VectorStore(make_dataset())
    rows = store.dataset.rows("dev")
    cohort = make_cohort(list(range(len(CONFIGS))), store)
    for _ in range(10):
        cohort.run_epoch()
    assert cohort.step == 50
    together = predict(cohort.heads, store, rows)
    for k in range(len(CONFIGS)):
        alone = make_cohort([k], store)
        for _ in range(10):
            alone.run_epoch()
        torch.testing.assert_close(
            predict(alone.heads, store, rows)[0], together[k], atol=1e-4, rtol=0
        )


def test_those_who_stay_are_not_changed_by_those_who_leave() -> None:
    store = VectorStore(make_dataset())
    rows = store.dataset.rows("dev")
    halved, whole = (make_cohort([0, 2, 4, 6], store) for _ in range(2))
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
    assert TrainingConfig.from_json(TRAINING[3].to_json()) == TRAINING[3]
