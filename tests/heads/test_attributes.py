"""Arousal, valence and dominance: their loss, their scores, and that heads find what is planted."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.linear_model import Ridge as SklearnRidge

from cache.frames import Frames
from corpora.base.errors import ConfigError, ManifestError
from corpora.manifest import Manifest, Utterance
from heads.attributes import attribute_report
from heads.compare.division import Division
from heads.compare.rendering import terminal_text
from heads.dataset import Dataset
from heads.gold import Gold
from heads.head import Head, HeadConfig, answers, as_outputs
from heads.load import aimed
from heads.losses import LossConfig, ccc_loss, focal_loss, inverse_frequency
from heads.predict import predict
from heads.records import load_head
from heads.ridge import ridge_reference
from heads.search.report import SearchReport
from heads.stacked_loss import StackedLoss
from heads.training import Cohort, Schedule, TrainingConfig
from heads.vector_store import VectorStore
from tests.heads.comparisons import in_folds, small_comparison
from tests.heads.searches import make_origin, small_dataset, small_search
from tests.heads.synthetic import LABELS

SCALES = {"arousal": (1.0, 7.0), "valence": (-1.0, 1.0)}
Array = NDArray[np.float64]


def concordance(x: Array, y: Array) -> float:
    """Lin 1989, of the pairs that have a rating."""
    x, y = x[np.isfinite(y)], y[np.isfinite(y)]
    if len(y) == 0:
        return 0.0
    together = np.mean((x - x.mean()) * (y - y.mean()))
    apart = x.var() + y.var() + (x.mean() - y.mean()) ** 2
    return float(2 * together / apart) if apart else 0.0


def rated(seed: int = 0, rows: int = 24) -> Array:
    """Ratings on outputs' scale, of which a third are missing, in other rows each."""
    random = np.random.default_rng(seed)
    values = random.uniform(-1, 1, (rows, 2))
    values[random.random((rows, 2)) < 1 / 3] = np.nan
    return values


# --- loss


def test_the_loss_is_one_less_lins_coefficient_over_the_rated_rows_of_each_head() -> None:
    random = np.random.default_rng(1)
    outputs, ratings = random.standard_normal((3, 24, 2)), rated()
    held_out = np.array([random.random(24) < 0.3 for _ in range(3)])
    weight = np.isfinite(ratings)[None] & ~held_out[:, :, None]
    found = ccc_loss(
        torch.from_numpy(outputs),
        torch.from_numpy(np.nan_to_num(ratings)).expand(3, -1, -1),
        torch.from_numpy(weight.astype(float)),
    )
    for head in range(3):
        for a in range(2):
            y = np.where(held_out[head], np.nan, ratings[:, a])
            expected = 1 - concordance(outputs[head, :, a], y)
            assert float(found[head, a]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ([0.3, -0.2, 0.5, 0.1], [0.5] * 4),
        ([0.5] * 4, [0.5] * 4),
        ([0.4] * 4, [0.1, -0.2, 0.7, 0.3]),
        ([0.0] * 4, [0.0] * 4),
    ],
)
def test_constant_ratings_or_outputs_have_a_finite_gradient(x: list[float], y: list[float]) -> None:
    outputs = torch.tensor(x)[:, None].requires_grad_()
    for weight in (torch.ones(4, 1), torch.eye(4)[:, :1], torch.zeros(4, 1)):
        outputs.grad = None
        loss = ccc_loss(outputs, torch.tensor(y)[:, None], weight)
        loss.sum().backward()
        assert outputs.grad is not None
        assert bool(loss.isfinite().all())
        assert bool(outputs.grad.isfinite().all())
        assert float(outputs.grad.abs().max()) < 10


def test_the_gradient_is_that_of_the_formula() -> None:
    outputs = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)
    ratings = torch.from_numpy(np.nan_to_num(rated(3, 6)))
    weight = torch.from_numpy(np.isfinite(rated(3, 6)).astype(float))
    assert torch.autograd.gradcheck(lambda x: ccc_loss(x, ratings, weight).sum(), outputs)


