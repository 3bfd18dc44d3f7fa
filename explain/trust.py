"""Whether attention may be believed: what faithfulness on a split says of single answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from corpora.base.files import read_json
from corpora.utterance import split_name
from explain.evidence_cues import Reference
from explain.report.write import FORMAT, VERSION
from explain.subject import Subject
from heads.records import tensor_digest

# Sections of the report, and an entry of the second's data.
FAITHFULNESS, EVIDENCE, NEUTRAL = "Faithfulness", "Evidence", "neutral"


@dataclass(frozen=True)
class Trust:
    """Whether sentences may be made of what is lost without attended frames.

    Attributes:
        tells: whether they may (`explain.curves.dropping_tells`).
        reason: a sentence on why or why not.
        tested: by modality the tests of a split that say so, of which this page has no section.
        where: that split, in words.
    """

    tells: bool
    reason: str
    tested: Mapping[str, Any] = field(default_factory=dict)
    where: str = ""


def head_digest(subject: Subject) -> str:
    """SHA-256 of the head's numbers, by which a verdict is known to be about this head."""
    state = subject.head.state_dict()
    return tensor_digest({name: value.contiguous() for name, value in state.items()})


def judge(faithfulness: Mapping[str, Any], split: str) -> Trust:
    """What the faithfulness of a split's utterances (the section's data) allows to be said."""
    audio = faithfulness.get("audio")
    if audio is None:
        return Trust(False, "No sentence is made: this head does not listen.")
    verdict, where = audio["verdict"], f"On {split_name(split)}"
    if audio["dropping_tells"]:
        shown = "Sentences are made: it is shown that attended frames matter more than others."
        return Trust(True, f"{shown} {where}: {verdict}")
    return Trust(
        False,
        "No sentence is made: it is not shown that attended frames matter more than others. "
        f"{where}: {verdict}",
    )


def kept_verdict(summary: Path, subject: Subject) -> tuple[Trust, Reference | None]:
    """What the last `explain` of a split left about this head: its verdict and neutral speech.

    A few utterances cannot tell whether attention may be believed.

    Raises:
        FormatVersionError: the file is not what this version writes.
    """
    why = "No sentence is made: "
    if not summary.is_file():
        why = f"{why}run `explain` on a split first, which tests attention."
        return Trust(False, why), None
    kept = read_json(summary, kind=FORMAT, version=VERSION)
    if kept.get("head_sha256") != head_digest(subject):
        why = f"{why}{summary} is about another head; run `explain` on a split of this one."
        return Trust(False, why), None
    sections = kept["sections"]
    neutral = sections.get(EVIDENCE, {}).get(NEUTRAL)
    reference = None if neutral is None else Reference.from_json(neutral)
    tested = sections.get(FAITHFULNESS, {})
    trust = judge(tested, kept["split"])
    return replace(trust, tested=tested, where=split_name(kept["split"])), reference
