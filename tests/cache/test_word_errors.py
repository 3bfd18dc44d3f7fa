"""Word error rate, against a Levenshtein distance in NumPy written from its definition."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.transcribe.transcription import WordErrors, normalised_words, word_errors

pytest.importorskip("rapidfuzz", reason="needs the extra wer")

words = st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=9)


def distance(reference: Sequence[str], recognised: Sequence[str]) -> int:
    """d[i, j] = min(d[i-1, j] + 1, d[i, j-1] + 1, d[i-1, j-1] + [r_i ≠ h_j])."""
    d = np.zeros((len(reference) + 1, len(recognised) + 1), dtype=np.int64)
    d[:, 0] = np.arange(len(reference) + 1)
    d[0] = np.arange(len(recognised) + 1)
    for i, r in enumerate(reference, 1):
        for j, h in enumerate(recognised, 1):
            d[i, j] = min(d[i - 1, j] + 1, d[i, j - 1] + 1, d[i - 1, j - 1] + (r != h))
    return int(d[-1, -1])


def longest_common(reference: Sequence[str], recognised: Sequence[str], edits: int) -> int:
    """The most words that any alignment with so many edits has right, by trying every path."""
    best = {(0, 0): {0: 0}}  # edits made -> most hits
    for i in range(len(reference) + 1):
        for j in range(len(recognised) + 1):
            found = best.setdefault((i, j), {})
            steps = [((i - 1, j), 1, 0), ((i, j - 1), 1, 0)]
            if i and j:
                same = reference[i - 1] == recognised[j - 1]
                steps.append(((i - 1, j - 1), int(not same), int(same)))
            for before, cost, hit in steps:
                for made, hits in best.get(before, {}).items():
                    found[made + cost] = max(found.get(made + cost, -1), hits + hit)
    return best[len(reference), len(recognised)][edits]


@given(words, words)
def test_edits_are_the_levenshtein_distance(reference: list[str], recognised: list[str]) -> None:
    assert word_errors(reference, recognised).edits == distance(reference, recognised)


@given(words, words)
def test_counts_fit_the_lengths(reference: list[str], recognised: list[str]) -> None:
    found = word_errors(reference, recognised)
    hits = found.words - found.substitutions - found.deletions
    assert min(found.substitutions, found.deletions, found.insertions, hits) >= 0
    assert hits + found.substitutions + found.insertions == len(recognised)


@given(words, words)
def test_of_equal_alignments_the_one_with_most_words_right_counts(
    reference: list[str], recognised: list[str]
) -> None:
    found = word_errors(reference, recognised)
    hits = found.words - found.substitutions - found.deletions
    assert hits == longest_common(reference, recognised, found.edits)


def test_known_counts() -> None:
    said = ["the", "cat", "sat", "on", "the", "mat"]
    found = word_errors(said, ["the", "bat", "sat", "on", "mat", "now"])
    assert found == WordErrors(6, substitutions=1, deletions=1, insertions=1, utterances=1)
    assert found.rate == pytest.approx(0.5)


def test_a_corpus_sums_before_it_divides() -> None:
    total = word_errors(["a"], ["b"]) + word_errors(list("abcdefghi"), list("abcdefghi"))
    assert total.rate == pytest.approx(0.1)


def test_words_that_nobody_said_count_though_there_is_no_rate_for_them_alone() -> None:
    alone = word_errors([], ["thank", "you"])
    assert alone.rate is None
    assert (alone + word_errors(["a"], ["a"])).rate == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("Don't STOP, please!", "en", ["dont", "stop", "please"]),
        ("Don\u2019t", "en", ["dont"]),
        ("[laughter] well (coughs) <noise> yes", "en", ["well", "yes"]),
        ("Der Schöne—Straße 7", "de", ["der", "schöne", "straße", "7"]),
        ("今日は、晴れ。", "ja", list("今日は晴れ")),
        ("안녕 하세요", "ko", ["안녕", "하세요"]),
        ("हिन्दी", "hi", ["हिन्दी"]),
        ("  …  ", "", []),
    ],
)
def test_texts_are_normalised(text: str, language: str, expected: list[str]) -> None:
    assert normalised_words(text, language) == expected
