"""Localisation against its equations, and on planted truth."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from cache.frames import Frames
from corpora.base.report import Table
from explain.localisation import POINTS, concentration, correlate, places, with_energy
from explain.localisation_section import localisation_section
from explain.position import position_part
from explain.ragged import Floats, floats
from explain.subject import Subject, frame_attention
from tests.explain.planted import Planted, planted_subject


@pytest.fixture(scope="module")
def planted() -> tuple[Subject, Planted]:
    return planted_subject()


def table(tables: tuple[Table, ...], name: str) -> Table:
    return next(t for t in tables if t.name == name)


def test_attention_by_fifths_is_a_share_of_the_utterance() -> None:
    subject, _ = planted_subject()
    part, findings = position_part(subject)
    for name, frames in subject.frames.items():
        weights, offsets = floats(frame_attention(subject, name)), frames.offsets.tolist()
        held = []
        for start, end in pairwise(offsets):
            edges = np.linspace(0, end - start, 6)
            sums = np.concatenate([[0.0], weights[start:end].cumsum()])
            held.append(np.diff(np.interp(edges, np.arange(end - start + 1), sums)))
        expected = np.mean(held, axis=0)
        found = [row[2] for row in table(part.tables, "position").rows if row[0] == name]
        np.testing.assert_allclose(np.array(found, dtype=float), expected, atol=1e-9)
        assert sum(expected) == pytest.approx(1)
        most = ("first", "second", "third", "fourth", "last")[int(expected.argmax())]
        assert any(f"The {most} fifth of an utterance holds" in one.text for one in findings)


@pytest.mark.parametrize("count", [1, 2, 7, 400])
def test_even_weights_hold_80_percent_on_80_percent_of_the_frames(count: int) -> None:
    found = concentration(np.full(count, 1 / count), np.array([0, count]))
    assert found.shares[0] == pytest.approx(0.8)
    assert found.gini[0] == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(found.curves[0], POINTS, atol=1e-9)


def test_a_curve_is_the_running_sum_of_sorted_weights() -> None:
    weights: Floats = np.array([0.1, 0.6, 0.0, 0.3, 0.25, 0.75])
    found = concentration(weights, np.array([0, 4, 6]))
    expected = np.interp(POINTS, [0, 0.25, 0.5, 0.75, 1], [0, 0.6, 0.9, 1, 1])
    np.testing.assert_allclose(found.curves[0], expected, atol=1e-9)
    # .6 after one frame, .9 after two: 80 % is two thirds into the second.
    assert found.shares[0] == pytest.approx((1 + 2 / 3) / 4)
    # Gini by its definition: the mean difference over twice the mean.
    own = weights[:4]
    pairs = np.abs(own[:, None] - own[None, :]).mean() / (2 * own.mean())
    assert found.gini[0] == pytest.approx(pairs)


def test_the_share_of_the_mean_curve_differs_from_the_mean_of_shares() -> None:
    weights = np.concatenate([np.full(10, 0.1), [1.0], np.zeros(9)])
    found = concentration(weights, np.array([0, 10, 20]))
    np.testing.assert_allclose(found.shares, [0.8, 0.08])
    curve = (POINTS + np.minimum(10 * POINTS, 1)) / 2
    assert found.of_mean_curve() == pytest.approx(float(np.interp(0.8, curve, POINTS)))


def test_planted_regions_hold_the_attention(planted: tuple[Subject, Planted]) -> None:
    subject, truth = planted
    weights = floats(frame_attention(subject, "audio"))
    share = weights[truth.carries].sum() / len(subject)
    assert share > 0.5
    assert truth.carries.mean() < 0.12
    found = concentration(weights, subject.frames["audio"].offsets.numpy())
    assert found.of_mean_curve() < 0.5


def test_attention_and_unrelated_energy_do_not_correlate(
    planted: tuple[Subject, Planted],
) -> None:
    found = with_energy(planted[0])
    assert found is not None
    assert abs(found.pearson.mean()) < 0.1
    assert found.undefined == 0


def test_attention_that_is_the_energy_correlates_fully() -> None:
    values = np.random.default_rng(0).random(30)
    found = correlate(values, 2 * values - 7, np.array([0, 10, 30]))
    np.testing.assert_allclose(found.pearson, 1)
    np.testing.assert_allclose(correlate(values, values**3, np.array([0, 30])).spearman, 1)


def of_frames(subject: Subject, speech: list[float]) -> Subject:
    """One utterance with this speech and even attention."""
    count = len(speech)
    frames = Frames(torch.zeros(count, 64), torch.tensor([0, count]), torch.tensor(speech))
    return replace(
        subject,
        utterances=subject.utterances[:1],
        frames={"audio": frames},
        importance={"audio": torch.full((count,), 1 / count)},
        probabilities=subject.probabilities[:1],
        weights={},
        energy=None,
    )


def test_pauses_lie_between_speech_and_edges_around_it(planted: tuple[Subject, Planted]) -> None:
    speech = [0.0, 0.9, 0.1, 0.2, 0.8, 0.7, 0.0, 0.1, 0.0, 0.3]
    found = places(of_frames(planted[0], speech), "audio")
    assert found is not None
    np.testing.assert_allclose(found.frames, [[0.3, 0.2, 0.5]])
    np.testing.assert_allclose(found.attention, found.frames, atol=1e-6)


def test_no_speech_is_stated_and_left_out(planted: tuple[Subject, Planted]) -> None:
    section = localisation_section(of_frames(planted[0], [0.0] * 5))
    assert any("finds no speech in 1 of 1" in sentence for sentence in section.text)
    assert "places" not in [t.name for t in section.tables]


def test_missing_energy_and_one_frame_are_stated(planted: tuple[Subject, Planted]) -> None:
    section = localisation_section(of_frames(planted[0], [1.0]))
    assert any("energy (dB): not extracted" in sentence for sentence in section.text)
    assert any("undefined in 1 of 1" in sentence for sentence in section.text)


def test_a_class_without_items_is_a_dash_not_a_zero(planted: tuple[Subject, Planted]) -> None:
    subject = of_frames(planted[0], [1.0, 1.0])
    rows = {row[1]: row for row in table(localisation_section(subject).tables, "localisation").rows}
    assert list(rows["sadness"][2:]) == [0, None, None, None, None]
