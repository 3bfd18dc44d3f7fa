"""The one door through which recordings are opened: all of their sound, or the reason why not.

libsndfile decodes, and containers are unpacked for it (`corpora.containers`). Whether it decodes
all there is, it does not say. So what headers count is compared with what files hold, and a
recording of which a part would be lost is refused by name.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from corpora.base.errors import AudioError
from corpora.base.files import LFS_SENTENCE, is_lfs_pointer
from corpora.coded_frames import flac_frames, flac_streams, id3_bytes, may_be_joined, with_total
from corpora.containers import container_of, cut_short, decoded
from corpora.readers.tree import CONVERT, Spellings
from corpora.whole_file import (
    COUNTED,
    check_counted,
    check_whole,
    counted_samples,
    counting_mpeg,
    joined,
    whole_mpeg,
)

#: Sampling rates taken: telephone speech up to studio masters; others are damaged headers.
LOWEST_RATE, HIGHEST_RATE = 8_000, 192_000
#: Annotated ends run past the file by rounding (two decimals of a second, or a codec's frame).
END_TOLERANCE = 0.05
#: A lossy decoder may lose this much of what is there, in seconds, before it is damage.
LOSSY_TOLERANCE = 0.1
#: Floating-point samples may pass full scale, 1, by a loud mix; not so far (18 dB).
LOUDEST = 8.0
#: Channels cancel where their mean has less than this share of the power that the mean of unrelated
#: channels would have: 20 dB less. Of [x, -0.9 x] it is .006; of two microphones about 1.
CANCELLED = 0.01

# HTK's own count is checked by libsndfile.
_TAKEN = COUNTED | {"FLAC", "OGG", "MP3", "HTK"}
# Their seek is exact to the sample; in other encodings a seek may land on another sample than
# decoding from the start would, or not be possible, so they are decoded whole and cut.
_LOSSY = frozenset({"OGG", "MP3"})
_EXACT = ("PCM_", "FLOAT", "DOUBLE", "ULAW", "ALAW", "ALAC_")
# libsndfile reads these encodings, but cannot tell where it stands in them.
_LOST = "DWVW_"
# libsndfile's sign for "not known" is 2^63 - 1; no recording has as many samples as this.
_UNKNOWN = 1 << 40


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
    except ValueError as error:  # such as a NUL in it
        return f"is no name of a file ({error}). Check the manifest's audio column."
    except OSError as error:
        return f"cannot be opened ({error.strerror}). Check the permissions of its folders."
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "no regular file"
        return f"is {kind}. Check the manifest's audio column."
    if not os.access(path, os.R_OK):
        return "cannot be opened (permission denied). Check its permissions."
    return ""


class SoundFile:
    """An open recording, as `open_sound` gives it.

    Attributes:
        frames: samples a channel.
        rate: Hz.
        channels: how many.
    """

    def __init__(self, file: soundfile.SoundFile, path: Path) -> None:
        self.frames = int(file.frames)
        self.rate = int(file.samplerate)
        self.channels = int(file.channels)
        self._file = file
        self._path = path

    @property
    def seconds(self) -> float:
        """Length."""
        return self.frames / self.rate

    def cut(self, start: float | None = None, end: float | None = None) -> NDArray[np.float32]:
        """Decode a stretch, `[frames, channels]`, full scale ±1.

        Args:
            start: in seconds; None is the start of the file.
            end: in seconds; None is the end of the file. Up to 50 ms past it are rounding.

        Raises:
            AudioError: the stretch does not lie inside the file, or its sound cannot be used:
                damaged, not finite, far beyond full scale, or lost in the mean of the channels.
        """
        self._check_one_stream()
        samples = self._read(*self._bounds(start, end))
        self._check_finite(samples)
        _check_mix(*_powers(samples), self.channels)
        return samples

    def blocks(self, frames: int) -> Iterator[NDArray[np.float32]]:
        """Decode all of a file that was just opened, block by block.

        Args:
            frames: samples a channel of a block; the last one may be shorter, or longer by 100 ms.

        Yields:
            `[frames, channels]`, full scale ±1.

        Raises:
            AudioError: as of `cut`; that channels cancel each other is told behind the last block.
        """
        self._check_one_stream()
        tolerance = 0.0
        if not self._seeks:
            tolerance = LOSSY_TOLERANCE * self.rate
            # soundfile seeks to where it stands after each read, and an MP3's decoder then lacks
            # what the frames before left it.
            self._file.seekable = lambda: False
        held, powers = 0, np.zeros(2)
        while held < self.frames:
            left = self.frames - held
            # A lossy file may end a little before its count, so its last block is no sliver.
            wanted = left if left - frames <= tolerance else frames
            samples = self._decode(wanted, tolerance if wanted == left else 0.0)
            self._check_finite(samples)
            powers += len(samples) * np.array(_powers(samples))
            held += wanted
            yield samples
        whole, mixed = powers.tolist()
        _check_mix(whole, mixed, self.channels)

    def _check_one_stream(self) -> None:
        if self._file.format == "FLAC" and (streams := flac_streams(self._path)) > 1:
            raise AudioError(joined(streams))

    def _check_finite(self, samples: NDArray[np.float32]) -> None:
        """Refuse samples that are no numbers, or far beyond full scale."""
        if not np.isfinite(samples).all():
            bad = int(np.count_nonzero(~np.isfinite(samples)))
            raise AudioError(
                f"{bad} of {samples.size} samples are not finite (NaN or infinite). "
                "Export the recording again."
            )
        if self._file.subtype in ("FLOAT", "DOUBLE"):
            _check_scale(samples)

    def _bounds(self, start: float | None, end: float | None) -> tuple[int, int]:
        """First and one-past-last frame of a stretch."""
        seconds = self.seconds
        first_second = 0.0 if start is None else float(start)
        last_second = seconds if end is None else float(end)
        if first_second >= seconds or last_second > seconds + END_TOLERANCE:
            raise AudioError(
                f"the segment {first_second:g} to {last_second:g} s does not lie inside the "
                f"file, which is {seconds:.3f} s long. Check start and end (in seconds)."
            )
        if first_second < 0 or not last_second > first_second:
            raise AudioError(
                f"the segment {first_second:g} to {last_second:g} s is empty or starts before 0. "
                "Expected 0 ≤ start < end, in seconds."
            )
        first = round(first_second * self.rate)
        last = self.frames if end is None else min(self.frames, round(last_second * self.rate))
        if last <= first:
            raise AudioError(
                f"the segment {first_second:g} to {last_second:g} s holds no sample. "
                "Check start and end (in seconds)."
            )
        return first, last

    def _read(self, first: int, last: int) -> NDArray[np.float32]:
        """`[frames, channels]` from one frame to another."""
        file = self._file
        if not (self._seeks and file.seekable() and file.subtype.startswith(_EXACT)):
            return _some(self._whole[first:last])
        if first:
            file.seek(first)
        return self._decode(last - first, 0)

    @property
    def _seeks(self) -> bool:
        return self._file.format not in _LOSSY

    @cached_property
    def _whole(self) -> NDArray[np.float32]:
        """All of it, kept for the next stretch."""
        tolerance = 0.0 if self._seeks else LOSSY_TOLERANCE * self.rate
        return self._decode(self.frames, tolerance)

    def _decode(self, frames: int, tolerance: float) -> NDArray[np.float32]:
        """The next frames, of which no more than `tolerance` may be missing."""
        try:
            samples: NDArray[np.float32] = self._file.read(frames, dtype="float32", always_2d=True)
        except soundfile.SoundFileError as error:
            raise AudioError(
                f"is damaged: decoding stopped ({_cause(error)}). Copy it again."
            ) from error
        except MemoryError as error:
            raise AudioError(
                f"is {self.seconds:,.0f} s long by its header, more than memory holds. "
                "Cut it into shorter files."
            ) from error
        if frames - len(samples) > tolerance:
            raise AudioError(
                f"is damaged: {len(samples)} of {frames} samples could be decoded. Copy it again."
            )
        return _some(samples)


@contextmanager
def open_sound(path: Path) -> Iterator[SoundFile]:
    """Open a recording that has samples, all of them, and a credible rate.

    Raises:
        AudioError: it is missing, empty, no audio, cut short, or of a format in which a part of it
            would be lost. The message does not name the file.
    """
    if reason := unopenable(path):
        raise AudioError(reason)
    with ExitStack() as open_files:
        try:
            file = _open(path, open_files)
        except OSError as error:
            raise AudioError(f"cannot be read ({error.strerror}). Check its disk.") from error
        except soundfile.SoundFileError as error:
            raise _no_audio(path, error) from error
        yield SoundFile(file, path)


def _open(path: Path, open_files: ExitStack) -> soundfile.SoundFile:
    raw = open_files.enter_context(path.open("rb", buffering=0))
    if os.fstat(raw.fileno()).st_size == 0:
        raise AudioError("the file is empty (0 bytes). Copy it again.")
    if kind := container_of(path):
        sound = open_files.enter_context(decoded(path, kind))
        return _credible(open_files.enter_context(soundfile.SoundFile(sound)))
    start = _behind_tags(path)
    content = whole_mpeg(path, start) or _whole_flac(path, start)
    # By its descriptor: of a name soundfile takes the end for a format (.raw), and refuses.
    source = raw.fileno() if content is None else io.BytesIO(content)
    file = open_files.enter_context(soundfile.SoundFile(source, closefd=False))
    if file.format not in _TAKEN or file.subtype.startswith(_LOST):
        raise AudioError(
            f"is {file.format_info} with {file.subtype_info}: a part of such a file cannot be told "
            f"from a whole one. {CONVERT}"
        )
    check_whole(file, path, start)
    if file.subtype.startswith("MPEG") and file.format != "MP3":
        data = counted_samples(path, start)  # an MP3 in a WAV: the frames alone tell how long it is
        counting = io.BytesIO(counting_mpeg(data) or data)
        file = open_files.enter_context(soundfile.SoundFile(counting))
    if file.frames <= 0:
        raise AudioError("holds no samples. Copy or export it again.")
    if file.frames >= _UNKNOWN:
        raise AudioError(f"does not say how long it is. {CONVERT}")
    return _credible(file)


def _credible(file: soundfile.SoundFile) -> soundfile.SoundFile:
    if not LOWEST_RATE <= file.samplerate <= HIGHEST_RATE:
        raise AudioError(
            f"sampled at {file.samplerate} Hz; expected {LOWEST_RATE} to {HIGHEST_RATE} Hz. "
            "Resample the file."
        )
    return file


def _no_audio(path: Path, error: soundfile.SoundFileError) -> AudioError:
    """Why libsndfile refuses a file, as far as that is known better than by itself."""
    if is_lfs_pointer(path):
        return AudioError(LFS_SENTENCE)
    try:
        check_counted(path, _behind_tags(path))
    except AudioError as better:
        return better
    return AudioError(
        f"cannot be read as audio ({_cause(error)}). "
        "Expected WAV, FLAC, OGG or MP3; copy or convert the file again."
    )


def _cause(error: soundfile.SoundFileError) -> str:
    """The library's reason, without its own words on the file."""
    return str(getattr(error, "error_string", error)).rstrip(". ")


