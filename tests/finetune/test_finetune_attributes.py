"""`finetune` of heads that say arousal and valence, alone or beside classes."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from cli import main
from corpora.base.errors import ManifestError
from corpora.base.work import Work
from corpora.manifest import Manifest
from corpora.utterance import Utterance
from finetune.batches import Examples
from finetune.config import FinetuneConfig
from finetune.finetune import FinetuneReport, run_finetune
from finetune.model import EmotionModel
from finetune.model_files import CARD
from finetune.objective import ExampleLoss, Score, score
from finetune.phases import StepConfig
from finetune.training import crosswise
from heads.gold import Gold
from heads.head import as_outputs
from heads.losses import LossConfig
from heads.records import load_head
from heads.stacked_loss import StackedLoss
from tests.finetune.scoring import evaluate_head, evaluate_model
from tests.finetune.searched import copy_work
from tests.finetune.test_evaluate_attributes import SCALES, ccc, rated, work, written
from tests.finetune.test_resume import StopError, digests, no_test_split, stop_after

CONFIG = FinetuneConfig(epochs=2, patience=2, frame_budget=200, device="cpu", checkpoint_every=3)
LABELS = ("a", "b", "c")
__all__ = ["rated", "work"]


def some_examples(labels: tuple[str, ...] = LABELS, count: int = 24) -> Examples:
    """Some without a label, some without a rating of arousal."""
    random = np.random.default_rng(3)
    rows = [
        Utterance(
            id=f"u{n}",
            audio=Path("x.wav"),
            label="" if n % 7 == 0 or not labels else labels[int(random.integers(3))],
            arousal=None if n % 5 == 1 else float(random.uniform(1, 7)),
            valence=float(random.uniform(-1, 1)),
        )
        for n in range(count)
    ]
    return Examples(tuple(rows), (1,) * count, labels, SCALES)


def concordance(x: np.ndarray, y: np.ndarray) -> float:
    """Lin's coefficient in float64."""
    together = np.mean((x - x.mean()) * (y - y.mean()))
    return float(2 * together / (x.var() + y.var() + (x.mean() - y.mean()) ** 2))


def expected_loss(examples: Examples, logits: np.ndarray, batches: list[list[int]]) -> float:
    """Of one step: α-weighted cross-entropy of all rows, and 1 − CCC of each batch."""
    labels, share = examples.labels, 0.4
    classes = len(labels)
    known = [n for n, u in enumerate(examples.utterances) if u.label]
    own = [labels.index(examples.utterances[n].label) for n in known] if labels else []
    wrong = 0.0
    if labels:
        counts = np.bincount(own, minlength=classes)
        alpha = len(own) / (classes * counts)
        wide = logits[known, :classes]
        log_p = wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))
        cost = -alpha[own] * log_p[np.arange(len(own)), own]
        wrong = cost.sum() / alpha[own].sum()
    off = []
    for at, (name, (low, high)) in enumerate(SCALES.items()):
        ratings = [getattr(u, name) for u in examples.utterances]
        y = np.array([np.nan if one is None else one for one in ratings])
        y = (y - (low + high) / 2) / ((high - low) / 2)
        total = 0.0
        for rows in batches:
            rated_rows = [row for row in rows if np.isfinite(y[row])]
            own_ccc = concordance(logits[rated_rows, classes + at], y[rated_rows])
            total += len(rated_rows) / np.isfinite(y).sum() * (1 - own_ccc)
        off.append(total)
    return float(np.mean(off) if not labels else (1 - share) * wrong + share * np.mean(off))


@pytest.mark.parametrize("labels", [LABELS, ()])
def test_the_loss_of_a_step_is_that_of_its_batches(labels: tuple[str, ...]) -> None:
    examples = some_examples(labels)
    steps = StepConfig(loss=LossConfig("cross_entropy"), attribute_weight=0.4)
    loss = ExampleLoss(examples, steps)
    logits = torch.randn(24, len(labels) + 2, generator=torch.Generator().manual_seed(0))
    order = np.random.default_rng(1).permutation(24).tolist()
    batches = [order[:10], order[10:]]
    weight = loss.weight(batches)
    found = sum(float(loss(logits[rows], rows, weight)) for rows in batches)
    wide = logits.double().numpy()
    assert found == pytest.approx(expected_loss(examples, wide, batches), abs=1e-5)
    whole = float(loss(logits, range(24)))
    assert whole == pytest.approx(expected_loss(examples, wide, [list(range(24))]), abs=1e-5)


