"""Whether an Ogg file ends in the middle of a page: libsndfile decodes such a file without a word.

A page (RFC 3533, section 6) is "OggS", 22 bytes, the number of its segments, their lengths, and
the segments. At most 65,307 bytes, so the last one begins near the end of the file.
"""

from __future__ import annotations

import os
from pathlib import Path

LARGEST_PAGE = 65_307
HEADER = 27
CAPTURE = b"OggS"


def ends_within_a_page(path: Path) -> bool:
    """Whether the last page of an Ogg file is not whole.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 2 * LARGEST_PAGE))
        tail = file.read()
    start = tail.rfind(CAPTURE)
    # Segments may hold these four bytes by chance: a page that ends with the file settles it.
    while start >= 0:
        if _page_length(tail[start:]) == len(tail) - start:
            return False
        start = tail.rfind(CAPTURE, 0, start)
    return True


def _page_length(page: bytes) -> int:
    """Bytes that a page beginning here has, or -1 where not even its header is whole."""
    if len(page) < HEADER or len(page) < HEADER + page[26]:
        return -1
    segments = page[HEADER : HEADER + page[26]]
    return HEADER + len(segments) + sum(segments)
