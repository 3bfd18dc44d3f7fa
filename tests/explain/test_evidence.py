"""Evidence names what was planted, its numbers are those of the equations; nothing is invented."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cache.frames import Frames
from corpora.alignments import Aligned, Alignment
from corpora.base.files import write_json
from corpora.base.report import Report, Table, csv_text
from corpora.textgrid import Interval
from explain.cues.descriptors import DEFAULT
from explain.cues.stream import CueFrames
from explain.curves import CurveConfig
from explain.evidence import (
    CHOICES,
    REACH,
    Evidence,
    attended_stretches,
    find_evidence,
    find_runs,
    smallest_set,
)
from explain.evidence_cues import CORPUS, SPEAKER, Reference, cues_of
from explain.evidence_section import (
    EVIDENT,
    evidence_section,
    json_lines,
    sentence,
    sentences,
    untold,
)
from explain.faithfulness import faithfulness_section
from explain.load import LoadedRows, build_subject
from explain.ragged import Floats, floats, ints
from explain.report.write import FORMAT, SUMMARY, VERSION
from explain.subject import Subject, frame_attention
from explain.trust import EVIDENCE, FAITHFULNESS, Trust, head_digest, judge, kept_verdict
from heads.head import Head
from tests.explain.planted import LABELS, Planted, in_memory, planted_subject
from tests.explain.test_report import EVIL, page_of
from tests.heads.references import attention_columns, attentive

TRUST = Trust(True, "Believed.")
TWO_LAYERS = {"heads": 1, "queries": 1, "scorer_layers": 2}


def bare(subject: Subject) -> Aligned:
    return Aligned((None,) * len(subject), ())


def trust_in(subject: Subject) -> Trust:
    data = faithfulness_section(subject, CurveConfig(gradient_limit=0)).data
    return judge(data, "test")


@pytest.fixture(scope="module")
def planted() -> tuple[Subject, Planted]:
    return planted_subject()


@pytest.fixture(scope="module")
def found(planted: tuple[Subject, Planted]) -> list[Evidence]:
    return find_evidence(planted[0], bare(planted[0]))[0]


# Planted truth, and nothing where there is none.


def dropped(subject: Subject, one: Evidence, row: int) -> set[int]:
    """The frames of the stretches, from their seconds alone."""
    count = int(subject.frames["audio"].lengths[row])
    times = subject.centre_seconds + subject.hop_seconds * np.arange(count)
    inside = [(s.start <= times) & (times <= s.end) for s in one.stretches]
    return set(np.flatnonzero(np.any(inside, axis=0)).tolist()) if inside else set()


def test_the_planted_stretch_is_named(
    planted: tuple[Subject, Planted], found: list[Evidence]
) -> None:
    subject, truth = planted
    offsets = ints(subject.frames["audio"].offsets)
    shares = []
    for row, (start, end) in enumerate(pairwise(offsets.tolist())):
        carries = set(np.flatnonzero(truth.carries[start:end]).tolist())
        named = dropped(subject, found[row], row)
        # Averaged over a tenth of a second, a stretch may begin and end two frames off.
        wide = {frame + by for frame in carries for by in range(-2, 3)}
        shares.append([len(named & carries) / len(carries), len(named - wide) / len(named)])
    held, beside = np.mean(shares, axis=0)
    assert held > 0.8
    assert beside < 0.2


def test_dropping_it_loses_the_probability_and_dropping_others_does_not() -> None:
    subject, _ = planted_subject({"kind": "mqmha", "queries": 2, "heads": 2})
    every, _ = find_evidence(subject, bare(subject))
    trust = trust_in(subject)
    lost, elsewhere = np.array([[e.lost, e.lost_elsewhere] for e in firsts(every)]).mean(axis=0)
    assert lost > 0.5
    assert elsewhere < 0.02
    assert trust.tells
    assert sum(map(bool, sentences(every, trust))) > 0.8 * len(every)


def firsts(every: Sequence[Evidence]) -> list[Any]:
    return [one.emotions[0] for one in every]


def test_no_sentence_is_made_of_a_class_that_lies_in_all_frames_alike() -> None:
    subject, _ = planted_subject(everywhere=True)
    assert float((subject.predicted == subject.targets).double().mean()) > 0.9
    every, _ = find_evidence(subject, bare(subject))
    trust = trust_in(subject)
    assert not trust.tells
    assert not any(sentences(every, trust))
    section = evidence_section(subject, every, trust, single=False)
    assert any(text.startswith("No sentence is made:") for text in section.text)
    assert section.data["sentences"] == 0
    assert np.mean([e.lost for e in firsts(every)]) < 0.05


def test_no_sentence_is_made_where_attention_is_dealt_out_anew(
    planted: tuple[Subject, Planted], found: list[Evidence]
) -> None:
    """The same head and frames, and attention that points anywhere."""
    subject, _ = planted
    random = np.random.default_rng(0)
    parts = frame_attention(subject, "audio").split(subject.frames["audio"].lengths.tolist())
    dealt = torch.cat([part[random.permutation(len(part))] for part in parts])
    other = replace(subject, importance={"audio": dealt})
    trust = trust_in(other)
    every, _ = find_evidence(other, bare(other))
    assert not trust.tells
    assert not any(sentences(every, trust))
    # What the head itself attends to is still all that it is shown by.
    lost = [np.mean([e.lost for e in firsts(one)]) for one in (every, found)]
    assert lost[0] < lost[1] / 4


# The equations, in NumPy float64.


def reference_probabilities(head: Head, frames: Floats) -> Floats:
    """Of one utterance: attention, its mean and deviation, a hidden layer, softmax."""
    state = {name: floats(value) for name, value in head.state_dict().items()}
    prefix = "poolings.audio."
    parameters = {n.removeprefix(prefix): v[0] for n, v in state.items() if n.startswith(prefix)}
    vector = attentive(frames, TWO_LAYERS, parameters)
    hidden = np.maximum(state["hidden.weight"] @ vector + state["hidden.bias"], 0)
    logits = state["output.weight"] @ hidden + state["output.bias"]
    exponentials = np.exp(logits - logits.max())
    result: Floats = exponentials / exponentials.sum()
    return result


def reference_attention(head: Head, frames: Floats) -> Floats:
    prefix = "poolings.audio."
    parameters = {
        name.removeprefix(prefix): floats(value)[0]
        for name, value in head.state_dict().items()
        if name.startswith(prefix)
    }
    column: Floats = attention_columns(frames, TWO_LAYERS, parameters)[:, 0]
    return column


def reference_stretches(attention: Floats) -> list[int]:
    """Frames of the stretches of one utterance, all of it speech; two frames a side averaged."""
    count = len(attention)
    smoothed = [attention[max(t - 2, 0) : t + 3].mean() for t in range(count)]
    chosen: list[int] = []
    for frame in sorted(range(count), key=lambda t: -smoothed[t]):
        if len(chosen) >= count // 4 or sum(attention[chosen]) >= 0.9:
            break
        if smoothed[frame] > 1 / count:
            chosen.append(frame)
    return sorted(chosen)


def test_sets_stretches_and_losses_are_those_of_the_equations(
    planted: tuple[Subject, Planted], found: list[Evidence]
) -> None:
    subject, _ = planted
    audio = in_memory(subject.frames)["audio"]
    for row in range(0, len(subject), 7):
        one, frames = found[row], floats(audio.utterance(row))
        whole = reference_probabilities(subject.head, frames)
        order = sorted(range(len(whole)), key=lambda c: -whole[c])
        size = next(n for n in (1, 2, 3) if whole[order[:n]].sum() >= 0.9)
        assert [e.label for e in one.emotions] == [LABELS[c] for c in order[:size]]
        assert one.together == pytest.approx(whole[order[:size]].sum(), abs=1e-5)
        attention = reference_attention(subject.head, frames)
        inside = reference_stretches(attention)
        assert sorted(dropped(subject, one, row)) == inside
        assert one.attention == pytest.approx(attention[inside].sum(), abs=1e-5)
        assert one.share == pytest.approx(len(inside) / len(frames))
        assert one.seconds == pytest.approx(0.02 * len(inside))
        outside = [t for t in range(len(frames)) if t not in inside]
        without = reference_probabilities(subject.head, frames[outside])
        others = []
        for choice in range(CHOICES):
            first = choice * len(outside) // CHOICES
            gone = {outside[(first + k) % len(outside)] for k in range(len(inside))}
            left = [t for t in range(len(frames)) if t not in gone]
            others.append(reference_probabilities(subject.head, frames[left]))
        for emotion, label in zip(one.emotions, order[:size], strict=True):
            assert emotion.probability == pytest.approx(whole[label], abs=1e-5)
            assert emotion.without == pytest.approx(without[label], abs=1e-5)
            assert emotion.lost == pytest.approx(whole[label] - without[label], abs=1e-5)
            expected = np.mean([one[label] for one in others])
            assert emotion.without_others == pytest.approx(expected, abs=1e-5)


def test_no_smaller_set_of_emotions_reaches_nine_tenths() -> None:
    random = np.random.default_rng(3)
    for _ in range(200):
        p = random.dirichlet(np.full(6, random.choice([0.2, 1.0, 5.0])))
        chosen = smallest_set(p).tolist()
        assert p[chosen].sum() >= REACH - 1e-9
        assert list(p[chosen]) == sorted(p[chosen], reverse=True)
        smaller = combinations(range(6), len(chosen) - 1)
        assert all(p[list(some)].sum() < REACH for some in smaller)
    assert smallest_set(np.array([0.1, 0.9])).tolist() == [1]
    assert smallest_set(np.array([0.45, 0.45, 0.1])).tolist() == [0, 1]


def test_runs_and_even_attention() -> None:
    assert find_runs(np.array([1, 1, 0, 1], dtype=np.bool_)) == [(0, 2), (3, 4)]
    assert find_runs(np.zeros(3, dtype=np.bool_)) == []
    offsets, every = np.array([0, 1, 41]), np.ones(41, dtype=np.bool_)
    even = np.concatenate([[1.0], np.full(40, 1 / 40)]).astype(np.float32).astype(np.float64)
    assert not attended_stretches(even, every, offsets, 2).any()


def with_cues(subject: Subject, seed: int = 5) -> CueFrames:
    """Random cues, of which a third are missing."""
    random = np.random.default_rng(seed)
    total = subject.frames["audio"].total
    values = random.normal(20, 4, (total, len(DEFAULT.cues)))
    values[random.random(values.shape) < 0.3] = np.nan
    return CueFrames(DEFAULT.cues, values, ints(subject.frames["audio"].offsets), {})


def test_cue_levels_are_those_of_the_equations(planted: tuple[Subject, Planted]) -> None:
    subject, _ = planted
    # One speaker without a neutral utterance, and one who is not known.
    utterances = tuple(
        replace(u, speaker=who, label="anger" if who == "s02" else u.label)
        for number, u in enumerate(subject.utterances)
        for who in ["" if number // 3 % 12 == 5 else f"s{number // 3 % 12:02}"]
    )
    subject = replace(subject, utterances=utterances)
    cues = with_cues(subject)
    every, reference = find_evidence(subject, bare(subject), cues)
    assert reference is not None
    offsets = ints(subject.frames["audio"].offsets).tolist()
    levels = np.full((len(subject), len(DEFAULT.cues)), np.nan)
    for row in range(len(subject)):
        inside = sorted(dropped(subject, every[row], row))
        part = cues.values[offsets[row] : offsets[row + 1]][inside]
        for cue in range(part.shape[1]):
            there = part[:, cue][~np.isnan(part[:, cue])]
            if len(there) >= 3:
                levels[row, cue] = there.mean()
    speakers = [u.speaker for u in utterances]
    for row, one in enumerate(every):
        told = {level.cue.name: level for level in one.cues}
        for cue, name in enumerate(cue.name for cue in DEFAULT.cues):
            neutral, deviation, against = by_speaker(levels[:, cue], utterances, speakers[row])
            value = levels[row, cue]
            assert (name in told) == (not np.isnan(value))
            if name in told:
                level = told[name]
                assert level.against == against
                assert level.level == pytest.approx(value)
                assert level.neutral == pytest.approx(neutral)
                assert level.deviation == pytest.approx(deviation)
                assert level.difference == pytest.approx((value - neutral) / deviation)
    seen: dict[str, set[str]] = {}
    for u, one in zip(utterances, every, strict=True):
        seen.setdefault(u.speaker, set()).update(level.against for level in one.cues)
    assert seen["s02"] == seen[""] == {CORPUS}
    assert seen["s00"] == {SPEAKER}


def by_speaker(level: Floats, utterances: Sequence[Any], speaker: str) -> tuple[float, float, str]:
    """Neutral mean, deviation, and whose, from their definitions."""
    known = ~np.isnan(level)
    neutral = np.array([u.label == "neutral" for u in utterances]) & known
    who = np.array([u.speaker for u in utterances])
    own = neutral & (who == speaker)
    if not speaker or not own.any():
        mean = level[known].mean()
        deviation = np.sqrt(np.sum((level[known] - mean) ** 2) / (known.sum() - 1))
        return float(level[neutral].mean()), float(deviation), CORPUS
    squares, freedom = 0.0, 0
    for name in set(who.tolist()) - {""}:
        theirs = level[known & (who == name)]
        squares += np.sum((theirs - theirs.mean()) ** 2)
        freedom += len(theirs) - 1
    return float(level[own].mean()), float(np.sqrt(squares / freedom)), SPEAKER


# Sentences and tables.


def words_of(subject: Subject, words: Sequence[str]) -> Aligned:
    """Each utterance's words, side by side in equal parts."""
    made = []
    for length in subject.frames["audio"].lengths.tolist():
        seconds = 0.02 * length + 0.02
        bounds = np.linspace(0, seconds, len(words) + 1)
        parts = zip(pairwise(bounds.tolist()), words, strict=True)
        said = [Interval(start, end, word) for (start, end), word in parts]
        made.append(Alignment(tuple(said), ()))
    return Aligned(tuple(made), ())


