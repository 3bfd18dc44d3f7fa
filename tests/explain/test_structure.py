"""Emotions in a speaker's vectors, and words in layers: found where they are, nowhere else."""

from __future__ import annotations

from math import comb
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ortho_group
from sklearn.metrics import adjusted_rand_score

import explain.structure
from cache.config import ExtractConfig
from cache.extract.extract import extract
from cache.frames import Frames
from cache.lookup import FrameCache
from corpora.alignments import Aligned, Alignment, frame_intervals
from corpora.base.report import render
from corpora.base.work import Work
from corpora.manifest import Manifest
from corpora.textgrid import Interval
from explain.load import LoadedRows, build_subject
from explain.ragged import Floats, Ints
from explain.structure import speaker_clusters, structure_section, word_agreement
from explain.subject import Subject
from heads.head import Head, HeadConfig
from tests.finetune.corpus import make_corpus

SPEAKERS = [f"s{number % 10}" for number in range(200)]
EMOTIONS: Ints = np.arange(200) // 10 % 4


def voices(strength: float, seed: int = 0) -> Floats:
    """Ten very different voices, each with four emotions `strength` apart."""
    random = np.random.default_rng(seed)
    own = 30 * random.standard_normal((10, 16))[np.arange(200) % 10]
    directions = random.standard_normal((4, 16))
    return own + strength * directions[EMOTIONS] + random.standard_normal((200, 16))


def rand_index(one: Ints, other: Ints) -> float:
    """Hubert and Arabie's, from the table of counts."""
    table = np.zeros((one.max() + 1, other.max() + 1), dtype=int)
    np.add.at(table, (one, other), 1)
    pairs, rows, columns = (
        sum(comb(int(n), 2) for n in counts.ravel())
        for counts in (table, table.sum(axis=1), table.sum(axis=0))
    )
    expected = rows * columns / comb(len(one), 2)
    return (pairs - expected) / ((rows + columns) / 2 - expected)


def test_emotions_of_each_voice_are_found() -> None:
    found = speaker_clusters(voices(8.0), EMOTIONS, SPEAKERS)
    assert found is not None
    assert found.value > 0.95
    assert found.count == 10
    assert found.p == 1 / 200
    assert abs(found.null.mean()) < 0.02


@pytest.mark.slow
def test_in_noise_nothing_is_found() -> None:
    values = [speaker_clusters(voices(0.0, seed), EMOTIONS, SPEAKERS) for seed in range(8)]
    p = [one.p for one in values if one is not None]
    assert len(p) == 8
    assert min(p) > 0.01
    assert abs(np.mean([one.value for one in values if one is not None])) < 0.03


def test_the_index_is_that_of_the_table_of_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Ints, Ints]] = []

    def keep(one: Ints, other: Ints) -> float:
        seen.append((one, other))
        return float(adjusted_rand_score(one, other))

    monkeypatch.setattr(explain.structure, "adjusted_rand_score", keep)
    found = speaker_clusters(voices(1.0), EMOTIONS, SPEAKERS, draws=0)
    assert found is not None
    assert found.value == pytest.approx(np.mean([rand_index(*pair) for pair in seen]))


def test_speakers_and_emotions_without_enough_utterances_are_left_out() -> None:
    emotions = EMOTIONS.copy()
    emotions[np.array(SPEAKERS) == "s0"] = 1  # one emotion alone
    found = speaker_clusters(voices(8.0), emotions, SPEAKERS, draws=1)
    assert found is not None
    assert found.count == 9
    assert speaker_clusters(voices(8.0), emotions, [""] * 200) is None


def linear_cka(x: Floats, y: Floats) -> float:
    return word_agreement(x, y, draws=0).value


def hsic_cka(x: Floats, y: Floats) -> float:
    """By centred Gram matrices (Kornblith et al. 2019, eq. 3)."""
    centre = np.eye(len(x)) - 1 / len(x)
    k, m = centre @ x @ x.T @ centre, centre @ y @ y.T @ centre
    return float(np.trace(k @ m) / np.sqrt(np.trace(k @ k) * np.trace(m @ m)))


@pytest.mark.parametrize("count", [20, 200])
def test_cka_equals_the_equation_and_is_1_for_what_was_turned(count: int) -> None:
    random = np.random.default_rng(0)
    x = random.standard_normal((count, 24)) + 3
    y = x[:, :5] + random.standard_normal((count, 5))
    assert linear_cka(x, y) == pytest.approx(hsic_cka(x, y), rel=1e-9)
    assert linear_cka(x, x) == pytest.approx(1)
    turned = 7 * x @ ortho_group.rvs(24, random_state=0) - 2
    assert linear_cka(x, turned) == pytest.approx(1)
    assert linear_cka(x, np.ones((count, 3))) == 0


