"""How much sound a FLAC or MPEG file holds, by its frames, without decoding.

libsndfile believes the count in a file's first frame (Xing, Info or VBRI), and guesses from the
first frames' bit rate where there is none: of a file with a variable bit rate and no count, or of
two files joined, it then decodes a part without a word. A frame's header (ISO/IEC 11172-3, 2.4.1.3)
gives its length in bytes and in samples, so that walking from one to the next counts them all.

How much sound a FLAC file holds, by its last frame, without decoding.

A stream written to a pipe leaves its number of samples open (0): libsndfile then takes 2^63 - 1 and
fails. Of one that counts fewer than there are it decodes as many as it counts. Frames (RFC 9639,
section 9) say where they stand, so the last one gives the length.
"""

from __future__ import annotations

import mmap
import os
import struct
from dataclasses import dataclass
from functools import cache
from pathlib import Path

MARKER = b"fLaC\0\0\0\x22"
# Of the first block, which has 34 bytes: where sizes, rate and number of samples stand.
_INFO, _RATE, _TOTAL, _INFO_END = 8, 18, 21, 42
# A frame of 16 bits and two channels has at most 17 kB at the usual 4,096 samples.
_TAIL = 1 << 15
# How many stretches of a large file are looked at.
_LOOKS = 8
_BLOCK_SIZES = {
    1: 192,
    **{n: 576 << n - 2 for n in range(2, 6)},
    **{n: 1 << n for n in range(8, 16)},
}


@dataclass(frozen=True, slots=True)
class FlacFrames:
    """Samples of a file, per channel.

    Attributes:
        rate: Hz.
        counted: by its header; 0 where that leaves it open.
        held: to the end of its last whole frame; None where none was found at its end.
    """

    rate: int
    counted: int
    held: int | None


def flac_frames(path: Path, start: int = 0) -> FlacFrames | None:
    """Look at a file's first block and at its last frame; None where it does not begin as FLAC.

    Args:
        path: the file.
        start: where FLAC begins, behind a tag.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        file.seek(start)
        head = file.read(_INFO_END)
        if len(head) < _INFO_END or head[:8] != MARKER:
            return None
        size = file.seek(0, os.SEEK_END)
        counted = int.from_bytes(head[_TOTAL : _TOTAL + 5], "big") & (1 << 36) - 1
        rate = int.from_bytes(head[_RATE : _RATE + 3], "big") >> 4
        block = int.from_bytes(head[_INFO : _INFO + 2], "big")
        largest = int.from_bytes(head[_INFO + 7 : _INFO + 10], "big")
        begin = max(start + _INFO_END, size - 2 * max(largest, _TAIL))
        file.seek(begin)
        tail = file.read()
    if tail[-128:-125] == b"TAG":
        tail = tail[:-128]
    ends = dict(_ends(tail, block))
    if counted and counted in ends.values():
        return FlacFrames(rate, counted, counted)
    # Sound may look like a frame's header: the sum of a whole frame and its checksum is 0.
    whole = (end for at, end in ends.items() if _sum16(tail[at:]) == 0)
    return FlacFrames(rate, counted, next(whole, None))


def with_total(data: bytes, total: int, start: int = 0) -> bytes:
    """The file's bytes with another number of samples in its header."""
    at = start + _TOTAL
    high = data[at] & 0xF0 | total >> 32
    return data[:at] + bytes([high]) + (total & 0xFFFF_FFFF).to_bytes(4, "big") + data[at + 5 :]


