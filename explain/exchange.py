"""Exchanged attention: an utterance with the attention of another one, at the same relative place.

It keeps how attention follows itself in time and where in an utterance it lies, and stays within
speech; it loses what it points to in this utterance. Moved in a circle instead, attention would
keep neither: what declines from the start of utterances to their end would seem to draw attention
that is merely early.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from explain.ragged import Bools, Ints, positions, segment_sum, segments

_Value = TypeVar("_Value", bound=np.generic)


def exchanged(
    values: NDArray[_Value], offsets: Ints, usable: Bools, donors: Ints
) -> NDArray[_Value]:
    """`[N]`, the values of other utterances: usable frame j of S gets that at (j + ½) / S.

    Frames that are not usable keep their own value, and so does an utterance whose donor has no
    usable frame.

    Args:
        values: `[N]`.
        offsets: `[B+1]`.
        usable: `[N]`, frames that take part, such as those with speech.
        donors: `[B]`, from which utterance each one's values come.
    """
    held = np.flatnonzero(usable)
    counts = usable_counts(usable, offsets)
    starts = counts.cumsum() - counts
    own = segments(offsets)[held]
    donor = donors[own]
    place = positions(np.append(starts, len(held)))
    source = starts[donor] + same_place(place, counts[own], counts[donor])
    taken = counts[donor] > 0
    result = values.copy()
    result[held[taken]] = values[held[source[taken]]]
    return result


def same_place(place: Ints, count: Ints, other: Ints) -> Ints:
    """The frame of `other` that lies where frame `place` of `count` does, relative to its length.

    In whole numbers, which do not round. Arrays are broadcast.
    """
    found: Ints = (2 * place + 1) * other // (2 * count)
    return found


def usable_counts(usable: Bools, offsets: Ints) -> Ints:
    """`[B]`, usable frames of each utterance."""
    return segment_sum(usable, offsets).astype(np.int64)


def draw_donors(count: int, random: np.random.Generator) -> Ints:
    """`[B]`, another utterance for each of `count`, drawn at random; itself where it is alone."""
    if count < 2:
        return np.zeros(count, dtype=np.int64)
    drawn = random.integers(0, count - 1, count)
    # The numbers from its own on stand for those after it.
    return drawn + (drawn >= np.arange(count))
