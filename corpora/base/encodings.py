"""Text files that do not say how they are encoded: told by their bytes, else tried in turn."""

from __future__ import annotations

import codecs
import os
from collections.abc import Sequence
from pathlib import Path

from corpora.base.errors import CorpusError
from corpora.base.files import LFS_SENTENCE, is_lfs_pointer

UTF8_OR_WINDOWS = ("utf-8-sig", "cp1252")
BYTE_ORDER_MARKS = {
    b"\xff\xfe\x00\x00": "utf-32", b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16",
}  # fmt: skip
KOREAN = "cp949"
MOSTLY = 0.9  # of the characters beyond ASCII


def told_by_bytes(head: bytes, candidates: Sequence[str]) -> Sequence[str]:
    """The encodings to try: the candidates, but for what the bytes themselves tell.

    UTF-16 and UTF-32 show in marks and zeros. Korean shows in its letters, and comes in the place
    of cp1252, which decodes nearly any bytes.

    Args:
        head: the text's first bytes, the more the better.
        candidates: names of encodings, in the order in which they are tried.
    """
    if head.isascii() and b"\0" not in head:
        return candidates
    wide = _wide(head)
    if wide:
        return (wide,)
    if "cp1252" in candidates and KOREAN not in candidates and _is_korean(head):
        return tuple(KOREAN if name == "cp1252" else name for name in candidates)
    return candidates


def _wide(head: bytes) -> str:
    """The encoding of text in units of two or four bytes, "" for any other.

    Without a byte order mark, separators and line ends alone put a zero into every other place.
    """
    for mark, name in BYTE_ORDER_MARKS.items():
        if head.startswith(mark):
            return name
    even, odd = head[::2].count(0), head[1::2].count(0)
    if max(even, odd) * 20 < len(head) or min(even, odd) * 10 > max(even, odd):
        return ""
    return "utf-16-le" if odd > even else "utf-16-be"


def _is_korean(head: bytes) -> bool:
    """Whether bytes that are not UTF-8 are Korean: decoded so, nearly all letters are Hangul.

    The few Western words that decode as Hangul too lack the second high byte of KS X 1001.
    """
    text = codecs.getincrementaldecoder(KOREAN)("replace").decode(head)
    beyond = [letter for letter in text if not letter.isascii()]
    hangul = [letter for letter in beyond if "\uac00" <= letter <= "\ud7a3"]
    plain = sum(len(letter.encode("euc_kr", "ignore")) == 2 for letter in hangul)
    return bool(beyond) and min(len(hangul), plain) >= MOSTLY * len(beyond)


BYTES = 1 << 16  # read at once; nearly every transcript is shorter


def read_transcript(path: str | Path, encodings: Sequence[str] = UTF8_OR_WINDOWS) -> str:
    """The words of a text file with single spaces between them, "" where it is absent.

    Args:
        path: the file.
        encodings: tried in turn; what none of them decodes becomes U+FFFD, since one broken
            transcript is no reason to lose a corpus.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)  # a corpus has 270,000: `open` takes twice as long
    except FileNotFoundError:
        return ""
    try:
        data = chunk = os.read(descriptor, BYTES)
        while len(chunk) == BYTES:
            chunk = os.read(descriptor, BYTES)
            data += chunk
    finally:
        os.close(descriptor)
    encodings = told_by_bytes(data, encodings)
    for encoding in encodings:
        try:
            return " ".join(data.decode(encoding).split())
        except UnicodeDecodeError:
            continue
    return " ".join(data.decode(encodings[0], errors="replace").split())


CHUNK = 1 << 20  # bytes decoded at once while an encoding is tried


def encoding_of(path: Path, candidates: Sequence[str] = UTF8_OR_WINDOWS) -> str:
    """The first encoding that decodes the whole file.

    Raises:
        CorpusError: none of them does, or the file was not fetched.
    """
    if is_lfs_pointer(path):
        raise CorpusError(f"{path} {LFS_SENTENCE}")
    with path.open("rb") as file:
        candidates = told_by_bytes(file.read(CHUNK), candidates)
        for name in candidates:
            file.seek(0)
            decoder = codecs.getincrementaldecoder(name)()
            try:
                while chunk := file.read(CHUNK):
                    decoder.decode(chunk)
                decoder.decode(b"", final=True)
            except UnicodeDecodeError:
                continue
            # Python's utf-8-sig holds the beginning of a mark back, and lets it pass at the end.
            if not decoder.getstate()[0]:
                return name
    raise CorpusError(f"{path} is not text in any of {', '.join(candidates)}. Save it as UTF-8.")
