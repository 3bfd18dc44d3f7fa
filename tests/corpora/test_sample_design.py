from __future__ import annotations

from collections import Counter, defaultdict
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpora.base.errors import ConfigError
from corpora.sample_design import EMOTIONAL, LABELS, SHARED, SPEAKERS, Line, design

LINES = design(400, 0)
OWNERS = {text: label for label, texts in EMOTIONAL.items() for text in texts}


def cues(line: Line) -> dict[str, float]:
    prosody, delivery = line.prosody, line.prosody.delivery
    return {
        "rate": delivery.rate,
        "pitch": delivery.pitch,
        "pitch_range": delivery.pitch_range,
        "word_gap": delivery.word_gap,
        "level": prosody.level,
        "fall": prosody.fall,
        "tremor": prosody.tremor,
    }


def test_at_least_eight_voices_of_both_sexes() -> None:
    assert len({speaker.voice for speaker in SPEAKERS}) == len(SPEAKERS) >= 8
    assert Counter(speaker.sex for speaker in SPEAKERS) == {"female": 5, "male": 5}


@settings(max_examples=30)
@given(st.integers(len(SPEAKERS), 600), st.integers(0, 5))
def test_speakers_and_labels_are_balanced_at_any_size(utterances: int, seed: int) -> None:
    lines = design(utterances, seed)
    assert len({line.id for line in lines}) == len(lines) == utterances
    by_speaker: dict[str, Counter[str]] = defaultdict(Counter)
    for line in lines:
        by_speaker[line.speaker.name][line.label] += 1
    totals = [counts.total() for counts in by_speaker.values()]
    assert len(totals) == len(SPEAKERS)
    assert max(totals) - min(totals) <= 1
    for counts in by_speaker.values():
        assert max(counts.values()) - min(counts[label] for label in LABELS) <= 1


def test_the_design_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    assert design(60, 3) == design(60, 3)
    assert design(60, 3) != design(60, 4)


def test_labels_overlap_in_every_cue() -> None:
    values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for line in LINES:
        for cue, value in cues(line).items():
            values[cue][line.label].append(value)
    for cue, by_label in values.items():
        for one, other in combinations(LABELS, 2):
            low = max(min(by_label[one]), min(by_label[other]))
            high = min(max(by_label[one]), max(by_label[other]))
            assert low <= high, (cue, one, other)


def test_the_shift_of_a_label_varies_by_speaker() -> None:
    levels: dict[str, list[float]] = defaultdict(list)
    for line in LINES:
        if line.label == "anger":
            levels[line.speaker.name].append(line.prosody.level - line.speaker.level)
    means = [sum(found) / len(found) for found in levels.values()]
    assert max(means) - min(means) > 0.5


def test_words_carry_emotion_part_of_the_time() -> None:
    shared = sum(line.text in SHARED for line in LINES) / len(LINES)
    fitting = sum(OWNERS.get(line.text) == line.label for line in LINES) / len(LINES)
    misleading = 1 - shared - fitting
    assert 0.45 < shared < 0.6
    assert 0.3 < fitting < 0.45
    assert 0.03 < misleading < 0.12


def test_shared_sentences_are_spoken_with_several_labels_by_several_speakers() -> None:
    for text in SHARED:
        lines = [line for line in LINES if line.text == text]
        assert len({line.label for line in lines}) >= 3
        assert len({line.speaker.name for line in lines}) >= 3


def test_fewer_utterances_than_speakers_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"10 speakers.*9 were asked for"):
        design(9, 0)
