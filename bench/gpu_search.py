"""A search at full size on one GPU: 100 trials of the default space on 49,248 training utterances.

As many utterances and frames as Leygue et al. train on, all on the device. They are generated
there: random, with a fifth of each utterance's frames in the direction of its class.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from bench.frames import generated
from bench.gpu_counts import Finding, Setup, peaks
from bench.large_search import search_config, search_steps, searched

# One speaker in 20 is dev's: 49,248 are trained on, 2,592 are not; 14.7 million frames in all.
UTTERANCES, SHORTEST, LONGEST, DIM, DEV_SPEAKERS = 51_840, 50, 518, 1024, 2
TRIALS = 100
GOAL_MINUTES = 5
# Seconds before and after it: the data are drawn, peaks are measured.
AROUND = 45.0


def search(setup: Setup) -> Iterator[Finding]:
    """Time, throughput and memory beside the device's limits."""
    utterances, dim, trials = (80, 32, 14) if setup.small else (UTTERANCES, DIM, TRIALS)
    dataset = generated(
        utterances, dim, SHORTEST, LONGEST, device=setup.device, dev_speakers=DEV_SPEAKERS
    )
    frames, trained = dataset.frames["audio"].total, len(dataset.rows("train"))
    config = search_config(trials, setup.device)
    took = searched(dataset, config, max(0.0, setup.seconds - AROUND))
    steps = search_steps(trained, config)
    a_step = took.training_seconds / took.steps
    heads = f"the last head was trained after {took.heads_seconds:.0f} s"
    if took.complete:
        found = f"{took.seconds / 60:.2f} minutes, reference and reports included; {heads}"
    elif took.steps == steps:
        found = f"{heads}; the reference was not done after {took.seconds:.0f} s"
    else:
        found = (
            f"stopped after {took.seconds:.0f} s and {took.steps:,} of {steps:,} steps; its "
            f"training alone would take {a_step * steps / 60:.1f} minutes"
        )
    yield Finding(
        f"{trials} trials on {trained:,} utterances, {frames:,} frames of {dim} "
        f"({frames * dim * 2 / 1e9:.3g} GB in 16 bits)",
        f"{found} (goal on one H200: under {GOAL_MINUTES}); training {1e3 * a_step:.2f} ms a step",
        {**took.__dict__, "all_steps": steps},
    )
    flops, bandwidth = peaks(setup.device)
    floor = max(took.flop / flops, took.frame_bytes / bandwidth)
    yield Finding(
        "its training against the device's limits",
        f"{took.flop / took.training_seconds / 1e12:.3g} TFLOP/s of {flops / 1e12:.3g} that a "
        f"large product reaches, {took.frame_bytes / took.training_seconds / 1e9:.3g} GB/s of "
        f"frames of {bandwidth / 1e9:.3g} that copying reaches: "
        f"{floor / took.training_seconds:.1%} of the roofline",
        {"floor": floor},
    )
    if setup.device != "cpu":
        most = torch.cuda.max_memory_allocated()
        yield Finding("GPU memory of it", f"{most / 1e9:.3g} GB at most", {"bytes": most})
