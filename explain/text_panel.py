"""Text under the picture of an utterance: a bar for each token, words where they are known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from explain.attention import Reading
from explain.item import Item
from explain.ragged import Floats
from explain.style import GREY, ORANGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHADES = (ORANGE, "#B97A00")
LONGEST_LABEL = 40
# Labels that stand side by side; more are turned.
SIDE_BY_SIDE = 14


def has_text(item: Item) -> bool:
    """Whether there is something to draw."""
    return bool(item.reading.words) if item.reading is not None else item.tokens is not None


def draw_text(axes: Axes, item: Item) -> None:
    """A bar for each token, 1 = even, those of a word side by side and the word below.

    Where it is not known which tokens are words, their positions stand below.
    """
    if item.reading is not None:
        _draw_words(axes, item.reading)
    elif item.tokens is not None:
        _draw_positions(axes, item.tokens)
    axes.axhline(1, color=GREY, lw=0.6, ls="--")
    axes.yaxis.label.set(rotation=0, horizontalalignment="right", verticalalignment="center")


def _draw_words(axes: Axes, reading: Reading) -> None:
    tokens = [t for word in reading.words for t in word.tokens]
    total = sum(tokens) or 1.0
    left = 0
    ticks = []
    for number, word in enumerate(reading.words):
        count = len(word.tokens)
        places = np.arange(left, left + count)
        heights = np.array(word.tokens) / total * len(tokens)
        axes.bar(places, heights, 0.9, color=SHADES[number % 2])
        ticks.append((left + (count - 1) / 2, literal(shortened(word.text, LONGEST_LABEL))))
        left += count
    axes.set_xticks([t for t, _ in ticks], [n for _, n in ticks], fontsize=7)
    if left > SIDE_BY_SIDE:
        axes.tick_params(axis="x", labelrotation=45)
    axes.set_xlim(-0.6, left - 0.4)
    axes.set_ylabel(f"tokens\n(1 = even;\n{reading.special:.0%} on\nspecial)")


def _draw_positions(axes: Axes, tokens: Floats) -> None:
    axes.bar(np.arange(1, len(tokens) + 1), tokens * len(tokens), 0.9, color=ORANGE)
    axes.set_xlim(0.4, len(tokens) + 0.6)
    axes.set_xlabel("position of the token: which word it is of is not in the cache", fontsize=7)
    axes.set_ylabel("tokens\n(1 = even)")


def literal(text: str) -> str:
    """Text as it is: a dollar sign would begin mathematics."""
    return text.replace("$", r"\$")


def shortened(text: str, most: int) -> str:
    """A text of at most so many letters, an ellipsis for the rest."""
    return text if len(text) <= most else f"{text[: max(most - 1, 1)]}…"
