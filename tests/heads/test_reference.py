"""The logistic regression beside the heads: chosen without them, and kept for its rows only."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cache.frames import Frames
from heads.dataset import Dataset
from heads.folds import Selection, make_folds
from heads.reference import (
    STRENGTHS,
    Reference,
    _Path,
    best_layers,
    logistic_reference,
)
from heads.vector_store import VectorStore
from tests.heads.searches import make_origin, relabelled, small_dataset
from tests.heads.synthetic import make_dataset


def test_a_reference_of_other_rows_is_not_taken_for_this_one(tmp_path: Path) -> None:
    path = tmp_path / "reference.json"
    reference = logistic_reference(VectorStore(make_dataset()), modalities=["audio"])
    reference.write(path, make_origin())
    assert Reference.read(path) == reference
    assert Reference.read(path, make_origin()) == reference
    assert Reference.read(path, make_origin(manifest_sha256="1" * 64)) is None
    assert Reference.read(path, make_origin(streams={"audio": "other"})) is None


@pytest.mark.parametrize("rows", [20, 90])
@pytest.mark.parametrize("scaled", [True, False])
def test_a_path_predicts_as_plain_scikit_learn(rows: int, scaled: bool) -> None:
    random = np.random.default_rng(0)
    x = (random.standard_normal((rows, 40)) * random.uniform(0.5, 3, 40) + 2).astype(np.float32)
    target = np.arange(rows) % 3
    x[:, :3] += 2 * np.eye(3, dtype=np.float32)[target]
    asked = random.standard_normal((50, 40)).astype(np.float32) + 2
    path = _Path(x, target, scaled=scaled)
    for strength in (0.01, 0.1, 1.0):
        path.fit(strength)
        model = LogisticRegression(C=strength, class_weight="balanced", max_iter=5000, tol=1e-6)
        plain = make_pipeline(*([StandardScaler()] * scaled), model).fit(x, target)
        assert (path.predict(asked) == plain.predict(asked)).mean() > 0.97


@pytest.mark.parametrize("refit", [True, False])
def test_with_folds_it_is_chosen_by_them_and_trained_like_the_winner(refit: bool) -> None:
    dataset = small_dataset()
    selection = Selection.of(dataset, make_folds(dataset, "3"), refit=refit)
    found = logistic_reference(VectorStore(dataset), selection)
    assert found.trained_on == ("train+dev" if refit else "train")
    assert set(found.scores) == ({"folds", "test"} if refit else {"folds", "dev", "test"})
    assert found.scores["folds"].n == 48
    assert found.strength in STRENGTHS
    assert "on the folds" in found.to_text()


def test_labels_of_the_test_set_change_no_choice() -> None:
    found = [
        logistic_reference(VectorStore(dataset))
        for dataset in (small_dataset(), relabelled(small_dataset(), "test"))
    ]
    choices = [(one.layers, one.scaled, one.strength, one.predicted) for one in found]
    assert choices[0] == choices[1]
    assert found[0].scores["test"] != found[1].scores["test"]


def with_noise_as_the_usual_layer(dataset: Dataset) -> Dataset:
    audio = dataset.frames["audio"]
    assert isinstance(audio, Frames)
    noise = replace(audio, values=torch.randn_like(audio.values))
    frames = {**dataset.frames, "audio": noise}
    return replace(dataset, frames=frames, others={"audio": {3: audio}}, layers={"audio": 4})


def test_the_layer_that_tells_labels_apart_is_chosen_whatever_the_usual_one_is() -> None:
    dataset = with_noise_as_the_usual_layer(make_dataset())
    store = VectorStore(dataset)
    assert best_layers(store, Selection.of(dataset, None))["audio"] == 3
    assert logistic_reference(store, modalities=["audio"]).layers == {"audio": 3}
    chosen = dataset.with_layers({"audio": 3})
    assert chosen.numbers("audio") == (3,)
    assert chosen.frames["audio"] is not dataset.frames["audio"]
