"""Informative words: which frames they have, a planted truth, and its control."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cache.config import ExtractConfig
from cache.encoders.grid import SAMPLE_RATE
from cache.extract.extract import extract
from cache.frames import Frames
from cache.lookup import FrameCache
from corpora.alignments import plain
from corpora.base.errors import ConfigError
from corpora.base.work import Work
from corpora.manifest import Manifest, Utterance
from corpora.textgrid import Interval, write_textgrid
from heads.dataset import Dataset
from heads.load import load_dataset, read_origin
from heads.vector_store import VectorStore
from heads.words import NEVER, with_words, word_shares, word_surprisal
from tests.cache.language_models import save_bert
from tests.cache.recordings import make_manifest
from tests.heads.comparisons import small_comparison

HOP, CENTRE = 0.02, 0.0125
CLASSES = ("anger", "neutral", "sadness")
WORDS, FRAMES = 12, 5


def said(*words: str, start: float = 0.1, each: float = 0.1) -> tuple[Interval, ...]:
    """Words of a tenth of a second, one after another."""
    return tuple(
        Interval(start + each * n, start + each * (n + 1), word) for n, word in enumerate(words)
    )


@pytest.mark.parametrize(
    ("heard", "text", "bits", "expected"),
    [
        ("der lappen liegt", "Der Lappen liegt.", (1, 9, 4), (1, 9, 4)),
        ("das blatt papier", "Das Stück Papier", (1, 2, 3), (1, None, 3)),
        ("und jetzt und dann", "Und - jetzt, und dann!", (1, 0, 2, 3, 4), (1, 2, 3, 4)),
        ("eins zwei drei", "Eins zwei drei", (5, 6), (5, 6, None)),
        ("ganz anders", "Kein Wort davon", (1, 2, 3), (None, None)),
    ],
)
def test_words_of_sound_and_text_are_matched_in_their_order(
    heard: str, text: str, bits: tuple[float, ...], expected: tuple[float | None, ...]
) -> None:
    found = word_surprisal(said(*heard.split()), text, np.array(bits, np.float32))
    np.testing.assert_array_equal(found, [np.nan if one is None else one for one in expected])
    assert plain("»Wort!«") == "wort"


def middles(frames: int, first: float = CENTRE) -> NDArray[np.float64]:
    return first + HOP * np.arange(frames, dtype=np.float64)


def test_frames_are_read_from_the_share_of_their_words_rank_on() -> None:
    words = (*said("a", "b", "c", "d"), Interval(0.6, 0.61, "no frame"))
    bits = np.array([2.0, 7.0, np.nan, 7.0, 30.0])
    found = word_shares(words, bits, middles(40), seed=1)
    times = middles(40)
    for frame, time in enumerate(times):
        held = next((w.label for w in words if w.start <= time < w.end), "")
        rank = {"b": 0, "d": 1, "a": 2}.get(held)
        expected = NEVER if rank is None else rank / 3
        assert found[frame, 0] == pytest.approx(expected, abs=1e-6), held
    # The control reads as many frames at every share, of known words, in other words.
    orders = set()
    for seed in range(20):
        own = word_shares(words, bits, times, seed=seed)
        np.testing.assert_array_equal(np.sort(own[:, 0]), np.sort(own[:, 1]))
        assert ((own[:, 0] == NEVER) == (own[:, 1] == NEVER)).all()
        orders.add(own[:, 1].tobytes())
    assert len(orders) == 6
    assert (word_shares((), np.zeros(0), times[:3], 0) == NEVER).all()


def planted(everywhere: bool, seed: int = 0) -> Dataset:
    """One word of twelve has the surprisal of a rare one.

    Every word sounds like some emotion: the rare one like the label, all others by chance, or all
    of them like the label.
    """
    random = np.random.default_rng(seed)
    directions = random.standard_normal((len(CLASSES), 16))
    utterances, frames, shares = [], [], []
    for number in range(360):
        label = number % len(CLASSES)
        bits = random.uniform(2, 6, WORDS)
        rare = random.integers(WORDS)
        bits[rare] = 15
        sounds = random.integers(len(CLASSES), size=WORDS)
        sounds[rare] = label
        if everywhere:
            sounds[:] = label
        words = said(*map(str, range(WORDS)), start=0, each=FRAMES * HOP)
        own = np.repeat(directions[sounds], FRAMES, axis=0)
        frames.append(torch.tensor(own + random.standard_normal(own.shape)).float())
        shares.append(word_shares(words, bits, middles(len(own), HOP / 2), number))
        split = ("train", "train", "dev")[number // len(CLASSES) % 3]
        utterances.append(
            Utterance(f"u{number}", Path("u.wav"), CLASSES[label], split=split, speaker=f"{number}")
        )
    audio = replace(Frames.from_list(frames), words=torch.from_numpy(np.concatenate(shares)))
    return Dataset(tuple(utterances), CLASSES, {"audio": audio})


def accuracy(dataset: Dataset, kind: str) -> float:
    """Of the nearest class mean, on dev."""
    vectors = VectorStore(dataset).vectors("audio", "none", f"{kind}@0.01").double().numpy()
    train, dev = (dataset.rows(split) for split in ("train", "dev"))
    labels = dataset.targets(train).numpy()
    means = np.stack([vectors[train][labels == number].mean(0) for number in range(len(CLASSES))])
    nearest = ((vectors[dev][:, None] - means) ** 2).sum(2).argmin(1)
    return float((nearest == dataset.targets(dev).numpy()).mean())


def test_emotion_in_rare_words_is_found_there_and_not_in_random_ones() -> None:
    dataset = planted(everywhere=False)
    assert accuracy(dataset, "informative_mean") > 0.95
    # One in twelve is the rare one by chance: 1/3 + 2/3 · 1/12 = .39 are right.
    assert accuracy(dataset, "random_mean") < 0.39 + 2 * (0.39 * 0.61 / 120) ** 0.5


def test_where_every_word_has_the_emotion_random_words_do_as_well() -> None:
    dataset = planted(everywhere=True)
    found, control = (accuracy(dataset, kind) for kind in ("informative_mean", "random_mean"))
    assert min(found, control) > 0.95
    assert found == pytest.approx(control, abs=0.03)


def test_compare_has_as_many_frames_of_random_words_beside_it(tmp_path: Path) -> None:
    report = small_comparison(
        tmp_path,
        dataset=planted(everywhere=False),
        tables=("poolings",),
        poolings=("average", "informative_average"),
    )
    (table,) = report.tables
    titles = [line.title for line in table.lines]
    assert titles[:3] == ["average", "informative_average", "random words"]
    first, second = (line.outcomes["dev"].scores["macro_f1"].seeds for line in table.lines[1:3])
    assert first != second


@pytest.fixture
def work(tmp_path: Path) -> tuple[Work, Manifest]:
    """Tones with texts, all but the last with words in TextGrids, and a language model."""
    manifest = make_manifest(tmp_path)
    rows = []
    for number, u in enumerate(manifest.utterances):
        path = tmp_path / f"{u.id}.TextGrid"
        words = said(*u.text.upper().split(), start=0.02)
        write_textgrid(path, {"words": words}, words[-1].end)
        rows.append(replace(u, alignment=None if number == 5 else path))
    work = Work(tmp_path / "work")
    config = ExtractConfig(
        audio_encoder="tiny",
        text_encoder="",
        device="cpu",
        surprisal_model=str(save_bert(tmp_path / "bert")),
    )
    manifest = replace(manifest, utterances=tuple(rows))
    extract(work, manifest, config)
    return work, manifest


def test_words_come_with_the_frames_that_are_loaded(work: tuple[Work, Manifest]) -> None:
    cache, manifest = FrameCache(work[0]), work[1]
    dataset = load_dataset(cache, manifest)
    assert dataset.residence.endswith(
        "Informative words are known in 5 of 6 utterances; the others are averaged as a whole. "
        "Without a TextGrid: 1 of 6 utterances."
    )
    audio = dataset.frames["audio"]
    assert audio.words is not None
    grid = cache.extraction.grid
    assert grid is not None
    bits = cache.surprisal(dataset.utterances)
    for number, u in enumerate(dataset.utterances):
        own = audio.words[audio.offsets[number] : audio.offsets[number + 1], 0].numpy()
        held = bits[number]
        if u.alignment is None or held is None:
            assert (own == NEVER).all()
            continue
        highest = int(np.argmax(held))
        centres = (grid.first_centre + grid.hop * np.arange(len(own))) / SAMPLE_RATE
        start = 0.02 + 0.1 * highest
        np.testing.assert_array_equal(own < 0.25, (centres >= start) & (centres < start + 0.1))
        again = dataset.select("audio", [number]).words
        assert again is not None
        np.testing.assert_array_equal(again[:, 0], own)
    origin = read_origin(cache, manifest, dataset.frames)
    assert origin.streams["surprisal"] == cache.extraction.source("surprisal").stream()


def test_without_alignments_one_sentence_says_so(work: tuple[Work, Manifest]) -> None:
    cache, manifest = FrameCache(work[0]), work[1]
    bare = replace(
        manifest, utterances=tuple(replace(u, alignment=None) for u in manifest.utterances)
    )
    dataset = load_dataset(cache, bare)
    assert dataset.frames["audio"].words is None
    assert dataset.residence.endswith(
        "Which words are informative is not known: No utterance has a TextGrid (manifest column "
        "`alignment`)."
    )
    frames, note = with_words(cache, manifest.utterances, {"text": dataset.frames["audio"]})
    assert (list(frames), note) == (["text"], "")
    with pytest.raises(ConfigError, match="informative_average is left out: it needs audio with"):
        small_comparison(
            work[0].root / "compare", tables=("poolings",), poolings=("informative_average",)
        )
