"""What an utterance costs in memory: bytes of Python's, which do not depend on the machine."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from cache.extract.audio_pass import measure
from cache.extract.targets import Item, lacking, targets_of
from cache.last_extraction import Source
from cache.lookup import FrameCache
from cache.recipe import Recipe
from corpora.base.work import Work
from corpora.manifest import Manifest, Utterance, read_manifest, write_manifest
from tests.cache.recordings import write_tone

T = TypeVar("T")
COUNT = 2_000


def cost(action: Callable[[], T]) -> tuple[T, float, float]:
    """What an action returns, and bytes an utterance: held in the end, and at its peak.

    The least of three times: tables of the interpreter's own grow now and then, such as that of
    interned names, which a test run before this one has filled.
    """
    return min((_cost(action) for _ in range(3)), key=lambda found: found[1])


def _cost(action: Callable[[], T]) -> tuple[T, float, float]:
    gc.collect()
    tracemalloc.start()
    try:
        result = action()
        gc.collect()
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return result, held / COUNT, peak / COUNT


@pytest.mark.slow
def test_an_utterance_costs_a_kilobyte_or_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    read_manifest(work.manifest)  # what is made once for all

    manifest, held, peak = cost(lambda: read_manifest(work.manifest))
    # With names of speakers, splits, sessions, … of its own for every row 200 more.
    assert held < 900
    assert peak < 1_600
    targets = targets_of(Source(Recipe("audio", {"stored_dtype": "float16"}), layers=(3,)))

    def plan() -> tuple[Item, ...]:
        keys = FrameCache(work).keys(manifest.utterances)
        inputs = {keys[u.id]["audio"]: [u] for u in manifest.utterances}
        return lacking(work.features, inputs, targets)

    plan()  # what is made once for all
    items, held, peak = cost(plan)
    assert len(items) == COUNT
    assert held < 380
    assert peak < 900
    monkeypatch.setattr("cache.audio._WAITING", 200)
    seconds, held, peak = cost(lambda: measure(items))
    assert len(seconds) == COUNT
    assert peak < 600  # all waiting for a thread at once took 1,600
