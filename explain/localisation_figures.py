"""The figures of localisation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from explain.localisation import BAND, HELD, PLACES, POINTS, PUBLISHED_SHARE, Concentration
from explain.ragged import Floats
from explain.style import BLUE, BY_MODALITY, GREY, ORANGE, RED

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

MOST_BARS = 40


def draw_curves(canvas: Canvas, found: Mapping[str, Concentration], method: str) -> None:
    """Cumulative attention of each modality, or what stands for it; with a band over utterances."""
    axes = canvas.add_subplot()
    for name, c in found.items():
        colour = BY_MODALITY[name]
        low, high = np.percentile(c.curves, BAND, axis=0)
        axes.fill_between(100 * POINTS, 100 * low, 100 * high, color=colour, alpha=0.15, lw=0)
        share = c.of_mean_curve()
        label = f"{name}: {share:.0%} hold {HELD:.0%} (mean curve)"
        axes.plot(100 * POINTS, 100 * c.curves.mean(axis=0), color=colour, label=label)
        axes.plot([100 * share], [100 * HELD], "o", color=colour)
    axes.plot([100 * PUBLISHED_SHARE], [100 * HELD], "X", color=RED, ms=9)
    axes.annotate(
        "published (audio, AS): 15 %",
        (100 * PUBLISHED_SHARE, 100 * HELD),
        (100 * PUBLISHED_SHARE + 2, 100 * HELD + 8),
        color=RED,
    )
    axes.plot([0, 100], [0, 100], ":", color=GREY, label=f"even {method}")
    axes.axhline(100 * HELD, color=GREY, lw=0.6, ls="--")
    axes.set(
        xlabel="frames, most attended first (%)",
        ylabel=f"{method} held (%)",
        xlim=(0, 100),
        ylim=(0, 102),
        title=f"Cumulative {method}; band: {BAND[0]:g}th to {BAND[1]:g}th percentile",
    )
    axes.legend(loc="lower right")


def draw_places(canvas: Canvas, frames: Floats, attention: Floats, method: str) -> None:
    """Shares of frames and of attention, `[3]` each, on speech, pauses and edges."""
    axes = canvas.add_subplot()
    height = np.arange(len(PLACES))
    axes.barh(height + 0.2, 100 * frames, 0.38, color=GREY, label="of frames")
    axes.barh(height - 0.2, 100 * attention, 0.38, color=BLUE, label=f"of {method}")
    axes.set_yticks(height, PLACES)
    axes.invert_yaxis()
    axes.set(xlabel="share (%)", xlim=(0, 100))
    axes.legend(loc="lower right")


def draw_lengths(canvas: Canvas, found: Mapping[str, Concentration]) -> None:
    """How many frames utterances have, for each modality."""
    every = canvas.subplots(1, len(found), squeeze=False)[0]
    for axes, (name, c) in zip(every, found.items(), strict=True):
        low, high = int(c.counts.min()), int(c.counts.max())
        # Whole numbers to a bar, all bars alike.
        step = -(-(high - low + 1) // MOST_BARS)
        axes.hist(c.counts, np.arange(low, high + step + 1, step) - 0.5, color=BY_MODALITY[name])
        middle = float(np.median(c.counts))
        axes.axvline(middle, color=ORANGE if name == "audio" else BLUE, lw=1.5)
        what = "audio frames" if name == "audio" else "text tokens"
        axes.set(xlabel=f"{what} per utterance (line: median {middle:g})", ylabel="utterances")
