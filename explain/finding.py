"""The strongest finding of an analysis, which stands in its data under `finding`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from corpora.base.codec import Jsonable
from corpora.base.report import Report

#: Of an interval; None where there is none.
Ends = tuple[float | None, float | None]


@dataclass(frozen=True)
class Finding(Jsonable):
    """What an analysis found, in a sentence.

    Attributes:
        text: the sentence.
        table: the name of the table it stands in.
        strength: how far it lies from what chance gives, in halves of its 95 % interval; 0 where
            there is none.
    """

    text: str
    table: str
    strength: float = 0.0


def strength(value: float, ends: Ends | None, chance: float = 0.0) -> float:
    """See `Finding.strength`.

    Args:
        value: what was found.
        ends: of its interval; None where there is none.
        chance: what it would be if there were nothing to find.
    """
    low, high = ends or (None, None)
    if low is None or high is None:
        return 0.0
    return abs(value - chance) / max((high - low) / 2, 1e-9)


def strongest(findings: Iterable[Finding]) -> dict[str, dict[str, object]]:
    """The entry `finding` of an analysis's data; none where all may be chance.

    A finding without an interval stands behind those that have one, in the order given.
    """
    held = [one for one in findings if not 0 < one.strength <= 1]
    best = max(held, key=lambda one: one.strength, default=None)
    return {} if best is None else {"finding": best.to_json()}


def ends_text(ends: Ends | None, digits: int = 2) -> str:
    """An interval in a sentence, with a space before it; "" where there is none."""
    low, high = ends or (None, None)
    return "" if low is None or high is None else f" [{low:.{digits}f}, {high:.{digits}f}]"


def findings_of(sections: Sequence[Report]) -> dict[str, Finding]:
    """By the title of a section what it found."""
    return {
        one.title: Finding.from_json(one.data["finding"])
        for one in sections
        if "finding" in one.data
    }
