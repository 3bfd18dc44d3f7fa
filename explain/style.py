"""How figures look, and how they are written: colours, PNG and SVG."""

from __future__ import annotations

import io
from pathlib import Path

from corpora.base.files import write_bytes
from corpora.base.report import Figure

# Told apart by people with any colour vision (Okabe and Ito 2008).
BLUE, ORANGE, GREEN, RED, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7"
GREY, LIGHT = "0.45", "0.85"
BY_MODALITY = {"audio": BLUE, "text": ORANGE}
HEAT = "magma"
DOTS_PER_INCH = 130


def render(figure: Figure) -> dict[str, bytes]:
    """Draw a figure; its file suffixes (`.png`, `.svg`) to their bytes.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    from corpora.base.plots import require_matplotlib

    require_matplotlib("explain with --no-plots")
    from matplotlib import rc_context
    from matplotlib.figure import Figure as Canvas

    drawn = {}
    # A salt of its own, so that the same figure gives the same SVG.
    with rc_context({"svg.hashsalt": figure.name, "font.size": 9}):
        # Not pyplot: it keeps figures in a global list, and may look for a screen.
        canvas = Canvas(figsize=figure.size, layout="constrained", facecolor="white")
        figure.draw(canvas)
        for suffix in (".png", ".svg"):
            buffer = io.BytesIO()
            dated = {"Date": None} if suffix == ".svg" else {}
            canvas.savefig(buffer, format=suffix[1:], dpi=DOTS_PER_INCH, metadata=dated)
            drawn[suffix] = buffer.getvalue()
    return drawn


def write_figure(folder: Path, figure: Figure) -> dict[str, bytes]:
    """Write a figure as PNG and SVG into a folder; returns what `render` does."""
    drawn = render(figure)
    for suffix, data in drawn.items():
        write_bytes(folder / f"{figure.name}{suffix}", data)
    return drawn