def shown(table: Table, utterance: str) -> set[str]:
    """The numbers of an utterance's rows as a sentence may round them."""
    numbers = set()
    for row in csv.DictReader(io.StringIO(csv_text(table.columns, table.rows))):
        if row["utterance"] != utterance:
            continue
        for name, cell in row.items():
            if name == "sentence":
                continue
            for text in re.findall(r"-?\d+(?:\.\d+)?(?:e-?\d+)?", cell):
                numbers |= {f"{abs(float(text)):.2f}", f"{float(text):.0%}"}
    return numbers


def test_every_number_of_a_sentence_stands_in_a_table(planted: tuple[Subject, Planted]) -> None:
    subject, _ = planted
    cues = with_cues(subject)
    every, reference = find_evidence(subject, words_of(subject, ["der", "Lappen"]), cues)
    section = evidence_section(subject, every, TRUST, reference, single=False)
    made = 0
    for one in every:
        if untold(one, TRUST):
            continue
        told = sentence(one).removeprefix(one.id)
        known = set().union(*(shown(table, one.id) for table in section.tables))
        numbers = re.findall(r"\d+\.\d+|\d+%", told.replace("1 kHz", ""))
        assert numbers
        assert set(numbers) <= known, set(numbers) - known
        made += 1
    assert made > 20
    assert [table.name for table in section.tables] == [
        "evidence",
        "evidence-emotions",
        "evidence-cues",
    ]
    [told] = [t for t in section.text if "answers get a sentence" in t]
    assert told.startswith(f"{made} of {len(every)} ")


