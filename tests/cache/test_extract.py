"""Extraction: what is cached, what is extracted again, what a bad recording costs."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner

from cache.audio import energy, load_audio
from cache.config import Auto, ExtractConfig, parse_layers
from cache.encoders.audio_encoder import load_audio_encoder
from cache.encoders.names import resolve_encoder
from cache.extract.encoding import Encoded, encode_audio
from cache.extract.extract import Outcome, extract
from cache.extract.plan import make_plan
from cache.extract.summary import report_text
from cache.last_extraction import read_failures
from cache.lookup import FrameCache
from cache.stream import FrameStream
from cli import main
from corpora.base.errors import AudioError, ConfigError, FormatVersionError, MissingStepError
from corpora.base.work import Work
from corpora.manifest import Manifest, write_manifest
from tests.cache.recordings import change, make_manifest, write_tone

TINY = ExtractConfig(audio_encoder="tiny", text_encoder="tiny", device="cpu")


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One copy of the tiny encoders for all tests of this file."""
    root = tmp_path_factory.mktemp("encoders")
    for kind in ("audio", "text"):
        resolve_encoder("tiny", kind, root)
    return root / "encoders"


@pytest.fixture
def work(tmp_path: Path, encoders: Path) -> Work:
    root = tmp_path / "work"
    root.mkdir()
    (root / "encoders").symlink_to(encoders)
    return Work(root)


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return make_manifest(tmp_path)


def added(outcome: Outcome) -> dict[str, int]:
    """New utterances by kind of stream."""
    assert outcome.report is not None
    counts: dict[str, int] = {}
    for path, count in outcome.report.added.items():
        recipe, stream = path.split("/")
        name = recipe.split("-")[0] + ("" if stream == "values" else f"/{stream}")
        counts[name] = count
    return counts


def test_first_run_fills_every_stream_and_the_second_does_nothing(
    work: Work, manifest: Manifest
) -> None:
    assert added(extract(work, manifest, TINY)) == {
        "audio/layer_3": 6,
        "audio/moments_3": 6,
        "energy": 6,
        "speech": 6,
        "text/layer_3": 4,
        "text/moments_3": 4,
        "text/token_kind": 4,
    }
    days_ago = time.time_ns() - 2 * 24 * 3600 * 10**9
    left = work.root / ".tmp" / f"site-{days_ago:016x}-1-00000000-host"
    left.mkdir(parents=True)
    assert extract(work, manifest, TINY).report is None
    assert not left.exists()  # what a killed run took out or built


def test_cached_frames_equal_the_encoder_run_alone(work: Work, manifest: Manifest) -> None:
    extract(work, manifest, replace(TINY, stored_dtype="float32"))
    frames = FrameCache(work).find(manifest, ["audio"]).load("audio")
    encoder = load_audio_encoder(resolve_encoder("tiny", "audio", work.root))
    for number, utterance in enumerate(manifest.utterances):
        with torch.inference_mode():
            alone = encoder([load_audio(utterance.audio)], [3])[3].values
        torch.testing.assert_close(frames.utterance(number), alone, atol=2e-5, rtol=1e-5)


def test_energy_and_speech_lie_on_the_grid_of_the_audio_frames(
    work: Work, manifest: Manifest
) -> None:
    extract(work, manifest, TINY)
    extraction = FrameCache(work).extraction
    keys = [own["audio"] for own in FrameCache(work).keys(manifest.utterances).values()]
    lengths = {
        kind: FrameStream.open(work.features / extraction.source(kind).stream()).lengths(keys)
        for kind in ("audio", "energy", "speech")
    }
    assert lengths["audio"].tolist() == lengths["energy"].tolist() == lengths["speech"].tolist()
    stream = FrameStream.open(work.features / extraction.source("energy").stream())
    grid = make_plan(FrameCache(work), manifest, TINY).grid
    assert grid is not None
    expected = energy(load_audio(manifest.utterances[2].audio), grid)
    np.testing.assert_allclose(stream.read(keys[2])[:, 0], expected, atol=0.05)


