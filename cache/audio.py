"""Recordings: decode, mix down, cut, resample to 16 kHz.

Whatever decides the samples is named in `decoder_fields`, which goes into every recipe.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from cache.encoders.grid import SAMPLE_RATE
from corpora.errors import AudioError
from corpora.ogg_page import ends_within_a_page
from corpora.tree import Spellings
from corpora.wav_header import RIFF_FORMATS, missing_share

#: soxr's most careful setting: resampling is a small part of an extraction and done once.
RESAMPLER = "VHQ"
#: Sampling rates taken: telephone speech up to studio masters; others are damaged headers.
LOWEST_RATE, HIGHEST_RATE = 8_000, 192_000
#: Annotated ends run past the file by rounding (two decimals of a second, or a codec's frame).
END_TOLERANCE = 0.05
#: A lossy decoder may lose this much of what its header says, in seconds, before it is damage.
LOSSY_TOLERANCE = 0.1

# Formats whose seek is exact to the sample. In the others (MP3, OGG) a seek may land on another
# sample than decoding from the start would, so they are decoded whole and cut.
_EXACT_SEEK = frozenset({"WAV", "WAVEX", "RF64", "W64", "FLAC", "AIFF", "AU", "CAF"})


def decoder_fields() -> dict[str, str]:
    """What decides decoded samples besides the file: libraries, mixing and resampling."""
    return {
        "soundfile": soundfile.__version__,
        "libsndfile": soundfile.__libsndfile_version__,
        "soxr": soxr.__version__,
        "resampler": RESAMPLER,
        "channels": "mean",
        "sample_rate": str(SAMPLE_RATE),
    }


def unopenable(path: Path, spellings: Spellings | None = None) -> str:
    """Why a file cannot be opened, and what to do; "" where it can.

    Args:
        path: the file.
        spellings: the same for many files, so that their folder is listed once.
    """
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        alike = ", ".join(map(str, (spellings or Spellings()).of(path.absolute())))
        if alike:
            return f"no such file; in upper case or Unicode form alone differs {alike}."
        return "no such file. Check the manifest's audio column."
    except OSError as error:
        return f"cannot be opened ({error.strerror}). Check the permissions of its folders."
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "no regular file"
        return f"is {kind}. Check the manifest's audio column."
    if not os.access(path, os.R_OK):
        return "cannot be opened (permission denied). Check its permissions."
    return ""


def audio_seconds(path: str | Path, *, where: str = "") -> float:
    """Length of a recording in seconds, from its header.

    Raises:
        AudioError: the file is missing, empty, unreadable or cut short.
    """
    path = Path(path)
    prefix = _prefix(path, where)
    with _open(path, prefix) as file:
        return float(file.frames / file.samplerate)


def load_audio(
    path: str | Path,
    start: float | None = None,
    end: float | None = None,
    *,
    where: str = "",
    minimum_samples: int = 1,
) -> NDArray[np.float32]:
    """Decode one utterance: the mean of its channels at 16 kHz.

    The segment is cut at the file's own rate, before resampling.

    Args:
        path: WAV, FLAC, OGG, MP3 or any format libsndfile reads, 8 to 192 kHz.
        start: where the segment starts, in seconds; None is the start of the file.
        end: where it ends, in seconds; None is the end of the file. Up to 50 ms past the end
            of the file are taken as rounding.
        where: what the recording belongs to (manifest line, utterance), for messages.
        minimum_samples: the fewest 16 kHz samples that can be used (one encoder frame).

    Returns:
        `[samples]`, full scale ±1.

    Raises:
        AudioError: the file is missing, empty, corrupt, cut short, not finite or too short, or
            the segment does not lie inside it.
    """
    path = Path(path)
    prefix = _prefix(path, where)
    with _open(path, prefix) as file:
        rate = int(file.samplerate)
        first, last = _bounds(file.frames, rate, start, end, prefix)
        samples = _read(file, first, last, prefix)
    if not np.isfinite(samples).all():
        bad = int(np.count_nonzero(~np.isfinite(samples)))
        raise AudioError(
            f"{prefix}{bad} of {samples.size} samples are not finite (NaN or infinite). "
            "Export the recording again."
        )
    mono = samples.mean(axis=1) if samples.shape[1] > 1 else samples[:, 0]
    if rate != SAMPLE_RATE:
        mono = soxr.resample(mono, rate, SAMPLE_RATE, quality=RESAMPLER)
    if mono.size < max(1, minimum_samples):
        raise AudioError(
            f"{prefix}{mono.size / SAMPLE_RATE:.3f} s of audio; the encoder's shortest frame "
            f"needs {minimum_samples / SAMPLE_RATE:.3f} s. Remove the utterance or widen its "
            "segment."
        )
    return np.ascontiguousarray(mono, dtype=np.float32)


def _prefix(path: Path, where: str) -> str:
    return f"{where}: {path}: " if where else f"{path}: "


def _open(path: Path, prefix: str) -> soundfile.SoundFile:
    """Open a recording that has samples and a credible rate."""
    reason = unopenable(path)
    if reason:
        raise AudioError(f"{prefix}{reason}")
    if path.stat().st_size == 0:
        raise AudioError(f"{prefix}the file is empty (0 bytes). Copy it again.")
    try:
        file = soundfile.SoundFile(path)
    except soundfile.LibsndfileError as error:
        raise AudioError(
            f"{prefix}cannot be read as audio ({error.error_string}). "
            "Expected WAV, FLAC, OGG or MP3; copy or convert the file again."
        ) from error
    if file.frames <= 0:
        file.close()
        raise AudioError(f"{prefix}holds no samples. Copy or export it again.")
    if not LOWEST_RATE <= file.samplerate <= HIGHEST_RATE:
        file.close()
        raise AudioError(
            f"{prefix}sampled at {file.samplerate} Hz; expected {LOWEST_RATE} to {HIGHEST_RATE} "
            "Hz. Resample the file."
        )
    missing = missing_share(path) if file.format in RIFF_FORMATS else 0.0
    if missing:
        file.close()
        held = file.frames / file.samplerate
        raise _cut_short(prefix, held / (1 - missing), held)
    if file.format == "OGG" and ends_within_a_page(path):
        held = file.frames / file.samplerate
        file.close()
        raise AudioError(
            f"{prefix}is cut short: it ends within a page, after about {held:.3f} s. Copy it again."
        )
    return file


def _cut_short(prefix: str, said: float, held: float) -> AudioError:
    return AudioError(
        f"{prefix}is cut short: header says {said:.3f} s, the file holds {held:.3f} s. "
        "Copy it again."
    )


def _bounds(
    frames: int, rate: int, start: float | None, end: float | None, prefix: str
) -> tuple[int, int]:
    """First and one-past-last frame of the segment at the file's rate."""
    seconds = frames / rate
    first_second = 0.0 if start is None else float(start)
    last_second = seconds if end is None else float(end)
    if first_second >= seconds or last_second > seconds + END_TOLERANCE:
        raise AudioError(
            f"{prefix}the segment {first_second:g} to {last_second:g} s does not lie inside the "
            f"file, which is {seconds:.3f} s long. Check start and end (in seconds)."
        )
    if first_second < 0 or not last_second > first_second:
        raise AudioError(
            f"{prefix}the segment {first_second:g} to {last_second:g} s is empty or starts before "
            "0. Expected 0 ≤ start < end, in seconds."
        )
    first = round(first_second * rate)
    last = frames if end is None else min(frames, round(last_second * rate))
    if last <= first:
        raise AudioError(
            f"{prefix}the segment {first_second:g} to {last_second:g} s holds no sample. "
            "Check start and end (in seconds)."
        )
    return first, last


def _read(file: soundfile.SoundFile, first: int, last: int, prefix: str) -> NDArray[np.float32]:
    """`[frames, channels]` of the segment."""
    exact = file.format in _EXACT_SEEK
    try:
        if exact and first:
            file.seek(first)
        samples: NDArray[np.float32] = file.read(
            last - first if exact else -1, dtype="float32", always_2d=True
        )
    except soundfile.LibsndfileError as error:
        raise AudioError(
            f"{prefix}is damaged: decoding stopped ({error.error_string}). Copy it again."
        ) from error
    if exact and len(samples) < last - first:
        raise AudioError(
            f"{prefix}is damaged: {len(samples)} of {last - first} samples could be decoded. "
            "Copy it again."
        )
    # A lossy header counts samples only roughly, so these may end a little earlier than it says.
    lost = 0 if exact else file.frames - len(samples)
    if lost > max(0.05 * file.frames, LOSSY_TOLERANCE * file.samplerate):
        raise _cut_short(prefix, file.frames / file.samplerate, len(samples) / file.samplerate)
    cut = samples if exact else samples[first:last]
    if not len(cut):
        raise AudioError(f"{prefix}is damaged: no sample could be decoded. Copy it again.")
    return cut