def test_words_are_those_that_a_stretch_shares_half_with(
    planted: tuple[Subject, Planted],
) -> None:
    subject, _ = planted
    said = ["der", "Lappen", "liegt", ""]
    every, _ = find_evidence(subject, words_of(subject, said))
    for row, one in enumerate(every):
        count = int(subject.frames["audio"].lengths[row])
        times = subject.centre_seconds + 0.02 * np.arange(count)
        owner = np.minimum((4 * times / (0.02 * count + 0.02)).astype(int), 3)
        for stretch in one.stretches:
            inside = (stretch.start <= times) & (times <= stretch.end)
            expected = [
                said[word]
                for word in range(3)
                if (shared := (inside & (owner == word)).sum())
                and 2 * shared >= min(inside.sum(), (owner == word).sum())
            ]
            assert list(stretch.words or ()) == expected


def test_a_sentence_waits_for_every_test(found: list[Evidence]) -> None:
    one = max(found, key=lambda e: e.emotions[0].lost or 0)
    first = one.emotions[0]
    assert sentences([one], TRUST) == [sentence(one)]
    assert sentences([one], Trust(False, "")) == [""]
    for changed in (
        replace(first, without=None, without_others=None),
        replace(first, without_others=None),
        replace(first, without=first.probability - EVIDENT / 2),
        replace(first, without_others=(first.without or 0) + EVIDENT / 2),
    ):
        other = replace(one, emotions=(changed, *one.emotions[1:]))
        assert untold(other, TRUST)
        assert sentences([other], TRUST) == [""]
        [line] = json_lines([other], TRUST).splitlines()
        assert "sentence" not in json.loads(line)
        assert None not in json.loads(line)["emotions"][0].values()


