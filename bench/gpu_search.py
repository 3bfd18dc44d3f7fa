"""A search at full size on one GPU. Started by `bench/gpu.sh search`, which says what it needs.

100 trials of the default space on as many utterances and frames as Leygue et al. train on, all
frames on the device. They are generated there: random, with a fifth of each utterance's frames in
the direction of its class.
"""

from __future__ import annotations

import sys

import click
import torch

from bench.frames import generated
from bench.large_search import copy_bandwidth, peak_flops, searched

UTTERANCES, SHORTEST, LONGEST, DIM = 49_248, 50, 518, 1024  # 14 million frames
TRIALS = 100
GOAL_MINUTES = 5
NO_DEVICE = 2


@click.command()
@click.option("--toy", is_flag=True, help="Try the script itself, small and on a CPU.")
def main(toy: bool) -> None:
    """Search, and print time, throughput and memory beside the device's limits."""
    if not toy and not torch.cuda.is_available():
        click.echo(
            "No CUDA device. `bench/gpu.sh search --toy` tries the script on a CPU.", err=True
        )
        sys.exit(NO_DEVICE)
    device = "cpu" if toy else "cuda"
    utterances, dim, trials = (80, 32, 14) if toy else (UTTERANCES, DIM, TRIALS)
    dataset = generated(utterances, dim, SHORTEST, LONGEST, device=device)
    frames = dataset.frames["audio"]
    took = searched(dataset, trials, device)
    name = "a CPU (toy size)" if toy else torch.cuda.get_device_name()
    achieved, bandwidth = took.flop / took.seconds, took.frame_bytes / took.seconds
    click.echo(took.text, err=True)
    click.echo(
        f"{trials} trials on {utterances:,} utterances, {frames.total:,} frames of {dim} "
        f"({frames.total * dim * 2 / 1e9:.3g} GB in 16 bits), {name}:\n"
        f"  {took.seconds / 60:.2f} minutes (goal on one H200: under {GOAL_MINUTES})\n"
        f"  {achieved / 1e12:.3g} TFLOP/s of matrix products, of {peak_flops(device) / 1e12:.3g} "
        "that a large one reaches\n"
        f"  {bandwidth / 1e9:.3g} GB/s of frames, of {copy_bandwidth(device) / 1e9:.3g} GB/s that "
        "copying reaches"
    )
    if not toy:
        click.echo(
            f"  GPU memory: {torch.cuda.max_memory_allocated() / 1e9:.3g} GB at most, of "
            f"{torch.cuda.get_device_properties(0).total_memory / 1e9:.3g}"
        )


if __name__ == "__main__":
    main()
