"""`transcribe`, with a small Whisper of random weights."""

from __future__ import annotations

import itertools
import json
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner, Result
from transformers import AutoFeatureExtractor, AutoTokenizer, WhisperForConditionalGeneration

from cache.audio import load_audio
from cache.config import ExtractConfig
from cache.encoders.hidden_states import quiet
from cache.extract.extract import extract
from cache.transcribe.journal import Journal, Transcript
from cache.transcribe.model_files import find_whisper
from cache.transcribe.whisper import Piece, Whisper, compression, cut_at_pauses, load_whisper
from cli import main
from corpora.base.errors import CacheError, ConfigError
from corpora.base.work import Work
from corpora.manifest import Manifest, read_manifest, write_manifest
from tests.cache.recordings import change, make_manifest, write_tone
from tests.cache.whispers import LANGUAGES, save_whisper


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_whisper(tmp_path_factory.mktemp("models") / "small-whisper")


@pytest.fixture(scope="module")
def whisper(folder: Path) -> Whisper:
    return load_whisper(folder)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return make_manifest(tmp_path_factory.mktemp("recordings"), 6)


@pytest.fixture
def work(recordings: Manifest, tmp_path: Path) -> Work:
    """Six utterances; the even ones have no text."""
    found = Work(tmp_path / "work")
    utterances = [
        replace(one, text="" if number % 2 == 0 else one.text)
        for number, one in enumerate(recordings.utterances)
    ]
    write_manifest(replace(recordings, utterances=tuple(utterances)), found.manifest)
    return found


def run(work: Work, folder: Path, *words: str, threshold: float = 0) -> Result:
    """The command; tones are no speech, so they are decoded whatever the detector says."""
    return CliRunner().invoke(
        main,
        [
            *("transcribe", "--work", str(work.root), "--whisper", str(folder), "--device", "cpu"),
            *("--speech-threshold", str(threshold), *words),
        ],
    )


def report(work: Work, folder: Path, *words: str, threshold: float = 0) -> dict[str, Any]:
    result = run(work, folder, "--json", *words, threshold=threshold)
    assert result.exit_code == 0, result.output
    value: dict[str, Any] = json.loads(result.stdout)
    return value


def texts(path: Path) -> list[tuple[str, str]]:
    return [(u.text, u.text_source) for u in read_manifest(path).utterances]


def noises(count: int) -> list[Piece]:
    generator = np.random.default_rng(0)
    return [
        Piece((0.1 * generator.standard_normal(4_000 * (i + 1))).astype(np.float32), "en")
        for i in range(count)
    ]


def test_missing_texts_are_filled_and_human_texts_stay(work: Work, folder: Path) -> None:
    before = texts(work.manifest)
    assert report(work, folder)["changed"] == 3
    for number, (old, new) in enumerate(zip(before, texts(work.manifest), strict=True)):
        if number % 2:
            assert new == old
        else:
            assert new[0]
            assert new[1] == "small-whisper"


def test_overwrite_replaces_human_texts(work: Work, folder: Path) -> None:
    report(work, folder, "--overwrite")
    assert {source for _, source in texts(work.manifest)} == {"small-whisper"}


def test_the_old_manifests_are_kept_and_can_be_read(work: Work, folder: Path) -> None:
    old = work.manifest.read_bytes()
    report(work, folder)
    middle = work.manifest.read_bytes()
    second = report(work, folder, "--overwrite")
    kept = work.root / "manifest.before-transcribe.csv"
    assert kept.read_bytes() == old
    assert Path(second["kept_as"]).read_bytes() == middle
    assert read_manifest(kept).labels == read_manifest(work.manifest).labels


def test_a_second_run_finds_everything_and_writes_nothing(work: Work, folder: Path) -> None:
    report(work, folder)
    before = work.manifest.stat().st_mtime_ns
    again = report(work, folder)
    assert (again["heard"], again["known"], again["changed"]) == (0, 3, 0)
    assert work.manifest.stat().st_mtime_ns == before


