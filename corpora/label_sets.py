"""From a corpus's own emotion codes to the classes of a study, for labels and for votes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from corpora.options import Option

DROP, FIRST = "drop", "first"
TIES = Option(
    "votes that tie: leave the utterance out, or take the first of the tied in label order",
    DROP,
    (DROP, FIRST),
)


@dataclass(frozen=True)
class LabelSet:
    """The classes of a study on one corpus.

    Attributes:
        labels: the classes, in label order.
        merged: codes of the corpus that count as one of the labels under another name.
    """

    labels: tuple[str, ...]
    merged: Mapping[str, str] = field(default_factory=dict)

    def label(self, code: str) -> str | None:
        """Return the class of a code, or None where the set has none for it."""
        name = self.merged.get(code, code)
        return name if name in self.labels else None

    def votes(self, counts: Mapping[str, float]) -> Mapping[str, float] | None:
        """Return votes with merged codes added up; codes outside the set stay under their names.

        They tell how much of the vote went elsewhere; what learns from votes reads its own labels.
        """
        summed: dict[str, float] = {}
        for code, count in counts.items():
            name = self.merged.get(code, code)
            summed[name] = summed.get(name, 0.0) + count
        return summed if any(summed.values()) else None


def leaders(votes: Mapping[str, float], order: Sequence[str]) -> tuple[str, ...]:
    """Return the labels with the most votes, in label order; several are a tie, none no vote."""
    most = max(votes.values(), default=0.0)
    return tuple(label for label in order if most and votes.get(label, 0.0) == most)
