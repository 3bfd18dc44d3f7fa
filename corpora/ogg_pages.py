"""Whether an Ogg file is whole: libsndfile decodes what there is of it without a word.

A page (RFC 3533, section 6) is "OggS", a version, flags, the position of its last whole sample, a
stream's number, its own number and checksum, the number of its segments, their lengths, and the
segments. The last page of a stream says that it is the last; the first page of a stream, that it is
the first. A second stream behind the first is never decoded, and a page with a wrong checksum is
left out.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

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
