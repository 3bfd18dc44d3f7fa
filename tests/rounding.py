"""Tolerances from the arithmetic, for numbers that depend on a processor's kernels.

Two processors, two numbers of threads or two batch sizes add the same numbers up in different
orders. What is the same code on the same machine is compared to the bit; everything else by this.
"""

from __future__ import annotations

import math

from torch import Tensor

#: Largest relative error of one float32 operation.
UNIT = 2.0**-24
# The largest of many thousand values lies four or five times above the usual one, and a few sums
# follow one another.
_ROOM = 8


def summed(values: Tensor, terms: int) -> float:
    """How far sums may lie apart that differ in the order of their additions alone.

    Each of n additions rounds a partial sum by up to `UNIT` of it. Of terms of either sign the
    partial sums grow like √n, as the sum itself, and so do n roundings of either sign: together
    about `UNIT` · √n · |sum|. (The bound that always holds, n · `UNIT` · Σ|term|, is √n² times as
    large, and would find no mistake.)

    Args:
        values: what was computed; the largest sets the scale.
        terms: of the longest sum.
    """
    largest: float = values.detach().abs().max().item()
    return _ROOM * UNIT * math.sqrt(terms) * largest