def test_a_changed_transcript_extracts_its_text_alone(work: Work, manifest: Manifest) -> None:
    extract(work, manifest, TINY)
    changed = change(manifest, 1, text="something else")
    assert added(extract(work, changed, TINY)) == {
        "text/layer_3": 1,
        "text/moments_3": 1,
        "text/token_kind": 1,
    }


def test_a_renamed_recording_and_another_label_extract_nothing(
    work: Work, manifest: Manifest
) -> None:
    extract(work, manifest, TINY)
    old = manifest.utterances[0].audio
    renamed = change(manifest, 0, audio=old.rename(old.with_name("new.wav")), label="neutral")
    assert extract(work, renamed, TINY).report is None


def test_changed_content_under_the_same_name_is_extracted(work: Work, manifest: Manifest) -> None:
    extract(work, manifest, TINY)
    write_tone(manifest.utterances[0].audio, 0.5, seed=99)
    assert added(extract(work, manifest, TINY))["audio/layer_3"] == 1


def test_one_more_layer_extracts_only_that_layer(work: Work, manifest: Manifest) -> None:
    extract(work, manifest, TINY)
    both = replace(TINY, audio_layers=(1, 3))
    assert added(extract(work, manifest, both)) == {"audio/layer_1": 6, "audio/moments_1": 6}
    frames = FrameCache(work).find(manifest, ["audio"], layers={"audio": 1})
    assert len(frames.load("audio")) == 6


def test_segments_of_one_recording_are_inputs_of_their_own(work: Work, manifest: Manifest) -> None:
    parts = change(manifest, 5, start=0.2, end=0.9)
    parts = change(parts, 4, audio=parts.utterances[5].audio)
    extract(work, parts, TINY)
    frames = FrameCache(work).find(parts, ["audio"]).load("audio")
    assert frames.lengths[5] < frames.lengths[4]


def test_an_empty_text_is_its_special_tokens(work: Work, manifest: Manifest) -> None:
    silent = change(manifest, 0, text="  ")
    extract(work, silent, TINY)
    assert FrameCache(work).find(silent, ["text"]).load("text").lengths[0] == 2


def test_bad_recordings_are_listed_and_the_others_go_on(
    work: Work, manifest: Manifest, tmp_path: Path
) -> None:
    for number, name in enumerate(("missing", "empty", "noise", "nan")):
        manifest = change(manifest, number, audio=tmp_path / f"{name}.wav")
    (tmp_path / "empty.wav").touch()
    (tmp_path / "noise.wav").write_bytes(b"this is no recording")
    soundfile.write(tmp_path / "nan.wav", np.full(9000, np.nan), 16_000, subtype="FLOAT")
    outcome = extract(work, manifest, TINY)
    assert added(outcome)["audio/layer_3"] == 2
    reasons = read_failures(work.failures)
    assert list(reasons) == ["u0", "u1", "u2", "u3"]
    for number, words in enumerate(("no such file", "0 bytes", "cannot be read", "not finite")):
        assert words in reasons[f"u{number}"]
    collection = FrameCache(work).find(manifest, ["audio", "text"])
    assert [u.id for u in collection.utterances] == ["u4", "u5"]
    assert set(collection.failed) == {"u0", "u1", "u2", "u3"}


def test_a_repaired_recording_is_extracted_next_time(
    work: Work, manifest: Manifest, tmp_path: Path
) -> None:
    broken = change(manifest, 0, audio=tmp_path / "late.wav")
    extract(work, broken, TINY)
    write_tone(tmp_path / "late.wav", 0.7, seed=50)
    assert added(extract(work, broken, TINY))["audio/layer_3"] == 1
    assert not work.failures.exists()


def test_a_duplicate_of_a_bad_recording_is_listed_too(
    work: Work, manifest: Manifest, tmp_path: Path
) -> None:
    for number, name in enumerate(("a.wav", "b.wav")):
        (tmp_path / name).write_bytes(b"the same damage")
        manifest = change(manifest, number, audio=tmp_path / name)
    extract(work, manifest, TINY)
    assert set(read_failures(work.failures)) == {"u0", "u1"}