def may_be_joined(path: Path, start: int = 0) -> bool:
    """Whether other FLAC files may stand behind the first, from a few looks into the file.

    Where the last one is as long as the first, the last frame tells nothing. But frames are
    numbered: further into one file, later frames stand.

    Args:
        path: a file that begins as FLAC.
        start: where that is, behind a tag.

    Raises:
        OSError: the file cannot be read.
    """
    last = 0
    with path.open("rb") as file:
        file.seek(start)
        head = file.read(_INFO_END)
        block = int.from_bytes(head[_INFO : _INFO + 2], "big")
        size = file.seek(0, os.SEEK_END)
        window = 2 * max(int.from_bytes(head[_INFO + 7 : _INFO + 10], "big"), _TAIL)
        if size <= _LOOKS * window:
            return flac_streams(path) > 1
        for number in range(_LOOKS):
            file.seek(number * (size - window) // (_LOOKS - 1))
            seen = file.read(window)
            if seen.count(MARKER) > (number == 0):
                return True
            ends = dict(_ends(seen, block))
            # Of what looks like frames, those behind which the next one begins.
            sure = sorted(end for end in ends.values() if end - block in ends.values())
            if sure and sure[0] < last:
                return True
            last = sure[-1] if sure else last
    return False


def flac_streams(path: Path) -> int:
    """How many FLAC files stand in one, one behind the other.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        found, at = 0, data.find(MARKER)
        while at >= 0:
            found, at = found + 1, data.find(MARKER, at + 1)
    return found


def _ends(tail: bytes, block: int) -> list[tuple[int, int]]:
    """Where frames seem to begin, the last first, with the sample behind each."""
    found = []
    at = len(tail)
    while (at := tail.rfind(b"\xff", 0, at)) >= 0:
        if tail[at + 1 : at + 2] in (b"\xf8", b"\xf9"):
            end = _end(tail[at : at + 16], block)
            if end is not None:
                found.append((at, end))
    return found


def _end(head: bytes, block: int) -> int | None:
    """The sample behind a frame, by its header; None where this is no header."""
    if len(head) < 6 or head[3] & 1:
        return None
    size_code, rate_code = head[2] >> 4, head[2] & 15
    if size_code == 0 or rate_code == 15 or head[3] >> 4 > 10 or head[3] >> 1 & 7 == 3:
        return None
    # The number is written as UTF-8 is: leading ones of the first byte count the bytes.
    ones = 8 - (head[4] ^ 0xFF).bit_length()
    if ones == 1 or ones > 7:
        return None
    more = max(ones - 1, 0)
    number, at = head[4] & (0x7F >> ones), 5 + more
    for byte in head[5:at]:
        number = number << 6 | byte & 0x3F
    width = {6: 1, 7: 2}.get(size_code, 0)
    samples = _BLOCK_SIZES.get(size_code, 0) or int.from_bytes(head[at : at + width], "big") + 1
    at += width + {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    if at >= len(head) or _sum8(head[:at]) != head[at]:
        return None
    return (number if head[1] & 1 else number * block) + samples


def _sum8(data: bytes) -> int:
    """The CRC-8 of a frame's header, polynomial x^8 + x^2 + x + 1."""
    value = 0
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value << 1 ^ (0x07 if value & 0x80 else 0)) & 0xFF
    return value


def _sum16(data: bytes) -> int:
    """The CRC-16 of a frame, polynomial x^16 + x^15 + x^2 + 1."""
    value = 0
    for byte in data:
        value = (value << 8 ^ _SUMS[value >> 8 ^ byte]) & 0xFFFF
    return value


def _table() -> tuple[int, ...]:
    sums = []
    for value in range(0, 1 << 16, 1 << 8):
        for _ in range(8):
            value = (value << 1 ^ (0x8005 if value & 0x8000 else 0)) & 0xFFFF
        sums.append(value)
    return tuple(sums)


_SUMS = _table()


