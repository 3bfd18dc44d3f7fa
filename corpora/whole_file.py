"""Whether a file holds all that its header counts; bytes to be decoded where it counts nothing."""

from __future__ import annotations

import io
from pathlib import Path

import soundfile

from corpora.base.errors import AudioError
from corpora.coded_frames import mpeg_frames, with_count
from corpora.containers import cut_short
from corpora.counted_bytes import counted_bytes, ogg_pages
from corpora.readers.tree import CONVERT

# libsndfile's names of the formats whose headers `counted_bytes` reads. Others are refused: a half
# file of them looks whole, or nobody records speech in them.
COUNTED = frozenset({"WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "NIST", "SVX", "VOC"})
# An encoder of MP3 adds a frame or two of silence, and at most this many samples at both ends.
_ADDED = 2 * 1152 + 1105


def whole_mpeg(path: Path, start: int) -> bytes | None:
    """Other bytes to be decoded for an MPEG file that does not count its frames; else None."""
    with path.open("rb") as file:
        file.seek(start)
        if file.read(1) not in (b"\xff", b"\0"):
            return None
        file.seek(0)
        return counting_mpeg(file.read(), start)


def counting_mpeg(data: bytes, start: int = 0) -> bytes | None:
    """The same frames of MPEG with their count in front; None where they are no others.

    Raises:
        AudioError: they are cut short, damaged, or of different files.
    """
    found = mpeg_frames(data, start)
    if found is None:
        return None
    if not found.places:
        raise AudioError("is cut short: it holds no whole frame of MPEG. Copy it again.")
    number, seconds = len(found.places), found.samples / found.rate
    if found.changes_at is not None:
        raise AudioError(
            f"changes its sampling rate or channels after {found.changes_at:.3f} s: different "
            "files were joined. Take them apart."
        )
    if found.damaged_at is not None:
        raise AudioError(
            f"is damaged: at byte {found.damaged_at:,} stands no frame of MPEG. Copy it again."
        )
    # Some writers count the frame of the count, too.
    if found.counted is not None and number < found.counted - found.counts:
        said = _guesses(data) / found.rate if found.counts == 1 else found.counted * seconds
        raise cut_short(said, number * seconds)
    if found.partial and (found.counted is None or number < found.counted):
        raise _ends_within("frame", number * seconds)
    # By its own count a decoder takes off what an encoder added; without one it guesses.
    added = _ADDED if found.counts == 1 else found.samples - 1
    if found.counts <= 1 and _guesses(data) >= number * found.samples - added:
        return None
    if found.layer != 3:
        raise AudioError(f"is MPEG of layer {found.layer} that does not count its sound. {CONVERT}")
    return with_count(data, found)


def _guesses(data: bytes) -> int:
    """How many samples libsndfile takes an MPEG file to have."""
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            return int(file.frames)
    except soundfile.SoundFileError:
        return 0


def check_whole(file: soundfile.SoundFile, path: Path, start: int) -> None:
    """Refuse a file that holds less, or more, than libsndfile will decode.

    Raises:
        AudioError: see above.
        OSError: it cannot be read.
    """
    seconds = file.frames / file.samplerate
    if file.format == "OGG":
        pages = ogg_pages(path)
        if pages.streams > 1:
            raise AudioError(joined(pages.streams))
        if pages.damaged_at is not None:
            raise AudioError(
                f"is damaged: at byte {pages.damaged_at:,} stands no whole page of Ogg, or not "
                "the next one. Copy it again."
            )
        if pages.ends_within_a_page:
            raise _ends_within("page", seconds)
        if not pages.ended:
            raise AudioError(
                f"is cut short: its last page, after about {seconds:.3f} s, is not marked as the "
                "end. Copy it again, or write it again if it is whole (ffmpeg -i IN OUT.wav)."
            )
    if file.format in COUNTED and not check_counted(path, start, seconds):
        raise AudioError(f"does not count its samples. {CONVERT}")


def check_counted(path: Path, start: int, seconds: float = 0.0) -> bool:
    """Refuse a file that holds fewer or more bytes than it counts; False if it does not count.

    Raises:
        AudioError: see above.
        OSError: it cannot be read.
    """
    found = counted_bytes(path, start)
    if found is None:
        return False
    if found.missing_share and seconds:
        raise cut_short(seconds / (1 - found.missing_share), seconds)
    if found.missing_share:
        raise AudioError(
            f"is cut short: {found.held:,} of the {found.counted:,} bytes of samples that its "
            "header counts are there. Copy it again."
        )
    if found.uncounted:
        raise AudioError(
            f"holds {found.uncounted:,} bytes behind the samples that its header counts: files "
            "were joined, or a recorder stopped before it wrote the length. Take them apart, or "
            "repair the header (sox --ignore-length IN OUT.wav)."
        )
    return True


def counted_samples(path: Path, start: int) -> bytes:
    """The bytes of samples in a file that counts them."""
    found = counted_bytes(path, start)
    assert found is not None
    begin = path.stat().st_size - found.held
    end = None if found.counted is None else begin + found.counted
    return path.read_bytes()[begin:end]


def _ends_within(what: str, seconds: float) -> AudioError:
    return AudioError(
        f"is cut short: it ends within a {what}, after about {seconds:.3f} s. Copy it again."
    )


def joined(number: int) -> str:
    """What is said of recordings that lie behind one another in one file."""
    return f"holds {number} recordings, one joined to the other. Take them apart. {CONVERT}"
