"""Words: tokens merged, special tokens apart, ranking, informativeness."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cache.frames import Frames
from corpora.alignments import Aligned, Alignment, plain
from corpora.textgrid import Interval
from corpora.utterance import Utterance
from explain.load import LoadedRows, build_subject
from explain.subject import Subject, read_texts
from explain.words import (
    Attended,
    heard_words,
    informativeness,
    rank_words,
    read_words,
    surprisals,
    words_section,
)
from heads.head import Head, HeadConfig

LABELS = ("anger", "neutral")


def reader(texts: list[str], kinds: list[list[int]], weights: list[list[float]]) -> Subject:
    """A head that reads these texts with these weights."""
    frames = Frames.from_list([torch.zeros(len(own), 4) for own in kinds])
    head = Head(HeadConfig(LABELS, {"text": 4}, {"text": {"kind": "as"}}, mlp_width=4))
    utterances = tuple(
        Utterance(f"u{k}", Path("u.wav"), "anger", text=text) for k, text in enumerate(texts)
    )
    kind = torch.tensor([k for own in kinds for k in own], dtype=torch.uint8)
    subject = build_subject(head, LoadedRows(utterances, {"text": frames}, token_kinds=kind))
    values = torch.tensor([w for own in weights for w in own], dtype=torch.float64)
    return replace(subject, importance={"text": values})


def test_tokens_are_merged_into_words_and_special_ones_kept_apart() -> None:
    subject = reader(
        ["Stop  that, now!"], [[0, 1, 2, 1, 2, 1, 0]], [[0.1, 0.2, 0.05, 0.1, 0.1, 0.25, 0.2]]
    )
    readings = read_texts(subject)
    assert readings is not None
    assert [w.text for w in readings[0].words] == ["Stop", "that,", "now!"]
    np.testing.assert_allclose([w.mass for w in readings[0].words], [0.25, 0.2, 0.25])
    assert readings[0].words[0].tokens == (0.2, 0.05)
    assert readings[0].special == pytest.approx(0.3)


def test_an_empty_text_is_all_special_tokens() -> None:
    readings = read_texts(reader([""], [[0, 0]], [[0.5, 0.5]]))
    assert readings is not None
    assert readings[0].words == ()
    assert readings[0].special == pytest.approx(1)
    assert read_words(readings) == []


def test_a_truncated_text_ends_earlier() -> None:
    readings = read_texts(reader(["one two three"], [[0, 1, 1, 0]], [[0.25] * 4]))
    assert readings is not None
    assert [w.text for w in readings[0].words] == ["one", "two"]


def test_unknown_token_kinds_are_stated() -> None:
    subject = replace(reader(["a b"], [[0, 1, 1]], [[0.2, 0.4, 0.4]]), token_kinds=None)
    assert read_texts(subject) is None
    section = words_section(subject, Aligned((None,), ()), ["a b"])
    assert any("not in the cache" in sentence for sentence in section.text)


def test_words_are_compared_without_case_and_punctuation() -> None:
    assert [plain(word) for word in ("Stop!", "«Straße»", "don't", "…")] == [
        "stop",
        "strasse",
        "don't",
        "",
    ]


def test_surprisal_is_minus_log2_of_the_share() -> None:
    found = surprisals(["a b a", "A, c"])
    assert found["a"] == pytest.approx(-np.log2(3 / 5))
    assert found["c"] == pytest.approx(-np.log2(1 / 5))


def test_ranking_is_relative_to_an_even_attention_with_a_minimum() -> None:
    heard = [Attended(k, "now", 0.5, 0.25) for k in range(3)]
    heard += [Attended(k, "the", 0.1, 0.2) for k in range(3)] + [Attended(0, "rare", 0.9, 0.1)]
    found = rank_words(heard, {"now": 7.0})
    assert [(r.word, r.count) for r in found] == [("now", 3), ("the", 3)]
    assert [r.relative for r in found] == pytest.approx([2, 0.5])
    assert [r.surprisal for r in found] == [7.0, None]


def test_attention_that_follows_surprisal_correlates_fully() -> None:
    bits = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 5.0}
    own = [Attended(u, word, bits[word] * 0.1, 0.2) for u in range(4) for word in bits]
    found = informativeness(own, bits)
    np.testing.assert_allclose(found.pearson, 1)
    assert len(found.spearman) == 4
    assert len(informativeness(own[:2], bits).pearson) == 0


def test_heard_words_take_the_frames_of_their_interval() -> None:
    head = Head(HeadConfig(LABELS, {"audio": 4}, {"audio": {"kind": "as"}}, mlp_width=4))
    from cache.encoders.grid import Grid

    frames = Frames(torch.zeros(10, 4), torch.tensor([0, 10]))
    own = (Utterance("u", Path("u.wav"), "anger"),)
    subject = build_subject(head, LoadedRows(own, {"audio": frames}, Grid(320, 560)))
    weights = torch.tensor([0.0, 0, 0.4, 0.4, 0, 0, 0, 0.2, 0, 0], dtype=torch.float64)
    subject = replace(subject, importance={"audio": weights})
    words = (Interval(0.04, 0.08, "Now!"), Interval(0.08, 0.14, ""), Interval(0.14, 0.2, "go"))
    found = heard_words(subject, Aligned((Alignment(words, ()),), ()), "audio")
    assert [(w.word, round(w.mass, 6), round(w.even, 6)) for w in found] == [
        ("now", 0.8, 0.2),
        ("go", 0.2, 0.3),
    ]


def test_few_texts_are_warned_of() -> None:
    texts = ["go home now please"] * 4
    kinds, weights = [[0, 1, 1, 1, 1, 0]] * 4, [[0.1, 0.3, 0.2, 0.2, 0.1, 0.1]] * 4
    section = words_section(
        reader(texts, kinds, weights), Aligned((None,) * 4, ()), ["go home", "now now go please"]
    )
    assert any("With 2 different texts" in sentence for sentence in section.text)
    assert section.data["special_token_mass"] == pytest.approx(0.2)
