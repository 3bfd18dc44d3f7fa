"""Which encoding a text is in, as far as its bytes tell: nobody says it beside the file."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

UTF8_OR_WINDOWS = ("utf-8-sig", "cp1252")
BYTE_ORDER_MARKS = {
    b"\xff\xfe\x00\x00": "utf-32", b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16",
}  # fmt: skip
KOREAN = "cp949"
MOSTLY = 0.9  # of the characters beyond ASCII


def told_by_bytes(head: bytes, candidates: Sequence[str]) -> Sequence[str]:
    """Return the encodings to try: the candidates, but for what the bytes themselves tell.

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
    """Return the encoding of text in units of two or four bytes, "" for any other.

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