# kbit/s by index, of MPEG-1 and of MPEG-2 and 2.5, by layer.
_RATES = {
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
# Hz by index; MPEG-2 halves and MPEG-2.5 quarters them. By the two bits of the version.
_HERTZ, _DIVISORS = (44_100, 48_000, 32_000), {3: 1, 2: 2, 0: 4}
# Bytes of layer III between header and main data, by MPEG-1 and mono: the count lies behind them.
_SIDE = {(True, True): 17, (True, False): 32, (False, True): 9, (False, False): 17}
_VBRI_AT = 36
_ID3V1 = 128


@dataclass(frozen=True, slots=True)
class _Header:
    """Of one frame."""

    kind: tuple[int, int, int, bool]  # version, layer, Hz, mono: all frames of a file share it
    size: int
    samples: int


@dataclass(frozen=True)
class MpegFrames:
    """The frames of a file.

    Attributes:
        rate: Hz.
        samples: of one frame and channel.
        layer: 1 to 3.
        places: first and one-past-last byte of each frame with sound.
        counted: frames by the file's own counts; None where it has none.
        counts: how many such counts there are; two of them are two files joined.
        partial: whether the last frame is not whole.
        changes_at: second at which rate, layer or number of channels change; None where they stay.
        damaged_at: byte where something stands between frames that is no frame and no tag.
    """

    rate: int
    samples: int
    layer: int
    places: tuple[tuple[int, int], ...]
    counted: int | None
    counts: int
    partial: bool
    changes_at: float | None
    damaged_at: int | None


def mpeg_frames(data: bytes, start: int = 0) -> MpegFrames | None:
    """Walk over the frames of a file's bytes; None where they are no MPEG file.

    Args:
        data: the file.
        start: where it begins behind the tags in front of it.
    """
    at = start
    while data[at : at + 1] == b"\0":  # padding of the tag
        at += 1
    first = _header(data[at : at + 4])
    if first is None:
        return None
    places: list[tuple[int, int]] = []
    counts: list[int | None] = []
    partial, changes, damaged = False, None, None
    while at < len(data):
        found = _header(data[at : at + 4])
        if found is not None and found.kind == first.kind:
            end = at + found.size
            if end > len(data):
                partial = True
                break
            is_count, number = _count(data[at:end], first)
            if is_count:
                counts.append(number)
            else:
                places.append((at, end))
            at = end
        elif tag := _tag(data, at):
            at += tag
        elif found is not None and _header(data[at + found.size :][:4]) is not None:
            changes = len(places) * first.samples / first.kind[2]
            break
        else:
            after = _next_frame(data, at, first)
            if after is None:
                partial = any(data[at:])
                break
            damaged = at if damaged is None and any(data[at:after]) else damaged
            at = after
    _, layer, rate, _ = first.kind
    known = [number for number in counts if number is not None]
    counted = sum(known) if known and len(known) == len(counts) else None
    return MpegFrames(
        rate, first.samples, layer, tuple(places), counted, len(counts), partial, changes, damaged
    )


def with_count(data: bytes, found: MpegFrames) -> bytes:
    """The file's frames of layer III behind a first one that counts them."""
    start = found.places[0][0]
    frames = b"".join(data[a:b] for a, b in found.places)
    head = int.from_bytes(data[start : start + 4], "big") | 0x10000  # without a checksum
    first = _header(head.to_bytes(4, "big"))
    assert first is not None
    side = _SIDE[first.kind[0] == 3, first.kind[3]]
    for index in range(1, 15):  # the smallest frame that has room for the count
        head = head & ~0xF000 | index << 12
        first = _header(head.to_bytes(4, "big"))
        assert first is not None
        if first.size >= 4 + side + 16:
            break
    count = struct.pack(">4sIII", b"Info", 3, len(found.places), len(frames) + first.size)
    return (head.to_bytes(4, "big") + bytes(side) + count).ljust(first.size, b"\0") + frames


@cache
def _header(head: bytes) -> _Header | None:
    """What four bytes say, None where they are no frame's header or leave the bit rate open."""
    if len(head) < 4 or head[0] != 0xFF or head[1] < 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    index, hertz = head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or layer == 4 or index in (0, 15) or hertz == 3:
        return None
    first = version == 3
    bits = 1000 * _RATES[first, layer][index - 1]
    rate = _HERTZ[hertz] // _DIVISORS[version]
    padding = head[2] >> 1 & 1
    samples = {1: 384, 2: 1152, 3: 1152 if first else 576}[layer]
    size = (
        4 * (12 * bits // rate + padding) if layer == 1 else samples // 8 * bits // rate + padding
    )
    return _Header((version, layer, rate, head[3] >> 6 == 3), size, samples)


def _count(frame: bytes, first: _Header) -> tuple[bool, int | None]:
    """Whether a frame is a count instead of sound, and of how many frames."""
    if first.kind[1] != 3:
        return False, None
    at = 4 + _SIDE[first.kind[0] == 3, first.kind[3]]
    for place in (at, at + 2):  # behind a checksum
        if frame[place : place + 4] in (b"Xing", b"Info"):
            flags, number = struct.unpack_from(">II", frame.ljust(place + 12, b"\0"), place + 4)
            return True, number if flags & 1 else None
    if frame[_VBRI_AT : _VBRI_AT + 4] == b"VBRI" and len(frame) >= _VBRI_AT + 18:
        return True, int.from_bytes(frame[_VBRI_AT + 14 : _VBRI_AT + 18], "big")
    return False, None


def _tag(data: bytes, at: int) -> int:
    """Bytes of the tag that begins here; 0 where none does."""
    if data[at : at + 3] == b"TAG" and len(data) - at >= _ID3V1:
        return _ID3V1
    if data[at : at + 8] == b"APETAGEX" and at + 32 <= len(data):
        size, _, flags = struct.unpack_from("<III", data, at + 12)
        return min(size + 32 if flags & 1 << 29 else 32, len(data) - at)
    if data[at : at + 11] == b"LYRICSBEGIN":
        end = max(data.find(b"LYRICSEND", at), data.find(b"LYRICS200", at))
        return end + 9 - at if end >= 0 else 0
    return id3_bytes(data[at : at + 10])


def id3_bytes(head: bytes) -> int:
    """Bytes of the ID3v2 tag that begins with these ten; 0 where they begin none."""
    if len(head) < 10 or head[:3] != b"ID3" or max(head[6:]) > 0x7F:
        return 0
    size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
    return 10 + size + (10 if head[5] & 0x10 else 0)


def _next_frame(data: bytes, at: int, first: _Header) -> int | None:
    """Where the next frame begins that another one or the end of the file follows."""
    while (at := data.find(b"\xff", at + 1)) >= 0:
        found = _header(data[at : at + 4])
        if found is None or found.kind != first.kind:
            continue
        end = at + found.size
        after = _header(data[end : end + 4])
        if end == len(data) or (after is not None and after.kind == first.kind):
            return at
    return None
