"""All of the sound, or the reason why not: the same wherever a recording is opened."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cache.audio import audio_seconds, load_audio
from cache.upkeep.check_corpus import listen
from cli import main
from corpora.base.errors import AudioError
from corpora.recordings import read_header
from corpora.sound_file import open_sound
from corpora.utterance import Utterance
from tests.corpora.odd_sounds import (
    RATE,
    SECONDS,
    Odd,
    encode,
    mp3,
    noise,
    odd_sounds,
    with_flac_total,
    without_count,
)

ODD = odd_sounds()


def listened(path: Path) -> str:
    utterance = Utterance(id="u", audio=path, label="a")
    return listen([utterance])["u"].problem


@pytest.mark.parametrize("odd", ODD, ids=[odd.name for odd in ODD])
def test_every_odd_file_is_all_there_or_refused_alike(tmp_path: Path, odd: Odd) -> None:
    path = tmp_path / "a.sound"
    path.write_bytes(odd.content)
    header = read_header(path)
    if odd.seconds is not None:
        assert header.problem == ""
        assert header.seconds == pytest.approx(odd.seconds, abs=odd.within + 1e-3)
        assert audio_seconds(path) == header.seconds
        heard = load_audio(path).size / RATE
        assert heard == pytest.approx(odd.seconds, abs=odd.within + 1e-3)
        assert listened(path) == ""
        return
    with pytest.raises(AudioError, match=odd.why) as refused:
        load_audio(path)
    reason = str(refused.value).removeprefix(f"{path}: ")
    assert listened(path) == reason
    assert header.problem == ("" if odd.heard else reason)


@pytest.mark.parametrize(
    ("form", "subtype"),
    [
        ("WAV", "GSM610"),
        ("WAV", "G721_32"),
        ("AU", "G723_40"),
        ("WAV", "NMS_ADPCM_32"),
        ("WAV", "IMA_ADPCM"),
        ("W64", "MS_ADPCM"),
        ("AIFF", "GSM610"),
        ("CAF", "ALAC_16"),
        ("OGG", "OPUS"),
        ("MP3", "MPEG_LAYER_III"),
    ],
)
def test_a_segment_is_that_stretch_where_seeking_is_not_possible(
    tmp_path: Path, form: str, subtype: str
) -> None:
    path = tmp_path / "a"
    path.write_bytes(encode(form, subtype))
    np.testing.assert_array_equal(load_audio(path, 1.0, 2.0), load_audio(path)[16000:32000])


def test_a_piped_flac_is_read_as_if_it_had_counted(tmp_path: Path) -> None:
    whole, piped = tmp_path / "a.flac", tmp_path / "b.flac"
    whole.write_bytes(encode("FLAC", "PCM_16"))
    piped.write_bytes(with_flac_total(whole.read_bytes(), 0))
    np.testing.assert_array_equal(load_audio(piped), load_audio(whole))
    np.testing.assert_array_equal(load_audio(piped, 1.0, 1.5), load_audio(whole)[16000:24000])


def test_an_mp3_without_a_count_sounds_as_with_it(tmp_path: Path) -> None:
    counted, bare = tmp_path / "a.mp3", tmp_path / "b.mp3"
    counted.write_bytes(mp3())
    bare.write_bytes(without_count(mp3()))
    delay = 576  # samples that the count's own notes take off at the start
    heard = load_audio(bare)[delay:]
    np.testing.assert_allclose(heard[:47_000], load_audio(counted)[:47_000], atol=1e-5)


def test_two_joined_mp3_sound_one_after_the_other(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    path.write_bytes(2 * mp3())
    heard, length = load_audio(path), round(SECONDS * RATE)
    for begin in (576, heard.size - length - 1000):
        # The second one somewhere behind the first: where the sounds are most alike.
        window = heard[begin : begin + length + 1000]
        assert np.correlate(window, noise()[: length - 4000], "valid").max() > 0.9 * float(
            np.sum(noise()[: length - 4000] ** 2)
        )


def test_the_name_of_a_file_does_not_decide_its_format(tmp_path: Path) -> None:
    path = tmp_path / "a.raw"  # soundfile would want a rate for it
    path.write_bytes(encode("WAV", "PCM_16"))
    assert audio_seconds(path) == SECONDS


def test_a_name_with_a_nul_is_no_file() -> None:
    with pytest.raises(AudioError, match="is no name of a file"):
        audio_seconds("a\0b.wav")


SOURCES = {
    "wav": encode("WAV", "PCM_16", noise(0.3)),
    "flac": encode("FLAC", "PCM_16", noise(0.3)),
    "mp3": mp3(samples=noise(0.3)),
    "ogg": encode("OGG", "VORBIS", noise(0.3)),
    "opus": encode("OGG", "OPUS", noise(0.3)),
    "aiff": encode("AIFF", "PCM_16", noise(0.3)),
    "au": encode("AU", "G721_32", noise(0.3)),
    "w64": encode("W64", "GSM610", noise(0.3)),
    "caf": encode("CAF", "ALAC_16", noise(0.3)),
    "nist": encode("NIST", "PCM_16", noise(0.3)),
    "voc": encode("VOC", "PCM_16", noise(0.3)),
}


@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    source=st.sampled_from(sorted(SOURCES)),
    keep=st.floats(0, 1),
    flips=st.lists(st.tuples(st.integers(0, 400), st.integers(1, 255)), max_size=4),
    behind=st.binary(max_size=40),
)
def test_whatever_the_bytes_all_of_the_sound_or_one_message(
    tmp_path: Path, source: str, keep: float, flips: list[tuple[int, int]], behind: bytes
) -> None:
    data = bytearray(SOURCES[source])
    for at, change in flips:
        data[at % len(data)] ^= change
    path = tmp_path / "a"
    path.write_bytes(bytes(data[: round(len(data) * keep)]) + behind)
    header = read_header(path)
    try:
        heard = load_audio(path)
    except AudioError:
        return
    assert header.problem == ""
    assert np.isfinite(heard).all()
    assert heard.size / RATE == pytest.approx(header.seconds, abs=0.101)


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(source=st.sampled_from(sorted(SOURCES)), keep=st.floats(0.1, 0.9))
def test_no_file_cut_anywhere_gives_fewer_seconds(tmp_path: Path, source: str, keep: float) -> None:
    data = SOURCES[source]
    path = tmp_path / "a"
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(AudioError):
        load_audio(path)


@given(content=st.binary(max_size=300))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(b"\xff\xfb\x90\x00" * 60)
@example(b"NIST_1A\n   1024\nsample_count -i 99999999999999999999\n")
@example(b"riff" + bytes(12) + b"\xff" * 40)
@example(b"Creative Voice File\x1a" + b"\xff" * 30)
def test_bytes_that_are_no_file_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a"
    path.write_bytes(content)
    with pytest.raises(AudioError):
        load_audio(path)


def test_whole_numbers_are_seen_in_a_quiet_segment_too(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    samples = np.concatenate([np.round(2 * noise(0.5) * 10), 32768 * noise(0.5)])
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    with pytest.raises(AudioError, match="full scale is 1"):
        load_audio(path, 0.0, 0.5)


def test_a_long_file_is_decoded_once_for_all_its_stretches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.mp3"
    path.write_bytes(mp3())
    reads: list[int] = []
    read = soundfile.SoundFile.read

    def counting(self: soundfile.SoundFile, frames: int = -1, **options: Any) -> Any:
        reads.append(frames)
        return read(self, frames, **options)

    monkeypatch.setattr(soundfile.SoundFile, "read", counting)
    with open_sound(path) as file:
        parts = [file.cut(k / 2, (k + 1) / 2) for k in range(6)]
    assert len(reads) == 1
    assert sum(map(len, parts)) == round(SECONDS * RATE)


def test_every_command_says_the_same_of_each_row(tmp_path: Path) -> None:
    rows = ["audio,label,speaker"]
    for number, odd in enumerate(ODD):
        (tmp_path / f"{number}.sound").write_bytes(odd.content)
        rows.append(f"{number}.sound,{'ab'[number % 2]},s{number % 5}")
    (tmp_path / "t.csv").write_text("\n".join(rows) + "\n")
    work = ["--work", str(tmp_path / "work")]
    prepared = CliRunner().invoke(main, ["prepare", "csv", str(tmp_path / "t.csv"), *work])
    assert prepared.exit_code == 0, prepared.output
    checked = CliRunner().invoke(main, ["prepare", "check", "--json", *work])
    assert checked.exit_code == 1
    told = json.loads(checked.stdout)
    refused = {f"{n}.sound" for n, odd in enumerate(ODD) if odd.seconds is None}
    named = {name for text in told["problems"] for name in re.findall(r"\d+\.sound", text)}
    copies = {line for line in told["problems"] if "are the same recording" in line}
    assert not copies
    assert named == refused
    assert told["heard"]["decoded"] == len(ODD) - len(refused)
    hours = sum(odd.seconds or 0.0 for odd in ODD) / 3600
    known = [odd for odd in ODD if odd.seconds is not None or odd.heard]
    assert told["durations"]["all"]["known"] == len(known)
    assert told["durations"]["all"]["hours"] >= hours