def test_words_dealt_out_anew_give_chance() -> None:
    random = np.random.default_rng(0)
    words = random.standard_normal((300, 6))
    heard = np.hstack([words, random.standard_normal((300, 10))])
    found = word_agreement(heard, words @ random.standard_normal((6, 8)))
    assert found.value > 5 * found.null.max()
    assert found.p == 1 / 200
    noise = word_agreement(heard, random.standard_normal((300, 8)))
    assert noise.p > 0.01


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Work, Manifest, Subject]:
    """Tones and texts with both tiny encoders, and a head that listens."""
    folder = tmp_path_factory.mktemp("spoken")
    work, manifest = Work(folder / "work"), make_corpus(folder, 36)
    work.root.mkdir()
    config = ExtractConfig(
        audio_encoder="tiny",
        text_encoder="tiny",
        audio_layers=(1, 3),
        text_layers=(3,),
        device="cpu",
    )
    extract(work, manifest, config)
    found = FrameCache(work).find(manifest, ["audio"])
    head = Head(HeadConfig(manifest.labels, {"audio": 128}, {"audio": {"kind": "average"}}), 0)
    grid = FrameCache(work).extraction.grid
    material = LoadedRows(found.utterances, {"audio": found.load("audio")}, grid)
    return work, manifest, build_subject(head, material, manifest=manifest, split="test")


def aligned(subject: Subject, *, wrong: int = 0) -> Aligned:
    """Each text's words one after the other; the first `wrong` with another word."""
    found: list[Alignment | None] = []
    for row, u in enumerate(subject.utterances):
        words = u.text.split()
        if words and row < wrong:
            words[0] = "other"
        each = 0.3 / max(1, len(words))
        said = [Interval(k * each, (k + 1) * each, word) for k, word in enumerate(words)]
        found.append(Alignment(tuple(said), ()) if words else None)
    return Aligned(tuple(found), ())


def test_words_are_means_of_their_own_frames_and_tokens(
    spoken: tuple[Work, Manifest, Subject], monkeypatch: pytest.MonkeyPatch
) -> None:
    work, manifest, subject = spoken
    given: list[tuple[Floats, Floats]] = []
    original = explain.structure.word_agreement

    def keep(heard: Floats, read: Floats, *, seed: int) -> object:
        given.append((heard, read))
        return original(heard, read, seed=seed)

    monkeypatch.setattr(explain.structure, "word_agreement", keep)
    section = structure_section(subject, aligned(subject, wrong=6), FrameCache(work), manifest)
    table = next(one for one in section.tables if one.name == "word-layers")
    assert [row[0] for row in table.rows] == [1, 3]
    spoilt = sum(bool(u.text) for u in subject.utterances[:6])
    assert f"Left out: {spoilt} utterances" in " ".join(section.text)
    render(section.figures[0])

    usable = [u for u in subject.utterances[6:] if u.text]
    count = sum(len(u.text.split()) for u in usable)
    assert {len(heard) for heard, _ in given} == {len(read) for _, read in given} == {count}
    # The first word, by hand.
    first = subject.utterances.index(usable[0])
    alignment = aligned(subject).alignments[first]
    frames = subject.frames["audio"]
    assert isinstance(frames, Frames)
    assert alignment is not None
    own = frames.utterance(first).double().numpy()
    times = subject.centre_seconds + subject.hop_seconds * np.arange(len(own), dtype=np.float64)
    held = frame_intervals(alignment.words, times)
    np.testing.assert_allclose(given[1][0][0], own[held == 0].mean(axis=0), atol=1e-3)


def test_what_is_missing_is_said(
    spoken: tuple[Work, Manifest, Subject], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, manifest, subject = spoken
    monkeypatch.setattr(explain.structure, "FEWEST_WORDS", 1000)
    section = structure_section(subject, aligned(subject), FrameCache(work), manifest)
    assert "words of the TextGrids are in the texts too, 1000 are the least" in " ".join(
        section.text
    )
    config = ExtractConfig(audio_encoder="tiny", text_encoder="", device="cpu", audio_layers=(3,))
    alone = Work(tmp_path / "alone")
    alone.root.mkdir()
    extract(alone, manifest, config)
    section = structure_section(subject, aligned(subject), FrameCache(alone), manifest)
    assert "not compared: the cache lacks one" in " ".join(section.text)
