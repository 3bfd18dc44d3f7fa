"""Frames in bfloat16: what is kept of them, and that training on them is training on the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from cache.frames import Frames
from heads.dataset import Dataset
from heads.head import Head, HeadConfig, stack_logits
from heads.load import choose_precision
from heads.predict import gather, predict
from heads.training import Cohort, Schedule, TrainingConfig
from heads.vector_store import VectorStore
from tests.heads.synthetic import LABELS, in_memory, make_configs, make_dataset
from tests.scorers import draw_scorers


def half_precision(dataset: Dataset, centre: float = 0.0, spread: float = 1.0) -> Dataset:
    """The same with frames as the cache keeps them, around another mean."""
    frames = {
        name: Frames((batch.values * spread + centre).half(), batch.offsets, batch.speech)
        for name, batch in in_memory(dataset).items()
    }
    return replace(dataset, frames=frames)


@pytest.mark.parametrize("pooling", [{"kind": "mqmha"}, {"kind": "as", "hidden": 8}])
def test_deviations_of_frames_far_from_zero_are_kept(pooling: dict[str, object]) -> None:
    dataset = half_precision(make_dataset(90, 16), centre=8.0, spread=0.05)
    true = [
        dataset.frames["audio"].utterance(b).double().numpy().std(0) for b in range(len(dataset))
    ]
    head = Head(HeadConfig(LABELS, {"audio": 16}, {"audio": pooling}), seed=1)
    for parameter in head.poolings["audio"].parameters():
        parameter.data.zero_()  # then all frames weigh the same, and σ is the plain deviation
    store = VectorStore(dataset, "bf16")
    batch = gather(store, [head], torch.arange(len(dataset)))
    pooled = head.pooling("audio").pool(batch["audio"].view("none"))[0].detach()
    deviations = pooled.unflatten(1, (-1, 2, 16 // (2 if pooling["kind"] == "mqmha" else 1)))
    found = deviations[:, : deviations.shape[1] // (2 if pooling["kind"] == "mqmha" else 1), 1]
    correlation = np.corrcoef(found.flatten(1).numpy().ravel(), np.stack(true).ravel())[0, 1]
    assert correlation >= 0.999


def test_logits_are_those_of_full_precision_to_its_resolution() -> None:
    plain = half_precision(make_dataset(60))
    rows = torch.arange(60)
    heads = [draw_scorers(Head(config, k), k) for k, config in enumerate(make_configs())]
    expected = stack_logits(heads, gather(VectorStore(plain), heads, rows)).detach()
    store = VectorStore(plain, "bf16")
    found = stack_logits(heads, gather(store, heads, rows)).detach()
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0)


def test_a_trial_alone_equals_the_trial_in_a_cohort() -> None:
    store = VectorStore(half_precision(make_dataset()), "bf16")
    configs, rows = make_configs(), store.dataset.rows("train")

    def trained(members: list[int]) -> torch.Tensor:
        cohort = Cohort(
            [draw_scorers(Head(configs[k], k), k) for k in members],
            [TrainingConfig(1e-3, seed=k) for k in members],
            store,
            rows,
            Schedule(10, 10, frames=5),
        )
        for _ in range(10):
            cohort.run_epoch()
        return predict(cohort.heads, store, store.dataset.rows("dev"))

    together = trained(list(range(len(configs))))
    for k in range(len(configs)):
        torch.testing.assert_close(trained([k])[0], together[k], atol=1e-4, rtol=0)


def test_small_batches_stay_in_full_precision_unless_asked() -> None:
    dataset = make_dataset()
    assert choose_precision("auto", dataset, 64) == "fp32"
    assert choose_precision("bf16", dataset, 64) == "bf16"
