"""What all pictures have in common; they need matplotlib, which the extra `plots` installs."""

from __future__ import annotations

from importlib.util import find_spec

from corpora.base.errors import MissingExtraError

SUFFIXES = (".png", ".svg")
DOTS_PER_INCH = 150


def require_matplotlib(otherwise: str = "search without --plots") -> None:
    """Check before any training that its plots can be drawn after it.

    Args:
        otherwise: what to do without it, in words.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise MissingExtraError(
            "Plots need matplotlib, which is not installed: pip install 'emopool[plots]', "
            f"or {otherwise}."
        )
