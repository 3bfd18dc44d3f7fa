from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from cache.audio import BLOCK_SECONDS, audio_seconds, decoder_fields, load_audio, stream_audio
from corpora.base.errors import AudioError
from corpora.sound_file import unopenable


def tone(seconds: float, rate: int, frequency: float = 440.0) -> NDArray[np.float64]:
    """A tone whose level rises along the way, so that every stretch differs."""
    time = np.arange(round(seconds * rate)) / rate
    level: NDArray[np.float64] = (0.1 + 0.1 * time) * np.sin(2 * np.pi * frequency * time)
    return level


def write(path: Path, samples: NDArray[np.float64], rate: int, **options: str) -> Path:
    soundfile.write(path, samples, rate, **options)
    return path


def test_16_khz_wav_comes_back_sample_by_sample(tmp_path: Path) -> None:
    samples = np.round(tone(0.5, 16000) * 32768) / 32768
    found = load_audio(write(tmp_path / "a.wav", samples, 16000))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, samples.astype(np.float32))


def test_stereo_becomes_the_mean_of_its_channels(tmp_path: Path) -> None:
    left, right = tone(0.3, 16000), tone(0.3, 16000, 700.0)
    path = write(tmp_path / "a.wav", np.stack([left, right], 1), 16000, subtype="FLOAT")
    np.testing.assert_allclose(load_audio(path), (left + right) / 2, atol=1e-6)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 32000, 44100, 48000, 96000])
def test_other_rates_become_16_khz(tmp_path: Path, rate: int) -> None:
    found = load_audio(write(tmp_path / "a.wav", tone(1.0, rate), rate, subtype="FLOAT"))
    assert abs(found.size - 16000) <= 1
    inner = slice(1000, 15000)
    np.testing.assert_allclose(found[inner], tone(1.0, 16000)[inner], atol=2e-4)


@pytest.mark.parametrize(("suffix", "tolerance"), [("flac", 1e-4), ("ogg", 0.02), ("mp3", 0.02)])
def test_compressed_formats_are_read(tmp_path: Path, suffix: str, tolerance: float) -> None:
    found = load_audio(write(tmp_path / f"a.{suffix}", tone(1.0, 16000), 16000))
    assert abs(found.size - 16000) <= 1
    error = found[1000:15000] - tone(1.0, 16000)[1000:15000]
    assert np.sqrt(np.mean(error**2)) < tolerance


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_a_segment_is_that_stretch_of_the_whole_file(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a.{suffix}", tone(2.0, 16000), 16000)
    whole = load_audio(path)
    np.testing.assert_array_equal(load_audio(path, 0.7, 1.5), whole[11200:24000])


def test_a_segment_is_cut_before_resampling(tmp_path: Path) -> None:
    samples = tone(1.0, 8000)
    path = write(tmp_path / "a.wav", samples, 8000, subtype="DOUBLE")
    part = write(tmp_path / "b.wav", samples[2000:6000], 8000, subtype="DOUBLE")
    np.testing.assert_array_equal(load_audio(path, 0.25, 0.75), load_audio(part))


def test_an_end_just_past_the_file_is_rounding(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone(1.0, 16000), 16000)
    assert load_audio(path, 0.5, 1.04).size == 8000


def test_seconds_come_from_the_header(tmp_path: Path) -> None:
    assert audio_seconds(write(tmp_path / "a.flac", tone(1.5, 44100), 44100)) == 1.5


def test_the_message_names_where_the_file_is_used(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"manifest line 7, utterance x: .*gone\.wav"):
        load_audio(tmp_path / "gone.wav", where="manifest line 7, utterance x")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="no such file"):
        audio_seconds(tmp_path / "gone.wav")


def test_a_missing_recording_names_the_file_that_is_spelled_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "Zoé.WAV"
    path.write_bytes(b"")
    apart = tmp_path / unicodedata.normalize("NFD", "zoé.wav")
    assert unopenable(apart) == (
        f"no such file; in upper case or Unicode form alone differs {path}."
    )


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="is a folder"):
        load_audio(tmp_path)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    with pytest.raises(AudioError, match="0 bytes"):
        load_audio(tmp_path / "a.wav")


def test_a_file_without_samples_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="no samples"):
        load_audio(write(tmp_path / "a.wav", np.zeros(0), 16000))


def test_a_corrupt_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"RIFF and then nothing that makes sense" * 10)
    with pytest.raises(AudioError, match="cannot be read as audio"):
        load_audio(tmp_path / "a.wav")


def test_a_torn_file_is_refused(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 32000)
    path = write(tmp_path / "a.flac", noise, 16000)
    path.write_bytes(path.read_bytes()[:20000])
    with pytest.raises(AudioError, match="is damaged"):
        load_audio(path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    samples = tone(0.2, 16000)
    samples[100:103] = value
    path = write(tmp_path / "a.wav", samples, 16000, subtype="FLOAT")
    with pytest.raises(AudioError, match=r"3 of 3200 samples are not finite"):
        load_audio(path)


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        (1.0, None, "does not lie inside"),
        (2.0, 3.0, "does not lie inside"),
        (0.2, 1.2, "does not lie inside"),
        (0.5, 0.5, "is empty"),
        (0.5, 0.2, "is empty or starts before"),
        (-0.1, 0.5, "is empty or starts before"),
        (0.5, 0.500001, "holds no sample"),
    ],
)
def test_a_segment_outside_the_file_is_refused(
    tmp_path: Path, start: float, end: float | None, message: str
) -> None:
    path = write(tmp_path / "a.wav", tone(1.0, 16000), 16000)
    with pytest.raises(AudioError, match=message):
        load_audio(path, start, end)


