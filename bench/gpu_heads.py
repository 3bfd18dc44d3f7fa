"""A training step of 25 heads on a GPU: what it asks of the device, and the CPU's numbers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import torch

from bench.frames import generated
from bench.gpu_counts import Finding, Roofline, Setup, step_finding
from bench.large_search import ADAM_BYTES, head_epoch_flops, read_frames
from bench.search import drawn
from cache.frames import Frames
from heads.dataset import Dataset
from heads.head import Head, stack_logits
from heads.load import choose_precision
from heads.predict import gather
from heads.step import Recorded
from heads.training import Cohort, Schedule
from heads.vector_store import VectorStore

HEADS, BATCH = 25, 64
UTTERANCES, SHORTEST, LONGEST, DIM = 8_192, 50, 518, 1024
TOY = (96, 32)
# Steps that are made on both devices before logits are compared: some of them are replayed.
COMPARED = 2 * Recorded.WARMING
# Launched one by one, and as a CUDA graph.
WAYS = (False, True)
RECORDED = ", recorded"


def training_step(setup: Setup) -> Iterator[Finding]:
    """The first cohort of a search, in the precision that a search would choose and in fp32."""
    utterances, dim = TOY if setup.small else (UTTERANCES, DIM)
    data = generated(utterances, dim, SHORTEST, LONGEST, device=setup.device)
    usual = choose_precision("auto", data, BATCH, setup.device)
    for precision, recorded in itertools.product(dict.fromkeys((usual, "fp32")), WAYS):
        cohort = company(data, setup.device, precision, recorded=recorded)
        positions = _positions(cohort)

        def step(own: Cohort = cohort, positions: Iterator[torch.Tensor] = positions) -> None:
            own.run_step(next(positions))

        what = f"a training step of {HEADS} heads, batch {BATCH}, {precision}{RECORDED * recorded}"
        epoch = (cohort.run_epoch, cohort.steps_per_epoch)
        yield step_finding(what, step, step_work(cohort), setup.device, epoch=epoch)


def equal_steps(setup: Setup) -> Iterator[Finding]:
    """Logits of the same heads on both devices in fp32, before and after some steps."""
    utterances, dim = TOY if setup.small else (TOY[0], DIM)
    here = generated(utterances, dim, SHORTEST, LONGEST)
    frames = here.frames["audio"]
    assert isinstance(frames, Frames)
    there = replace(here, frames={"audio": frames.to(setup.device)})
    ours, theirs, replayed = (
        company(here, "cpu", "fp32"),
        *(company(there, setup.device, "fp32", recorded=recorded) for recorded in WAYS),
    )
    rows = here.rows("dev")
    for steps in (0, COMPARED):
        for cohort in (ours, theirs, replayed):
            for positions in itertools.islice(_positions(cohort), steps):
                cohort.run_step(positions)
        with torch.no_grad():
            expected, *found = (
                stack_logits(own.heads, gather(own.store, own.heads, rows)).cpu()
                for own in (ours, theirs, replayed)
            )
        for recorded, logits in zip(WAYS, found, strict=True):
            gap, largest = float((logits - expected).abs().max()), float(expected.abs().max())
            yield Finding(
                f"logits of {HEADS} heads in fp32 after {steps} steps{RECORDED * recorded}, device "
                "against CPU",
                f"differ by {gap:.2g} at most, of {largest:.3g}",
                {"gap": gap, "largest": largest},
            )


def company(dataset: Dataset, device: str, precision: str, *, recorded: bool = False) -> Cohort:
    """The first heads of a search of the default space."""
    configs = drawn(dataset, HEADS)
    return Cohort(
        [Head(shape, training.seed) for shape, training in configs],
        [training for _, training in configs],
        VectorStore(dataset, precision, device, recorded),
        dataset.rows("train"),
        Schedule(9, BATCH),
    )


def step_work(cohort: Cohort) -> Roofline:
    """Frames read once forward and once backward for all heads, and AdamW's parameters."""
    frames = cohort.store.dataset.frames["audio"]
    average = read_frames(frames.lengths[cohort.rows], cohort.schedule.frames) / len(cohort.rows)
    parameters = sum(one.numel() for head in cohort.heads for one in head.parameters())
    return Roofline(
        sum(head_epoch_flops(head.config, BATCH, average) for head in cohort.heads),
        2 * BATCH * average * frames.dim * 2 + parameters * ADAM_BYTES,
    )


def _positions(cohort: Cohort) -> Iterator[torch.Tensor]:
    return itertools.chain.from_iterable(cohort.batches(n) for n in itertools.count())