def test_a_long_recording_is_refused_by_name(work: Work, manifest: Manifest) -> None:
    extract(work, manifest, replace(TINY, max_seconds=1.9))
    assert "more than --max-seconds 1.9" in read_failures(work.failures)["u5"]


def test_no_usable_recording_is_an_error(work: Work, manifest: Manifest, tmp_path: Path) -> None:
    for number in range(6):
        manifest = change(manifest, number, audio=tmp_path / "nowhere.wav")
    with pytest.raises(AudioError, match="none of the 6 recordings"):
        extract(work, manifest, TINY)
    assert len(read_failures(work.failures)) == 6


@pytest.mark.parametrize("rate", [8_000, 44_100, 96_000])
@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3"])
def test_formats_rates_and_stereo_work(
    work: Work, manifest: Manifest, tmp_path: Path, suffix: str, rate: int
) -> None:
    if suffix == ".mp3" and rate == 96_000:
        pytest.skip("MP3 has no 96 kHz")
    audio = tmp_path / f"tone{suffix}"
    stereo = np.random.default_rng(0).uniform(-0.1, 0.1, (rate, 2))
    soundfile.write(audio, stereo, rate)
    one = replace(manifest, utterances=(replace(manifest.utterances[0], audio=audio),))
    assert extract(work, one, replace(TINY, text_encoder="")).report is not None
    frames = FrameCache(work).find(one, ["audio"]).load("audio")
    assert 47 <= int(frames.lengths[0]) <= 52


