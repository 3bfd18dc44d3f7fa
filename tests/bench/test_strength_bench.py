"""The benchmark of strength: its AUCs are scikit-learn's, and it takes RAVDESS alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from bench import strength
from bench.strength import Asked, ask, auc_of, by_emotion, strength_lines
from cache.frames import Frames
from corpora.base.errors import ConfigError
from corpora.utterance import Utterance
from heads.dataset import Dataset

LABELS = ("neutral", "angry", "sad")
ACTORS = 8


def recordings() -> Dataset:
    """Frames in which an emotion lies along its own column, a strong one twice as far."""
    random = np.random.default_rng(0)
    utterances, frames = [], []
    for actor in range(1, ACTORS + 1):
        for code, label in enumerate(LABELS):
            for intensity in (1, 2) if code else (1,):
                for take in (1, 2):
                    name = f"03-01-{code + 1:02}-{intensity:02}-01-{take:02}-{actor:02}"
                    utterances.append(
                        Utterance(name, Path("a.wav"), label, speaker=f"{actor:02}", split="train")
                    )
                    values = 0.3 * random.standard_normal((12, 8))
                    values[:, code] += intensity * (code > 0)
                    frames.append(torch.from_numpy(values).float())
    return Dataset(tuple(utterances), LABELS, {"audio": Frames.from_list(frames)})


def test_auc_is_that_of_scikit_learn() -> None:
    random = np.random.default_rng(0)
    count = 90
    said = np.round(random.standard_normal((2, 3, count)), 1)
    emotions = np.array(["angry", "calm", "sad"])[np.arange(count) % 3]
    asked = Asked({"x": said}, random.random(count) < 0.5, emotions, np.arange(count).astype(str))
    found = auc_of(by_emotion(asked, said).sum(axis=0))
    expected = np.array(
        [
            np.mean(
                [
                    roc_auc_score(asked.strong[emotions == one], said[seed, score, emotions == one])
                    for seed in range(2)
                    for one in np.unique(emotions)
                ]
            )
            for score in range(3)
        ]
    )
    assert found[:3] == pytest.approx(expected)
    assert found[3] == pytest.approx(expected[0] - expected[1])


def test_planted_intensity_is_found_in_unseen_actors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strength, "EPOCHS", 5)
    monkeypatch.setattr(strength, "POOLINGS", {"average": {"kind": "average"}})
    asked = ask(recordings(), [0])
    assert len(asked.strong) == ACTORS * 2 * 4
    [said] = asked.said.values()
    assert auc_of(by_emotion(asked, said).sum(axis=0))[0] > 0.95
    lines = strength_lines(asked)
    assert "64 recordings of 8 actors" in lines[0]
    assert [line.split()[0] for line in lines[2:4]] == ["average", "within"]
    assert lines[-1].startswith("sad")


def test_other_corpora_are_refused() -> None:
    data = recordings()
    named = tuple(replace(u, id=u.id.replace("-", "")) for u in data.utterances)
    with pytest.raises(ConfigError, match="this takes RAVDESS"):
        ask(replace(data, utterances=named), [0])
