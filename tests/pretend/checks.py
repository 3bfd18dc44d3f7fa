"""Checks of parts on the pretend device: the CPU's numbers, nothing on two devices, counts.

Each runs in a process of its own (`python -m tests.pretend NAME`); whole commands are in
`tests.pretend.commands`.
"""

from __future__ import annotations

import copy
import json
import math
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import optuna
import torch

from cache.frames import Frames
from cache.store import delivery as delivery_module
from cache.stream import FrameStream
from heads.dataset import Dataset
from heads.head import Head, HeadConfig
from heads.losses import LOSS_KINDS, LossConfig, loss_function
from heads.pooling import build_pooling, pooling, pooling_kinds
from heads.predict import predict
from heads.search.space import FIRST_KINDS, Space, start_params, trial_configs
from heads.training import Cohort, Schedule, TrainingConfig
from heads.vector_store import VectorStore
from tests.cache.streams import add, make_stream, utterances
from tests.heads.references import has_shares
from tests.heads.synthetic import make_dataset
from tests.pretend.cuda import PretendEvent, pretend_cuda
from tests.pretend.device import Device, MixedDevicesError, RaceError, bare

CHECKS: dict[str, Callable[[], None]] = {}


def check(function: Callable[[], None]) -> Callable[[], None]:
    CHECKS[function.__name__] = function
    return function


def say(what: str, device: Device) -> None:
    """Count, for the table in `tests.test_pretend_cuda`; nothing but CUDA's own may be mixed."""
    counted = {"what": what, "kernels": device.kernels, "waits": device.waits}
    sys.stdout.write(json.dumps(counted) + "\n")
    sys.stderr.write(device.report(what) + "\n")
    assert not device.faults, device.faults


@contextmanager
def first_kinds() -> Iterator[None]:
    """What a search draws as it was when it was counted: kinds that came since change its draws."""
    kinds = {n: k for n, k in pooling._KINDS.items() if k.searched_as in ("", *FIRST_KINDS)}
    with patch.object(pooling, "_KINDS", kinds):
        yield


@contextmanager
def scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def gap(one: torch.Tensor, two: torch.Tensor) -> float:
    return float((bare(one).double() - bare(two).double()).abs().max())


@check
def simulator() -> None:
    """It finds what it is for."""
    with pretend_cuda() as device:
        x = torch.randn(5, device="cuda")
        other = torch.randn(5, device="cuda:1")
        assert (x.device.index, other.device.index) == (0, 1)
        mixtures: list[Callable[[], Any]] = [
            lambda: x + torch.ones(5),
            lambda: torch.cat([x, torch.ones(5)]),
            lambda: x + other,
        ]
        for mixture in mixtures:
            try:
                mixture()
            except MixedDevicesError:
                continue
            raise AssertionError("mixed devices pass")
        assert gap(other.to("cuda:0") + x, bare(other) + bare(x)) == 0
        host = torch.empty(5, pin_memory=True)
        host.copy_(x, non_blocking=True)
        assert host.isnan().all(), "a copy that nobody waited for has arrived"
        event: Any = torch.cuda.Event()
        event.record()
        event.synchronize()
        assert torch.equal(host, bare(x))
        pinned = torch.ones(4).pin_memory()
        pinned.to("cuda", non_blocking=True)
        pinned.numpy()[0] = 3
        try:
            torch.cuda.synchronize()
        except RaceError:
            device.pending.clear()
        else:
            raise AssertionError("a race passes")
        before = device.waits
        _ = x[x > 0], x.sum().item(), x.tolist(), x.cpu(), torch.tensor([1], device="cuda")
        assert device.waits - before == 5, device.by_wait
        for place in ("cuda", "cuda:1"):
            layer = torch.nn.Linear(5, 2).to(place)
            with torch.autocast("cuda", torch.bfloat16):
                found = layer(x.to(place))
            assert found.dtype == torch.bfloat16
            found.float().sum().backward()
            assert layer.weight.grad is not None
            assert (
                layer.weight.grad.device == layer.weight.device == torch.device(x.to(place).device)
            )


POOLINGS: tuple[dict[str, Any], ...] = (
    {"kind": "mqmha", "queries": 2, "heads": 4, "scorer_layers": 2, "hidden": 8},
    {"kind": "mqmha", "queries": 4, "heads": 4, "scorer_layers": 1},
    {"kind": "mqmha", "heads": 4, "scorer_layers": 2, "hidden": 8, "shared_scorer": True},
    {"kind": "statistics", "layers": 2},
)


@check
def poolings() -> None:
    """Every kind, forward, backward and attention."""
    frames = make_dataset(40, dim=16).frames["audio"]
    assert isinstance(frames, Frames)
    shares = torch.rand(frames.total, 2, generator=torch.Generator().manual_seed(0))
    frames = replace(frames, words=shares)
    with pretend_cuda() as device:
        there = frames.to("cuda")
        for kind in [*({"kind": name} for name in pooling_kinds()), *POOLINGS]:
            device.reset()
            here: Any = build_pooling(kind, 16, 3)
            moved: Any = copy.deepcopy(here).to("cuda")
            one, two = here(frames), moved(there)
            assert gap(one, two) < 1e-5, kind
            if any(True for _ in here.parameters()):
                one.square().sum().backward()
                two.square().sum().backward()
                for mine, theirs in zip(here.parameters(), moved.parameters(), strict=True):
                    assert torch.allclose(mine.grad, bare(theirs.grad), 1e-4, 1e-5), kind
            say(f"pooling {' '.join(map(str, kind.values()))}", device)
            if has_shares(kind["kind"]):
                assert gap(here.attention(frames), moved.attention(there)) < 1e-6, kind
            assert not device.faults