@pytest.mark.parametrize("labels", [LABELS, ()])
def test_of_one_batch_it_has_the_gradient_of_the_searchs_loss(labels: tuple[str, ...]) -> None:
    examples = some_examples(labels)
    config = LossConfig("focal", gamma=1.5)
    loss = ExampleLoss(examples, StepConfig(loss=config, attribute_weight=0.3))
    ratings = as_outputs(SCALES, torch.from_numpy(examples.gold.ratings))
    targets = examples.loss_targets(config)
    stacked = StackedLoss.of(config, targets, loss.class_weight, None, ratings, 0.3)
    rows = list(range(24))
    first = torch.randn(24, len(labels) + 2, requires_grad=True)
    second = first.detach().clone().requires_grad_()
    loss(first, rows, loss.weight([rows])).backward()
    StackedLoss.beside([stacked], torch.device("cpu"))(second[None], torch.arange(24)).backward()
    torch.testing.assert_close(first.grad, second.grad, atol=1e-6, rtol=1e-5)


def test_constant_ratings_and_single_rows_have_a_finite_gradient_of_nothing() -> None:
    row = Utterance(id="u", audio=Path("x.wav"), label="", arousal=4.0, valence=0.5)
    examples = Examples((row,) * 3, (1,) * 3, (), SCALES)
    loss = ExampleLoss(examples, StepConfig(attribute_weight=1.0))
    logits = torch.randn(3, 2, requires_grad=True)
    loss(logits[:1], [0], loss.weight([[0]])).backward()
    assert logits.grad is not None
    assert float(logits.grad.abs().max()) < 1e-6
    loss(logits, range(3)).backward()
    assert bool(torch.isfinite(logits.grad).all())


def test_scores_are_of_classes_of_attributes_or_both() -> None:
    examples = some_examples()
    gold = examples.gold
    random = np.random.default_rng(0)
    said = np.concatenate([random.dirichlet([1, 1, 1], 24), random.uniform(1, 7, (24, 2))], axis=1)
    both = score(said, gold, 0.5)
    each = []
    for at in range(2):
        known = np.isfinite(gold.ratings[:, at])
        each.append(concordance(said[known, 3 + at], gold.ratings[known, at]))
    assert both.mean_ccc == pytest.approx(np.mean(each))
    assert both.macro_f1 is not None
    assert both.value == pytest.approx((both.macro_f1 + np.mean(each)) / 2)
    assert Score.from_json(both.to_json()) == both
    alone = Score.from_json({"mean_ccc": 0.25, "loss": 1.0})
    assert alone.value == 0.25
    assert alone.to_json() == {"mean_ccc": 0.25, "loss": 1.0}
    assert Score(0.5, 1.0).to_json() == {"macro_f1": 0.5, "loss": 1.0}


def test_each_half_is_scored_by_the_epoch_that_the_other_chose_of_attributes_too() -> None:
    random = np.random.default_rng(4)
    ratings = random.uniform(1, 7, (30, 1))
    gold = Gold((), np.full(30, -1), {"arousal": (1.0, 7.0)}, ratings, [""] * 30)
    said = [ratings + random.normal(0, width, (30, 1)) for width in (1.0, 2.0, 0.5)]
    half = random.random(30) < 0.5
    joined = np.empty((30, 1))
    for side in (half, ~half):
        best = max(said, key=lambda one: concordance(one[side, 0], ratings[side, 0]))
        joined[~side] = best[~side]
    found = crosswise(said, gold, torch.from_numpy(half))
    assert found == pytest.approx(concordance(joined[:, 0], ratings[:, 0]))


@pytest.fixture(scope="module")
def finished(
    work: tuple[Work, str], rated: Manifest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Work, str, FinetuneReport]:
    folder, targets = work
    own = copy_work(folder, tmp_path_factory.mktemp("finetuned") / "work")
    said: list[str] = []
    report = run_finetune(own, rated, replace(CONFIG, phases=(1, 2, 3)), tell=said.append)
    text = "\n".join(said)
    assert ("dev mean of macro-F1 and CCC" if targets == "both" else "dev mean CCC") in text
    return own, targets, report


def test_before_any_step_the_model_scores_as_the_head_on_cached_frames(
    work: tuple[Work, str], rated: Manifest, tmp_path: Path
) -> None:
    own = copy_work(work[0], tmp_path / "work")
    dev = evaluate_head(own, rated, "dev")
    assert dev.attributes is not None
    expected = np.mean([ccc(written(dev), name) for name in SCALES])
    report = run_finetune(own, rated, replace(CONFIG, phases=(2,), epochs=1))
    start = report.phases[0].start
    assert start.mean_ccc == pytest.approx(expected, abs=1e-4)
    if work[1] == "both":
        assert start.macro_f1 == pytest.approx(dev.report.macro_f1)
    else:
        assert start.macro_f1 is None


