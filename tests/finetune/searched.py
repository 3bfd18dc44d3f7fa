"""A work folder as `search` leaves it, with a head trained for a moment."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from cache.lookup import FrameCache
from corpora.base.work import Work
from corpora.manifest import Manifest
from heads.head import Head
from heads.load import load_dataset, read_origin
from heads.records import HeadRecord, package_versions, save_head
from heads.training import Cohort, Schedule, TrainingConfig
from heads.vector_store import VectorStore
from tests.finetune.corpus import make_head


def copy_work(work: Work, folder: Path) -> Work:
    """A work folder of its own, so that a test can change it."""
    shutil.copytree(work.root, folder, symlinks=True)
    return Work(folder)


def add_search(
    work: Work,
    manifest: Manifest,
    pooling: dict[str, Any],
    modalities: tuple[str, ...] = ("audio", "text"),
) -> tuple[Head, HeadRecord]:
    """Write `search/best.json` and its weights."""
    dataset = load_dataset(FrameCache(work), manifest)
    head = make_head(pooling, modalities)
    training, schedule = (
        TrainingConfig(learning_rate=1e-3, seed=1),
        Schedule(epochs=3, batch_size=8),
    )
    cohort = Cohort([head], [training], VectorStore(dataset), dataset.rows("train"), schedule)
    for _ in range(schedule.epochs):
        cohort.run_epoch()
    record = HeadRecord(
        trial=4,
        start="",
        params={},
        head=head.config,
        training=training,
        schedule=schedule,
        origin=read_origin(FrameCache(work), manifest, dataset.frames),
        study_seed=0,
        versions=package_versions(),
        dev_macro_f1=0.5,
    )
    save_head(work.search / "best.json", work.search / "head.safetensors", head, record)
    return head, record
