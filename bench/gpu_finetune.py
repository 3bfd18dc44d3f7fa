"""Steps of phases 2 and 3 with encoders of full size on a GPU."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.gpu_counts import Finding, Roofline, Setup, step_finding
from bench.large_search import ADAM_BYTES
from bench.recordings import LABELS, make_manifest
from cache.encoders.grid import encoder_shape
from finetune.assembly import assemble
from finetune.batches import gather_examples
from finetune.model import EmotionModel
from finetune.phases import PhaseConfig, StepConfig, trainable_parts, unfreeze
from finetune.steps import Trainer
from heads.head import Head, HeadConfig

# Five seconds each, 32 of them in a batch.
SECONDS, RECORDINGS, FRAME_BUDGET = 5.0, 192, 8_000
SMALL_RECORDINGS, SMALL_BUDGET = 4, 500
EPOCHS, TIMED, WARM_UP = 20, 5, 3


def finetune(setup: Setup) -> Iterator[Finding]:
    """Time, counts and roofline of a step of each phase, and the most GPU memory."""
    number, budget = (SMALL_RECORDINGS, SMALL_BUDGET) if setup.small else (RECORDINGS, FRAME_BUDGET)
    manifest = make_manifest(setup.folder / "finetune", [SECONDS] * number, seed=3)
    for phase in (2, 3):
        model = _model(setup)
        train = gather_examples(model, manifest.utterances, {})[0]
        parts = trainable_parts(model, phase)
        unfreeze(model, parts)
        how = PhaseConfig(phase, 1e-6, epochs=EPOCHS)
        trainer = Trainer(model, parts, how, StepConfig(frame_budget=budget), train)
        rows = itertools.chain.from_iterable(trainer.run_epoch(1 + n) for n in range(EPOCHS))
        next(rows)
        with FlopCounterMode(display=False) as counter:
            next(rows)
        every = sum(one.numel() for one in model.parameters())
        learnt = sum(one.numel() for one in trainer.named.values())
        # All weights are read forward and backward, in 16 bits; AdamW works in fp32.
        work = Roofline(counter.get_total_flops(), 2 * 2 * every + ADAM_BYTES * learnt)
        what = f"a step of phase {phase}, {budget:,} frames, {learnt / 1e6:.0f} M parameters"

        def step(rows: Iterator[object] = rows) -> None:
            next(rows)

        yield step_finding(what, step, work, setup.device, TIMED, warm_up=WARM_UP)
        if setup.device != "cpu":
            most = torch.cuda.max_memory_allocated()
            yield Finding(f"GPU memory of phase {phase}", f"{most / 1e9:.3g} GB", {"bytes": most})
            torch.cuda.reset_peak_memory_stats()


def _model(setup: Setup) -> EmotionModel:
    """A head on both encoders."""
    folders = setup.encoders()
    shapes = {name: encoder_shape(folder) for name, folder in folders.items()}
    layers = {name: count for name, (count, _) in shapes.items()}
    dims = {name: dim for name, (_, dim) in shapes.items()}
    pooling = {"kind": "mqmha", "queries": 2, "heads": 2}
    head = Head(HeadConfig(LABELS, dims, dict.fromkeys(dims, pooling)))
    return assemble(head, folders, layers, device=setup.device)
