"""What a comparison of the cache with transformers' own pipeline found. Imports no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from corpora.base.errors import CacheError
from corpora.base.terminal import table_lines


@dataclass(frozen=True)
class StreamCheck:
    """One stream.

    Attributes:
        stream: its path inside the cache.
        utterances: how many were compared.
        largest: largest difference of a value.
        of_tolerance: largest difference as a fraction of what is allowed at that value.
        worst: the utterance with that one.
    """

    stream: str
    utterances: int
    largest: float
    of_tolerance: float
    worst: str


@dataclass(frozen=True)
class CheckReport:
    """All streams of encoders.

    Attributes:
        streams: what was compared.
        windowed: utterances passed over, because they were encoded in windows.
        tolerance: what is allowed, in words.
    """

    streams: tuple[StreamCheck, ...]
    windowed: int
    tolerance: str

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return asdict(self)

    def to_text(self) -> str:
        """The same to read."""
        rows = [
            ("stream", "utterances", "largest difference", "of tolerance"),
            *(
                (one.stream, str(one.utterances), f"{one.largest:.2e}", f"{one.of_tolerance:.2f}")
                for one in self.streams
            ),
        ]
        lines = ["Compared with transformers' pipeline, one by one:", *table_lines(rows, 1)]
        lines.append(f"Tolerance: {self.tolerance}.")
        if self.windowed:
            lines.append(
                f"{self.windowed} of them encoded in windows, which has no counterpart there."
            )
        return "\n".join(lines)

    def raise_if_beyond(self) -> None:
        """Fail where a value is beyond the tolerance.

        Raises:
            CacheError: names the worst stream and utterance.
        """
        worst = max(self.streams, key=lambda one: one.of_tolerance, default=None)
        if worst is not None and not worst.of_tolerance <= 1:
            raise CacheError(
                f"{worst.stream} differs from transformers' pipeline by up to {worst.largest:.3g} "
                f"(utterance {worst.worst}), {worst.of_tolerance:.1f} times what is allowed. "
                "Run `cache verify`; if it finds nothing wrong, please report this."
            )
