"""Evidence in the report: a sentence for each answer whose evidence was tested, and its tables.

Every number of a sentence stands in one of the tables. Where a test failed there is no sentence,
and the table says which.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from corpora.base.report import Cell, Report, Table
from explain.cues.cues_section import WORDS
from explain.cues.descriptors import read_directions
from explain.evidence import (
    CHOICES,
    MOST_SPEECH,
    REACH,
    Emotion,
    Evidence,
    Stretch,
)
from explain.evidence_cues import CORPUS, SPEAKER, CueLevel, Reference
from explain.finding import Finding, strength, strongest
from explain.ragged import Floats, interval_note, speaker_means
from explain.subject import Subject
from explain.trust import EVIDENCE, NEUTRAL, Trust

# Of probability: what two decimal places show, and so what a sentence can say.
EVIDENT = 0.01
# Sentences shown of a split; the table and the page's list of utterances have all.
NAMED = 5
# Of deviations: a cue that is nearer to neutral is in the table, and not in the sentence.
DIFFERENT = 0.5
DISTRUSTED = "attention may not be believed"


def sentence(one: Evidence) -> str:
    """What an answer rests on; only of evidence that lacks nothing (see `untold`)."""
    first = one.emotions[0]
    emotions = [f"{e.label} ({e.probability:.2f})" for e in one.emotions]
    heard = f"{one.id}: heard as {_and(emotions, 'or')}"
    if len(one.emotions) > 1:
        heard += f", together {one.together:.2f}"
    words = _words(one)
    times = _and([_times(stretch) for stretch in one.stretches])
    attended = (
        f"It attends most to {words}{', at ' * bool(words)}{times} s: {one.seconds:.2f} s, "
        f"{one.share:.0%} of the frames, with {one.attention:.0%} of the attention"
    )
    others = _and([f"{e.label} is {e.without_others:.2f}" for e in one.emotions])
    lines = [
        heard,
        attended,
        f"When these frames are cut out, {_and([_change(e) for e in one.emotions])}; when as much "
        f"other speech is, {others}",
    ]
    for against in (SPEAKER, CORPUS):
        telling = [
            _level(level, first.label)
            for level in one.cues
            if level.against == against
            and first.label in level.expected
            and abs(level.difference) >= DIFFERENT
        ]
        if telling:
            lines.append(f"There, beside the {against}'s neutral speech, {_and(telling)}")
    return ". ".join(lines) + "."


def _and(parts: Sequence[str], word: str = "and") -> str:
    return f" {word} ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))


def _times(stretch: Stretch) -> str:
    return f"{stretch.start:.2f}–{stretch.end:.2f}"


def _words(one: Evidence) -> str:
    """The words of the stretches in order; one that goes on from stretch to stretch once."""
    words = [f"“{word}”" for stretch in one.stretches for word in stretch.words or ()]
    return ", ".join(word for at, word in enumerate(words) if not at or words[at - 1] != word)


def _change(one: Emotion) -> str:
    goes = "falls" if (one.lost or 0) >= 0 else "rises"
    return f"{one.label} {goes} from {one.probability:.2f} to {one.without:.2f}"


def _level(level: CueLevel, emotion: str) -> str:
    sign = 1 if level.difference >= 0 else -1
    expected = level.expected[emotion]
    agrees = f"as expected of {emotion}" if sign == expected else f"{WORDS[expected]} is expected"
    return (
        f"{level.cue.title} is {WORDS[sign]} by {abs(level.difference):.2f} standard deviations "
        f"({agrees})"
    )


def untold(one: Evidence, trust: Trust) -> str:
    """Why there is no sentence on an answer; "" where there is one."""
    first = one.emotions[0]
    if not trust.tells:
        return DISTRUSTED
    if first.lost is None:
        return "attention is even"
    if first.lost_elsewhere is None:
        return "there is less other speech than in the stretches"
    if first.lost < EVIDENT or first.lost - first.lost_elsewhere < EVIDENT:
        return "dropping the stretches costs hardly more than dropping other speech"
    return ""


def sentences(found: Sequence[Evidence], trust: Trust) -> list[str]:
    """Of each answer its sentence; "" where none may be made."""
    return ["" if untold(one, trust) else sentence(one) for one in found]


def told(one: Evidence, trust: Trust) -> str:
    """The sentence on an answer, or why there is none; "" where there is none on any."""
    why = untold(one, trust)
    if why == DISTRUSTED:
        return ""
    return f"No sentence on what it rests on: {why}." if why else sentence(one)


def evidence_section(
    subject: Subject,
    found: Sequence[Evidence],
    trust: Trust,
    reference: Reference | None = None,
    *,
    single: bool,
) -> Report:
    """Sentences, the tables that their numbers stand in, and what stretches cost on average.

    Args:
        subject: what is explained.
        found: of its utterances; empty where it hears nothing.
        trust: whether attention may be believed.
        reference: neutral speech that cues were compared with.
        single: of single utterances, not a split: then all sentences are shown, and are data.
    """
    if not found:
        why = f"{subject.deaf}: it attends to no sound."
        if subject.grid is not None:
            why = (
                "learns no attention to audio, so there are no attended stretches. (Without what "
                "gradient saliency picks, an answer is less sure by construction: no evidence.)"
            )
        return Report(EVIDENCE, (f"This head {why}",))
    said = sentences(found, trust)
    made = [text for text in said if text]
    text = [
        f"Of each answer: the fewest emotions whose probabilities reach {REACH:g} together; the "
        "stretches where attention, averaged over a tenth of a second, is highest: as many frames "
        f"as hold {REACH:g} of it but at most {MOST_SPEECH:.0%} of the speech; and these "
        "probabilities once exactly these frames are deleted, or instead as many other frames of "
        f"speech (a run of them; the mean of {CHOICES} choices)."
    ]
    lost, elsewhere, more = speaker_means(_losses(found), subject.speakers)
    told = (
        f"Without the frames it attends to most an answer is {lost.value:.2f} less probable, "
        f"without as much other speech {elsewhere.value:.2f}."
    )
    findings = [Finding(told, "evidence-emotions", strength(more.value, (more.low, more.high)))]
    if lost.count and not single:
        text.append(
            f"Without the stretches the probability of the most probable emotion falls by {lost}, "
            f"without as much other speech by {elsewhere}; the difference is {more}. Means over "
            f"{lost.count:,} of {len(found):,} utterances, those with as much other speech, with "
            f"{interval_note(subject.speakers) or '95 % intervals over speakers'}."
        )
    text.append(trust.reason)
    if trust.tells:
        text += [_counted(found, trust), *(made if single else made[:NAMED])]
        if not single and len(made) > NAMED:
            text.append(f"{len(made) - NAMED:,} more stand in the table, and with each utterance.")
    if all(stretch.words is None for one in found for stretch in one.stretches):
        text.append("Words are not known: no utterance has a TextGrid.")
    if not any(one.cues for one in found):
        text.append("Levels of cues are not known: no neutral speech is known to compare with.")
    data: dict[str, Any] = {"utterances": len(found), "sentences": len(made)}
    if lost.count:
        data |= {"tested": lost.count, "lost": lost.value, "lost_elsewhere": elsewhere.value}
        data |= {} if single else strongest(findings)
    if single:
        data["answers"] = evidence_data(found, trust)
    elif reference is not None:
        data[NEUTRAL] = reference.to_json()
    tables = (_answer_table(found, trust), _emotion_table(found), _cue_table(found))
    return Report(EVIDENCE, (*text, *(table for table in tables if table.rows)), data=data)


def _losses(found: Sequence[Evidence]) -> Floats:
    """`[n, 3]`, what the most probable emotion loses, elsewhere, and the difference, or NaN."""
    rows = []
    for first in (one.emotions[0] for one in found):
        if first.lost is None or first.lost_elsewhere is None:
            rows.append([np.nan] * 3)
        else:
            rows.append([first.lost, first.lost_elsewhere, first.lost - first.lost_elsewhere])
    return np.array(rows)


def _counted(found: Sequence[Evidence], trust: Trust) -> str:
    reasons = [untold(one, trust) for one in found]
    others = [
        f"{reasons.count(reason):,} because {reason}" for reason in dict.fromkeys(reasons) if reason
    ]
    line = f"{reasons.count(''):,} of {len(found):,} answers get a sentence"
    return f"{line}; the others do not, {_and(others)}." if others else f"{line}."


def _answer_table(found: Sequence[Evidence], trust: Trust) -> Table:
    rows: list[list[Cell]] = [
        [
            one.id, one.label or None, one.emotions[0].label, one.together,
            ", ".join(_times(stretch) for stretch in one.stretches), one.seconds, one.share,
            one.attention,
            _words(one) or None, "" if why else sentence(one), why or None,
        ]
        for one in found
        for why in [untold(one, trust)]
    ]  # fmt: skip
    columns = (
        "utterance", "label", "heard as", "emotions together", "stretches (s)", "seconds",
        "share of frames", "share of attention", "words", "sentence", "none because",
    )  # fmt: skip
    return Table("evidence", columns, rows, "What each answer rests on", 2)


def _emotion_table(found: Sequence[Evidence]) -> Table:
    rows: list[list[Cell]] = [
        [
            one.id, e.label, e.probability, e.without, e.lost, e.without_others, e.lost_elsewhere,
        ]
        for one in found
        for e in one.emotions
    ]  # fmt: skip
    columns = (
        "utterance", "emotion", "probability", "without the stretches", "lost",
        "without as much other speech", "lost ",
    )  # fmt: skip
    title = "Each emotion of the answers, with and without the stretches"
    return Table("evidence-emotions", columns, rows, title, 2)


def _cue_table(found: Sequence[Evidence]) -> Table:
    directions = read_directions()
    rows: list[list[Cell]] = []
    for one in found:
        for level in one.cues:
            for emotion in (e.label for e in one.emotions):
                sign = level.expected.get(emotion)
                source = directions.expected(emotion, level.cue.name)
                agrees = None if sign is None else bool(np.sign(level.difference) == sign)
                rows.append(
                    [
                        one.id, emotion, level.cue.name, level.level, level.cue.unit,
                        level.neutral, level.deviation, level.against, level.difference,
                        None if sign is None else WORDS[sign],
                        None if agrees is None else "yes" if agrees else "no",
                        None if source is None else "; ".join(source.sources),
                    ]
                )  # fmt: skip
    columns = (
        "utterance", "emotion", "cue", "level", "unit", "neutral", "deviation",
        "of whose utterances", "above neutral (deviations)", "expected", "agrees", "source",
    )  # fmt: skip
    return Table("evidence-cues", columns, rows, "Cues in the stretches against neutral speech", 2)


def evidence_data(found: Sequence[Evidence], trust: Trust) -> list[dict[str, Any]]:
    """Plain JSON values of each answer; what is not known is not there."""
    return [_answer_data(one, trust) for one in found]


def _answer_data(one: Evidence, trust: Trust) -> dict[str, Any]:
    why = untold(one, trust)
    emotions = [
        {
            "label": e.label,
            "probability": e.probability,
            "without": e.without,
            "lost": e.lost,
            "without_other_speech": e.without_others,
            "lost_elsewhere": e.lost_elsewhere,
        }
        for e in one.emotions
    ]
    stretches = [
        {"start": s.start, "end": s.end, "words": None if s.words is None else list(s.words)}
        for s in one.stretches
    ]
    cues = [
        {
            "cue": level.cue.name,
            "unit": level.cue.unit,
            "level": level.level,
            "neutral": level.neutral,
            "deviation": level.deviation,
            "of": level.against,
            "above_neutral": level.difference,
            "expected": {name: WORDS[sign] for name, sign in level.expected.items()},
        }
        for level in one.cues
    ]
    return {
        "id": one.id,
        "label": one.label,
        "emotions": [_present(entry) for entry in emotions],
        "together": one.together,
        "stretches": [_present(entry) for entry in stretches],
        "seconds": one.seconds,
        "share": one.share,
        "attention": one.attention,
        **({"cues": cues} if cues else {}),
        **({"none_because": why} if why else {"sentence": sentence(one)}),
    }


def _present(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def json_lines(found: Sequence[Evidence], trust: Trust) -> str:
    """The same, a line each."""
    return "".join(
        json.dumps(one, ensure_ascii=False, allow_nan=False) + "\n"
        for one in evidence_data(found, trust)
    )
