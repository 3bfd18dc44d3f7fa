"""How the logistic regression is chosen: on a path over C, without a look at the heads."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import heads.search.conclusion
from heads.confusion import confusion_matrix, macro_f1
from heads.folds import Selection, make_folds
from heads.reference import STRENGTHS, Reference, _Path, logistic_reference
from heads.vector_store import VectorStore
from tests.heads.searches import make_origin, small_dataset, small_search


@pytest.mark.parametrize("rows", [30, 120])
@pytest.mark.parametrize("scaled", [True, False])
def test_every_strength_of_a_path_is_that_of_a_regression_fitted_by_itself(
    rows: int, scaled: bool
) -> None:
    """Fewer rows than columns, which are turned then, and more; one column is constant."""
    random = np.random.default_rng(rows)
    x = (random.standard_normal((rows, 60)) * random.uniform(0.5, 3, 60) + 2).astype(np.float32)
    x[:, 7] = 4.0
    target = np.arange(rows) % 3
    x[:, :3] += np.eye(3, dtype=np.float32)[target]
    asked = (random.standard_normal((2000, 60)) * 2 + 2).astype(np.float32)
    asked[:, 7] = 4.0
    path = _Path(x, target, scaled=scaled)
    for strength in STRENGTHS:
        path.fit(strength)
        exact, usual = (
            make_pipeline(
                *([StandardScaler()] * scaled),
                LogisticRegression(C=strength, class_weight="balanced", **options),
            )
            .fit(x.astype(float), target)
            .predict(asked.astype(float))
            for options in ({"max_iter": 50_000, "tol": 1e-8}, {"max_iter": 1000})
        )
        agreed = (path.predict(asked) == exact).mean()
        # With a weak penalty the solver's tolerance ends it before the very end, from wherever it
        # starts: the path is no further from it than scikit-learn from 0. A hundredth is for chance
        # (two and a half standard errors of the difference between such shares of 2,000).
        assert agreed >= (0.998 if strength <= 1 else 0.97)
        assert agreed >= (usual == exact).mean() - 0.01
        assert path.converged


def test_the_score_it_was_chosen_by_is_the_best_of_plain_regressions_on_dev() -> None:
    dataset = small_dataset()
    store = VectorStore(dataset)
    found = logistic_reference(store)
    vectors = {
        name: torch.cat([store.vectors(name, "none", v) for v in ("mean", "deviation")], 1).numpy()
        for name in ("audio", "text")
    }
    train, dev = dataset.rows("train"), dataset.rows("dev")
    gold = dataset.targets(dev).numpy()
    scores: dict[tuple[tuple[str, ...], bool, float], float] = {}
    for names in (("audio", "text"), ("audio",), ("text",)):
        columns = np.concatenate([vectors[name] for name in names], axis=1)
        for scaled in (True, False):
            for strength in STRENGTHS:
                model = LogisticRegression(C=strength, class_weight="balanced", max_iter=5000)
                plain = make_pipeline(*([StandardScaler()] * scaled), model)
                plain.fit(columns[train], dataset.targets(train).numpy())
                said = plain.predict(columns[dev])
                scores[names, scaled, strength] = f1_score(gold, said, average="macro")
    chosen = scores[found.modalities, found.scaled, found.strength]
    assert found.scores["dev"].macro_f1 == pytest.approx(chosen)
    # A path is left where two strengths in a row brought nothing, so a later one may be better.
    assert chosen >= np.quantile(list(scores.values()), 0.9)
    assert found.candidates <= len(scores)


def test_what_it_predicted_is_what_it_scored() -> None:
    dataset = small_dataset()
    for folds in (None, make_folds(dataset, "3")):
        selection = Selection.of(dataset, folds, refit=True)
        found = logistic_reference(VectorStore(dataset), selection)
        for split, classes in found.predicted.items():
            rows = folds.rows if split == "folds" and folds else dataset.rows(split)
            confusion = confusion_matrix(dataset.targets(rows).numpy(), np.array(classes), 3)
            assert found.scores[split].macro_f1 == pytest.approx(float(macro_f1(confusion)))
        assert found.trained_on == ("train" if folds is None else "train+dev")


@pytest.mark.parametrize("modalities", [["audio"], ["text"], ["text", "audio"]])
def test_it_reads_what_it_has_to(modalities: list[str]) -> None:
    found = logistic_reference(VectorStore(small_dataset()), modalities=modalities)
    assert found.modalities == tuple(sorted(modalities))


def test_a_reference_round_trips_through_json() -> None:
    dataset = small_dataset()
    for folds in (None, make_folds(dataset, "3")):
        selection = Selection.of(dataset, folds, refit=True)
        found = logistic_reference(VectorStore(dataset), selection)
        assert Reference.from_json(json.loads(json.dumps(found.to_json()))) == found
    odd = replace(found, layers={"audio": None, "text": 3}, converged=False)
    assert Reference.from_json(json.loads(json.dumps(odd.to_json()))) == odd
    assert "audio + text layer 3" in odd.to_text()
    assert "before it converged" in odd.to_text()


def test_it_does_not_change_with_the_winner(tmp_path: Path) -> None:
    """Neither what heads may read nor how they normalise it has a part in the reference."""
    found = []
    for number, text in enumerate(
        ['modalities = "audio"\ninput_norm = "layernorm"\n', 'modalities = "text"\n', ""]
    ):
        space = tmp_path / f"{number}.toml"
        space.write_text(text)
        report = small_search(tmp_path / str(number), 3, epochs=1, space=space)
        found.append((report.best.head.modalities, report.reference))
    assert len({modalities for modalities, _ in found}) == 3
    assert found[0][1] == found[1][1] == found[2][1]
    assert found[0][1] == logistic_reference(VectorStore(small_dataset()))


def test_a_search_fits_it_once_and_again_for_other_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted = []

    def fit(store: VectorStore, *args: Any, **options: Any) -> Reference:
        fitted.append(options)
        return logistic_reference(store, *args, **options)

    monkeypatch.setattr(heads.search.conclusion, "logistic_reference", fit)
    folder = tmp_path / "search"
    small_search(folder, 2, epochs=1)
    small_search(folder, 3, epochs=1)
    assert len(fitted) == 1
    # The file of a search that was removed by hand, but for this one, is of other rows.
    kept = (folder / "reference.json").read_bytes()
    other = make_origin(manifest_sha256="1" * 64)
    small_search(folder, 2, epochs=1, origin=other, fresh=True)
    (folder / "reference.json").write_bytes(kept)
    small_search(folder, 3, epochs=1, origin=other)
    assert len(fitted) == 3


def test_one_that_was_chosen_or_trained_otherwise_is_not_taken(tmp_path: Path) -> None:
    folder = tmp_path / "search"
    options: dict[str, Any] = {"epochs": 1, "folds": "2"}
    whole = small_search(folder, 2, **options).logistic
    assert whole is not None
    assert whole.trained_on == "train+dev"
    report = small_search(folder, 2, **options, refit=False)
    assert report.reference is not None
    assert report.reference.trained_on == "train"
    assert set(report.reference.scores) == {"folds", "dev", "test"}
