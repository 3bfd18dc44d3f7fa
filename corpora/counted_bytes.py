"""Whether a file holds as many bytes of samples as its header counts, and no more.

libsndfile takes what is there without a word, so a download that broke off looks like a shorter
recording, and what a stopped recorder or a joined file has behind the samples counted is left out.
Most formats are chunks: a name, a size in bytes, and that many bytes, made even by padding. RIFF
(WAV), RF64 (EBU Tech 3306), FORM (AIFF, 8SVX), W64 and CAF differ in how they write name and size;
AU, NIST SPHERE and VOC have a layout of their own.

Whether an Ogg file is whole: libsndfile decodes what there is of it without a word.

A page (RFC 3533, section 6) is "OggS", a version, flags, the position of its last whole sample, a
stream's number, its own number and checksum, the number of its segments, their lengths, and the
segments. The last page of a stream says that it is the last; the first page of a stream, that it is
the first. A second stream behind the first is never decoded, and a page with a wrong checksum is
left out.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, Literal

# Some writers count their header as samples; a recording that was cut short lacks more than that.
_SLACK_BYTES = 64
# Tags and sectors filled up may follow the samples; sound that is not counted is longer.
_SLACK_BEHIND = 512
# From here on a size stands for "not known": pipes leave 0x7FFFF000 (SoX) to 0xFFFFFFFF (ffmpeg).
_STREAMED = 0x7FFF_F000

# Whole numbers of 8 to 32 bits and floating-point ones, by RIFF's format tag.
_PLAIN = frozenset({(1, 8), (1, 16), (1, 24), (1, 32), (3, 32), (3, 64)})
# Chunks before the samples are seldom longer; a file with longer ones is left to libsndfile.
_HEAD_BYTES = 4096
# Where one of these follows the samples, another file was joined to this one.
_FORMS = frozenset({b"RIFF", b"RIFX", b"RF64", b"FORM", b"caff", b"riff"})


@dataclass(frozen=True, slots=True)
class CountedBytes:
    """The bytes of samples in a file.

    Attributes:
        counted: by its header; None where a stream left the size open.
        held: from where they begin to the end of the file.
        uncounted: behind those that are counted, and neither chunks, a tag nor zeros.
    """

    counted: int | None
    held: int
    uncounted: int = 0

    @property
    def missing_share(self) -> float:
        """The share of samples that the header counts and the file does not hold; 0 for none."""
        if self.counted is None or self.counted - self.held <= _SLACK_BYTES:
            return 0.0
        return 1 - self.held / self.counted


@dataclass(frozen=True, slots=True)
class _Chunks:
    """How a format writes its chunks."""

    order: Literal["big", "little"] = "little"
    first: int = 12  # where the first chunk begins
    name: int = 4  # bytes of a name
    size: int = 4  # bytes of a size
    own: int = 0  # bytes of name and size that a size counts
    align: int = 2
    samples: bytes = b"data"
    before: int = 0  # bytes of a samples' chunk before the first sample


_KINDS: Mapping[bytes, _Chunks] = MappingProxyType(
    {
        b"RIFF": _Chunks(),
        b"RIFX": _Chunks("big"),
        b"RF64": _Chunks(),
        b"riff": _Chunks(first=40, name=16, size=8, own=24, align=8),
        b"caff": _Chunks("big", first=8, size=8, align=1, before=4),
        b"FORM": _Chunks("big", samples=b"SSND", before=8),
    }
)


def plain_wav(path: Path) -> tuple[int, int, int] | None:
    """Frames, rate and channels of an intact WAV of plain samples; None for anything else.

    Five times as fast as asking libsndfile, which decides about all that is not as plain as this.

    Raises:
        OSError: it cannot be opened.
    """
    with path.open("rb", buffering=0) as file:
        total = os.fstat(file.fileno()).st_size
        head = file.read(_HEAD_BYTES)
    if head[:4] != b"RIFF" or head[8:12] != b"WAVE":
        return None
    at, form = 12, None
    while at + 8 <= len(head):
        name, size = head[at : at + 4], int.from_bytes(head[at + 4 : at + 8], "little")
        at += 8
        if name == b"fmt " and size >= 16 and at + 16 <= len(head):
            form = struct.unpack_from("<HHIIHH", head, at)
        if name == b"data":
            return _plain_frames(form, size, total - at)
        at += size + size % 2
    return None


def _plain_frames(
    form: tuple[int, ...] | None, size: int, held: int
) -> tuple[int, int, int] | None:
    """The answer of `plain_wav` by the fmt chunk, the data chunk's size and what the file holds."""
    if form is None or not size or not 0 <= held - size <= _SLACK_BEHIND:
        return None
    kind, channels, rate, _, block, bits = form
    if (kind, bits) not in _PLAIN or not channels or not rate or block != channels * bits // 8:
        return None
    return size // block, rate, channels