def test_what_users_write_is_escaped(planted: tuple[Subject, Planted]) -> None:
    subject, _ = planted
    utterances = tuple(replace(u, id=f"{EVIL}{u.id}") for u in subject.utterances)
    subject = replace(subject, utterances=utterances)
    every, _ = find_evidence(subject, words_of(subject, [EVIL]))
    section = evidence_section(subject, every, TRUST, single=True)
    page = page_of(Report(EVIDENCE, section.parts))
    assert "“&lt;/script&gt;" in page
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert json.loads(json_lines(every, TRUST).splitlines()[0])["id"].startswith(EVIL)


# What is not there.


def test_nothing_is_said_of_poolings_without_attention() -> None:
    subject, _ = planted_subject({"kind": "average"})
    assert find_evidence(subject, bare(subject)) == ([], None)
    section = evidence_section(subject, [], trust_in(subject), single=False)
    assert "learns no attention to audio" in section.text[0]
    assert not section.tables


def test_one_speaker_without_neutral_speech_or_words(planted: tuple[Subject, Planted]) -> None:
    subject, _ = planted
    utterances = tuple(replace(u, speaker="s", label="anger", text="") for u in subject.utterances)
    alone = replace(subject, utterances=utterances)
    trust = trust_in(alone)
    assert not trust.tells
    assert "cannot be said with so few speakers" in trust.reason
    every, reference = find_evidence(alone, bare(alone), with_cues(alone))
    assert reference is None
    section = evidence_section(alone, every, trust, reference, single=False)
    text = " ".join(section.text)
    assert "Words are not known" in text
    assert "Levels of cues are not known" in text
    assert [table.name for table in section.tables] == ["evidence", "evidence-emotions"]
    line = json.loads(json_lines(every, trust).splitlines()[0])
    assert "cues" not in line
    assert "words" not in line["stretches"][0]
    assert line["none_because"] == "attention may not be believed"