@check
def losses() -> None:
    """Every kind, of one head and of a stack, with rows left out."""
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 20, 4, generator=random)
    classes = torch.randint(4, (20,), generator=random)
    votes = torch.rand(20, 4, generator=random).softmax(-1)
    weight, rows = torch.rand(4, generator=random), torch.rand(20, generator=random).round()
    with pretend_cuda() as device:
        for kind in LOSS_KINDS:
            for adjusted in (False, True):
                config = LossConfig(kind, class_weight=not adjusted, logit_adjustment=adjusted)
                target = votes if config.from_votes else classes
                here, there = logits.clone().requires_grad_(), logits.to("cuda").requires_grad_()
                sent = {"target": target.to("cuda"), "row_weight": rows.to("cuda")}
                function = loss_function(config, weight.to("cuda"))
                device.reset()
                found = function(there, sent["target"], row_weight=sent["row_weight"])
                found.sum().backward()
                say(f"loss {kind}{', adjusted' * adjusted}", device)
                expected = loss_function(config, weight)(here, target, row_weight=rows)
                expected.sum().backward()
                assert gap(found, expected) < 1e-5
                assert here.grad is not None
                assert there.grad is not None
                assert gap(there.grad, here.grad) < 1e-6


def first_cohort() -> tuple[Dataset, list[tuple[HeadConfig, TrainingConfig]]]:
    """25 mixed heads of a search, and what they are trained on."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    dataset = make_dataset(200, dim=32)
    with first_kinds():
        space = Space.of(dataset)
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        for params in start_params(space)[0].values():
            study.enqueue_trial(params)
        return dataset, [trial_configs(study.ask(), space, seed) for seed in range(25)]


@check
def cohort() -> None:
    """A search's first cohort, then half of it; resident frames or sent ones, recorded or not."""
    dataset, configs = first_cohort()

    def company(data: Dataset, device: str, precision: str, *, recorded: bool = False) -> Cohort:
        heads = [Head(shape, training.seed) for shape, training in configs]
        store = VectorStore(data, precision, device, recorded)
        own = [training for _, training in configs]
        return Cohort(heads, own, store, data.rows("train"), Schedule(6, 64))

    def train(one: Cohort) -> Iterator[int]:
        """Three epochs of all, and three of every second one."""
        for number in range(6):
            if number == 3:
                one.keep(range(0, 25, 2))
            one.run_epoch()
            yield number

    def said(one: Cohort) -> torch.Tensor:
        return predict(one.heads, one.store, dataset.rows("dev"))

    here = company(dataset, "cpu", "fp32")
    expected = [said(here) for _ in train(here)]
    with pretend_cuda() as device:
        frames = {name: own.to("cuda") for name, own in dataset.frames.items()}  # type: ignore[union-attr]
        resident = replace(dataset, frames=frames)
        for name, data, precision, recorded in (
            ("fp32", resident, "fp32", False),
            ("bf16", resident, "bf16", False),
            ("fp32, sent", dataset, "fp32", False),
            ("recorded", resident, "fp32", True),
            ("recorded, sent", dataset, "fp32", True),
        ):
            there = company(data, "cuda", precision, recorded=recorded)
            for number in train(there):
                if number == 2:
                    device.kernels = math.ceil(device.kernels / there.steps_per_epoch)
                    say(f"a step of 25 heads, {name}", device)
                assert precision == "bf16" or gap(said(there), expected[number]) < 1e-4, name
                device.reset()


@check
def delivery() -> None:
    """Cache to GPU through two pinned buffers that turn over at every few rows."""
    with scratch() as root:
        folder = make_stream(root, dim=128, name="layer_3")
        add(folder, utterances(24, dim=128))
        stream = FrameStream.open(folder)
        keys = list(stream.keys)

        def limits(block: int) -> Any:
            sizes: Any = {"_PINNED_BYTES": 256 * 5 * block, "_BLOCK_BYTES": 256 * block}
            return patch.multiple(delivery_module, **sizes)

        with pretend_cuda() as device:
            for block in (1, 2, 7, 50):
                for dtype in (torch.float16, torch.float32, torch.bfloat16):
                    for order in (keys, keys[::-1], keys[::2]):
                        with limits(block):
                            there = stream.load(order, device="cuda", dtype=dtype)
                        here = stream.load(order).values.to(dtype)
                        assert torch.equal(bare(there.values), here), (block, dtype)
            say("delivery of a stream, 36 times", device)
            # Broken on purpose: without the wait for the event.
            with limits(1), patch.object(PretendEvent, "synchronize", lambda self: None):
                try:
                    stream.load(keys, device="cuda")
                    device.check_pending()
                except RaceError:
                    device.pending.clear()
                else:
                    raise AssertionError("a staging buffer that is used too early is not found")
