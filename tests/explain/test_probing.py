"""Probing reads what is in vectors, and only on voices it never heard."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.metrics import r2_score

from cache.config import ExtractConfig
from cache.extract.extract import extract
from cache.frames import Frames
from cache.lookup import FrameCache
from corpora.base.report import render
from corpora.base.work import Work
from corpora.manifest import Manifest, Utterance
from explain.load import LoadedRows, build_subject
from explain.probing import (
    ATTENDED,
    DEVIATION,
    MEAN,
    PENALTIES,
    Targets,
    error_sums,
    explained,
    explained_from,
    held_out_predictions,
    probe,
    probe_dimensions,
    relevant_dimensions,
    ridge,
    shuffled_within,
    subject_vectors,
)
from explain.probing_section import ProbingConfig, probing_section
from explain.ragged import Floats
from explain.subject import Subject, frame_attention
from heads.head import Head, HeadConfig
from tests.explain.planted import in_memory, planted_subject
from tests.finetune.corpus import make_corpus


def made(count: int = 200, dim: int = 12, noise: float = 0.5) -> tuple[Floats, Floats]:
    """Features, and two targets that three of them carry; a third target is noise."""
    random = np.random.default_rng(0)
    features = random.standard_normal((count, dim)) * np.linspace(1, 20, dim) + 5
    carried = features[:, :3] / np.linspace(1, 20, dim)[:3]
    targets = np.stack(
        [carried.sum(axis=1), carried[:, 0] - carried[:, 2], np.zeros(count)], axis=1
    )
    return features, targets + noise * random.standard_normal(targets.shape)


@pytest.mark.parametrize("dim", [12, 300])
def test_ridge_is_the_best_penalty_by_leaving_one_out(dim: int) -> None:
    features, targets = made(60, dim)
    others = made(90, dim)[0][60:]
    scaled = (features - features.mean(axis=0)) / features.std(axis=0)
    asked = (others - features.mean(axis=0)) / features.std(axis=0)
    size = np.square(np.linalg.svd(scaled, compute_uv=False)[: min(59, dim)]).mean()
    expected = np.empty((len(others), 3))
    best = np.full(3, np.inf)
    for penalty in PENALTIES * size:
        model = Ridge(alpha=penalty).fit(scaled, targets)
        gram = scaled @ np.linalg.solve(scaled.T @ scaled + penalty * np.eye(dim), scaled.T)
        left_out = (targets - model.predict(scaled)) / (1 - np.diag(gram) - 1 / 60)[:, None]
        error = np.square(left_out).mean(axis=0)
        better = error < best
        best[better] = error[better]
        expected[:, better] = model.predict(asked)[:, better]
    np.testing.assert_allclose(ridge(features, targets, others), expected, rtol=1e-3, atol=1e-3)


def test_rows_are_predicted_without_their_fold() -> None:
    features, targets = made(90)
    folds = np.arange(90) % 3
    found = held_out_predictions(features, targets, folds)
    changed = targets.copy()
    changed[folds == 1] += 100
    again = held_out_predictions(features, changed, folds)
    np.testing.assert_allclose(again[folds == 1], found[folds == 1])


def test_r2_is_sklearns_and_adds_up_over_clusters() -> None:
    features, targets = made(80)
    predicted = LinearRegression().fit(features, targets).predict(features)
    expected = r2_score(targets, predicted, multioutput="raw_values")
    np.testing.assert_allclose(explained(targets, predicted), expected)
    sums = error_sums(targets, predicted, np.arange(80) % 7)
    np.testing.assert_allclose(explained_from(sums.sum(axis=0)), expected)


def test_a_constant_target_has_no_r2() -> None:
    constant = np.full((10, 1), 3.0)
    assert np.isnan(explained(constant, constant)).all()


def test_dimensions_that_tell_classes_apart_come_first() -> None:
    random = np.random.default_rng(0)
    classes = np.arange(90) % 3
    features = random.standard_normal((90, 20))
    features[:, [4, 11]] += classes[:, None]
    assert set(relevant_dimensions(features, classes, 2)) == {4, 11}


def test_shuffling_keeps_each_speakers_values() -> None:
    values = np.arange(12.0)[:, None]
    speakers = ["a"] * 5 + ["b"] * 7
    mixed = shuffled_within(values, speakers, 0)
    assert sorted(mixed[:5, 0]) == list(range(5))
    assert sorted(mixed[5:, 0]) == list(range(5, 12))
    assert not np.array_equal(mixed, values)


def targets_of(values: Floats, speakers: int = 10) -> Targets:
    count = len(values)
    names = tuple(f"s{row % speakers}" for row in range(count))
    return Targets(
        tuple(f"cue{column}" for column in range(values.shape[1])),
        values,
        shuffled_within(values, names, 1),
        (values[:, 0] > np.median(values[:, 0])).astype(np.int64),
        np.arange(count) % speakers % 5,
        names,
    )


def test_what_is_in_the_vectors_is_read_and_noise_and_shuffled_cues_are_not() -> None:
    features, values = made(300)
    found = probe(features, targets_of(values))
    assert found.r2[0] > 0.8
    assert found.r2[1] > 0.8
    assert found.r2[2] < 0.05
    assert found.control.max() < 0.05
    assert found.recall > 0.85
    interval = found.intervals[0]
    assert interval is not None
    assert interval.low < found.r2[0] < interval.high


def test_few_speakers_have_no_intervals() -> None:
    features, values = made(60)
    assert probe(features, targets_of(values, 5)).intervals == (None, None, None)


def test_the_dimensions_of_the_emotion_carry_its_cue() -> None:
    random = np.random.default_rng(5)
    features = random.standard_normal((300, 40))
    values = features[:, :2].sum(axis=1, keepdims=True) + 0.3 * random.standard_normal((300, 1))
    found = probe_dimensions(features, targets_of(values))
    assert found["emotion-relevant"][0] > 0.8
    assert found["random"][0] < 0.7


def test_attended_means_are_weighted_by_attention() -> None:
    subject, _ = planted_subject()
    found = {one.pooling: one for one in subject_vectors(subject, {"audio": 24})}
    audio = in_memory(subject.frames)["audio"]
    start, end = audio.offsets[5:7].tolist()
    values = audio.values[start:end].double()
    weights = frame_attention(subject, "audio")[start:end]
    np.testing.assert_allclose(
        found[ATTENDED].values[5], (weights[:, None] * values).sum(dim=0), atol=1e-5
    )
    np.testing.assert_allclose(found[MEAN].values[5], values.mean(dim=0), atol=1e-5)
    assert found[DEVIATION].layer == 24


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> tuple[Work, Manifest, Subject]:
    """A corpus of tones, whose class is in their pitch, in the cache with all tiny layers."""
    folder = tmp_path_factory.mktemp("tones")
    work, manifest = Work(folder / "work"), make_corpus(folder, 72)
    work.root.mkdir()
    config = ExtractConfig(
        audio_encoder="tiny", text_encoder="", audio_layers=(1, 2, 3), device="cpu"
    )
    extract(work, manifest, config)
    found = FrameCache(work).find(manifest, ["audio"])
    head = Head(HeadConfig(manifest.labels, {"audio": 128}, {"audio": {"kind": "mha"}}), 0)
    material = LoadedRows(
        found.utterances, {"audio": found.load("audio")}, FrameCache(work).extraction.grid
    )
    return work, manifest, build_subject(head, material, manifest=manifest, split="test")


def test_every_cached_layer_is_probed(
    tones: tuple[Work, Manifest, Subject],
) -> None:
    work, manifest, subject = tones
    section = probing_section(subject, FrameCache(work), manifest)
    rows = section.tables[0].rows
    assert {row[1] for row in rows} == {MEAN, DEVIATION, ATTENDED}
    assert {row[0] for row in rows if row[1] == MEAN} == {1, 2, 3}
    assert all(isinstance(row[3], float) for row in rows)
    assert "72 utterances of the test split" in section.text[0]


def test_a_split_of_few_speakers_is_probed_on_the_whole_manifest(
    tones: tuple[Work, Manifest, Subject],
) -> None:
    work, manifest, subject = tones
    few = replace(subject, utterances=tuple(subject.utterances[:3]))
    section = probing_section(few, FrameCache(work), manifest)
    assert "72 utterances of the whole manifest" in section.text[0]


def test_a_model_is_probed_on_its_own_utterances_alone(
    tones: tuple[Work, Manifest, Subject],
) -> None:
    """The cache holds frames of other weights than the fine-tuned ones."""
    work, manifest, subject = tones
    few = replace(subject, kind="model", utterances=tuple(subject.utterances[:3]))
    assert "That is too few" in probing_section(few, FrameCache(work), manifest).text[1]
    section = probing_section(replace(subject, kind="model"), FrameCache(work), manifest)
    assert "of the whole manifest" not in section.text[0]
    assert {row[1] for row in section.tables[0].rows} == {"attended mean", "mean", "deviation"}


def test_too_few_utterances_are_said(tones: tuple[Work, Manifest, Subject]) -> None:
    work, manifest, subject = tones
    short = replace(manifest, utterances=manifest.utterances[:30])
    few = replace(subject, utterances=tuple(subject.utterances[:3]))
    section = probing_section(few, FrameCache(work), short)
    assert "That is too few" in section.text[1]
    assert not section.tables


def test_the_figure_can_be_drawn(tones: tuple[Work, Manifest, Subject]) -> None:
    pytest.importorskip("matplotlib")
    work, manifest, subject = tones
    section = probing_section(subject, FrameCache(work), manifest, ProbingConfig(limit=60))
    assert render(section.figures[0])[".png"][:4] == b"\x89PNG"


def test_a_head_that_reads_text_alone_has_nothing_to_probe(tmp_path: Path) -> None:
    head = Head(HeadConfig(("a", "b"), {"text": 8}, {"text": {"kind": "average"}}), 0)
    utterance = Utterance("u0", Path("u0.wav"), "a")
    material = LoadedRows((utterance,), {"text": Frames.from_list([torch.randn(3, 8)])})
    subject = build_subject(head, material)
    manifest = Manifest((utterance,), ("a", "b"), corpus="c")
    section = probing_section(subject, FrameCache(Work(tmp_path)), manifest)
    assert "reads text alone" in section.text[0]