def test_phase_1_ends_with_the_searched_head(finished: tuple[Work, str, FinetuneReport]) -> None:
    own, _, report = finished
    _, record = load_head(own.search)
    first = report.phases[0]
    assert first.config.phase == 1
    assert first.best.value == pytest.approx(record.dev_macro_f1, abs=1e-6)
    with (own.model / "training.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert "dev_mean_ccc" in rows[0]
    assert ("dev_macro_f1" in rows[0]) == bool(record.head.labels)


def test_the_model_is_scored_on_its_scales_and_read_back(
    finished: tuple[Work, str, FinetuneReport], rated: Manifest
) -> None:
    own, targets, report = finished
    assert report.model is not None
    assert report.model.attributes is not None
    again = evaluate_model(own, rated)
    assert again.attributes == report.model.attributes
    for one in report.model.attributes.per_attribute:
        rows = [row for row in written(report.model) if row[f"gold_{one.name}"]]
        errors = [abs(float(row[one.name]) - float(row[f"gold_{one.name}"])) for row in rows]
        assert one.ccc == pytest.approx(ccc(rows, one.name), abs=1e-5)
        assert one.mae == pytest.approx(np.mean(errors), abs=1e-6)
        assert one.scale == SCALES[one.name]
    assert (report.model.classes is None) == (targets == "attributes")
    model = EmotionModel.from_pretrained(own.model)
    assert dict(model.head.config.attributes) == SCALES
    assert "dev_mean_ccc" in model.provenance
    [tested, *_] = [u for u in rated.in_split("test") if u.arousal is not None]
    [said] = model.predict([tested.audio], [tested.text])
    [row] = [row for row in written(again) if row["id"] == tested.id]
    assert said.attributes["arousal"] == pytest.approx(float(row["arousal"]), abs=1e-3)
    text = " ".join(report.to_text().split())
    assert "fine-tuned model arousal" in text
    with pytest.raises(ManifestError, match="arousal from 1 to 9 instead of 1 to 7"):
        run_finetune(own, replace(rated, scales={**SCALES, "arousal": (1.0, 9.0)}), CONFIG)


def test_the_card_says_scales_and_scores(
    finished: tuple[Work, str, FinetuneReport], rated: Manifest
) -> None:
    own, targets, report = finished
    assert report.model is not None
    assert report.model.attributes is not None
    evaluate_model(own, rated)
    card = (own.model / CARD).read_text(encoding="utf-8")
    first = report.model.attributes.per_attribute[0]
    assert f"| arousal | {first.ccc:.3f} |" in card
    assert "| 1 to 7 |" in card
    assert "arousal (1 to 7), valence (-1 to 1)" in card
    assert ("macro-F1" in card) == (targets == "both")
    assert ("By label" in card) == (targets == "both")
    name = "mean of macro-F1 and CCC" if targets == "both" else "mean CCC"
    assert f"dev {name} before" in card


def test_evaluate_and_predict_take_the_model_on_the_command_line(
    finished: tuple[Work, str, FinetuneReport], rated: Manifest
) -> None:
    own, targets, _ = finished
    audio = str(rated.in_split("test")[0].audio)
    found = CliRunner().invoke(
        main, ["predict", audio, "--text", "stop that now", "--json", "--work", str(own.root)]
    )
    assert found.exit_code == 0, found.output
    line = json.loads(found.stdout.splitlines()[0])
    assert 1 <= line["attributes"]["arousal"] <= 7
    assert bool(line["label"]) == (targets == "both")


@pytest.mark.parametrize("steps", [2, 5])
def test_a_run_that_stopped_goes_on_to_the_same_weights(
    steps: int,
    work: tuple[Work, str],
    rated: Manifest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = replace(CONFIG, phases=(2,), checkpoint_every=1)
    rows, found = no_test_split(rated), []
    for name in ("whole", "stopped"):
        own = copy_work(work[0], tmp_path / name)
        if name == "stopped":
            with monkeypatch.context() as patch:
                stop_after(patch, steps)
                with pytest.raises(StopError):
                    run_finetune(own, rows, config)
        run_finetune(own, rows, config)
        found.append(digests(own))
    assert found[0] == found[1]
