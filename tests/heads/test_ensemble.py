"""The ensemble of the best trials: the mean of their probabilities, scored like a head."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from corpora.base.errors import ConfigError
from heads.config import SearchConfig
from heads.metrics import classification_report
from heads.predict import predict
from heads.records import load_head, trial_file
from heads.vector_store import VectorStore
from tests.heads.searches import small_dataset, small_search


def test_an_ensemble_is_the_mean_of_the_best_trials(tmp_path: Path) -> None:
    folder = tmp_path / "search"
    report = small_search(folder, 13, ensemble=3)
    team = report.ensemble
    assert team is not None
    assert team.trials == tuple(line.number for line in report.top[:3])
    dataset = small_dataset()
    members = [load_head(trial_file(folder, number))[0] for number in team.trials]
    for split in ("dev", "test"):
        rows = dataset.rows(split)
        mean = torch.stack([predict([head], VectorStore(dataset), rows)[0] for head in members])
        expected = classification_report(
            dataset.targets(rows).numpy(),
            mean.mean(0).numpy(),
            dataset.labels,
            dataset.speakers(rows),
        )
        assert team.scores[split] == expected
    assert "ensemble of 3, test" in report.to_text()


def test_an_ensemble_is_written_beside_the_best_head(tmp_path: Path) -> None:
    folder = tmp_path / "search"
    report = small_search(folder, 5, ensemble=2)
    assert report.ensemble is not None
    value = json.loads((folder / "ensemble.json").read_text())
    assert value["trials"] == list(report.ensemble.trials)
    assert value["scores"]["test"]["macro_f1"] == report.ensemble.scores["test"].macro_f1
    with (folder / "ensemble_predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    sums = [sum(float(row[f"p_{label}"]) for label in small_dataset().labels) for row in rows]
    np.testing.assert_allclose(sums, 1, atol=1e-6)
    assert {row["split"] for row in rows} == {"dev", "test"}


def test_a_search_without_an_ensemble_has_none(tmp_path: Path) -> None:
    report = small_search(tmp_path / "search", 2, epochs=1)
    assert report.ensemble is None
    assert not (tmp_path / "search" / "ensemble.json").exists()
    assert "ensemble" not in report.to_text()


@pytest.mark.parametrize("size", [1, 11, -1])
def test_an_ensemble_of_what_is_not_kept_is_refused(size: int) -> None:
    with pytest.raises(ConfigError, match="2 to 10"):
        SearchConfig(ensemble=size)