def test_a_stack_of_heads_with_folds_costs_what_each_costs_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    classes = torch.arange(24) % 3
    classes[5], classes[11] = -1, -1  # of whom attributes alone are known
    shares = torch.nn.functional.one_hot(classes.clamp(min=0), 3) * (classes >= 0)[:, None]
    ratings, folds = torch.from_numpy(rated()), torch.arange(24) % 4
    losses, weights = [], []
    for held_out, share in ((-1, 0.5), (0, 0.2), (3, 1.0)):
        own = (folds != held_out).float()
        alpha = inverse_frequency(shares[folds != held_out].float(), 3)
        losses.append(StackedLoss.of(LossConfig(), shares.float(), alpha, own, ratings, share))
        weights.append((own, alpha, share))
    stack = StackedLoss.beside(losses, torch.device("cpu"))
    batch = torch.tensor([3, 5, 8, 0, 11, 19, 22, 24, 24])  # the last two fill it, and cost nothing
    outputs = torch.randn(3, len(batch), 5, generator=generator)
    found = stack(outputs, batch)
    rows = batch[:7]
    for k, (own, alpha, share) in enumerate(weights):
        labelled = rows[classes[rows] >= 0]
        at = [i for i, row in enumerate(rows.tolist()) if classes[row] >= 0]
        wrong = focal_loss(outputs[k, at, :3], classes[labelled], alpha, row_weight=own[labelled])
        y = np.where(own[rows].numpy()[:, None] > 0, ratings[rows].numpy(), np.nan)
        x = outputs[k, :7, 3:].double().numpy()
        off = np.mean([1 - concordance(x[:, a], y[:, a]) for a in range(2)])
        assert float(found[k]) == pytest.approx((1 - share) * float(wrong) + share * off, abs=2e-5)


def test_what_stands_where_no_rating_is_has_no_part_in_it() -> None:
    ratings = torch.from_numpy(rated())
    loss = StackedLoss.of(LossConfig(), torch.zeros(24, 0), torch.zeros(0), None, ratings, 1.0)
    outputs = torch.randn(1, 24, 2, requires_grad=True)
    loss(outputs, torch.arange(24)).sum().backward()
    assert outputs.grad is not None
    missing = torch.isnan(ratings)
    assert bool((outputs.grad[0][missing] == 0).all())
    assert bool((outputs.grad[0][~missing] != 0).all())


# --- heads


def test_attributes_are_said_in_the_units_of_their_scales_and_never_beyond() -> None:
    config = HeadConfig(LABELS, {"audio": 4}, {"audio": {"kind": "average"}}, attributes=SCALES)
    said = answers(config, torch.tensor([[0.0, 0, 0, -1, 0.5], [1.0, 2, 3, 9, -9]]))
    torch.testing.assert_close(said[:, 3:], torch.tensor([[1.0, 0.5], [7.0, -1.0]]))
    torch.testing.assert_close(said[:, :3].sum(1), torch.ones(2))
    back = as_outputs(SCALES, torch.tensor([[1.0, 0.5], [7.0, -1.0]]))
    torch.testing.assert_close(back, torch.tensor([[-1.0, 0.5], [1.0, -1.0]]))


def test_a_head_of_attributes_alone_needs_no_label_and_comes_back_from_json() -> None:
    config = HeadConfig((), {"audio": 4}, {"audio": {"kind": "average"}}, attributes=SCALES)
    assert Head(config).output.out_features == 2
    assert HeadConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    plain = HeadConfig(LABELS, {"audio": 4}, {"audio": {"kind": "average"}})
    assert "attributes" not in plain.to_json()
    with pytest.raises(ConfigError, match="two labels"):
        HeadConfig((), {"audio": 4}, {"audio": {"kind": "average"}})


# --- scores


