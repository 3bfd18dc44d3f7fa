"""What an extraction did. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from cache.extracting.targets import Item


@dataclass
class ExtractReport:
    """What an extraction did; filled while it runs.

    Attributes:
        added: new utterances by stream path.
        failures: reasons by utterance id.
        failed: content keys of inputs that were tried and could not be used.
        seconds_of_audio: encoded in this run.
        seconds: it took.
        truncated: texts that were longer than their encoder reads.
        estimated: bytes that were expected to be added, by stream path.
    """

    added: dict[str, int] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)
    seconds_of_audio: float = 0.0
    seconds: float = 0.0
    truncated: int = 0
    estimated: dict[str, int] = field(default_factory=dict)

    def fail(self, item: Item, reason: str) -> None:
        """Note why an input has no frames, for every utterance that has it."""
        self.failed.add(item.key)
        for utterance in item.utterances:
            self.failures[utterance.id] = reason