def one_utterance(subject: Subject, truth: Planted, frames: Frames) -> Evidence:
    grid = truth.material.grid
    material = LoadedRows(truth.material.utterances[:1], {"audio": frames}, grid)
    [one], _ = find_evidence(build_subject(subject.head, material), Aligned((None,), ()))
    return one


def test_nothing_to_drop_and_nothing_to_compare_with(planted: tuple[Subject, Planted]) -> None:
    subject, truth = planted
    values = in_memory(subject.frames)["audio"].utterance(0)
    one = one_utterance(subject, truth, Frames.from_list([values[:1]], [torch.ones(1)]))
    assert one.stretches == ()
    assert untold(one, TRUST) == "attention is even"
    assert "without" not in json.loads(json_lines([one], TRUST))["emotions"][0]
    # The only frame of speech is the one that is attended.
    own = reference_attention(subject.head, floats(values))
    top = int(np.argmax([own[max(t - 2, 0) : t + 3].mean() for t in range(len(own))]))
    speech = torch.zeros(len(values))
    speech[top] = 1
    one = one_utterance(subject, truth, Frames.from_list([values], [speech]))
    assert len(one.stretches) == 1
    assert untold(one, TRUST) == "there is less other speech than in the stretches"
    assert "lost_elsewhere" not in json.loads(json_lines([one], TRUST))["emotions"][0]
    section = evidence_section(subject, [one], TRUST, single=True)
    assert section.data["sentences"] == 0