def test_less_than_one_encoder_frame_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone(0.03, 16000), 16000)
    assert load_audio(path).size == 480
    with pytest.raises(AudioError, match=r"0\.030 s of audio; .* needs 0\.035 s"):
        load_audio(path, minimum_samples=560)


def test_an_incredible_rate_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="sampled at 4000 Hz"):
        load_audio(write(tmp_path / "a.wav", tone(1.0, 4000), 4000))


def test_decoder_fields_name_the_libraries_and_the_resampler() -> None:
    fields = decoder_fields()
    assert {"soundfile", "libsndfile", "soxr", "resampler", "channels"} <= set(fields)


def test_paths_may_be_text(tmp_path: Path) -> None:
    path = str(write(tmp_path / "a.wav", tone(0.5, 16000), 16000))
    assert load_audio(path).size == 8000
    assert audio_seconds(path) == 0.5


def test_a_file_that_may_not_be_read_is_not_called_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.wav", tone(0.5, 16000), 16000)
    monkeypatch.setattr("corpora.sound_file.os.access", lambda path, mode: False)
    with pytest.raises(AudioError, match="cannot be opened"):
        load_audio(path)


@pytest.mark.parametrize("suffix", ["wav", "mp3"])
def test_a_file_cut_in_half_is_refused(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a.{suffix}", tone(2.0, 16000), 16000)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(
        AudioError, match=r"cut short: header says 2\.000 s, the file holds (0|1)\."
    ):
        load_audio(path)


@pytest.mark.parametrize("form", ["WAVEX", "RF64"])
def test_wav_with_a_longer_header_cut_in_half_is_refused(tmp_path: Path, form: str) -> None:
    path = write(tmp_path / "a.wav", tone(2.0, 16000), 16000, format=form)
    assert audio_seconds(path) == 2.0
    path.write_bytes(path.read_bytes()[:32000])
    with pytest.raises(AudioError, match=r"cut short: header says 2\.000 s"):
        audio_seconds(path)


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFF000])
def test_a_wav_whose_writer_left_the_size_open_is_read(tmp_path: Path, size: int) -> None:
    path = write(tmp_path / "a.wav", tone(0.5, 16000), 16000)
    content = bytearray(path.read_bytes())
    at = content.index(b"data") + 4
    content[at : at + 4] = size.to_bytes(4, "little")
    path.write_bytes(content)
    assert load_audio(path).size == 8000


def test_a_missing_byte_of_padding_is_no_damage(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone(0.5, 8000)[:3999], 8000, subtype="PCM_U8")
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"data") + 8 + 3999])
    assert audio_seconds(path) == 3999 / 8000


@pytest.mark.parametrize("rate", [8000, 44100])
@pytest.mark.parametrize("seconds", [0.3, 5.0])
def test_whole_mp3_files_are_not_called_cut(tmp_path: Path, rate: int, seconds: float) -> None:
    path = write(tmp_path / "a.mp3", tone(seconds, rate), rate)
    assert abs(load_audio(path).size - round(seconds * 16000)) <= 1


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_blocks_of_a_stream_are_the_recording(tmp_path: Path, suffix: str, rate: int) -> None:
    both = np.stack([tone(2.5 * BLOCK_SECONDS, rate), tone(2.5 * BLOCK_SECONDS, rate, 700)], 1)
    path = write(tmp_path / f"a.{suffix}", 0.2 * both, rate)
    blocks = list(stream_audio(path))
    assert max(map(len, blocks)) <= 1.02 * BLOCK_SECONDS * 16000
    # The resampler goes through block borders as if there were none.
    np.testing.assert_allclose(np.concatenate(blocks), load_audio(path), atol=1e-6)


def test_a_stream_refuses_what_the_whole_file_is_refused_for(tmp_path: Path) -> None:
    left = tone(1.2 * BLOCK_SECONDS, 16000)
    path = write(tmp_path / "a.wav", 0.1 * np.stack([left, -left], 1), 16000)
    with pytest.raises(AudioError, match=r"a\.wav: its 2 channels cancel each other"):
        list(stream_audio(path))
    left[-5] = np.nan
    path = write(tmp_path / "b.wav", 0.1 * left, 16000, subtype="FLOAT")
    with pytest.raises(AudioError, match=r"1 of .* samples are not finite"):
        list(stream_audio(path))


def test_channels_that_cancel_for_a_while_alone_are_taken(tmp_path: Path) -> None:
    left = tone(2 * BLOCK_SECONDS, 16000)
    right = np.where(np.arange(len(left)) < BLOCK_SECONDS * 16000, -left, left)
    path = write(tmp_path / "a.wav", 0.1 * np.stack([left, right], 1), 16000)
    np.testing.assert_allclose(np.concatenate(list(stream_audio(path))), load_audio(path))
