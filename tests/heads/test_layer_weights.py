"""Heads that weigh layers: the equations, and the vectors they train on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cache.frames import Frames
from corpora.base.errors import ConfigError
from heads.dataset import Dataset
from heads.head import Head, HeadConfig
from heads.pooling import build_pooling
from heads.pooling.fixed import LayerWeightedPooling
from heads.pooling.view import Affine, View
from heads.predict import gather, predict
from heads.records import layer_weights
from heads.training import Cohort, Schedule, TrainingConfig
from heads.vector_store import VectorStore
from tests.heads import references
from tests.heads.synthetic import LABELS, make_configs, make_dataset, with_lower

DIM = 16
KINDS = ["average", "statistics"]
NORMS = ["none", "layernorm", "standardise"]
TOP = {"audio": 4, "text": 2}


def config(kind: str, norm: str = "none", layers: int = 3, text: bool = True) -> HeadConfig:
    dims = {"audio": layers * DIM} | ({"text": DIM} if text else {})
    pooling: dict[str, Any] = {"audio": {"kind": kind, "layers": layers}}
    pooling |= {"text": {"kind": kind}} if text else {}
    return HeadConfig(LABELS, dims, pooling, norm, mlp_width=8, dropout=0.0)


def uneven(head: Head, seed: int = 0) -> Head:
    """Layers do not count the same."""
    generator = torch.Generator().manual_seed(seed)
    for pooling in head.poolings.values():
        if isinstance(pooling, LayerWeightedPooling):
            nn.init.normal_(pooling.layer_scores, generator=generator)
    return head


def as_frames(dataset: Dataset, head: HeadConfig) -> dict[str, Frames]:
    everything = range(len(dataset))
    return {name: dataset.select(name, everything, head.layers(name)) for name in head.modalities}


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_pooled_vectors_agree_with_the_equations(kind: str, norm: str) -> None:
    dataset = with_lower(make_dataset(12))
    store, rows = VectorStore(dataset), torch.arange(12)
    head = uneven(Head(config(kind, norm, text=False), 3))
    train = dataset.rows("train")
    Cohort([head], [TrainingConfig(1e-3)], store, train, Schedule(1))  # sets input statistics
    view = gather(store, [head], rows)["audio"].view(norm, 3)
    found = head.pooling("audio").pool(view, head.affine("audio"))[0].detach().numpy()
    pooling = head.poolings["audio"]
    assert isinstance(pooling, LayerWeightedPooling)
    share = references.softmax(pooling.layer_scores[0].detach().double().numpy())
    layers = [dataset.others["audio"][1], dataset.others["audio"][3], dataset.frames["audio"]]
    for b in range(12):
        parts = []
        for layer in layers:
            x = layer.utterance(b).double().numpy()
            if norm == "layernorm":
                x = x - x.mean(1, keepdims=True)
                x = x / np.sqrt((x**2).mean(1, keepdims=True) + 1e-5)
            if norm == "standardise":
                trained = layer.select(train.tolist())
                assert isinstance(trained, Frames)
                seen = trained.values.double().numpy()
                x = (x - seen.mean(0)) / seen.std(0)
            parts.append(x)
        summed = references.weighted_layers(np.concatenate(parts, axis=1), share)
        expected = references.fixed(kind, summed, np.ones(len(summed)))
        np.testing.assert_allclose(found[b], expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_trained_head_says_of_frames_what_it_says_of_vectors(kind: str, norm: str) -> None:
    dataset = with_lower(make_dataset(45))
    store, rows = VectorStore(dataset), torch.arange(45)
    head = Head(config(kind, norm), 3)
    cohort = Cohort([head], [TrainingConfig(1e-2)], store, dataset.rows("train"), Schedule(4, 8))
    for _ in range(4):
        cohort.run_epoch()
    with torch.no_grad():
        of_frames = torch.softmax(head(as_frames(dataset, head.config)), dim=1)
    torch.testing.assert_close(predict([head], store, rows)[0], of_frames, atol=1e-5, rtol=1e-5)
    shares = torch.tensor(layer_weights(head)["audio"])
    assert float(shares.sum()) == pytest.approx(1)
    assert not torch.allclose(shares, torch.full((3,), 1 / 3))


def test_training_never_touches_frames_after_the_vectors_were_made() -> None:
    dataset = with_lower(make_dataset(30))
    store = VectorStore(dataset)
    heads = [Head(config("statistics", "layernorm"), 1), Head(config("average"), 2)]
    batch = gather(store, heads, torch.arange(8))
    for head in heads:
        assert batch["audio"].view(*head.config.view("audio")).frames is None


def test_company_of_heads_on_one_layer_changes_nothing() -> None:
    store = VectorStore(with_lower(make_dataset()))
    rows = store.dataset.rows("dev")
    weighing_heads = [config("statistics", norm) for norm in NORMS]
    configs = [*make_configs(), *weighing_heads, config("average", "standardise")]

    def trained(members: list[int]) -> Tensor:
        heads = [Head(configs[k], k) for k in members]
        training = [TrainingConfig(1e-3 * (1 + k), seed=k) for k in members]
        train = store.dataset.rows("train")
        cohort = Cohort(heads, training, store, train, Schedule(5, 10))
        for _ in range(5):
            cohort.run_epoch()
        return predict(cohort.heads, store, rows)

    together = trained(list(range(len(configs))))
    for k in (0, 4, *range(len(configs) - 4, len(configs))):
        torch.testing.assert_close(trained([k])[0], together[k], atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_layer_that_carries_the_class_gets_the_most_weight(kind: str) -> None:
    plain = make_dataset(180, signal=3.0)
    top = plain.frames["audio"]
    assert isinstance(top, Frames)
    noise = replace(top, values=torch.randn(top.values.shape))
    lower = {1: Frames(torch.randn(top.values.shape), top.offsets), 3: top}
    dataset = replace(plain, frames={**plain.frames, "audio": noise}, others={"audio": lower})
    head = Head(config(kind, text=False), 0)
    store = VectorStore(dataset)
    cohort = Cohort([head], [TrainingConfig(1e-2)], store, dataset.rows("train"), Schedule(40, 16))
    for _ in range(40):
        cohort.run_epoch()
    shares = layer_weights(head)["audio"]
    assert shares[1] == max(shares)
    assert shares[1] > 0.5


def test_a_head_that_weighs_other_layers_than_there_are_is_refused() -> None:
    store = VectorStore(with_lower(make_dataset(6), (3,)))
    with pytest.raises(ConfigError, match="weighs 3 audio layers, and there are 2"):
        predict([Head(config("average"), 0)], store, torch.arange(6))


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_of_layers_give_what_their_frames_give(kind: str) -> None:
    module: Any = build_pooling({"kind": kind, "layers": 4}, DIM, 3)
    nn.init.normal_(module.layer_scores)
    lengths = torch.tensor([5, 1, 9, 30])
    offsets = torch.cat([torch.zeros(1), lengths.cumsum(0)])
    frames = Frames(8 + 0.05 * torch.randn(45, DIM), offsets)
    view = View(frames)
    vectors = View(None, {name: view.vector(name) for name in module.needs or ()})
    for affine in (None, Affine(torch.randn(DIM), torch.rand(DIM) + 0.5)):
        found, expected = module.pool(vectors, affine), module.pool(View(frames), affine)
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)
