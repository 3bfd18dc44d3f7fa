"""Headers: the quick way agrees with libsndfile, and a file cut short is seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from corpora.counted_bytes import counted_bytes, plain_wav
from corpora.recordings import read_header, read_headers


def write(path: Path, subtype: str = "PCM_16", channels: int = 1, file_format: str = "WAV") -> Path:
    samples = np.linspace(-0.5, 0.5, 800 * channels).reshape(800, channels)
    soundfile.write(path, samples, 8000, subtype=subtype, format=file_format)
    return path


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("channels", [1, 2])
def test_the_quick_way_says_what_libsndfile_says(
    tmp_path: Path, subtype: str, channels: int
) -> None:
    path = write(tmp_path / "a.wav", subtype, channels)
    found = soundfile.info(path)
    assert plain_wav(path) == (found.frames, found.samplerate, found.channels)


@pytest.mark.parametrize(
    ("subtype", "file_format"), [("ULAW", "WAV"), ("PCM_16", "FLAC"), ("PCM_16", "RF64")]
)
def test_what_is_not_plain_is_left_to_libsndfile(
    tmp_path: Path, subtype: str, file_format: str
) -> None:
    path = write(tmp_path / "a.wav", subtype, file_format=file_format)
    assert plain_wav(path) is None
    assert read_header(path).seconds == pytest.approx(0.1)


def test_a_file_cut_short_is_not_plain_and_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav")
    path.write_bytes(path.read_bytes()[:-800])
    assert plain_wav(path) is None
    found = counted_bytes(path)
    assert found is not None
    assert found.missing_share == pytest.approx(0.5)
    header = read_header(path)
    assert header.problem == (
        "is cut short: header says 0.100 s, the file holds 0.050 s. Copy it again."
    )


def test_a_chunk_before_the_samples_is_passed_over(tmp_path: Path) -> None:
    data = write(tmp_path / "a.wav").read_bytes()
    at = data.index(b"data")
    extra = b"LIST" + (5).to_bytes(4, "little") + b"INFOx" + b"\0"
    (tmp_path / "b.wav").write_bytes(data[:at] + extra + data[at:])
    assert plain_wav(tmp_path / "b.wav") == (800, 8000, 1)


@pytest.mark.parametrize(
    ("content", "problem"), [(b"", "the file is empty"), (b"nothing", "cannot be read as audio")]
)
def test_no_audio_at_all_is_told(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "a.wav").write_bytes(content)
    assert problem in read_header(tmp_path / "a.wav").problem


def test_each_recording_is_read_once(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{k}.wav") for k in range(3)]
    assert list(read_headers([*paths, *paths])) == paths
