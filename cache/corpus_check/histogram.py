"""Histograms of counts, as numbers and as bars of text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from corpora.base.terminal import aligned

BINS = 12
BAR = 40  # columns of the longest bar
# The last bin takes the longest 1 %, so that one long recording does not squeeze all the others.
TAIL = 99.0
NICE = (1, 2, 5)


@dataclass(frozen=True)
class Histogram:
    """How often values fall between edges.

    Attributes:
        edges: `[bins + 1]`, the last is the largest value.
        counts: `[bins]`; a bin holds its lower edge, the last one both.
        of: what was counted.
        source: where the values come from.
    """

    edges: tuple[int, ...]
    counts: tuple[int, ...]
    of: str
    source: str

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "of": self.of,
            "source": self.source,
            "edges": list(self.edges),
            "counts": list(self.counts),
        }

    def to_lines(self) -> list[str]:
        """Lines with bars, for a terminal."""
        most = max(self.counts, default=0)
        rows = []
        for low, high, count in zip(self.edges, self.edges[1:], self.counts, strict=False):
            last = high == self.edges[-1]
            bar = "█" * max(round(BAR * count / most) if most else 0, int(count > 0))
            rows.append((f"{low:,}", f"to {high if last else high - 1:,}", f"{count:,}", bar))
        return [f"{self.of} ({self.source})", *aligned(rows, right=(0, 2))]


def histogram(values: Sequence[int], of: str, source: str) -> Histogram | None:
    """Count values in bins of equal, round width; None where there are none."""
    array = np.asarray(values, dtype=np.int64)
    if not array.size:
        return None
    top = max(float(np.percentile(array, TAIL)), 1.0)
    width = _nice(top / (BINS - 1))
    edges = [k * width for k in range(BINS) if k * width <= array.max()]
    edges.append(max(int(array.max()), edges[-1] + 1))
    counts, _ = np.histogram(array, bins=edges)
    return Histogram(tuple(edges), tuple(counts.tolist()), of, source)


def _nice(width: float) -> int:
    """The next of 1, 2, 5, 10, 20, 50 … that is not smaller."""
    scale = 1
    while True:
        for step in NICE:
            if step * scale >= width:
                return step * scale
        scale *= 10
