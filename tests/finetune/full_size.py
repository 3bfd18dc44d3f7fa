"""Extract, search and fine-tune with encoders of full size; print this process's peak memory.

A process of its own, since a peak is kept for the life of one. Arguments: a folder, `cpu` or
`cuda`, and the frames of a batch.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from bench.encoders import save_audio_encoder, save_text_encoder
from bench.peak import peak_bytes
from bench.recordings import make_manifest
from cache.config import ExtractConfig
from cache.extract.extract import extract
from corpora.base.work import Work
from corpora.manifest import Manifest, write_manifest
from finetune.config import FinetuneConfig
from finetune.finetune import run_finetune
from heads.config import SearchConfig
from heads.search.search import run_search

# Two of each class in each batch of training, and a development set.
TRAIN, DEV = 8, 4


def prepared(folder: Path, device: str) -> tuple[Work, Manifest]:
    """Encoders, recordings, frames and a head."""
    made = make_manifest(folder / "recordings", [1.0] * (TRAIN + DEV))
    rows = tuple(
        replace(u, label=made.labels[n % 2], split="train" if n < TRAIN else "dev")
        for n, u in enumerate(made.utterances)
    )
    manifest = replace(made, utterances=rows)
    work = Work(folder / "work")
    write_manifest(manifest, work.manifest)
    config = ExtractConfig(
        audio_encoder=str(save_audio_encoder(folder / "w2v-bert")),
        text_encoder=str(save_text_encoder(folder / "deberta")),
        device=device,
    )
    extract(work, manifest, config)
    run_search(work, manifest, SearchConfig(trials=2, epochs=1, folds="off"))
    return work, manifest


def main(folder: str, device: str, frame_budget: str) -> None:
    """Print the steps of each phase and the peak."""
    work, manifest = prepared(Path(folder), device)
    config = FinetuneConfig(epochs=1, frame_budget=int(frame_budget), device=device)
    report = run_finetune(work, manifest, config)
    steps = " ".join(str(len(phase.log) - 1) for phase in report.phases)
    sys.stdout.write(f"{steps} {peak_bytes()}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