def test_scores_are_over_the_whole_set_and_in_the_units_of_the_scale() -> None:
    random = np.random.default_rng(0)
    ratings = random.uniform(1, 7, (200, 2))
    ratings[:, 1] = ratings[:, 1] / 3.5 - 1.1
    said = ratings + random.standard_normal((200, 2)) * [1.0, 0.3]
    ratings[random.random((200, 2)) < 0.2] = np.nan
    speakers = [f"s{k % 20}" for k in range(200)]
    report = attribute_report(ratings, said, SCALES, speakers)
    for a, one in enumerate(report.per_attribute):
        known = np.isfinite(ratings[:, a])
        assert one.n == known.sum()
        assert one.ccc == pytest.approx(concordance(said[:, a], ratings[:, a]))
        assert one.mae == pytest.approx(np.abs(said[known, a] - ratings[known, a]).mean())
        assert one.ccc is not None
        assert one.ccc_interval is not None
        assert one.ccc is not None
        assert one.ccc_interval.low < one.ccc < one.ccc_interval.high
    assert report.mean_ccc == pytest.approx(np.mean([one.ccc for one in report.per_attribute]))
    assert report.interval is not None


def test_the_interval_is_that_of_resampled_speakers() -> None:
    """Against speakers drawn one by one, their utterances put together."""
    random = np.random.default_rng(0)
    count, each = 16, 12
    of = np.repeat(np.arange(count), each)
    ratings = np.clip(4 + random.standard_normal(count * each), 1, 7)
    said = ratings + 0.7 * random.standard_normal(count)[of] + 0.5 * random.standard_normal(len(of))
    speakers = [f"s{k}" for k in of]
    report = attribute_report(ratings[:, None], said[:, None], {"arousal": (1, 7)}, speakers)
    drawn = []
    for _ in range(2000):
        chosen = random.integers(0, count, count)
        rows = np.concatenate([np.flatnonzero(of == k) for k in chosen])
        drawn.append(concordance(said[rows], ratings[rows]))
    low, high = report.per_attribute[0].ccc_interval or (0, 0)
    reach = 2.131 * np.std(drawn) * math.sqrt(count / (count - 1))  # Student's t, 15
    assert (high - low) / 2 == pytest.approx(reach, rel=0.08)


def test_of_one_speaker_there_is_no_interval_and_why() -> None:
    report = attribute_report([[1], [2], [4]], [[1], [2], [3]], {"arousal": (1, 7)}, ["a"] * 3)
    assert report.interval is None
    assert "1 speaker" in report.interval_reason


def test_both_scores_count_as_much_and_rows_without_one_count_in_the_other() -> None:
    classes = np.array([0, 1, -1, 1, 0, -1])
    ratings = np.array([[1.0], [np.nan], [5], [6], [2], [7]])
    gold = Gold(("a", "b"), classes, {"arousal": (1, 7)}, ratings, [""] * 6)
    said = np.concatenate([np.eye(2)[[0, 1, 0, 0, 0, 1]], [[2], [9], [5], [5], [3], [6]]], axis=1)
    f1 = (2 * 2 / (2 + 3) + 2 * 1 / (2 + 1)) / 2
    expected = (f1 + concordance(said[:, 2], ratings[:, 0])) / 2
    assert gold.score(said) == pytest.approx(expected)
    own, rated_ = gold.class_scores(said), gold.attribute_scores(said)
    assert own is not None
    assert rated_ is not None
    assert (own.n, rated_.per_attribute[0].n) == (4, 5)


# --- data