def counted_bytes(path: Path, start: int = 0) -> CountedBytes | None:
    """Compare what a header counts with what the file holds.

    Args:
        path: the file.
        start: where the format begins, behind a tag.

    Returns:
        None where it is none of these formats, or has no samples.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        total = os.fstat(file.fileno()).st_size
        file.seek(start)
        magic = file.read(4)
        chunks = _KINDS.get(magic)
        if chunks is not None:
            return _in_chunks(file, start, total, magic, chunks)
        reader = _OTHERS.get(magic)
        return None if reader is None else reader(file, start, total)


def _in_chunks(
    file: BinaryIO, start: int, total: int, magic: bytes, kind: _Chunks
) -> CountedBytes | None:
    file.seek(start + 8)
    voice = magic == b"FORM" and file.read(4) in (b"8SVX", b"16SV")
    samples, before = (b"BODY", 0) if voice else (kind.samples, kind.before)
    size64, at = -1, start + kind.first
    while (head := _chunk(file, at, kind)) is not None:
        name, size = head
        begin = at + kind.name + kind.size
        if name == samples:
            if magic == b"RF64" and size == 0xFFFF_FFFF:
                size = size64
            # Sizes of 64 bits are open where they are negative; of the others RF64's never are.
            open_ended = kind.size == 4 and magic != b"RF64" and size >= _STREAMED
            first, end = begin + before, begin + size
            if open_ended or size < 0:
                return CountedBytes(None, max(total - first, 0))
            behind = _uncounted(file, end + -(end - start) % kind.align, total, kind)
            return CountedBytes(max(size - before, 0), max(total - first, 0), behind)
        if name == b"ds64":
            file.seek(begin + 8)
            size64 = int.from_bytes(file.read(8), "little", signed=True)
        if size < 0:
            return None
        at = begin + size
        at += -(at - start) % kind.align
    return None


def _chunk(file: BinaryIO, at: int, kind: _Chunks) -> tuple[bytes, int] | None:
    """Name and size of the content of the chunk that begins here; None behind the last."""
    if at >= os.fstat(file.fileno()).st_size:  # a damaged size may pass what a disk can have
        return None
    file.seek(at)
    head = file.read(kind.name + kind.size)
    if len(head) < kind.name + kind.size:
        return None
    return head[:4], int.from_bytes(head[kind.name :], kind.order, signed=kind.size == 8) - kind.own


def _uncounted(file: BinaryIO, at: int, total: int, kind: _Chunks) -> int:
    """Bytes from here on that are no chunks, no tag and not all zeros."""
    while (head := _chunk(file, at, kind)) is not None:
        name, size = head
        behind = at + kind.name + kind.size + size
        named = name.isascii() and name.decode("ascii").isprintable() and name not in _FORMS
        if not named or size < 0 or behind > total:
            break
        at = behind + -behind % kind.align
    return _behind(file, at, total)


def _behind(file: BinaryIO, at: int, total: int) -> int:
    """Bytes from here on; 0 where they are a tag, few, or all zeros."""
    if total - at <= _SLACK_BEHIND:
        return 0
    file.seek(at)
    rest = file.read()
    return 0 if rest[:3] in (b"TAG", b"ID3", b"APE") or not any(rest) else len(rest)


def _au(file: BinaryIO, start: int, total: int) -> CountedBytes | None:
    """Sun's: magic, where the samples begin, and their size."""
    file.seek(start)
    head = file.read(12)
    order: Literal["big", "little"] = "big" if head[:4] == b".snd" else "little"
    begin = start + int.from_bytes(head[4:8], order)
    size = int.from_bytes(head[8:12], order)
    if size >= _STREAMED:
        return CountedBytes(None, total - begin)
    return _counted(file, begin, size, total)


