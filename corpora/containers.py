"""Sound out of the containers of phones and video: MP4, M4A, AAC, WebM, Matroska, WMA.

libsndfile does not read them; PyAV does, which carries the libraries of FFmpeg (an extra). What an
encoder added before the sound is cut off as FFmpeg does it: by the container's own account.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import soundfile

from corpora.base.errors import AudioError

#: Names of such files.
SUFFIXES = (
    *(".m4a", ".m4b", ".mp4", ".aac", ".wma", ".webm", ".weba"),
    *(".3gp", ".mka", ".mkv", ".mov", ".avi"),
)
INSTALL = "python -m pip install -c constraints.txt -e '.[containers]'"

# What a file begins with, from which byte on, and what it is.
_MAGIC = (
    (4, b"ftyp", "MP4"),
    (0, b"\x1a\x45\xdf\xa3", "WebM or Matroska"),
    (0, bytes.fromhex("3026b2758e66cf11"), "WMA"),
    (0, b"\xff\xf1", "AAC"),
    (0, b"\xff\xf9", "AAC"),
    (8, b"AVI ", "AVI"),
)
# A header's length counts what was added to fill the encoder's frames too; more is missing sound.
_TOLERANCE = 0.1


def cut_short(said: float, held: float) -> AudioError:
    """A header says more seconds than there are."""
    return AudioError(
        f"is cut short: header says {said:.3f} s, the file holds {held:.3f} s. Copy it again."
    )


def available() -> bool:
    """Whether the package that reads them is installed."""
    return find_spec("av") is not None


def container_of(path: Path) -> str:
    """What kind of container a file is; "" where it is none."""
    with path.open("rb") as file:
        head = file.read(16)
    return next((name for at, magic, name in _MAGIC if head[at:].startswith(magic)), "")


@contextmanager
def decoded(path: Path, kind: str) -> Iterator[BinaryIO]:
    """The sound of a container, all of it, as a WAV of 32-bit floats in a temporary file.

    Of several tracks the one that FFmpeg takes: that with the most channels, else the first.

    Raises:
        AudioError: PyAV is missing, or the file holds no sound, or a part of it is.
    """
    try:
        import av
    except ImportError as error:
        raise AudioError(
            f"is {kind}, which the package av reads. Install it ({INSTALL}), or convert the file "
            "to WAV or FLAC (ffmpeg -i IN OUT.wav)."
        ) from error
    # Tags in no known encoding are no fault: nothing here reads them. From 19 on PyAV agrees.
    old = int(av.__version__.split(".")[0]) < 19
    lenient = {"metadata_errors": "ignore"} if old else {}
    # The samples of hours of video need not fit into memory.
    with tempfile.TemporaryFile(prefix="emopool-") as wave:
        try:
            with av.open(path, **lenient) as container:
                track = container.streams.best("audio")
                if track is None:
                    raise AudioError(f"is {kind} without a sound track. Remove the row.")
                said = _said(container, track)
                held = _unpack(container.decode(track), wave)
        except av.error.FFmpegError as error:
            raise AudioError(
                f"is {kind} that cannot be decoded ({error.strerror}). Copy or convert it again."
            ) from error
        if held < said - _TOLERANCE:
            raise cut_short(said, held)
        if held == 0:
            raise AudioError("holds no samples. Copy or export it again.")
        wave.seek(0)
        yield wave


def _said(container: Any, track: Any) -> float:  # noqa: ANN401 - of a package that may be missing
    """Seconds by the headers; 0 where they say none, or FFmpeg would guess them by the bit rate."""
    if track.duration is not None and container.format.name != "aac":
        return float(track.duration * track.time_base)
    if container.duration is not None and "matroska" in container.format.name:
        return float(container.duration / 1_000_000)
    return 0.0


def _unpack(frames: Iterable[Any], wave: BinaryIO) -> float:
    """Write what was decoded; return how many seconds that are."""
    import av

    each = iter(frames)
    first = next(each, None)
    if first is None:
        return 0.0
    # Of the decoded frames: a header of HE-AAC may name half of the rate.
    rate, channels, held = first.sample_rate, first.layout.nb_channels, 0
    plain = av.AudioResampler("flt", first.layout, rate)
    with soundfile.SoundFile(wave, "w", rate, channels, "FLOAT", None, "RF64") as sound:
        for frame in chain([first], each):
            for part in plain.resample(frame):
                sound.write(part.to_ndarray().reshape(-1, channels))
                held += part.samples
    return float(held / rate)