def test_a_killed_run_goes_on_where_it_was(
    work: Work, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = Work(work.root.with_name("alone"))
    write_manifest(read_manifest(work.manifest), alone.manifest)
    report(alone, folder)
    heard = Whisper.__call__
    calls: list[int] = []

    def interrupted(self: Whisper, pieces: Sequence[Piece]) -> list[Transcript]:
        calls.append(len(pieces))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return heard(self, pieces)

    monkeypatch.setattr(Whisper, "__call__", interrupted)
    before = work.manifest.read_bytes()
    assert run(work, folder, "--batch-size", "1").exit_code == 130
    assert work.manifest.read_bytes() == before
    done = report(work, folder, "--batch-size", "1")
    assert (done["known"], done["heard"]) == (1, 2)
    assert texts(work.manifest) == texts(alone.manifest)


def test_a_second_manifest_of_the_same_recordings_is_not_heard_again(
    work: Work, folder: Path
) -> None:
    report(work, folder)
    utterances = tuple(
        replace(u, id=f"other-{u.id}", text="", text_source="")
        for u in read_manifest(work.manifest).utterances[::2]
    )
    other = work.root / "other.csv"
    write_manifest(replace(read_manifest(work.manifest), utterances=utterances), other)
    again = report(work, folder, "--manifest", str(other))
    assert (again["heard"], again["known"]) == (0, 3)
    assert texts(other) == texts(work.manifest)[::2]


def test_another_model_replaces_what_a_model_gave_but_not_what_a_person_corrected(
    work: Work, folder: Path, tmp_path: Path
) -> None:
    report(work, folder)
    write_manifest(change(read_manifest(work.manifest), 0, text="corrected"), work.manifest)
    found = report(work, save_whisper(tmp_path / "another", seed=1))
    assert found["edited"] == 1
    given = texts(work.manifest)
    assert given[0] == ("corrected", "small-whisper")
    assert {given[2][1], given[4][1]} == {"another"}


def test_rows_that_somebody_changed_meanwhile_are_left_alone(
    work: Work, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = Journal.add

    def add_and_edit(self: Journal, *arguments: Any) -> None:
        add(self, *arguments)
        write_manifest(change(read_manifest(work.manifest), 2, text="typed"), work.manifest)

    monkeypatch.setattr(Journal, "add", add_and_edit)
    found = report(work, folder)
    assert (found["changed"], found["skipped"]) == (2, 1)
    assert texts(work.manifest)[2] == ("typed", "")


def test_changed_texts_re_extract_the_text_stream_alone(work: Work, folder: Path) -> None:
    config = ExtractConfig("tiny", "tiny", device="cpu")
    extract(work, read_manifest(work.manifest), config)
    report(work, folder)
    done = extract(work, read_manifest(work.manifest), config).report
    assert done is not None
    assert done.added
    assert all(path.startswith("text-") for path in done.added)


def test_unreadable_recordings_are_reported_and_the_rest_is_kept(
    work: Work, folder: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF no sound")
    manifest = change(read_manifest(work.manifest), 0, audio=broken)
    write_manifest(change(manifest, 2, audio=tmp_path / "gone.wav"), work.manifest)
    result = run(work, folder)
    assert result.exit_code == 0
    assert "2 utterances could not be transcribed" in result.output
    assert "no such file" in result.output
    assert "cannot be read as audio" in " ".join(result.output.split())
    assert [bool(text) for text, _ in texts(work.manifest)[::2]] == [False, False, True]


def test_nothing_but_unreadable_recordings_is_an_error(work: Work, folder: Path) -> None:
    manifest = read_manifest(work.manifest)
    for number in (0, 2, 4):
        manifest = change(manifest, number, audio=work.root / f"gone{number}.wav")
    write_manifest(manifest, work.manifest)
    result = run(work, folder)
    assert result.exit_code == 1
    assert "none of the 3 recordings could be used" in result.output


def test_recordings_without_speech_get_no_text(work: Work, folder: Path) -> None:
    silence = work.root / "silence.wav"
    soundfile.write(silence, np.zeros(16_000), 16_000)
    write_manifest(change(read_manifest(work.manifest), 0, audio=silence), work.manifest)
    assert report(work, folder, "--limit", "1", threshold=0.1)["silent"] == 1
    assert texts(work.manifest)[0] == ("", "small-whisper")


def test_reference_prints_rates_by_label_and_keeps_the_texts(work: Work, folder: Path) -> None:
    pytest.importorskip("rapidfuzz", reason="needs the extra wer")
    before = texts(work.manifest)
    result = run(work, folder, "--reference")
    assert "error rate" in result.output
    assert "normaliser basic" in result.output
    found = report(work, folder, "--reference")["errors"]
    assert found["all"]["utterances"] == 3
    assert found["all"]["words"] == sum(len(text.split()) for text, _ in before[1::2])
    assert texts(work.manifest)[1::2] == before[1::2]


def test_a_limit_counts_what_is_heard(work: Work, folder: Path) -> None:
    assert report(work, folder, "--limit", "2")["heard"] == 2


def test_only_one_split_is_heard(work: Work, folder: Path) -> None:
    assert report(work, folder, "--split", "train")["heard"] == 1


def test_with_nothing_to_do_no_model_is_looked_for(work: Work) -> None:
    manifest = read_manifest(work.manifest)
    full = tuple(replace(u, text="said") for u in manifest.utterances)
    write_manifest(replace(manifest, utterances=full), work.manifest)
    result = run(work, Path("no-such/model/at/all"))
    assert result.exit_code == 0
    assert "nothing to do" in result.output


def test_the_language_told_reaches_generation(
    work: Work, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[object] = []
    generate = WhisperForConditionalGeneration.generate

    def spy(self: Any, *arguments: Any, **options: Any) -> Any:
        told.append(options["language"])
        return generate(self, *arguments, **options)

    monkeypatch.setattr(WhisperForConditionalGeneration, "generate", spy)
    write_manifest(change(read_manifest(work.manifest), 0, language="de-AT"), work.manifest)
    assert report(work, folder, "--limit", "1")["languages"] == {"de": 1}
    assert report(work, folder, "--limit", "1", "--language", "ja")["languages"] == {"ja": 1}
    assert ["de"] in told
    assert ["ja"] in told
    (detected,) = report(work, folder, "--limit", "1", "--language", "auto")["languages"]
    assert detected in LANGUAGES


@pytest.mark.parametrize("multilingual", [True, False])
def test_texts_are_those_of_transformers_own_generation(multilingual: bool, tmp_path: Path) -> None:
    directory = save_whisper(tmp_path / "model", multilingual=multilingual)
    pieces = noises(3)
    ours = [one.text for one in load_whisper(directory)(pieces)]
    with quiet():
        model = WhisperForConditionalGeneration.from_pretrained(directory)
    features = AutoFeatureExtractor.from_pretrained(directory)(
        [piece.waveform for piece in pieces], sampling_rate=16_000, return_tensors="pt"
    )["input_features"]
    told = {"language": "en", "task": "transcribe"} if multilingual else {}
    settings = model.generation_config
    stamps = range(settings.no_timestamps_token_id + 1, model.config.vocab_size)
    settings.suppress_tokens = [*settings.suppress_tokens, *stamps]
    with quiet():
        rows = model.generate(features, return_timestamps=False, do_sample=False, **told)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    assert ours == tokenizer.batch_decode(rows, skip_special_tokens=True)
    assert all(ours)


def test_batch_mates_do_not_change_a_transcript(whisper: Whisper) -> None:
    pieces = [replace(piece, language="") for piece in noises(5)]
    assert whisper(pieces) == [whisper([piece])[0] for piece in pieces]


def test_loops_are_decoded_again_the_same_way_each_time(
    whisper: Whisper, monkeypatch: pytest.MonkeyPatch
) -> None:
    (piece, *_) = noises(1)
    greedy = whisper([piece])[0].text
    monkeypatch.setattr("cache.transcribe.whisper.COMPRESSION", compression(greedy) - 0.01)
    state = torch.random.get_rng_state()
    again = whisper([piece])[0].text
    assert compression(again) <= compression(greedy)
    assert again == whisper([piece])[0].text
    assert torch.equal(torch.random.get_rng_state(), state)


def test_improbable_text_over_probable_silence_is_dropped(
    whisper: Whisper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cache.transcribe.whisper.NO_SPEECH", -1.0)
    monkeypatch.setattr("cache.transcribe.whisper.LEAST_LOG_PROBABILITY", 1.0)
    assert whisper(noises(1)) == [Transcript("", "en", silent=True)]


def test_long_recordings_are_heard_in_pieces(
    work: Work, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = Whisper.__call__
    pieces: list[Piece] = []

    def spy(self: Whisper, batch: Sequence[Piece]) -> list[Transcript]:
        pieces.extend(batch)
        return heard(self, batch)

    monkeypatch.setattr(Whisper, "__call__", spy)
    audio = write_tone(work.root / "long.wav", 70, seed=3)
    write_manifest(change(read_manifest(work.manifest), 0, audio=audio), work.manifest)
    report(work, folder, "--limit", "1", "--batch-size", "2")
    assert np.array_equal(np.concatenate([one.waveform for one in pieces]), load_audio(audio))
    assert max(len(one.waveform) for one in pieces) <= 30 * 16_000
    assert pieces[0].language == ""
    assert len({one.language for one in pieces[1:]} - {""}) == 1  # as the first was heard
    # Words of this model hold letters only, so pieces are what spaces part.
    assert len(texts(work.manifest)[0][0].split()) == len(pieces)


def test_cuts_lie_in_the_longest_pauses_and_pieces_fit() -> None:
    samples = 100 * 16_000
    speech = np.ones(-(-samples // 512), dtype=np.float32)
    for second in (25.0, 47.0, 72.0):
        middle = round(second * 16_000 / 512)
        speech[middle - 8 : middle + 9] = 0
    speech[round(28 * 16_000 / 512)] = 0  # a plosive
    pieces = cut_at_pauses(speech, samples)
    assert pieces[0][0] == 0
    assert pieces[-1][1] == samples
    assert all(one[1] == other[0] for one, other in itertools.pairwise(pieces))
    assert max(last - first for first, last in pieces) <= 30 * 16_000
    cuts = [last / 16_000 for _, last in pieces[:3]]
    assert np.allclose(cuts, [25, 47, 72], atol=0.3)


@pytest.mark.parametrize("samples", [1, 511, 480_000, 480_001, 1_000_003])
def test_pieces_cover_a_recording_of_any_length(samples: int) -> None:
    pieces = cut_at_pauses(np.zeros(-(-samples // 512), dtype=np.float32), samples)
    assert sum(last - first for first, last in pieces) == samples
    assert all(0 < last - first <= 480_000 for first, last in pieces)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "generation_config.json").unlink(), "generation_config.json"),
        (lambda folder: (folder / "model.safetensors").unlink(), "holds no weights"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "cannot be loaded"),
        (lambda folder: (folder / "processor_config.json").unlink(), "holds no front end"),
        (
            lambda folder: (folder / "config.json").write_text('{"model_type": "bert"}'),
            "is not a Whisper model",
        ),
        (shutil.rmtree, "no such directory"),
    ],
)
def test_a_bad_model_is_refused(
    damage: Any, message: str, work: Work, folder: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "models" / "bad" / "one"
    shutil.copytree(folder, bad)
    damage(bad)
    result = run(work, bad)
    assert result.exit_code == 1
    assert message in result.output
    assert "Traceback" not in result.output


def test_that_the_default_model_cannot_be_fetched_is_explained(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, list[str]]] = []

    def offline(name: str, *, ignore_patterns: list[str], **_: Any) -> str:
        asked.append((name, ignore_patterns))
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    result = CliRunner().invoke(main, ["transcribe", "--work", str(work.root)])
    assert result.exit_code == 1
    assert "openai/whisper-large-v3 is not on this machine" in result.output
    assert "name a local directory" in result.output
    ((name, ignored),) = asked
    assert name == "openai/whisper-large-v3"
    assert "*.fp32*" in ignored  # the same weights again, twice as large


def test_a_language_that_the_model_does_not_know_is_refused(work: Work, folder: Path) -> None:
    write_manifest(change(read_manifest(work.manifest), 2, language="fi"), work.manifest)
    result = run(work, folder)
    assert result.exit_code == 1
    assert "line 4, utterance u2: its language is 'fi'" in result.output
    assert "--language auto" in result.output


def test_an_english_model_refuses_other_languages(tmp_path: Path) -> None:
    found = find_whisper(str(save_whisper(tmp_path / "model", multilingual=False)))
    assert found.code("en-GB", "it") == ""
    with pytest.raises(ConfigError, match="knows English only"):
        found.code("de", "it")


def test_the_fingerprint_follows_the_weights_not_the_place(folder: Path, tmp_path: Path) -> None:
    here = find_whisper(str(folder))
    moved = find_whisper(str(shutil.copytree(folder, tmp_path / "elsewhere")))
    assert here.fingerprint == moved.fingerprint
    assert find_whisper(str(save_whisper(tmp_path / "b", seed=1))).fingerprint != here.fingerprint


def test_a_damaged_journal_is_named_and_not_deleted(work: Work, folder: Path) -> None:
    work.transcripts.write_bytes(b"not a database" * 100)
    result = run(work, folder)
    assert result.exit_code == 1
    assert "transcripts.sqlite cannot be used" in result.output
    assert work.transcripts.stat().st_size == 1400


def test_a_batch_is_kept_whole_or_not_at_all(tmp_path: Path) -> None:
    good, bad = Transcript("a", "en"), Transcript(object(), "en")  # type: ignore[arg-type]
    with Journal(tmp_path / "t.sqlite") as journal:
        with pytest.raises(CacheError):
            journal.add("m", "name", {("k1", ""): good, ("k2", ""): bad})
        assert journal.known("m", [("k1", "")]) == {}


def test_a_transcript_that_was_altered_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t.sqlite"
    with Journal(path) as journal:
        journal.add("m", "name", {("k1", ""): Transcript("we go", "en")})
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE transcripts SET text = 'no go'")
    with (
        Journal(path) as journal,
        pytest.raises(CacheError, match="the transcript of k1 was altered"),
    ):
        journal.known("m", [("k1", "")])


def test_a_journal_of_the_first_version_is_read_and_gets_seals(tmp_path: Path) -> None:
    path = tmp_path / "t.sqlite"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(
            "CREATE TABLE transcripts (audio TEXT, model TEXT, asked TEXT, source TEXT, text TEXT, "
            "language TEXT, silent INTEGER, PRIMARY KEY (audio, model, asked)) WITHOUT ROWID"
        )
        database.execute("INSERT INTO transcripts VALUES ('k', 'm', '', 'name', 'one', 'en', 0)")
        database.execute("PRAGMA user_version = 1")
    for text in ("one", "two"):
        with Journal(path) as journal:
            known = journal.known("m", [("k", "")])
            assert known == {("k", ""): Transcript(text, "en")}
            journal.add("m", "name", {("k", ""): Transcript("two", "en")})
