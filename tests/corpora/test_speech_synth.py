from __future__ import annotations

import csv
import json
import shutil
import sys
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile

from corpora.base.errors import ConfigError, CorpusError, EmopoolError, MissingExtraError
from corpora.espeak import short_link
from corpora.sample_design import LABELS, SPEAKERS
from corpora.speech_synth import COLUMNS, write_sample_corpus

UTTERANCES = 100


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need_engine()
    root = tmp_path_factory.mktemp("sample") / "corpus"
    return write_sample_corpus(root, utterances=UTTERANCES)


def need_engine() -> None:
    pytest.importorskip("espeakng_loader", reason="the extra `demo` is not installed")


def rows(root: Path) -> list[dict[str, str]]:
    with (root / "metadata.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def contents(root: Path) -> dict[str, bytes]:
    files = [path for path in root.rglob("*") if path.is_file()]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def test_two_runs_write_the_same_bytes(tmp_path: Path) -> None:
    need_engine()
    first = write_sample_corpus(tmp_path / "a", utterances=20)
    second = write_sample_corpus(tmp_path / "b", utterances=20)
    assert contents(first) == contents(second)


def test_the_table_has_its_columns_and_every_file(corpus: Path) -> None:
    found = rows(corpus)
    assert len(found) == UTTERANCES
    assert tuple(found[0]) == COLUMNS
    for row in found:
        assert row["audio"] == f"audio/{row['id']}.wav"
        assert (corpus / row["audio"]).is_file()
        assert (corpus / row["alignment"]).is_file()
        assert row["text"]
        assert row["language"] == "en"
        assert row["sex"] in ("female", "male")


def test_every_speaker_speaks_every_label(corpus: Path) -> None:
    pairs = {(row["speaker"], row["label"]) for row in rows(corpus)}
    assert pairs == {(speaker.name, label) for speaker in SPEAKERS for label in LABELS}


def test_recordings_are_short_16_khz_mono_and_not_clipped(corpus: Path) -> None:
    for row in rows(corpus):
        info = soundfile.info(corpus / row["audio"])
        assert (info.samplerate, info.channels, info.subtype) == (16_000, 1, "PCM_16")
        assert 1.0 < info.duration < 6.0
        samples, _ = soundfile.read(corpus / row["audio"])
        assert np.abs(samples).max() < 0.96


def test_alignments_cover_the_recording_and_phones_lie_in_its_speech(corpus: Path) -> None:
    textgrid = pytest.importorskip("praatio.textgrid", reason="praatio is not installed")
    for row in rows(corpus)[::5]:
        samples, rate = soundfile.read(corpus / row["audio"])
        grid = textgrid.openTextgrid(str(corpus / row["alignment"]), includeEmptyIntervals=True)
        assert list(grid.tierNames) == ["words", "phones"]
        for name in grid.tierNames:
            entries = grid.getTier(name).entries
            assert entries[0].start == 0.0
            assert entries[-1].end == pytest.approx(len(samples) / rate, abs=1e-5)
            for one, other in pairwise(entries):
                assert one.end == other.start
        phones = grid.getTier("phones").entries
        spoken = np.concatenate([cut(samples, e.start, e.end) for e in phones if e.label != "sil"])
        silent = cut(samples, 0.0, phones[0].end)
        assert phones[0].label == phones[-1].label == "sil"
        assert np.mean(spoken**2) > 100 * np.mean(silent**2)


def cut(samples: np.ndarray, start: float, end: float) -> np.ndarray:
    return samples[round(start * 16_000) : round(end * 16_000)]


def test_every_word_of_the_text_has_an_interval_of_its_own(corpus: Path) -> None:
    textgrid = pytest.importorskip("praatio.textgrid", reason="praatio is not installed")
    for row in rows(corpus):
        grid = textgrid.openTextgrid(str(corpus / row["alignment"]), includeEmptyIntervals=False)
        words = [entry.label for entry in grid.getTier("words").entries]
        assert words == row["text"].replace(",", "").replace(".", "").split()


def test_anger_is_louder_than_sadness_for_every_speaker(corpus: Path) -> None:
    energies: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in rows(corpus):
        samples, _ = soundfile.read(corpus / row["audio"])
        energies[row["speaker"], row["label"]].append(float(np.mean(samples**2)))
    for speaker in SPEAKERS:
        angry, sad = (np.mean(energies[speaker.name, label]) for label in ("anger", "sadness"))
        assert angry > sad


def test_the_folder_calls_itself_synthetic(corpus: Path) -> None:
    readme = (corpus / "README.txt").read_text(encoding="utf-8")
    assert "SYNTHETIC" in readme
    assert "espeak-ng 1." in readme
    assert "Seed 0" in readme
    assert json.loads((corpus / "sample.json").read_text(encoding="utf-8"))["synthetic"] is True


def test_a_corpus_that_is_there_is_not_made_again(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    assert write_sample_corpus(corpus, utterances=UTTERANCES) == corpus


def test_a_corpus_of_other_parameters_is_replaced_and_nothing_stays_behind(tmp_path: Path) -> None:
    need_engine()
    seen: list[tuple[int, int]] = []
    write_sample_corpus(tmp_path / "c", utterances=10)
    write_sample_corpus(
        tmp_path / "c", utterances=12, progress=lambda done, total: seen.append((done, total))
    )
    assert len(rows(tmp_path / "c")) == 12
    assert seen == [(done, 12) for done in range(1, 13)]
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(CorpusError, match="not a sample corpus"):
        write_sample_corpus(tmp_path, utterances=10)
    assert (tmp_path / "notes.txt").read_text(encoding="utf-8") == "mine"


def test_a_missing_extra_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(MissingExtraError, match=r'pip install "emopool\[demo\]"'):
        write_sample_corpus(tmp_path / "c", utterances=10)


def test_a_failing_engine_gives_its_message_and_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_engine()
    failing = shutil.which("false")
    if failing is None:
        pytest.skip("this system has no command `false`")
    monkeypatch.setattr(sys, "executable", failing)
    with pytest.raises(EmopoolError, match="sample corpus failed"):
        write_sample_corpus(tmp_path / "c", utterances=10)
    assert list(tmp_path.iterdir()) == []


def test_a_negative_seed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="-1"):
        write_sample_corpus(tmp_path / "c", utterances=10, seed=-1)


def test_the_engine_gets_a_short_path_to_deep_data(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["a-folder-with-a-long-name"] * 8)
    deep.mkdir(parents=True)
    (deep / "phontab").write_text("data", encoding="utf-8")
    with short_link(deep) as folder:
        assert len(str(folder)) < 100
        assert (folder / "espeak-ng-data" / "phontab").read_text(encoding="utf-8") == "data"
    assert not folder.exists()
    assert (deep / "phontab").exists()
