"""The one way pictures are drawn and written: by matplotlib, which the extra `plots` installs."""

from __future__ import annotations

import io
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from corpora.base.errors import MissingExtraError
from corpora.base.files import write_bytes
from corpora.base.report import Figure

SUFFIXES = (".png", ".svg")
DOTS_PER_INCH, FONT = 150, 9


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


def render(figure: Figure, suffixes: Sequence[str] = SUFFIXES) -> dict[str, bytes]:
    """Draw a figure; by suffix the bytes of its file, the same each time."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure as Canvas

    drawn = {}
    with rc_context({"svg.hashsalt": figure.name, "font.size": FONT}):
        # Not pyplot: it keeps figures in a global list, and may look for a screen.
        canvas = Canvas(figsize=figure.size, layout="constrained", facecolor="white")
        figure.draw(canvas)
        for suffix in suffixes:
            buffer = io.BytesIO()
            undated = {"Date": None} if suffix == ".svg" else {}
            canvas.savefig(buffer, format=suffix[1:], dpi=DOTS_PER_INCH, metadata=undated)
            drawn[suffix] = buffer.getvalue()
    return drawn


def write_figure(
    folder: Path, figure: Figure, suffixes: Sequence[str] = SUFFIXES
) -> dict[str, bytes]:
    """Draw a figure and write it into a folder; by file name what was written."""
    drawn = {f"{figure.name}{end}": data for end, data in render(figure, suffixes).items()}
    for name, data in drawn.items():
        write_bytes(folder / name, data)
    return drawn
