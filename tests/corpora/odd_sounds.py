"""Odd audio files, made on the spot: what is in each, or why it is refused."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from functools import cache

import numpy as np
import soundfile
from numpy.typing import NDArray

RATE, SECONDS = 16_000, 3.0
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize 96044\n" % (b"0" * 64)
ID3V2 = b"ID3\x03\0\0\0\0\x02\0" + bytes(256)
ID3V1 = b"TAG" + bytes(125)


@dataclass(frozen=True)
class Odd:
    """An audio file.

    Attributes:
        name: of the case.
        content: of the file.
        seconds: of sound in it; None where it is refused.
        why: words of the refusal.
        heard: whether only decoding tells.
        within: seconds by which a lossy length may differ.
    """

    name: str
    content: bytes
    seconds: float | None = None
    why: str = ""
    heard: bool = False
    within: float = 0.0


@cache
def noise(seconds: float = SECONDS, rate: int = RATE) -> NDArray[np.float32]:
    """Loud to the end, so that no part of it is like silence."""
    generator = np.random.default_rng(7)
    time = np.arange(round(seconds * rate)) / rate
    # The first half is simple, the second is not: a variable bit rate varies.
    simple = 0.3 * np.sin(2 * np.pi * 300 * time)
    rough = 0.3 * generator.uniform(-1, 1, len(time))
    return np.where(time < seconds / 2, simple, rough).astype(np.float32)


def encode(
    form: str,
    subtype: str,
    samples: NDArray[np.float32] | None = None,
    rate: int = RATE,
    **options: object,
) -> bytes:
    """What libsndfile writes."""
    buffer = io.BytesIO()
    samples = noise() if samples is None else samples
    soundfile.write(buffer, samples, rate, format=form, subtype=subtype, **options)
    return buffer.getvalue()


def mp3(
    mode: str = "VARIABLE", samples: NDArray[np.float32] | None = None, rate: int = RATE
) -> bytes:
    """An MP3 that counts its frames."""
    return encode("MP3", "MPEG_LAYER_III", samples, rate, bitrate_mode=mode, compression_level=0.5)


def without_count(data: bytes) -> bytes:
    """An MP3 without its first frame, which counts the others."""
    mpeg1, low = data[1] & 8, data[2]
    rates = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
    halves = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
    bits = 1000 * (rates if mpeg1 else halves)[(low >> 4) - 1]
    hertz = (44_100, 48_000, 32_000)[low >> 2 & 3] // (1 if mpeg1 else 2)
    return data[(144 if mpeg1 else 72) * bits // hertz + (low >> 1 & 1) :]


def with_flac_total(data: bytes, total: int) -> bytes:
    """A FLAC whose header counts another number of samples."""
    high = data[21] & 0xF0 | total >> 32
    return data[:21] + bytes([high]) + (total & 0xFFFFFFFF).to_bytes(4, "big") + data[26:]


def with_wav_size(size: int) -> bytes:
    """A WAV whose chunk of samples counts another number of bytes."""
    data = encode("WAV", "PCM_16")
    at = data.index(b"data") + 4
    return data[:at] + size.to_bytes(4, "little") + data[at + 4 :]


def ogg_pages(data: bytes) -> list[int]:
    """Where the pages of an Ogg file begin."""
    starts, at = [], 0
    while at < len(data):
        starts.append(at)
        count = data[at + 26]
        at += 27 + count + sum(data[at + 27 : at + 27 + count])
    return starts


def mp3_in_wav(frames: bytes) -> bytes:
    """A WAV of format tag 0x55."""
    form = struct.pack("<HHIIHHHHIHHH", 0x55, 1, RATE, 8000, 1, 0, 12, 1, 2, 288, 1, 0)
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form
    body += b"fact" + struct.pack("<II", 4, round(SECONDS * RATE))
    body += b"data" + struct.pack("<I", len(frames)) + frames + bytes(len(frames) % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def flipped(data: bytes, at: int) -> bytes:
    """One byte changed."""
    return data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]


def odd_sounds() -> list[Odd]:
    """All of them."""
    return [*_containers(), *_mpeg(), *_flac(), *_ogg(), *_counts(), *_samples(), *_no_sound()]


def _containers() -> list[Odd]:
    """Whole, half, and joined, in all that libsndfile writes and Emopool takes."""
    plain = (
        ("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "ULAW"), ("WAVEX", "PCM_16"),
        ("RF64", "PCM_16"), ("W64", "PCM_16"), ("W64", "FLOAT"), ("AIFF", "PCM_16"),
        ("AIFF", "ALAW"), ("AU", "PCM_16"), ("AU", "ULAW"), ("NIST", "PCM_16"), ("NIST", "ULAW"),
        ("VOC", "PCM_16"), ("SVX", "PCM_16"), ("CAF", "PCM_16"), ("CAF", "ALAC_16"),
    )  # fmt: skip
    found = []
    for form, subtype in plain:
        data = encode(form, subtype)
        name = f"{form} {subtype}"
        found += [
            Odd(name, data, SECONDS),
            Odd(f"half {name}", data[: len(data) // 2], why="is cut short"),
        ]
    for form in ("WAV", "AIFF", "AU", "NIST", "CAF", "W64"):
        data = encode(form, "PCM_16")
        found.append(Odd(f"joined {form}", data + data, why="behind the samples that its header"))
    # Blocks are filled up, so these may be a little longer than what was written.
    for form, subtype in (
        ("WAV", "GSM610"), ("WAV", "G721_32"), ("AU", "G721_32"), ("AU", "G723_24"),
        ("AU", "G723_40"), ("WAV", "NMS_ADPCM_16"), ("WAV", "NMS_ADPCM_24"),
        ("WAV", "NMS_ADPCM_32"), ("WAV", "IMA_ADPCM"), ("WAV", "MS_ADPCM"), ("W64", "GSM610"),
        ("AIFF", "IMA_ADPCM"), ("AIFF", "GSM610"),
    ):  # fmt: skip
        data = encode(form, subtype, rate=8000)
        found += [
            Odd(f"{form} {subtype}", data, 2 * SECONDS, within=0.15),
            Odd(f"half {form} {subtype}", data[: len(data) // 2], why="is cut short"),
        ]
    for form, subtype in (("IRCAM", "PCM_16"), ("PAF", "PCM_16"), ("PVF", "PCM_16"),
                          ("MAT5", "PCM_16"), ("AVR", "PCM_16"), ("XI", "DPCM_16"),
                          ("AIFF", "DWVW_16")):  # fmt: skip
        why = "cannot be told from a whole one"
        found.append(Odd(f"{form} {subtype}", encode(form, subtype), why=why))
    htk = encode("HTK", "PCM_16")
    found += [Odd("HTK", htk, SECONDS), Odd("half HTK", htk[:9000], why="cannot be read as audio")]
    return found


def _mpeg() -> list[Odd]:
    variable, constant = mp3(), mp3("CONSTANT")
    bare, plain = without_count(variable), without_count(constant)
    stereo = mp3(samples=np.stack([noise(rate=44_100)] * 2, 1), rate=44_100)
    holed = variable[:3000] + variable[3900:]
    ape = b"APETAGEX" + struct.pack("<IIII", 2000, 32, 0, 1 << 31) + bytes(8 + 1968)
    padded, half = 0.09, len(bare) // 2
    return [
        Odd("MP3", variable, SECONDS),
        Odd("MP3 of a constant rate", constant, SECONDS),
        Odd("MP3 of two channels", stereo, SECONDS),
        Odd("MP3 that does not count its frames", bare, SECONDS, within=padded),
        Odd("MP3 of a constant rate without a count", plain, SECONDS, within=2 * padded),
        Odd("stereo MP3 without a count", without_count(stereo), SECONDS, within=padded),
        Odd("two MP3 joined", variable + variable, 2 * SECONDS, within=2 * padded),
        Odd("two MP3 with tags joined", 2 * (ID3V2 + variable + ID3V1), 2 * SECONDS, within=0.18),
        Odd("two MP3 joined without counts", bare + bare, 2 * SECONDS, within=2 * padded),
        Odd("three MP3 joined", 3 * constant, 3 * SECONDS, within=3 * padded),
        Odd("MP3 of different rates joined", variable + stereo, why="changes its sampling rate"),
        Odd("MP3 with tags", ID3V2 + variable + ape + ID3V1, SECONDS),
        Odd("half an MP3", variable[: len(variable) // 2], why="cut short: header says 3.000 s"),
        Odd("half an MP3 without a count", bare[:half], why="ends within a frame"),
        Odd("most of an MP3", variable[: len(variable) * 9 // 10], why="is cut short"),
        Odd("MP3 with a hole", holed, why="says 3.000 s, the file holds"),
        Odd("MP3 with a text", bare[:3000] + 99 * b"abc" + bare[3000:], why="no frame of MPEG"),
        Odd("MP3 in WAV", mp3_in_wav(variable), SECONDS),
        Odd("MP3 in WAV without a count", mp3_in_wav(bare), SECONDS, within=padded),
        Odd("two MP3 in WAV", mp3_in_wav(variable + variable), 2 * SECONDS, within=2 * padded),
        Odd("half an MP3 in WAV", mp3_in_wav(variable)[:3000], why="is cut short"),
    ]


def _flac() -> list[Odd]:
    whole = encode("FLAC", "PCM_16")
    wide = encode("FLAC", "PCM_24", np.stack([noise(), 0.5 * noise()], 1))
    frames, half = round(SECONDS * RATE), len(whole) // 2
    return [
        Odd("FLAC", whole, SECONDS),
        Odd("FLAC from a pipe", with_flac_total(whole, 0), SECONDS),
        Odd("stereo FLAC from a pipe", with_flac_total(wide, 0), SECONDS),
        Odd("FLAC from a pipe with tags", ID3V2 + with_flac_total(whole, 0) + ID3V1, SECONDS),
        Odd("FLAC that counts half", with_flac_total(whole, frames // 2), SECONDS),
        Odd("FLAC that counts twice", with_flac_total(whole, 2 * frames), why="says 6.000 s"),
        Odd("FLAC that counts most", with_flac_total(whole, (1 << 36) - 1), why="is cut short"),
        Odd("half a FLAC", whole[:half], why="is damaged: decoding stopped"),
        Odd("half a FLAC from a pipe", with_flac_total(whole, 0)[:half], why="within a frame"),
        Odd("two FLAC joined", whole + whole, why="holds 2 recordings"),
        Odd("two long FLAC joined", 2 * encode("FLAC", "PCM_24", noise(40.0)), why="holds 2"),
        Odd("a long FLAC", encode("FLAC", "PCM_24", noise(40.0)), 40.0),
        Odd("FLAC and a longer one", whole + encode("FLAC", "PCM_16", noise(5.0)), why="holds 2"),
        Odd("FLAC with a flipped bit", flipped(whole, half), why="is damaged", heard=True),
        Odd("FLAC with a text behind", whole + b"the end\n", SECONDS),
    ]


def _ogg() -> list[Odd]:
    found = []
    for subtype in ("VORBIS", "OPUS"):
        whole = encode("OGG", subtype, noise(6.0))
        starts = ogg_pages(whole)
        middle = starts[len(starts) // 2]
        found += [
            Odd(f"Ogg {subtype}", whole, 6.0),
            Odd(f"{subtype} without its last page", whole[: starts[-1]], why="not marked as the"),
            Odd(f"{subtype} cut at a page", whole[:middle], why="is cut short"),
            Odd(f"half {subtype}", whole[: len(whole) // 2], why="ends within a page"),
            Odd(f"{subtype} less a byte", whole[:-1], why="ends within a page"),
            Odd(f"two {subtype} joined", whole + whole, why="holds 2 recordings"),
            Odd(f"{subtype} flipped", flipped(whole, middle + 200), why="is damaged: at byte"),
            Odd(
                f"{subtype} without a page",
                whole[:middle] + whole[starts[len(starts) // 2 + 1] :],
                why="or not the next one",
            ),
            Odd(f"{subtype} with a text", whole[:middle] + b"abc" + whole[middle:], why="no whole"),
            Odd(f"{subtype} flipped at its end", flipped(whole, len(whole) - 9), why="is damaged"),
            Odd(f"{subtype} padded", whole + bytes(2048), 6.0),
        ]
    return found


def _counts() -> list[Odd]:
    size = 2 * round(SECONDS * RATE)
    wav, sphere = encode("WAV", "PCM_16"), encode("NIST", "PCM_16")
    uncounted = sphere.replace(b"sample_count", b"sample_cnt__")
    tail = b"LIST" + struct.pack("<I", 3000) + b"INFO" + bytes(2996)
    au = encode("AU", "PCM_16")
    return [
        Odd("WAV that counts nothing", with_wav_size(0), why="96,000 bytes behind the samples"),
        Odd("WAV that counts half", with_wav_size(size // 2), why="48,000 bytes behind"),
        Odd("WAV that counts twice", with_wav_size(2 * size), why="header says 6.000 s"),
        Odd("WAV from ffmpeg's pipe", with_wav_size(0xFFFFFFFF), SECONDS),
        Odd("WAV from SoX's pipe", with_wav_size(0x7FFFF000), SECONDS),
        Odd("WAV with a chunk behind", wav + tail, SECONDS),
        Odd("WAV with a tag in front", ID3V2 + wav, SECONDS),
        Odd("WAV filled up with zeros", wav + bytes(4096), SECONDS),
        Odd("AU from a pipe", au[:8] + b"\xff\xff\xff\xff" + au[12:], SECONDS),
        Odd("SPHERE less a second", sphere[: -2 * RATE], why="says 3.000 s, the file holds 2.000"),
        Odd(
            "SPHERE without a count",
            uncounted,
            why="does not count its samples",
        ),
    ]


def _samples() -> list[Odd]:
    one = noise()
    holed = one.copy()
    holed[100:103] = np.nan
    return [
        Odd(
            "channels that cancel",
            encode("WAV", "FLOAT", np.stack([one, -one], 1)),
            why="2 channels cancel each other",
            heard=True,
        ),
        Odd(
            "channels that nearly cancel",
            encode("FLAC", "PCM_16", np.stack([one, -0.9 * one], 1)),
            why="cancel each other",
            heard=True,
        ),
        Odd("one channel silent", encode("WAV", "PCM_16", np.stack([one, 0 * one], 1)), SECONDS),
        Odd("two channels", encode("WAV", "PCM_16", np.stack([one, one[::-1]], 1)), SECONDS),
        Odd("silence in stereo", encode("WAV", "PCM_16", np.zeros((48_000, 2), "f4")), SECONDS),
        Odd(
            "whole numbers as floats",
            encode("WAV", "FLOAT", np.round(one * 32768)),
            why="its samples reach",
            heard=True,
        ),
        Odd(
            "quiet whole numbers as floats",
            encode("WAV", "FLOAT", np.round(one * 10)),
            why="its samples reach 3.0, and full scale is 1",
            heard=True,
        ),
        Odd("floats a little too loud", encode("WAV", "FLOAT", 5 * one), SECONDS),
        Odd("not a number", encode("WAV", "FLOAT", holed), why="3 of 48000 samples", heard=True),
        Odd("a low rate", encode("WAV", "PCM_16", rate=4000), why="sampled at 4000 Hz"),
        Odd("no samples", encode("WAV", "PCM_16", np.zeros(0, "f4")), why="holds no samples"),
    ]


def _no_sound() -> list[Odd]:
    refused = "cannot be read as audio"
    return [
        Odd("empty", b"", why="the file is empty"),
        Odd("text", b"no sound at all\n" * 50, why=refused),
        Odd("a web page", b"<!DOCTYPE html><html><body>404</body></html>", why=refused),
        Odd("a pointer", POINTER, why="Git LFS pointer, .* `git lfs pull`"),
        Odd("zeros", bytes(5000), why=refused),
        Odd("RIFF and no more", b"RIFF", why=refused),
        Odd("a header of WAV", encode("WAV", "PCM_16")[:30], why=refused),
        Odd("a header of FLAC", encode("FLAC", "PCM_16")[:30], why=refused),
        Odd("a header of MP3", b"\xff\xfb\x90\x00", why="no whole frame"),
        Odd("a header of Ogg", b"OggS", why=refused),
        Odd("AAC", b"\xff\xf1\x50\x80\x02\x1f\xfc" + bytes(300), why="is AAC|no samples"),
        Odd("MP4", b"\0\0\0\x20ftypM4A " + bytes(300), why="is MP4"),
    ]