def dataset_of(count: int = 240, seed: int = 0, noise: float = 0.5) -> tuple[Dataset, float]:
    """Noise, and in a marked tenth of the frames what arousal is linear in; what noise allows.

    The rating is s + e, with s the mean over the tenth of the frames' projection, of deviation 1.
    Of a prediction c · s, which is all that can be known, CCC is
    2 c σ_s² / (c² σ_s² + σ_s² + σ_e²), which is largest at c = √(σ_s² + σ_e²) / σ_s: there it is
    σ_s / √(σ_s² + σ_e²).
    """
    generator = torch.Generator().manual_seed(seed)
    dim, length = 16, 40
    marker, direction = torch.linalg.qr(torch.randn(dim, 2, generator=generator)).Q.T
    utterances, frames = [], []
    for number in range(count):
        values = torch.randn(length, dim, generator=generator)
        at = int(torch.randint(0, length - 4, (1,), generator=generator))
        s = torch.randn((), generator=generator)
        tenth = values[at : at + 4]
        tenth += 5 * marker
        tenth += (s - (tenth @ direction).mean()) * direction
        rating = float(s + noise * torch.randn((), generator=generator))
        frames.append(values)
        utterances.append(
            Utterance(
                id=f"u{number:04}",
                audio=Path(f"u{number:04}.wav"),
                label="",
                speaker=f"s{number % 20}",
                split=("train", "train", "train", "dev", "test")[number % 20 // 4],
                arousal=min(7.0, max(1.0, 4 + 0.8 * rating)),
            )
        )
    allowed = 1 / math.sqrt(1 + noise**2)
    audio = {"audio": Frames.from_list(frames)}
    return Dataset(tuple(utterances), (), audio, attributes={"arousal": (1.0, 7.0)}), allowed


def trained(dataset: Dataset, epochs: int) -> float:
    """CCC on test of an attentive head trained on train."""
    config = HeadConfig(
        (),
        dataset.dims,
        {"audio": {"kind": "as", "hidden": 16}},
        "standardise",
        16,
        0.0,
        attributes=dataset.attributes,
    )
    heads = [Head(config, 1)]
    training = [TrainingConfig(1e-2, scorer_rate=1.0, attribute_weight=1.0)]
    store, rows = VectorStore(dataset), dataset.rows("test")
    cohort = Cohort(heads, training, store, dataset.rows("train"), Schedule(epochs))
    while cohort.epoch < epochs:
        cohort.run_epoch()
    return Gold.of(dataset, rows).score(predict(cohort.heads, store, rows)[0].numpy())


def permuted(dataset: Dataset) -> Dataset:
    order = np.random.default_rng(0).permutation(len(dataset))
    dealt = [dataset.utterances[k].arousal for k in order]
    rows = zip(dataset.utterances, dealt, strict=True)
    return replace(dataset, utterances=tuple(replace(u, arousal=value) for u, value in rows))


def test_attentive_heads_reach_nearly_what_the_noise_allows_and_nothing_where_dealt_anew() -> None:
    dataset, allowed = dataset_of(2000)
    assert trained(dataset, 30) > 0.95 * allowed
    assert abs(trained(permuted(dataset), 30)) < 0.15


def test_ridge_is_scikit_learns_and_chosen_on_dev() -> None:
    dataset, _ = dataset_of(200)
    utterances = tuple(
        replace(u, valence=None if k % 3 == 0 else math.tanh((u.arousal or 0) - 4))
        for k, u in enumerate(dataset.utterances)
    )
    dataset = replace(dataset, utterances=utterances, attributes=SCALES)
    store = VectorStore(dataset)
    ridge = ridge_reference(store)
    columns = torch.cat([store.vectors("audio", "none", n) for n in ("mean", "deviation")], 1)
    x, rows = columns.numpy().astype(float), {s: dataset.rows(s).numpy() for s in ("train", "test")}
    for a, name in enumerate(SCALES):
        ratings = dataset.ratings(torch.arange(200)).numpy()[:, a]
        own = [int(row) for row in rows["train"] if np.isfinite(ratings[row])]
        shift, scale = x[own].mean(0), x[own].std(0)
        model = SklearnRidge(ridge.strength * len(own)).fit((x[own] - shift) / scale, ratings[own])
        expected = model.predict((x[rows["test"]] - shift) / scale).clip(*SCALES[name])
        found = np.array(ridge.predicted["test"])[:, a]
        np.testing.assert_allclose(found, expected, atol=1e-6)
    scores = []
    for name, column in zip(SCALES, range(2), strict=True):
        said = np.array(ridge.predicted["dev"])[:, column]
        gold = dataset.ratings(dataset.rows("dev")).numpy()[:, column]
        scores.append(concordance(said, gold))
        assert ridge.scores["dev"].per_attribute[column].name == name
    assert ridge.scores["dev"].mean_ccc == pytest.approx(np.mean(scores))


# --- search


def rated_dataset() -> Dataset:
    """The small data set of classes, with ratings that follow the class; some lack one or other."""
    dataset = small_dataset()
    random = np.random.default_rng(0)
    utterances = []
    for k, u in enumerate(dataset.utterances):
        level = LABELS.index(u.label)
        utterances.append(
            replace(
                u,
                label="" if k % 10 == 4 else u.label,
                arousal=2.0 + 2 * level + float(random.uniform(-0.5, 0.5)),
                valence=None if k % 7 == 3 else (level - 1) / 2,
            )
        )
    return replace(dataset, utterances=tuple(utterances), attributes=SCALES)


def report_of(folder: Path, targets: str, **options: Any) -> SearchReport:
    dataset, origin = rated_dataset(), make_origin()
    if targets == "attributes":
        dataset, origin = replace(dataset, labels=()), make_origin(labels=())
    return small_search(folder, dataset=dataset, origin=origin, **options)


@pytest.mark.parametrize("targets", ["attributes", "both"])
@pytest.mark.parametrize("folds", ["off", "2"])
def test_a_search_for_attributes_says_what_it_found(
    targets: str, folds: str, tmp_path: Path
) -> None:
    report = report_of(tmp_path, targets, folds=folds, epochs=3, ensemble=2, trials=12)
    text = report.to_text()
    head, record = load_head(tmp_path)
    assert head.config.attributes == SCALES
    assert record.attribute_scores == report.best.attribute_scores
    where = "dev" if folds == "off" else "folds"
    found = record.attribute_scores[where].mean_ccc
    if targets == "both":
        assert record.training.attribute_weight == record.params["attribute_weight"]
        found = (found + record.scores[where].macro_f1) / 2
        assert report.objective == "mean of macro-F1 and CCC"
    else:
        assert (record.scores, record.training.attribute_weight) == ({}, 1.0)
        assert "loss" not in record.params
        assert report.objective == "mean CCC"
    assert record.dev_macro_f1 == pytest.approx(found)
    assert "arousal 1 to 7, valence -1 to 1" in text
    assert "ridge regression" in text
    assert ("macro-F1" in text) == (targets == "both")
    kept = json.loads((tmp_path / "best.json").read_text())
    assert "dev_score" in kept
    name = {"attributes": "dev_mean_ccc", "both": "dev_macro_f1_ccc"}[targets]
    assert report.to_json()["top"][0][name] == record.dev_macro_f1
    assert "dev_macro_f1" not in report.to_json()["top"][0]
    assert "dev_macro_f1" not in kept
    with (tmp_path / "trials.csv").open(newline="") as file:
        assert "dev_score" in next(csv.reader(file))
    with (tmp_path / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {"arousal", "gold_arousal", "valence", "gold_valence"} <= set(rows[0])
    assert ("gold" in rows[0]) == (targets == "both")
    own = [row for row in rows if row["split"] == "test" and row["gold_valence"]]
    ccc = concordance(*(np.array([float(r[c]) for r in own]) for c in ("valence", "gold_valence")))
    assert record.attribute_scores["test"].per_attribute[1].ccc == pytest.approx(ccc, abs=1e-5)


def test_a_search_goes_on_and_does_not_mix_targets(tmp_path: Path) -> None:
    report_of(tmp_path, "attributes", epochs=3, trials=12)
    assert report_of(tmp_path, "attributes", epochs=3, trials=14).added == 2
    with pytest.raises(ConfigError, match="axis attribute_weight"):
        report_of(tmp_path, "both", epochs=3, trials=15)


def test_what_cannot_be_learnt_from_is_refused_in_a_sentence(tmp_path: Path) -> None:
    dataset = rated_dataset()

    def search(**changes: Any) -> None:
        utterances = tuple(
            replace(u, **{n: make(u) for n, make in changes.items()}) for u in dataset.utterances
        )
        small_search(tmp_path, dataset=replace(dataset, utterances=utterances))

    with pytest.raises(ManifestError, match="All ratings of arousal in train are 3"):
        search(arousal=lambda u: 3.0 if u.split == "train" else u.arousal)
    with pytest.raises(ManifestError, match="No utterance in dev was rated for valence"):
        search(valence=lambda u: None if u.split == "dev" else u.valence)


@pytest.mark.parametrize("targets", ["attributes", "both"])
@pytest.mark.parametrize("folds", [False, True])
def test_a_comparison_has_a_column_for_each_attribute(
    targets: str, folds: bool, tmp_path: Path
) -> None:
    dataset, origin = rated_dataset(), make_origin()
    if targets == "attributes":
        dataset, origin = replace(dataset, labels=()), make_origin(labels=())
    own = (replace(u, speaker=f"s{k}") for k, u in enumerate(dataset.utterances))
    dataset = replace(dataset, utterances=tuple(own))
    if folds:
        dataset = in_folds(dataset)
    report = small_comparison(tmp_path, dataset=dataset, origin=origin, tables=("poolings",))
    (table,) = report.tables
    [reference] = [line for line in table.lines if line.is_reference]
    for line in table.lines:
        scores = line.outcomes["test"].scores
        assert scores["mean_ccc"].interval is not None
        both = (scores["ccc_arousal"].mean + scores["ccc_valence"].mean) / 2
        assert scores["mean_ccc"].mean == pytest.approx(both)
        assert 0 < scores["mae_arousal"].mean < 6
        assert ("macro_f1" in scores) == (targets == "both")
    kept = json.loads((tmp_path / "rows" / "reference-audio+text.json").read_text())
    rows = torch.cat([part.rows["test"] for part in Division.of(dataset).parts])
    gold = dataset.ratings(rows).numpy()
    for column, name in enumerate(SCALES):
        said = np.array(kept["rated"]["test"])[:, column]
        found = reference.outcomes["test"].scores[f"ccc_{name}"].mean
        assert found == pytest.approx(concordance(said, gold[:, column]))
    text = terminal_text(report)
    assert "CCC arousal" in text
    assert "MAE valence" in text
    assert ("ridge regression" in text) == (targets == "attributes")


def manifest(**columns: Any) -> Manifest:
    rows = [
        Utterance(f"u{k}", Path(f"u{k}.wav"), "anger", split="train", **columns, line=2 + k)
        for k in range(3)
    ]
    return Manifest(tuple(rows), ("anger",), "toy", scales={"arousal": (1, 7)})


def test_the_manifest_says_what_is_learnt() -> None:
    whole = manifest(arousal=3.0)
    assert aimed(whole, "emotion") == (whole, {})
    assert aimed(whole, "both") == (whole, {"arousal": (1, 7)})
    alone, scales = aimed(whole, "attributes")
    assert (alone.labels, scales) == ((), {"arousal": (1, 7)})


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({}, "columns arousal, valence, dominance are absent or empty"),
        ({"valence": 2.0}, "The scale of valence is not known"),
        ({"arousal": 8.0}, "arousal 8 of manifest line 2, utterance u0; arousal 8 of"),
    ],
)
def test_ratings_that_mean_nothing_are_refused(columns: Any, message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        aimed(manifest(**columns), "attributes")
