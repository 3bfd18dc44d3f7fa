"""Cues as a stream, compared within utterances and against neutral speech."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from cache.encoders.grid import fbank_grid
from cache.frames import Frames
from cache.lookup import FrameCache
from corpora.base.errors import ConfigError, MissingExtraError
from corpora.base.report import render
from corpora.base.work import Work
from corpora.manifest import Utterance, read_manifest
from corpora.prepare import prepare
from corpora.speech_synth import write_sample_corpus
from explain.cues import stream as stream_module
from explain.cues.cues_section import CueConfig, cue_frames_section, cues_section
from explain.cues.descriptors import DEFAULT, F0, LOUDNESS, read_directions
from explain.cues.measure import (
    CORRECT,
    WRONG,
    analyse,
    present_means,
    relative_levels,
    speech_frames,
)
from explain.cues.stream import CueFrames, cue_set, load_cues
from explain.cues.within import contrasts, exchange_p, window_scores
from explain.load import LoadedRows, build_subject
from explain.ragged import (
    Bools,
    Floats,
    Ints,
    attended_frames,
    floats,
    ints,
    positions,
    segment_sum,
)
from explain.subject import Subject, frame_attention
from heads.dataset import Dataset
from heads.head import Head, HeadConfig
from heads.training import Cohort, Schedule, TrainingConfig
from heads.vector_store import VectorStore
from tests.cache.recordings import make_manifest
from tests.explain.planted import LABELS, Planted, in_memory, planted_subject

GRID = fbank_grid(2)
FEW = 499  # draws of exchanged attention


# Within an utterance.


def plain_effect(values: Floats, attended: Bools) -> float:
    """The effect from its definition; `attended` is of the frames that have a value."""
    inside, outside = values[attended], values[~attended]
    if min(len(inside), len(outside)) < 3:
        return float("nan")
    return float((inside.mean() - outside.mean()) / values.std())


def test_effects_with_the_attention_of_others_follow_from_their_definition() -> None:
    random = np.random.default_rng(0)
    bounds = [0, 17, 40, 52, 85, 99]
    values = random.standard_normal((99, 2)) * 3 + 50
    values[random.random((99, 2)) < 0.3] = np.nan
    attended, usable = random.random(99) < 0.4, random.random(99) < 0.8
    usable[40:52] = False  # no donor
    parts = [slice(start, end) for start, end in pairwise(bounds)]
    found = contrasts(values, attended, usable, np.array(bounds))
    for row in (0, 1, 3, 4):
        own = values[parts[row]][usable[parts[row]]]
        for number, donor in enumerate([row, *(n for n in (0, 1, 3, 4) if n != row)]):
            theirs = attended[parts[donor]][usable[parts[donor]]]
            taken = np.array(
                [theirs[int((j + 0.5) / len(own) * len(theirs))] for j in range(len(own))]
            )
            for cue in range(2):
                there = ~np.isnan(own[:, cue])
                expected = plain_effect(own[there, cue], taken[there])
                got = found.exchanged[row][number, cue]
                np.testing.assert_allclose(got, expected, atol=1e-5)
    assert np.isnan(found.exchanged[2]).all()


def test_attention_is_exchanged_within_sets_and_with_enough_others() -> None:
    random = np.random.default_rng(4)
    offsets = np.arange(0, 281, 40)
    values, attended = random.standard_normal((280, 1)), random.random(280) < 0.4
    sets = np.array([0, 0, 0, 0, 1, 1, 1])
    found = contrasts(values, attended, np.ones(280, np.bool_), offsets, sets)
    assert [len(table) for table in found.exchanged] == [4, 4, 4, 4, 3, 3, 3]
    assert np.isfinite(found.observed).all()
    assert np.isfinite(exchange_p(found, [0, 1], draws=FEW)).all()
    assert np.isnan(exchange_p(found, [4, 5, 6], draws=FEW)).all()
    # Of one utterance and three donors the p of a rank: what is furthest of four.
    assert exchange_p(found, [0], draws=FEW)[0] > 0.15


@pytest.mark.parametrize("length", [1, 2, 5])
def test_too_few_frames_on_a_side_have_no_effect(length: int) -> None:
    values = np.arange(float(length))[:, None]
    attended = np.zeros(length, dtype=np.bool_)
    attended[0] = True
    found = contrasts(values, attended, np.ones(length, np.bool_), np.array([0, length]))
    assert np.isnan(found.observed).all()
    assert np.isnan(exchange_p(found, [0], draws=FEW)).all()


def test_a_constant_cue_has_no_effect() -> None:
    attended = np.arange(20) < 8
    found = contrasts(np.full((20, 1), 7.3), attended, np.ones(20, np.bool_), np.array([0, 20]))
    assert np.isnan(found.observed).all()


def smooth(random: np.random.Generator, length: int) -> Floats:
    """A curve that follows itself in time, as cues do."""
    return np.convolve(random.standard_normal(length + 20), np.ones(9), "valid")[:length]


def test_false_findings_stay_at_the_level_for_smooth_curves() -> None:
    random = np.random.default_rng(1)
    p = []
    for _ in range(150):
        values = np.concatenate([smooth(random, 60) for _ in range(4)])[:, None]
        attended = np.concatenate([smooth(random, 60) for _ in range(4)]) > 0.8
        offsets = np.arange(0, 241, 60)
        found = contrasts(values, attended, np.ones(240, np.bool_), offsets)
        p.append(exchange_p(found, range(4), draws=199)[0])
    false = np.mean(np.array(p) < 0.05)
    assert false < 0.11  # .05, give or take what 150 tests allow


def in_a_circle(
    values: Floats, attended: Bools, offsets: Ints, random: np.random.Generator
) -> float:
    """p of the former control, from its definition: attention moved around each utterance."""
    tables = []
    for start, end in pairwise(offsets.tolist()):
        own, mask = values[start:end], attended[start:end]
        tables.append([plain_effect(own, np.roll(mask, by)) for by in range(end - start)])
    null = np.mean([random.choice(table, 199) for table in tables], axis=0)
    centre = np.mean([np.mean(table) for table in tables])
    observed = np.mean([table[0] for table in tables])
    further = (np.abs(null - centre) >= abs(observed - centre)).sum()
    return float((1 + further) / 200)


def early(random: np.random.Generator, count: int) -> tuple[Floats, Bools, Ints]:
    """Attention early in every utterance, and a cue that declines; no more joins the two."""
    values, attention, offsets = [], [], [0]
    for length in random.integers(40, 90, count).tolist():
        time = np.arange(length) / length
        weights = np.exp(smooth(random, length) / 3 - 3 * time)
        attention.append(weights / weights.sum())
        values.append(smooth(random, length) / 3 - 3 * time)
        offsets.append(offsets[-1] + length)
    bounds = np.array(offsets)
    attended = attended_frames(np.concatenate(attention), bounds, 0.5)
    return np.concatenate(values), attended, bounds


@pytest.mark.parametrize("count", [4, 12, 40])
def test_attention_that_is_early_does_not_find_a_cue_that_declines(count: int) -> None:
    random = np.random.default_rng(6)
    p = []
    for _ in range(150):
        values, attended, offsets = early(random, count)
        found = contrasts(values[:, None], attended, np.ones(len(values), np.bool_), offsets)
        p.append(exchange_p(found, range(count), draws=199)[0])
    # .05 at most; 150 sets say it give or take a standard error of .018.
    assert np.mean(np.array(p) < 0.05) <= 0.08


def test_attention_moved_in_a_circle_would_find_it() -> None:
    random = np.random.default_rng(6)
    sets = [early(random, 12) for _ in range(30)]
    assert np.mean([in_a_circle(*one, random) < 0.05 for one in sets]) > 0.8


@pytest.mark.parametrize("decline", [0.0, 2.0])
def test_a_planted_difference_is_found(decline: float) -> None:
    random = np.random.default_rng(2)
    attended = np.zeros(600, dtype=np.bool_)
    for start in range(0, 600, 60):
        at = start + int(random.integers(0, 45))
        attended[at : at + 12] = True
    time = np.tile(np.arange(60) / 60, 10)
    values = (random.standard_normal(600) + 0.8 * attended - decline * time)[:, None]
    offsets = np.arange(0, 601, 60)
    found = contrasts(values, attended, np.ones(600, np.bool_), offsets)
    assert exchange_p(found, range(10), draws=FEW)[0] < 0.01
    assert 0.4 < float(found.observed.mean()) < 1.1


def test_emotions_attended_to_early_and_late_do_not_lend_each_other_attention(
    planted: tuple[Subject, Planted],
) -> None:
    subject, _ = planted
    random = np.random.default_rng(8)
    offsets = ints(subject.frames["audio"].offsets)
    lengths = np.diff(offsets)
    time = positions(offsets) / np.repeat(lengths, lengths)
    curves = np.concatenate([smooth(random, n) for n in lengths.tolist()]) / 3
    # Early in the first emotion, late in the second.
    slope = np.array([-4.0, 4.0, 0.0])[ints(subject.predicted)]
    weights = np.exp(curves + np.repeat(slope, lengths) * time)
    weights /= np.repeat(segment_sum(weights, offsets), lengths)
    noise = np.concatenate([smooth(random, n) for n in lengths.tolist()]) / 3
    cues = CueFrames((LOUDNESS,), (noise - 3 * time)[:, None], offsets, {})
    changed = replace(subject, importance={"audio": torch.from_numpy(weights)})
    found = analyse(changed, cues, read_directions(), share=0.5)
    for label, sign in zip(LABELS[:2], (1, -1), strict=True):
        effect = found.effects[label, CORRECT, "loudness"]
        assert effect.mean.value * sign > 0.5
        assert effect.p > 0.05


# Against neutral.


def test_levels_are_relative_to_the_speakers_own_neutral_speech() -> None:
    absolute = np.array([[10.0], [12.0], [14.0], [30.0], [31.0], [35.0]])
    speakers = ["a", "a", "a", "b", "b", "b"]
    neutral = np.array([True, False, False, True, False, False])
    found = relative_levels(absolute, neutral, speakers)
    deviation = np.sqrt((8 + 14) / 4)  # within speakers: 2² + 0 + 2², 2² + 1² + 3²
    expected = np.array([0, 2, 4, 0, 1, 5])[:, None] / deviation
    np.testing.assert_allclose(found.relative, expected)
    assert found.without_reference == 0


def test_speakers_without_neutral_speech_have_no_levels() -> None:
    absolute = np.arange(6.0)[:, None]
    neutral = np.array([True, False, False, False, False, False])
    found = relative_levels(absolute, neutral, ["a", "a", "a", "b", "b", "b"])
    assert np.isnan(found.relative[3:]).all()
    assert np.isfinite(found.relative[:3]).all()
    assert found.without_reference == 3


def test_means_need_three_frames_that_have_the_cue() -> None:
    values = np.array([[1.0], [2.0], [np.nan], [3.0], [5.0], [7.0], [9.0]])
    chosen = np.array([True, True, True, True, True, True, False])
    found = present_means(values, chosen, np.array([0, 3, 7]))
    assert np.isnan(found[0, 0])
    assert found[1, 0] == 5.0


# Published windows.


def test_attention_on_the_extremes_scores_1() -> None:
    frames = 80
    values = np.repeat(np.arange(10.0), 8)[:, None]
    scores = window_scores(values, values[:, 0], np.array([1]), np.array([0, frames]), 0.02)
    assert scores.similarity[0, 0] == pytest.approx(1)
    assert scores.coverage[0, 0] == 1
    assert scores.chance[0, 0] == 0.5
    low = window_scores(values, values[:, 0], np.array([-1]), np.array([0, frames]), 0.02)
    assert low.similarity[0, 0] == pytest.approx(-1)
    assert low.coverage[0, 0] == 0


def test_utterances_no_longer_than_the_windows_are_short() -> None:
    values = np.arange(47.0)[:, None]
    scores = window_scores(values, values[:, 0], np.array([1, 1]), np.array([0, 40, 47]), 0.02)
    assert scores.short.all()
    assert np.isnan(scores.similarity).all()


# What research expects.


def test_every_expected_direction_has_a_source() -> None:
    directions = read_directions()
    assert directions.cells
    assert all(cell.sources and cell.sign in (1, -1) for cell in directions.cells.values())
    assert {cue for _, cue in directions.cells} <= {cue.name for cue in DEFAULT.cues}


def test_cells_without_a_source_are_empty() -> None:
    directions = read_directions()
    assert directions.expected("fear", "loudness") is None
    assert directions.expected("boredom", "f0") is None
    happy, sad = directions.expected("Happy", "f0"), directions.expected("sad", "loudness")
    assert happy is not None
    assert happy.sign == 1
    assert sad is not None
    assert sad.sign == -1


# The stream.


def test_cues_are_computed_once_and_missing_values_survive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, manifest = Work(tmp_path / "work"), make_manifest(tmp_path)
    hiss = 0.1 * np.random.default_rng(0).standard_normal(8000)
    soundfile.write(manifest.utterances[0].audio, hiss, 16_000)
    first = load_cues(FrameCache(work), manifest.utterances, GRID)
    assert not first.problems
    assert np.isnan(first.values).any()
    monkeypatch.setattr(stream_module, "load_audio", None)  # nothing is decoded again
    again = load_cues(FrameCache(work), manifest.utterances[::-1], GRID)
    np.testing.assert_array_equal(
        again.values[: np.diff(again.offsets)[0]], first.values[first.offsets[-2] :]
    )


def test_an_unreadable_recording_is_said_and_missing_not_zero(tmp_path: Path) -> None:
    work, manifest = Work(tmp_path / "work"), make_manifest(tmp_path, 3)
    manifest.utterances[1].audio.write_bytes(b"no sound")
    gone = replace(manifest.utterances[2], audio=tmp_path / "gone.wav")
    found = load_cues(FrameCache(work), [*manifest.utterances[:2], gone], GRID)
    assert set(found.problems) == {"u1", "u2"}
    assert "cannot be read" in found.problems["u1"]
    assert np.isnan(found.values[found.offsets[1] :]).all()


def test_frames_of_another_length_are_said(tmp_path: Path) -> None:
    work, manifest = Work(tmp_path / "work"), make_manifest(tmp_path, 1)
    found = load_cues(FrameCache(work), manifest.utterances, GRID, np.array([0, 5]))
    assert "has 5 frames, and its recording" in found.problems["u0"]


def test_unknown_cues_and_a_missing_package_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="default or egemaps"):
        cue_set("mfcc")
    monkeypatch.setattr("explain.cues.egemaps.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="free for research"):
        cue_set("egemaps")


# The section.


@pytest.fixture(scope="module")
def planted() -> tuple[Subject, Planted]:
    return planted_subject()


def planted_cues(subject: Subject, carries: np.ndarray, shift: float = 1.5) -> CueFrames:
    """F0 that is missing in half of the frames, and loudness that is up where the class is."""
    random = np.random.default_rng(3)
    pitch = random.standard_normal(len(carries)) + 30
    pitch[random.random(len(carries)) < 0.5] = np.nan
    level = random.standard_normal(len(carries)) + shift * carries
    offsets = ints(subject.frames["audio"].offsets)
    return CueFrames((F0, LOUDNESS), np.stack([pitch, level], axis=1), offsets, {})


def test_the_cue_of_the_planted_frames_is_found_and_no_other(
    planted: tuple[Subject, Planted],
) -> None:
    subject, truth = planted
    cues = planted_cues(subject, truth.carries)
    # Half of the attention lies in fewer frames than a comparison needs.
    found = analyse(subject, cues, read_directions(), share=0.9)
    for label in LABELS:
        assert found.effects[label, CORRECT, "loudness"].corrected < 0.05
        assert found.effects[label, CORRECT, "loudness"].mean.value > 0.25
        assert not found.effects[label, CORRECT, "f0"].corrected < 0.05
        assert found.effects[label, WRONG, "loudness"].mean.count == found.counts[label, WRONG]


def test_what_is_missing_is_said(
    planted: tuple[Subject, Planted],
) -> None:
    subject, truth = planted
    cues = planted_cues(subject, truth.carries)
    silent = cues.values.copy()
    end = int(cues.offsets[3])
    silent[:end, 0] = np.nan
    some = replace(cues, values=silent, problems={"u005": "u005.wav: no such file"})
    section = cue_frames_section(subject, some, CueConfig())
    said = " ".join(section.text)
    assert "1 of 120 utterances have no known cues" in said
    assert "fewer than 3 frames that have the cue" in said
    assert "No utterance, so nothing to say" in said
    cells = {tuple(row[:3]): row for row in section.tables[0].rows}
    for label in LABELS:
        if not cells[label, WRONG, "f0"][3]:
            assert cells[label, WRONG, "f0"][5] is None  # not known, not zero


def test_without_neutral_speech_there_are_no_levels_and_it_is_said(
    planted: tuple[Subject, Planted],
) -> None:
    subject, truth = planted
    emotional = tuple(
        replace(u, label="anger" if u.label == "neutral" else u.label) for u in subject.utterances
    )
    changed = replace(subject, utterances=emotional)
    section = cue_frames_section(changed, planted_cues(changed, truth.carries), CueConfig())
    assert any("no utterance here is labelled neutral" in line for line in section.text)
    assert "cues-levels" not in [table.name for table in section.tables]


def test_no_cues_at_all_are_said(
    planted: tuple[Subject, Planted],
) -> None:
    subject, truth = planted
    cues = planted_cues(subject, truth.carries)
    nothing = replace(cues, problems={u.id: "gone" for u in subject.utterances})
    section = cue_frames_section(subject, nothing, CueConfig())
    assert section.text == ("No cue of any utterance is known. The first: gone",)


def test_heat_maps_can_be_drawn_with_empty_cells(
    planted: tuple[Subject, Planted],
) -> None:
    pytest.importorskip("matplotlib")
    subject, truth = planted
    section = cue_frames_section(subject, planted_cues(subject, truth.carries), CueConfig())
    for figure in section.figures:
        assert render(figure)[".png"][:4] == b"\x89PNG"


def test_utterances_without_speech_keep_all_of_their_frames(
    planted: tuple[Subject, Planted],
) -> None:
    subject, _ = planted
    audio = in_memory(subject.frames)["audio"]
    speech = torch.ones(audio.total)
    speech[: int(audio.offsets[1])] = 0.1
    speech[int(audio.offsets[1])] = 0.1
    changed = replace(subject, frames={"audio": audio.with_speech(speech)})
    chosen = speech_frames(changed, "audio")
    assert chosen[: int(audio.offsets[1])].all()
    assert not chosen[int(audio.offsets[1])]


def test_a_head_that_reads_text_alone_has_no_cues(tmp_path: Path) -> None:
    head = Head(HeadConfig(LABELS, {"text": 8}, {"text": {"kind": "average"}}), 0)
    utterance = Utterance("u0", Path("u0.wav"), "anger")
    subject = build_subject(
        head, LoadedRows((utterance,), {"text": Frames.from_list([torch.randn(3, 8)])})
    )
    section = cues_section(subject, FrameCache(Work(tmp_path)))
    assert "reads text alone" in section.text[0]


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> tuple[Subject, CueFrames]:
    """The sample corpus, its cues as frames, and a head trained on these."""
    pytest.importorskip("espeakng_loader", reason="the extra `demo` is not installed")
    folder = tmp_path_factory.mktemp("sample")
    work = Work(folder / "work")
    write_sample_corpus(folder / "corpus", utterances=150)
    prepare("sample", folder / "corpus", work.manifest, show_progress=False)
    manifest = read_manifest(work.manifest)
    cues = load_cues(FrameCache(work), manifest.utterances, GRID)
    seen = np.empty_like(cues.values)
    voices = np.repeat([u.speaker for u in manifest.utterances], np.diff(cues.offsets))
    for voice in np.unique(voices):
        own = cues.values[voices == voice]
        seen[voices == voice] = (own - np.nanmean(own, axis=0)) / np.nanstd(own, axis=0)
    seen = np.nan_to_num(seen)
    frames = Frames(torch.from_numpy(seen).float(), torch.from_numpy(cues.offsets))
    pooling = {"kind": "as", "hidden": 8}
    head = Head(HeadConfig(manifest.labels, {"audio": 5}, {"audio": pooling}, mlp_width=16), 1)
    dataset = Dataset(manifest.utterances, manifest.labels, {"audio": frames})
    rows = torch.arange(len(dataset))
    cohort = Cohort([head], [TrainingConfig(1e-2)], VectorStore(dataset), rows, Schedule(epochs=40))
    for _ in range(40):
        cohort.run_epoch()
    subject = build_subject(head, LoadedRows(manifest.utterances, {"audio": frames}, GRID))
    return subject, cues


def test_the_sample_corpus_shows_the_cues_it_was_made_with(
    sample: tuple[Subject, CueFrames],
) -> None:
    subject, cues = sample
    found = analyse(subject, cues, read_directions(), share=0.5)
    # What corpora.sample_design moves most: anger is louder, happiness and fear are higher,
    # sadness is lower and softer.
    design = {
        ("anger", "loudness"): 1,
        ("happiness", "f0"): 1,
        ("fear", "f0"): 1,
        ("sadness", "f0"): -1,
        ("sadness", "loudness"): -1,
    }
    for (label, cue), sign in design.items():
        level = found.levels[label, CORRECT, cue]
        assert level.agrees
        assert level.mean.interval is not None
        assert sign * level.mean.value > 0.3
        assert level.mean.above if sign > 0 else level.mean.below
    assert np.isfinite(floats(frame_attention(subject, "audio"))).all()
