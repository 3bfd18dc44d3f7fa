"""What an utterance costs in memory: bytes of Python's, which do not depend on the machine."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from cache.extracting.config import ExtractConfig
from cache.extracting.decoding import measure
from cache.extracting.plan import make_plan
from corpora.manifest import Manifest, Utterance, read_manifest, write_manifest
from corpora.work import Work
from tests.cache.recordings import write_tone

T = TypeVar("T")
COUNT = 4_000


def cost(action: Callable[[], T]) -> tuple[T, float, float]:
    """What an action returns, and bytes an utterance: held in the end, and at its peak."""
    gc.collect()
    tracemalloc.start()
    try:
        result = action()
        gc.collect()
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return result, held / COUNT, peak / COUNT


def test_an_utterance_costs_a_kilobyte_or_two(tmp_path: Path) -> None:
    work = Work(tmp_path)
    audio = tmp_path / "long.wav"
    write_tone(audio, seconds=1.0)
    rows = tuple(
        Utterance(
            *(f"u{n:05d}", audio, ("anger", "neutral")[n % 2], n / 8_000, n / 8_000 + 0.2),
            text=f"sentence {n}",
            speaker=f"speaker-{n % 12}",
            split="train",
            session=f"session-{n % 5}",
            language="en-GB",
            corpus="a corpus",
        )
        for n in range(COUNT)
    )
    write_manifest(Manifest(rows, ("anger", "neutral"), corpus="c"), work.manifest)
    del rows
    config = ExtractConfig(audio_encoder="tiny", text_encoder="tiny", device="cpu")
    read_manifest(work.manifest)  # what is made once for all

    manifest, held, peak = cost(lambda: read_manifest(work.manifest))
    # Without sharing the names of speakers, splits, sessions, … 1,130.
    assert held < 850
    assert peak < 1_500
    make_plan(work, manifest, config)
    plan, held, peak = cost(lambda: make_plan(work, manifest, config))
    assert len(plan.audio) == len(plan.text) == COUNT
    assert held < 700
    assert peak < 1_500
    seconds, held, peak = cost(lambda: measure(plan.audio))
    assert len(seconds) == COUNT
    assert peak < 800  # all waiting for a thread at once took 1,500
