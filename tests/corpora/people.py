"""Utterances of invented people, without recordings: for splits, folds and balance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from corpora.utterance import Utterance

LABELS = ("anger", "joy", "calm")


def people(
    speakers: Sequence[str],
    *,
    each: int = 4,
    labels: Sequence[str] = LABELS,
    corpus: str = "c",
    sessions: Mapping[str, str] | None = None,
) -> list[Utterance]:
    """`each` utterances of every label from every speaker."""
    return [
        Utterance(
            id=f"{speaker}_{label}_{number}",
            audio=Path(f"/{corpus}/{speaker}_{label}_{number}.wav"),
            label=label,
            speaker=speaker,
            corpus=corpus,
            session=(sessions or {}).get(speaker, ""),
        )
        for speaker in speakers
        for label in labels
        for number in range(each)
    ]