def _behind_tags(path: Path) -> int:
    """Where a file's own format begins, behind the ID3v2 tags in front of it."""
    at = 0
    with path.open("rb") as file:
        while size := id3_bytes(file.read(10)):
            at += size
            file.seek(at)
    return at


def _whole_flac(path: Path, start: int) -> bytes | None:
    """Other bytes to be decoded for a FLAC file whose header counts no or too few samples."""
    found = flac_frames(path, start)
    if found is None or not found.rate:
        return None
    if found.held == found.counted and not may_be_joined(path, start):
        return None
    if (streams := flac_streams(path)) > 1:
        raise AudioError(joined(streams))
    if found.held == found.counted:
        return None
    if found.held is None:
        if found.counted:  # behind the last frame may stand what is no sound
            with soundfile.SoundFile(io.BytesIO(path.read_bytes())) as file:
                SoundFile(file, path).cut()
            return None
        raise AudioError("is cut short: it ends within a frame. Copy it again.")
    if found.held < found.counted:
        raise cut_short(found.counted / found.rate, found.held / found.rate)
    return with_total(path.read_bytes(), found.held, start)


def _some(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    if not len(samples):
        raise AudioError("is damaged: no sample could be decoded. Copy it again.")
    return samples


def _check_scale(samples: NDArray[np.float32]) -> None:
    """Refuse whole numbers that were written as floating point."""
    peak = float(np.abs(samples).max())
    if peak > LOUDEST or (peak >= 2 and not (samples % 1).any()):
        raise AudioError(
            f"its samples reach {peak:,.1f}, and full scale is 1: whole numbers written as "
            "floating point. Divide them by 32768, or write them as 16 bit."
        )


def _powers(samples: NDArray[np.float32]) -> tuple[float, float]:
    """The power of all channels, and that of their mean on the same scale."""
    channels = samples.shape[1]
    whole = float(samples.var(axis=0, dtype=np.float64).sum())
    mixed = float(samples.mean(axis=1).var(dtype=np.float64)) * channels**2
    return (whole, mixed) if channels > 1 else (0.0, 0.0)


def _check_mix(whole: float, mixed: float, channels: int) -> None:
    """Refuse channels whose mean has lost the sound that each of them holds."""
    if mixed < CANCELLED * whole:
        raise AudioError(
            f"its {channels} channels cancel each other: their mean, which is what an encoder "
            "hears, is nearly silent. One of them is inverted; keep one channel "
            "(sox IN OUT.wav remix 1)."
        )
