"""Sound out of containers: where it was, all of it, or the reason why not."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from cache.audio import load_audio, stream_audio
from cache.upkeep.check_corpus import listen
from corpora import containers
from corpora.base.errors import AudioError, CorpusError
from corpora.readers.registry import read_corpus
from corpora.sound_file import open_sound
from corpora.utterance import Utterance

av: Any = pytest.importorskip("av", reason="the extra `containers` is not installed")

RATE = 44_100
KINDS = {
    ".m4a": ("ipod", "aac"),
    ".mp4": ("mp4", "aac"),
    ".mov": ("mov", "pcm_s16le"),
    ".aac": ("adts", "aac"),
    ".webm": ("webm", "libopus"),
    ".mka": ("matroska", "flac"),
    ".wma": ("asf", "wmav2"),
    ".avi": ("avi", "pcm_s16le"),
}
# What keeps no account of it: samples that FFmpeg's encoder adds in front, or leaves out there.
ADDED = {".aac": 1024, ".wma": -2048}


def speech_like(seconds: float = 2.0) -> NDArray[np.float32]:
    """Noise in bursts, whose place in time is plain."""
    drawn = np.random.default_rng(0)
    time = np.arange(round(seconds * RATE)) / RATE
    tone = np.sin(2 * np.pi * (200 + 300 * time) * time)
    return (0.4 * tone * (np.sin(2 * np.pi * 3 * time) > 0) * drawn.uniform(0.8, 1, 1)).astype("f4")


def packed(kind: str, sound: NDArray[np.float32], *, video: bool = False) -> bytes:
    """A file of this kind, mono."""
    form, codec = KINDS[kind]
    room = io.BytesIO()
    with av.open(room, "w", format=form) as container:
        rate = 48_000 if codec == "libopus" else RATE
        track = container.add_stream(codec, rate=rate, layout="mono", bit_rate=64_000)
        if video:
            pictures = container.add_stream("mpeg4", rate=10)
            pictures.width, pictures.height, pictures.pix_fmt = 32, 32, "yuv420p"
        frame = av.AudioFrame.from_ndarray(sound[None], format="flt", layout="mono")
        frame.sample_rate = RATE
        fifo = av.AudioFifo()
        for part in av.AudioResampler(track.format, "mono", rate).resample(frame):
            part.pts = None
            fifo.write(part)
        size = track.codec_context.frame_size or 1024
        while fifo.samples:
            for packet in track.encode(fifo.read(min(size, fifo.samples))):
                container.mux(packet)
        for packet in track.encode(None):
            container.mux(packet)
        if video:
            picture = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
            for packet in [*pictures.encode(picture), *pictures.encode(None)]:
                container.mux(packet)
    return room.getvalue()


def lag(one: NDArray[np.float32], other: NDArray[np.float32]) -> int:
    """Samples that `other` comes later than `one`."""
    size = len(one) + len(other)
    both = np.fft.irfft(np.conj(np.fft.rfft(one, size)) * np.fft.rfft(other, size), size)
    found = int(np.argmax(both))
    return found if found < size // 2 else found - size


@pytest.mark.parametrize("kind", KINDS)
def test_the_sound_is_where_it_was(tmp_path: Path, kind: str) -> None:
    sound, path = speech_like(), tmp_path / f"a{kind}"
    path.write_bytes(packed(kind, sound))
    with open_sound(path) as file:
        heard = file.cut()[:, 0]
        assert file.channels == 1
    if file.rate != RATE:  # Opus
        soundfile.write(tmp_path / "a.wav", sound, RATE, subtype="FLOAT")
        sound = load_audio(tmp_path / "a.wav")
        heard = load_audio(path)
    shift = lag(sound, heard) - ADDED.get(kind, 0)
    assert abs(shift) <= RATE / 1000, "within a millisecond"
    assert len(heard) >= len(sound) + min(0, ADDED.get(kind, 0)) - RATE / 1000
    assert listen([Utterance(id="u", audio=path, label="a")])["u"].problem == ""
    np.testing.assert_allclose(
        np.concatenate(list(stream_audio(path))), load_audio(path), atol=1e-6
    )


def test_samples_that_nothing_was_lost_of_are_those_that_were_packed(tmp_path: Path) -> None:
    sound, path = speech_like(), tmp_path / "a.mka"
    path.write_bytes(packed(".mka", sound))
    with open_sound(path) as file:
        np.testing.assert_allclose(file.cut()[:, 0], sound, atol=2**-15)


def test_a_video_has_sound_and_pictures_alone_have_none(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(packed(".mp4", speech_like(), video=True))
    assert load_audio(path).size == pytest.approx(32_000, abs=1_000)
    with av.open(str(path), "w") as container:
        pictures = container.add_stream("mpeg4", rate=10)
        pictures.width, pictures.height, pictures.pix_fmt = 32, 32, "yuv420p"
        picture = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
        for packet in [*pictures.encode(picture), *pictures.encode(None)]:
            container.mux(packet)
    with pytest.raises(AudioError, match="MP4 without a sound track"):
        load_audio(path)


@pytest.mark.parametrize("kind", [".mp4", ".mka", ".wma"])
def test_half_a_file_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a{kind}"
    content = packed(kind, speech_like(20.0))
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(AudioError, match=r"cut short: header says 20|cannot be decoded"):
        load_audio(path)


def test_damage_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a.webm"
    path.write_bytes(b"\x1a\x45\xdf\xa3" + bytes(1000))
    with pytest.raises(AudioError, match=r"a\.webm: is WebM or Matroska that cannot be decoded"):
        load_audio(path)


def test_folders_take_them(tmp_path: Path) -> None:
    (tmp_path / "calm").mkdir()
    (tmp_path / "calm" / "a.m4a").write_bytes(packed(".m4a", speech_like(1.0)))
    assert [u.id for u in read_corpus("folders", tmp_path).utterances] == ["a"]


def test_without_the_package_a_sentence_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "calm" / "a.m4a"
    path.parent.mkdir()
    path.write_bytes(packed(".m4a", speech_like(1.0)))
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(AudioError, match=r"MP4, which the package av reads\. Install it \(python"):
        load_audio(path)
    monkeypatch.setattr(containers, "available", lambda: False)
    with pytest.raises(CorpusError, match=r"1 recordings, such as calm/a\.m4a"):
        read_corpus("folders", tmp_path)