# Single utterances go by the verdict on a split.


def test_the_verdict_on_a_split_is_kept_with_its_neutral_speech(
    planted: tuple[Subject, Planted], tmp_path: Path
) -> None:
    subject, _ = planted
    path = tmp_path / SUMMARY
    trust, reference = kept_verdict(path, subject)
    assert not trust.tells
    assert reference is None
    assert "run `explain` on a split first" in trust.reason
    every, reference = find_evidence(subject, bare(subject), with_cues(subject))
    assert reference is not None
    section = evidence_section(subject, every, TRUST, reference, single=False)
    faithful = {"audio": {"verdict": "Good.", "dropping_tells": True}}
    kept = {
        "format": FORMAT,
        "version": VERSION,
        "split": "test",
        "head_sha256": head_digest(subject),
        "sections": {FAITHFULNESS: faithful, EVIDENCE: section.data},
    }
    write_json(path, kept)
    trust, again = kept_verdict(path, subject)
    assert trust.tells
    assert again is not None
    assert again.to_json() == reference.to_json()
    one = build_subject(subject.head, material_of(subject, [4]))
    cues = with_cues(subject)
    offsets = ints(subject.frames["audio"].offsets)
    own = CueFrames(cues.cues, cues.values[offsets[4] : offsets[5]], offsets[4:6] - offsets[4], {})
    [alone], _ = find_evidence(one, Aligned((None,), ()), own, again)
    assert alone.cues == every[4].cues
    write_json(path, {**kept, "head_sha256": "another"})
    trust, again = kept_verdict(path, subject)
    assert (trust.tells, again) == (False, None)
    assert "about another head" in trust.reason


def material_of(subject: Subject, rows: Sequence[int]) -> LoadedRows:
    frames = {name: batch.select(rows) for name, batch in subject.frames.items()}
    return LoadedRows(tuple(subject.utterances[row] for row in rows), frames, subject.grid)


def test_cues_of_another_set_are_not_compared(planted: tuple[Subject, Planted]) -> None:
    subject, _ = planted
    every = find_evidence(subject, bare(subject), with_cues(subject))[1]
    assert every is not None
    other = Reference(("loudness",), every.speakers, every.corpus)
    assert cues_of(subject, None, "default", other) is None
    assert cues_of(subject, None, "default", None) is None
    # Its recordings do not exist: each is named, and nothing is known of any.
    measured = cues_of(subject, None, "default", every)
    assert measured is not None
    assert len(measured.problems) == len(subject)
    assert np.isnan(measured.values).all()
