"""`python -m bench search`: its baseline is the same heads, and its rows run."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bench.frames import LABELS, generated
from bench.large_search import head_epoch_flops
from bench.plain_heads import PlainHead, collate, items
from bench.search import ROWS
from bench.table import run
from heads.head import Head, HeadConfig, stack_logits
from heads.predict import gather
from heads.training import set_input_statistics
from heads.vector_store import VectorStore

DIM = 16
DATASET = generated(12, DIM, 3, 9)
KINDS: list[dict[str, Any]] = [
    {"kind": "average"},
    {"kind": "max"},
    {"kind": "statistics"},
    {"kind": "vad_average"},
    {"kind": "average+vad_average"},
    {"kind": "mqmha", "queries": 2, "heads": 4},
    {"kind": "as", "hidden": 5},
]


def copied(head: Head, plain: PlainHead) -> None:
    """Give the baseline the parameters of one of our heads."""
    for layer, linear in zip(
        (head.hidden, head.output),
        [module for module in plain.classifier if isinstance(module, torch.nn.Linear)],
        strict=True,
    ):
        assert layer is not None
        linear.load_state_dict(layer.state_dict())
    own = dict(head.poolings["audio"].named_parameters())
    if not own:
        return
    scorers = plain.poolings["audio"].scorers
    assert isinstance(scorers, torch.nn.ModuleList)
    for number, scorer in enumerate(scorers):
        count = own["weight"].shape[2]
        q, h = divmod(number, count)
        if isinstance(scorer, torch.nn.Linear):
            scorer.weight.data.copy_(own["weight"][0, q, h][None])
            scorer.bias.data.zero_()
        else:
            assert isinstance(scorer, torch.nn.Sequential)
            first, last = scorer[0], scorer[2]
            assert isinstance(first, torch.nn.Linear)
            assert isinstance(last, torch.nn.Linear)
            first.weight.data.copy_(own["hidden_weight"][0, q, h])
            first.bias.data.copy_(own["hidden_bias"][0, q, h])
            last.weight.data.copy_(own["weight"][0, q, h][None])
            last.bias.data.zero_()


@pytest.mark.parametrize("norm", ["none", "layernorm", "standardise"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind["kind"]))
def test_the_baseline_computes_the_same_logits(kind: dict[str, Any], norm: str) -> None:
    config = HeadConfig(LABELS, {"audio": DIM}, {"audio": kind}, input_norm=norm, mlp_width=8)
    head, plain = Head(config, 1), PlainHead(config)
    store, rows = VectorStore(DATASET), torch.arange(len(DATASET))
    set_input_statistics([head], store, rows)
    plain.statistics = {"audio": store.frame_statistics("audio", rows)}
    copied(head, plain)
    plain.eval()
    expected = plain(*collate(items(DATASET, rows))[:3])
    found = stack_logits([head], gather(store, [head], rows))[0]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_operations_of_a_linear_head_are_counted() -> None:
    config = HeadConfig(LABELS, {"audio": 8}, {"audio": {"kind": "mha"}}, mlp_width=4)
    frames, scorer, moments = 3 * 10, 2 * 8, 4 * 8
    classifier = 3 * 2 * 3 * 16 * 4
    assert head_epoch_flops(config, 3, 10) == 2 * frames * (scorer + moments) + classifier


@pytest.mark.slow
@pytest.mark.parametrize("row", [row for row in ROWS if row.name != "large"], ids=lambda r: r.name)
def test_every_row_runs_at_a_small_size(row: Any) -> None:
    ((_, outcome),) = run([row], size=0.01, repeats=1)
    assert outcome.ratio.endswith("×")