def _nist(file: BinaryIO, start: int, total: int) -> CountedBytes | None:
    """NIST SPHERE: lines of text, "sample_count -i 48000" among them, filled up to 1,024 bytes."""
    file.seek(start)
    lines = file.read(1024).split(b"\n")
    fields = {words[0]: words[2] for line in lines if len(words := line.split(None, 2)) == 3}
    try:
        begin = start + int(lines[1])
        count = int(fields[b"sample_count"])
        channels, width = (int(fields.get(n, b"1")) for n in (b"channel_count", b"sample_n_bytes"))
    except (KeyError, ValueError, IndexError):
        return None
    return _counted(file, begin, max(count * channels * width, 0), total)


def _voc(file: BinaryIO, start: int, total: int) -> CountedBytes | None:
    """Creative's: blocks of a kind, a size of 24 bits and so many bytes, up to a block 0."""
    file.seek(start)
    at = first = start + int.from_bytes(file.read(26)[20:22], "little")
    while True:
        file.seek(at)
        head = file.read(4)
        if not head or head[0] == 0:
            return _counted(file, first, at + len(head[:1]) - first, total)
        at += 4 + int.from_bytes(head[1:4], "little")
        if at > total:
            return CountedBytes(at - first, max(total - first, 0))


def _counted(file: BinaryIO, begin: int, size: int, total: int) -> CountedBytes:
    return CountedBytes(size, max(total - begin, 0), _behind(file, begin + size, total))


_OTHERS: Mapping[bytes, Callable[[BinaryIO, int, int], CountedBytes | None]] = MappingProxyType(
    {b".snd": _au, b"dns.": _au, b"NIST": _nist, b"Crea": _voc}
)


HEADER = 27
CAPTURE = b"OggS"
_FIRST, _LAST = 2, 4
# Each byte's bits from the last to the first: Ogg's sum is zlib's, read the other way round.
_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass(frozen=True, slots=True)
class OggPages:
    """What the pages of a file tell.

    Attributes:
        ends_within_a_page: whether the last page is not whole.
        ended: whether the last whole page is the last of its stream.
        streams: how many streams begin in the file.
        damaged_at: byte where a whole page with its own checksum should begin, the next one of its
            stream, and does not; None where all do.
    """

    ends_within_a_page: bool
    ended: bool
    streams: int
    damaged_at: int | None


def ogg_pages(path: Path) -> OggPages:
    """Walk over the pages of an Ogg file.

    Raises:
        OSError: the file cannot be read.
    """
    data = memoryview(path.read_bytes())
    ended, streams, at, number = False, 0, 0, 0
    while at < len(data):
        head = bytes(data[at : at + HEADER])
        if head[:4] != CAPTURE[: len(head)]:
            # Zeros behind the last page are padding.
            return OggPages(False, ended, streams, at if not ended or any(data[at:]) else None)
        lengths = data[at + HEADER : at + HEADER + head[26]] if len(head) == HEADER else b""
        end = at + len(head) + len(lengths) + sum(lengths)
        if len(head) < HEADER or len(lengths) < head[26] or end > len(data):
            return OggPages(True, ended, streams, None)
        first = bool(head[5] & _FIRST)
        number = number + 1 if not first else int.from_bytes(head[18:22], "little")
        if number != int.from_bytes(head[18:22], "little") or not _is_sound(data[at:end]):
            return OggPages(False, ended, streams, at)
        ended, streams, at = bool(head[5] & _LAST), streams + first, end
    return OggPages(False, ended, streams, None)


def _is_sound(page: memoryview) -> bool:
    """Whether a page has its checksum: CRC-32, not mirrored, begun with 0, of itself with 0."""
    whole = b"".join((page[:22], bytes(4), page[26:])).translate(_MIRRORED)
    found = zlib.crc32(whole, 0xFFFF_FFFF) ^ 0xFFFF_FFFF
    return found.to_bytes(4, "big").translate(_MIRRORED) == page[22:26]