def test_an_interrupted_run_keeps_what_was_encoded(
    work: Work, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = iter(range(100))

    def interrupted(*arguments: Any, **options: Any) -> Encoded:
        if next(calls) == 3:
            raise KeyboardInterrupt
        return encode_audio(*arguments, **options)

    monkeypatch.setattr("cache.extract.audio_pass.encode_audio", interrupted)
    with pytest.raises(KeyboardInterrupt, match="Run the same command again"):
        extract(work, manifest, replace(TINY, batch_seconds=0.1))
    monkeypatch.undo()
    assert added(extract(work, manifest, TINY))["audio/layer_3"] == 3


def test_frames_that_were_never_extracted_are_asked_for(work: Work, manifest: Manifest) -> None:
    with pytest.raises(MissingStepError, match=r"python cli.py extract --"):
        FrameCache(work).find(manifest, ["audio"])
    extract(work, manifest, TINY)
    longer = replace(
        manifest,
        utterances=(
            *manifest.utterances,
            replace(manifest.utterances[0], id="new", start=0.1),
        ),
    )
    with pytest.raises(MissingStepError, match=r"1 of 7 utterances.*new"):
        FrameCache(work).find(longer, ["audio"])


def test_a_cache_of_another_format_version_is_refused(work: Work, manifest: Manifest) -> None:
    extract(work, manifest, TINY)
    root = work.features / "zarr.json"
    root.write_text(root.read_text().replace('"version": 1', '"version": 99'))
    with pytest.raises(FormatVersionError, match="99"):
        extract(work, manifest, TINY)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"audio_layers": (9,)}, r"--audio-layers 9.*0.*to 3"),
        ({"audio_encoder": "", "text_encoder": ""}, "nothing to extract"),
        ({"stored_dtype": "int8"}, "float16 or float32"),
        ({"long": "cut"}, "refuse or window"),
        ({"batch_seconds": 0.0}, "batch seconds must be more than 0"),
        ({"device": "tpu"}, "auto, cpu, cuda or cuda:N"),
        ({"audio_encoder": "/no/such/encoder"}, "no such directory"),
    ],
)
def test_what_cannot_be_done_is_refused_with_what_can(
    work: Work, manifest: Manifest, config: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        extract(work, manifest, replace(TINY, **config))  # type: ignore[arg-type]


def test_layer_lists_are_read() -> None:
    assert parse_layers("12,18,24") == (12, 18, 24)
    assert parse_layers("last") == ()
    assert parse_layers("all") == "all"
    assert parse_layers("auto") == Auto(1)
    assert parse_layers("auto:3") == Auto(3)
    with pytest.raises(ValueError, match="whole numbers"):
        parse_layers("12;18")


def test_it_is_said_what_changed_since_other_features_were_made(
    work: Work, manifest: Manifest
) -> None:
    extract(work, manifest, TINY)
    told: list[str] = []
    outcome = extract(work, manifest, replace(TINY, stored_dtype="float32"), tell=told.append)
    assert "  stored dtype: float16 -> float32" in told
    text = report_text(work, manifest, outcome.plan, outcome.report)
    assert "The audio features in the cache were made otherwise" in text
    assert f"Next: python cli.py search --trials 100 --work {work.root}" in text


def test_what_comes_next_names_the_manifest_that_was_extracted(
    work: Work, manifest: Manifest, tmp_path: Path
) -> None:
    other = tmp_path / "other corpus.csv"
    write_manifest(replace(manifest, corpus="other"), other)
    words = ["extract", "--audio-encoder", "tiny", "--text-encoder", "tiny"]
    words += ["--audio-layers", "last", "--text-layers", "last", "--work", str(work.root)]
    named = f"--manifest '{other}' --work {work.root}"
    for trained, step in ((False, "search --trials 100"), (True, "evaluate")):
        if trained:
            work.search.mkdir()
            (work.search / "best.json").touch()
        result = CliRunner().invoke(main, [*words, "--manifest", str(other)])
        assert f"Next: python cli.py {step} {named}" in result.output, result.output
    write_manifest(manifest, work.manifest)
    own = CliRunner().invoke(main, words)
    assert f"Next: python cli.py search --trials 100 --work {work.root}" in own.output


def test_all_layers_are_one_word(work: Work, manifest: Manifest) -> None:
    every = replace(TINY, audio_layers=parse_layers("all"), text_layers=parse_layers("all"))
    found = added(extract(work, manifest, every))
    assert {f"{kind}/layer_{n}" for kind in ("audio", "text") for n in range(4)} <= set(found)
    frames = FrameCache(work).find(manifest, ["audio"], layers={"audio": 2}).load("audio")
    encoder = load_audio_encoder(resolve_encoder("tiny", "audio", work.root))
    with torch.inference_mode():
        alone = encoder([load_audio(manifest.utterances[0].audio)], [2])[2].values
    torch.testing.assert_close(frames.utterance(0).float(), alone, atol=1e-5, rtol=2.0**-9)


def test_planning_imports_no_torch() -> None:
    code = "import sys, cache.extract.extract; sys.exit(bool({'torch', 'zarr'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_record_of_another_format_version_is_kept_and_refused(
    work: Work, manifest: Manifest
) -> None:
    newer = '{"format": "emopool-extraction", "version": 99, "sources": {}}'
    work.extraction.write_text(newer)
    with pytest.raises(FormatVersionError, match="99"):
        extract(work, manifest, TINY)
    assert work.extraction.read_text() == newer
    assert not work.features.exists()


def test_with_nothing_to_do_no_record_is_written(
    work: Work, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract(work, manifest, TINY)

    def refuse(path: Path, data: bytes) -> None:
        raise AssertionError(f"wrote {path}")

    monkeypatch.setattr("corpora.base.files.write_bytes", refuse)
    assert extract(work, manifest, TINY).report is None


def test_a_recording_that_may_not_be_read_is_not_called_missing(
    work: Work, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        FrameCache,
        "keys",
        lambda cache, utterances, describe: {
            u.id: {} if u.id == "u0" else {"text": u.id} for u in utterances
        },
    )
    absent = make_plan(FrameCache(work), manifest, replace(TINY, text_encoder="")).absent
    assert "utterance u0: " in absent["u0"]
    assert "could not be read" in absent["u0"]


def test_the_next_command_quotes_the_work_folder(manifest: Manifest, tmp_path: Path) -> None:
    with pytest.raises(MissingStepError, match=r"--work '.*my work'"):
        assert FrameCache(Work(tmp_path / "my work")).extraction
