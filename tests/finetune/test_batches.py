"""Batches: complete, within their budget, repeatable, and decoded in order."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.audio import load_audio
from corpora.base.errors import AudioError, ConfigError
from corpora.manifest import Manifest
from finetune.batches import load_batches, plan_batches

LENGTHS = st.lists(st.integers(1, 3000), max_size=80)
SEEDS = st.none() | st.integers(0, 2**32 - 1)


@given(LENGTHS, st.integers(1, 4000), SEEDS, st.integers(0, 50))
def test_every_utterance_is_in_exactly_one_batch(
    lengths: list[int], budget: int, seed: int | None, epoch: int
) -> None:
    plan = plan_batches(lengths, budget, seed=seed, epoch=epoch)
    assert sorted(row for rows in plan for row in rows) == list(range(len(lengths)))


@given(LENGTHS, st.integers(1, 4000), SEEDS)
def test_no_batch_exceeds_the_budget_but_for_an_utterance_alone(
    lengths: list[int], budget: int, seed: int | None
) -> None:
    for rows in plan_batches(lengths, budget, seed=seed):
        assert len(rows) == 1 or len(rows) * max(lengths[row] for row in rows) <= budget


def test_a_plan_depends_on_seed_and_epoch() -> None:
    lengths = np.random.default_rng(0).integers(50, 400, 200).tolist()
    plan = plan_batches(lengths, 2_400, seed=1, epoch=2)
    assert plan == plan_batches(lengths, 2_400, seed=1, epoch=2)
    assert plan != plan_batches(lengths, 2_400, seed=1, epoch=3)
    assert plan != plan_batches(lengths, 2_400, seed=2, epoch=2)


def test_batches_of_different_epochs_hold_different_company() -> None:
    lengths = np.random.default_rng(0).integers(50, 400, 200).tolist()
    first, second = (
        {frozenset(rows) for rows in plan_batches(lengths, 2_400, seed=1, epoch=epoch)}
        for epoch in (1, 2)
    )
    assert len(first & second) < len(first) / 4


def test_little_of_a_batch_is_padding() -> None:
    # Lengths like those of acted speech: 1 to 8 s, log-normal around 2.7 s, at 50 frames a second.
    generator = np.random.default_rng(0)
    seconds = generator.lognormal(1.0, 0.4, 500).clip(1, 8)
    lengths = (50 * seconds).astype(int).tolist()
    plan = plan_batches(lengths, 2_400, seed=1)
    padded = sum(len(rows) * max(lengths[row] for row in rows) for rows in plan)
    assert sum(lengths) / padded > 0.92


def test_a_budget_below_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="frame budget"):
        plan_batches([3], 0)


def test_batches_come_in_the_plans_order_with_their_own_recordings(manifest: Manifest) -> None:
    plan = [(3, 1), (2,), (0, 5, 4)]
    batches = list(load_batches(manifest.utterances, plan, audio=True))
    assert [batch.rows for batch in batches] == plan
    for batch in batches:
        assert batch.waveforms is not None
        for row, waveform, text in zip(batch.rows, batch.waveforms, batch.texts, strict=True):
            np.testing.assert_array_equal(waveform, load_audio(manifest.utterances[row].audio))
            assert text == manifest.utterances[row].text


def test_a_model_that_does_not_listen_gets_texts_without_decoding(manifest: Manifest) -> None:
    deaf = [replace(u, audio=Path("nowhere.wav")) for u in manifest.utterances[:4]]
    (batch,) = load_batches(deaf, [(0, 1, 2, 3)], audio=False)
    assert batch.waveforms is None
    assert batch.texts == tuple(u.text for u in deaf)


def test_an_unreadable_recording_is_named_or_set_aside(manifest: Manifest) -> None:
    some = [*manifest.utterances[:3], replace(manifest.utterances[3], audio=Path("nowhere.wav"))]
    with pytest.raises(AudioError, match=r"u003.*no such file"):
        list(load_batches(some, [(0, 3), (1, 2)], audio=True))
    skipped: dict[str, str] = {}
    batches = list(load_batches(some, [(0, 3), (1, 2)], audio=True, skipped=skipped))
    assert [batch.rows for batch in batches] == [(0,), (1, 2)]
    assert list(skipped) == ["u003"]


def test_leaving_early_ends_the_threads(manifest: Manifest) -> None:
    batches = load_batches(manifest.utterances, [(n,) for n in range(12)], audio=True)
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert not [t for t in threading.enumerate() if t.name.startswith("decode")]
