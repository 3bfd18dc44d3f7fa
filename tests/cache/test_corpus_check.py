"""`prepare check`: what it counts, what it calls to be mended, and what it leaves unopened."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from cache.encoders.grid import fbank_grid
from cache.upkeep.check_corpus import check_corpus, sound_of
from cache.upkeep.corpus_report import CorpusCheck, histogram
from cli import main
from corpora.base.work import Work
from corpora.manifest import Manifest, write_manifest
from tests.cache.filled import fill_work
from tests.cache.recordings import change, make_manifest


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return make_manifest(tmp_path)


def run(tmp_path: Path, manifest: Manifest, *, audio: bool = True) -> CorpusCheck:
    work = Work(tmp_path / "work")
    return check_corpus(work, manifest, work.manifest, audio=audio)


def test_durations_are_those_of_the_recordings(tmp_path: Path, manifest: Manifest) -> None:
    found = run(tmp_path, manifest)
    everything = found.durations["all"]
    assert everything.shortest == pytest.approx(0.5)
    assert everything.longest == pytest.approx(2.0)
    assert everything.hours * 3600 == pytest.approx(sum(0.5 + 0.3 * k for k in range(6)))
    assert found.durations["train"].utterances == 2
    assert found.ok


def test_formats_are_counted_by_recording(tmp_path: Path, manifest: Manifest) -> None:
    soundfile.write(manifest.utterances[0].audio, np.zeros((4410, 2)), 44_100)
    found = run(tmp_path, manifest)
    assert found.formats == {"16,000 Hz, 1 channel": 5, "44,100 Hz, 2 channels": 1}


def test_clipped_and_silent_utterances_are_named(tmp_path: Path, manifest: Manifest) -> None:
    tone = np.clip(4 * np.sin(np.arange(16_000) / 20), -1, 1)
    soundfile.write(manifest.utterances[1].audio, tone, 16_000)
    soundfile.write(manifest.utterances[2].audio, np.zeros(16_000), 16_000)
    heard = run(tmp_path, manifest).heard
    assert heard is not None
    assert [name for name, _ in heard.clipped] == ["u1"]
    assert heard.silent == ("u2",)


def test_single_samples_at_full_scale_are_not_clipping() -> None:
    samples = np.zeros((100, 1), dtype=np.float32)
    samples[[3, 4, 10]] = 1.0
    assert sound_of(samples, 16_000).clipped == 0
    samples[5] = -1.0
    assert sound_of(samples, 16_000).clipped == 3


def test_silence_is_the_share_of_20_ms_frames() -> None:
    samples = np.zeros((3200, 1), dtype=np.float32)
    samples[: 3 * 320] = 0.1
    assert sound_of(samples, 16_000).silent == pytest.approx(0.7)


@pytest.mark.parametrize("count", [0, 1, 319])
def test_sound_shorter_than_a_frame_is_measured_or_told(count: int) -> None:
    found = sound_of(np.full((count, 1), 0.5, dtype=np.float32), 16_000)
    assert found.problem == ("" if count else "it holds no sound")


def test_a_copy_under_another_name_is_a_duplicate(tmp_path: Path, manifest: Manifest) -> None:
    shutil.copy(manifest.utterances[0].audio, manifest.utterances[3].audio)
    found = run(tmp_path, manifest)
    assert [[u.id for u in group] for group in found.duplicates] == [["u0", "u3"]]
    assert found.ok  # both are in train
    assert "of them with different labels" in found.to_text()


def test_the_same_recording_in_two_splits_has_to_be_mended(
    tmp_path: Path, manifest: Manifest
) -> None:
    shutil.copy(manifest.utterances[0].audio, manifest.utterances[1].audio)
    found = run(tmp_path, manifest)
    assert not found.ok
    assert "'u0' (train) and 'u1' (dev) are the same recording" in found.problems[0]


def test_a_recording_cut_short_has_to_be_mended(tmp_path: Path, manifest: Manifest) -> None:
    path = manifest.utterances[0].audio
    path.write_bytes(path.read_bytes()[:-4000])
    (problem,) = run(tmp_path, manifest).problems
    assert "cut short" in problem


def test_what_is_no_audio_has_to_be_mended_and_the_rest_is_heard(
    tmp_path: Path, manifest: Manifest
) -> None:
    manifest.utterances[0].audio.write_bytes(b"no sound")
    found = run(tmp_path, manifest)
    assert "cannot be read as audio" in found.problems[0]
    assert found.heard is not None
    assert found.heard.decoded == 5
    assert found.durations["all"].known == 5


def test_shared_sentences_and_speakers_are_counted(tmp_path: Path, manifest: Manifest) -> None:
    found = run(tmp_path, replace(manifest, shared_speakers=True))
    assert found.sentences.held == 4
    assert any("share speakers" in note for note in found.notes)
    moved = change(replace(manifest, shared_speakers=True), 3, split="test")
    assert run(tmp_path, moved).speakers_in_two_splits == 1


def test_without_audio_no_recording_is_opened(tmp_path: Path, manifest: Manifest) -> None:
    for utterance in manifest.utterances:
        utterance.audio.write_bytes(b"")
    found = run(tmp_path, manifest, audio=False)
    assert found.heard is None
    assert found.ok
    assert any("content of 6 utterances" in note for note in found.notes)
    text = " ".join(found.to_text().split())
    assert "Whether utterances have the same sound was not looked at." in text
    assert "Not looked at: lengths, clipping and silence; the sound of 6 of 6 utterances." in text
    assert "Nothing has to be mended." not in text


def test_rows_of_one_file_have_the_same_sound_without_looking(
    tmp_path: Path, manifest: Manifest
) -> None:
    first = manifest.utterances[0]
    rows = tuple(replace(u, audio=first.audio, split="train") for u in manifest.utterances[:3])
    cuts = tuple(replace(u, id=f"{u.id} cut", start=k, end=k + 1) for k, u in enumerate(rows))
    found = run(tmp_path, replace(manifest, utterances=(*rows, *cuts)), audio=False)
    assert [[u.id for u in group] for group in found.duplicates] == [["u0", "u1", "u2"]]


def test_what_nobody_knows_is_not_called_fine(tmp_path: Path, manifest: Manifest) -> None:
    bare = tuple(replace(u, text="", speaker="") for u in manifest.utterances)
    text = run(tmp_path, replace(manifest, utterances=bare)).to_text()
    assert "No speaker is known" in text
    assert "No dev or test utterance has a text" in text


def test_frames_are_counted_from_lengths_where_nothing_was_extracted(
    tmp_path: Path, manifest: Manifest
) -> None:
    found = run(tmp_path, manifest)
    (audio,) = found.histograms
    assert audio.source == "from lengths, 20 ms apart"
    grid = fbank_grid(2)
    counts = [grid.frames(round((0.5 + 0.3 * k) * 16_000)) for k in range(6)]
    assert audio.edges[-1] == max(counts)
    assert sum(audio.counts) == 6
    assert any("No text was extracted" in note for note in found.notes)


def test_frames_are_counted_from_the_streams_where_they_are(tmp_path: Path) -> None:
    work, manifest = fill_work(tmp_path)
    found = check_corpus(work, manifest, work.manifest)
    audio, text = found.histograms
    assert audio.source == "extracted"
    assert sum(audio.counts) == sum(text.counts) == 6
    assert found.durations["all"].known == 6


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=200))
def test_a_histogram_counts_every_value_once(values: list[int]) -> None:
    found = histogram(values, "frames", "here")
    assert found is not None
    assert sum(found.counts) == len(values)
    assert list(found.edges) == sorted(set(found.edges))
    expected = [
        sum(low <= value < high or (value == high == found.edges[-1]) for value in values)
        for low, high in zip(found.edges, found.edges[1:], strict=False)
    ]
    assert list(found.counts) == expected
    assert len(found.table().rows) == len(found.counts)


def test_the_command_prints_a_table_or_json_and_exits_with_what_it_found(tmp_path: Path) -> None:
    work, manifest = fill_work(tmp_path)
    words = ["prepare", "check", "--work", str(work.root)]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0
    assert "Nothing has to be mended." in result.output
    found = json.loads(CliRunner().invoke(main, [*words, "--json", "--no-audio"]).stdout)
    assert found["ok"]
    assert found["utterances"] == 6
    shutil.copy(manifest.utterances[0].audio, manifest.utterances[1].audio)
    write_manifest(manifest, work.manifest)
    assert CliRunner().invoke(main, words).exit_code == 1
