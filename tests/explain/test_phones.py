"""Phones: ratios counted by hand, intervals over speakers, onsets, planted truth."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from corpora.alignments import Aligned, Alignment
from corpora.base.report import Report
from corpora.textgrid import Interval
from explain.phones import SILENCE, UNKNOWN, around_onsets, likelihood_ratios
from explain.phones_section import phones_section
from explain.subject import Subject
from tests.explain.planted import Planted, planted_subject

# The frame grid of planted utterances: 20 ms from one to the next, the first centre at 17.5 ms.
HOP, CENTRE = 0.02, 0.0175


@pytest.fixture(scope="module")
def planted() -> tuple[Subject, Planted]:
    return planted_subject()


def align(subject: Subject, planted: Planted, carrier: str, other: str) -> Aligned:
    """The planted region is one phone, what lies before and after it another."""
    alignments = []
    offsets = subject.frames["audio"].offsets.tolist()
    for start, end in pairwise(offsets):
        inside = np.flatnonzero(planted.carries[start:end])
        first, last = HOP * inside[0], HOP * (inside[-1] + 1)
        phones = [Interval(0.0, first, other), Interval(first, last, carrier)]
        phones.append(Interval(last, HOP * (end - start) + 0.1, other))
        alignments.append(Alignment((), tuple(p for p in phones if p.end > p.start)))
    return Aligned(tuple(alignments), ())


def rows(section: Report, name: str) -> dict[str, list[object]]:
    table = next(t for t in section.tables if t.name == name)
    return {str(row[0]): list(row) for row in table.rows}


def test_ratios_are_shares_of_frames() -> None:
    #            attended: a a b . | frames: a a b b c, one frame in no phone
    codes = np.array([0, 0, 1, 1, 2, -1])
    attended = np.array([True, True, True, False, False, True])
    found = likelihood_ratios(
        codes, ["a", "b", "c"], attended, np.zeros(6, dtype=np.int64), ["s1"], minimum=1
    )
    by_name = {r.name: r for r in found.ratios}
    assert by_name["a"].ratio == pytest.approx((2 / 3) / (2 / 5))
    assert by_name["b"].ratio == pytest.approx((1 / 3) / (2 / 5))
    assert by_name["c"].ratio == 0
    assert by_name["a"].low is None
    assert "fewer than 8 says nothing" in found.note


def test_rare_phones_are_named_not_ranked() -> None:
    codes = np.array([0] * 60 + [1] * 3)
    found = likelihood_ratios(codes, ["a", "b"], codes == 0, codes * 0, ["s1"], minimum=50)
    assert [r.name for r in found.ratios] == ["a"]
    assert found.rare == ("b",)


def test_intervals_come_from_speakers_not_from_frames() -> None:
    """Each speaker attends to all of its `a` or to none: 4,000 frames, but 10 speakers."""
    owner = np.repeat(np.arange(10), 400)
    codes = np.tile(np.repeat([0, 1], 200), 10)
    attended = np.where(owner % 2 == 0, codes == 0, codes == 1)
    speakers = [f"s{k}" for k in range(10)]
    found = likelihood_ratios(codes, ["a", "b"], attended, owner, speakers)
    for ratio in found.ratios:
        assert ratio.ratio == pytest.approx(1)
        assert ratio.low is not None
        assert ratio.high is not None
        assert ratio.low < 0.6
        assert ratio.high > 1.4
    assert found.note == ""


def test_without_any_phone_there_is_no_ratio() -> None:
    codes = np.full(5, -1)
    assert likelihood_ratios(codes, ["a"], codes == 0, codes * 0, ["s"]).ratios == ()


def test_attention_right_after_onsets_stands_out_of_shifted_onsets() -> None:
    random = np.random.default_rng(0)
    offsets = np.arange(0, 40 * 61 + 1, 61)
    weights = random.random(int(offsets[-1]))
    onsets = []
    for start in offsets[:-1]:
        frames = np.sort(random.choice(np.arange(5, 55, 10), 3, replace=False))
        weights[start + frames + 2] += 5
        onsets.append(CENTRE + HOP * frames)
    weights /= np.add.reduceat(weights, offsets[:-1]).repeat(61)
    found = around_onsets(weights, offsets, onsets, HOP, CENTRE)
    assert found is not None
    assert found.count == 120
    peak = int(found.observed.argmax())
    assert found.lags[peak] == pytest.approx(0.04)
    assert found.observed[peak] > found.high[peak]
    assert found.lags[0] == pytest.approx(-0.14)


def test_no_onset_is_none() -> None:
    assert around_onsets(np.full(4, 0.25), np.array([0, 4]), [np.zeros(0)], HOP, CENTRE) is None


def test_the_planted_phone_is_the_most_salient(planted: tuple[Subject, Planted]) -> None:
    subject, truth = planted
    section = phones_section(subject, align(subject, truth, "AA1", "S"))
    found = rows(section, "phones")
    assert next(iter(found)) == "AA1"
    ratio, low = found["AA1"][3], found["AA1"][4]
    assert isinstance(ratio, float)
    assert isinstance(low, float)
    assert ratio > 4
    assert low > 3
    classes = rows(section, "phone-classes")
    assert classes["vowels"][3] == pytest.approx(ratio)
    assert "vowels, primary stress" in classes
    assert "fricatives" in classes


def test_the_top_frame_finds_it_too(planted: tuple[Subject, Planted]) -> None:
    subject, truth = planted
    section = phones_section(subject, align(subject, truth, "AA1", "S"), None)
    found = rows(section, "phones")
    assert sum(int(str(row[2])) for row in found.values()) == len(subject)
    assert next(iter(found)) == "AA1"


def test_unknown_words_are_called_so_and_have_no_class(planted: tuple[Subject, Planted]) -> None:
    subject, truth = planted
    section = phones_section(subject, align(subject, truth, "spn", "T"))
    assert UNKNOWN in rows(section, "phones")
    assert set(rows(section, "phone-classes")) == {"consonants", "plosives"}


def test_labels_of_no_known_set_stay_plain(planted: tuple[Subject, Planted]) -> None:
    subject, truth = planted
    section = phones_section(subject, align(subject, truth, "k2k", "x#1"))
    assert set(rows(section, "phones")) == {"k2k", "x#1"}
    assert "phone-classes" not in [t.name for t in section.tables]
    assert any("no set that is known" in sentence for sentence in section.text)


def test_missing_alignments_are_stated(planted: tuple[Subject, Planted]) -> None:
    subject, truth = planted
    nothing = Aligned((None,) * len(subject), ("No utterance has a TextGrid.",))
    section = phones_section(subject, nothing)
    assert section.text == ("No utterance has a TextGrid.", "So nothing is known about phones.")
    assert not section.tables
    some = align(subject, truth, "AA1", "S")
    half = tuple(a if k % 2 else None for k, a in enumerate(some.alignments))
    section = phones_section(subject, replace(some, alignments=half))
    assert any("60 of 120 utterances have an alignment" in s for s in section.text)
    assert next(iter(rows(section, "phones"))) == "AA1"


def test_frames_outside_phones_are_silence(planted: tuple[Subject, Planted]) -> None:
    subject, truth = planted
    section = phones_section(subject, align(subject, truth, "AA1", "sil"))
    assert set(rows(section, "phones")) == {"AA1", SILENCE}
