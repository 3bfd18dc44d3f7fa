"""A comparison of two subjects, as data and as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from corpora.base.terminal import aligned
from heads.statistics.comparison import Difference


@dataclass(frozen=True)
class Against:
    """A comparison with one other subject.

    Attributes:
        kind: of the other, `head` or `model`.
        source: of the other.
        n: utterances that both could use.
        own: macro-F1 of the subject on them.
        other: macro-F1 of the other on them.
        difference: own less other, with its interval and p; None where a bootstrap says nothing.
        reason: why there is none, or what makes it doubtful; else "".
        note: what has to be said about the other's manifest; "" for nothing.
    """

    kind: str
    source: Path
    n: int
    own: float
    other: float
    difference: Difference | None
    reason: str
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        difference = self.difference and self.difference.to_json()
        return {**asdict(self), "source": str(self.source), "difference": difference}


def against_lines(compared: Sequence[Against]) -> list[str]:
    """For a terminal."""
    shown = "difference, 95 % interval" if compared[0].difference else "difference"
    rows = [("compared with", "macro-F1", "of the other", shown)]
    rows += [
        (
            f"{one.kind} {one.source}",
            f"{one.own:.3f}",
            f"{one.other:.3f}",
            str(one.difference) if one.difference else f"{one.own - one.other:+.3f}",
        )
        for one in compared
    ]
    lines = aligned(rows)
    how = "; paired bootstrap over speakers" if compared[0].difference else ""
    how += ", p corrected for the number of comparisons" if how and len(compared) > 1 else ""
    lines.append(f"[{compared[0].n:,} utterances, those that all could use{how}]")
    if compared[0].reason:
        label = "Note" if compared[0].difference else "No interval"
        lines.append(f"{label}: {compared[0].reason}.")
    lines += [f"Note on {one.source}: {one.note}" for one in compared if one.note]
    return lines
