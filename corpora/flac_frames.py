"""How much sound a FLAC file holds, by its last frame, without decoding.

A stream written to a pipe leaves its number of samples open (0): libsndfile then takes 2^63 - 1 and
fails. Of one that counts fewer than there are it decodes as many as it counts. Frames (RFC 9639,
section 9) say where they stand, so the last one gives the length.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
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
