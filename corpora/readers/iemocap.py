"""IEMOCAP: English, dyadic sessions of ten actors, scripted and improvised.

Busso, Bulut, Lee, Kazemzadeh, Mower, Kim, Chang, Lee, Narayanan: IEMOCAP: interactive emotional
dyadic motion capture database, Language Resources and Evaluation 42, 2008, 335-359.

A turn is named `Ses01F_impro01_M000`: session 1, a dialog, and who speaks in it, F or M. The F in
`Ses01F` says who wore the markers, not who speaks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from corpora.base.encodings import encoding_of
from corpora.readers.options import LabelSet, Option, Options
from corpora.readers.registry import Dropped, ReadResult, register
from corpora.readers.tree import inside, wrong_root
from corpora.utterance import Utterance

SETS = {
    "4": LabelSet(("ang", "hap", "sad", "neu"), {"exc": "hap"}),
    "6": LabelSet(("ang", "hap", "exc", "sad", "fru", "neu")),
    "all": LabelSet(("ang", "hap", "exc", "sad", "fru", "neu", "fea", "sur", "dis", "oth")),
}
NO_AGREEMENT = "xxx"
SCALE = (1.0, 5.0)
SESSION = re.compile(r"Session(\d+)")
TURN = re.compile(r"Ses(?P<session>\d\d)[FM]_\w+_(?P<sex>[FM])\w*")
HEAD = re.compile(r"\[[\d.]+ - [\d.]+\]\t(?P<turn>\S+)\t(?P<code>\w+)\t\[(?P<vad>[^\]]*)\]")
RATER = re.compile(r"C-E\d+:\t(?P<names>[^\t]*)")  # E: another person's ear, not the actor's own
SPOKEN = re.compile(r"(?P<turn>\S+) \[[\d.]+-[\d.]+\]: *(?P<text>.*)")
EVALUATIONS = "dialog/EmoEvaluation"
LOOKED_FOR = f"folders Session1 to Session5 with {EVALUATIONS}/*.txt"


@register(
    "iemocap",
    title="IEMOCAP, English, scripted and improvised dialogues, 10 speakers in 5 sessions",
    licence="academic licence of the University of Southern California, on request",
    source="https://sail.usc.edu/iemocap/",
    needs="IEMOCAP_full_release, the folder that holds Session1, Session2, …",
    options={
        "labels": Option(
            "classes: ang hap sad neu with exc counted as hap; or ang hap exc sad fru neu; or all",
            "4",
            tuple(SETS),
        )
    },
)
def read_iemocap(root: Path, options: Options) -> ReadResult:
    """Read the turns that `EmoEvaluation` rates; votes are those of the other people's ratings."""
    labels = SETS[str(options["labels"])]
    utterances: list[Utterance] = []
    dropped: list[Dropped] = []
    for session in _sessions(root):
        texts = _transcripts(session, root, dropped)
        for path in sorted((session / EVALUATIONS).glob("Ses*.txt")):
            utterances += _turns(path, root, labels, texts, dropped)
    if not utterances and not dropped:
        raise wrong_root(root, "IEMOCAP", LOOKED_FOR)
    silent = sum(not u.text for u in utterances)
    notes = [f"{silent} turns have no line in dialog/transcriptions."] if silent else []
    return ReadResult(
        utterances=tuple(utterances),
        labels=labels.labels,
        dropped=tuple(dropped),
        notes=tuple(notes),
        scales=dict.fromkeys(("valence", "arousal", "dominance"), SCALE),
    )


def _sessions(root: Path) -> list[Path]:
    """The session folders in `root`, or else those one level down."""
    if not root.is_dir():
        return []
    for pattern in ("Session*", "*/Session*"):
        found = [p for p in root.glob(pattern) if SESSION.fullmatch(p.name) and p.is_dir()]
        if found:
            return sorted(found, key=lambda path: int(path.name[len("Session") :]))
    return []


def _turns(
    path: Path, root: Path, labels: LabelSet, texts: Mapping[str, str], dropped: list[Dropped]
) -> Iterator[Utterance]:
    """Yield the turns of one dialog, in the order of its file."""
    lines = path.read_text(encoding=encoding_of(path)).split("\n")
    starts = [n for n, line in enumerate(lines) if line.startswith("[")]
    wav = path.parents[2] / "sentences" / "wav"
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        place = f"{inside(path, root)}:{start + 1}"
        head = HEAD.match(lines[start])
        turn = TURN.fullmatch(head["turn"]) if head else None
        ratings = _numbers(head["vad"]) if head else None
        if head is None or turn is None or ratings is None:
            reason = "not of the form [start - end] TURN EMOTION [V, A, D], separated by tabs"
            dropped.append(Dropped(place, reason))
            continue
        label = labels.label(head["code"])
        if label is None:
            dropped.append(Dropped(place, _unwanted(head["code"])))
            continue
        name = head["turn"]
        session, sex = turn["session"], turn["sex"]
        valence, arousal, dominance = ratings
        yield Utterance(
            id=name,
            audio=wav / name.rpartition("_")[0] / f"{name}.wav",
            label=label,
            text=texts.get(name, ""),
            speaker=f"Ses{session}{sex}",
            session=str(int(session)),
            sex="female" if sex == "F" else "male",
            language="en",
            corpus="iemocap",
            valence=valence,
            arousal=arousal,
            dominance=dominance,
            votes=labels.votes(_votes(lines[start + 1 : end])),
        )


def _numbers(cell: str) -> tuple[float, float, float] | None:
    try:
        valence, arousal, dominance = (float(part) for part in cell.split(","))
    except ValueError:
        return None
    return valence, arousal, dominance


def _unwanted(code: str) -> str:
    if code == NO_AGREEMENT:
        return "the raters do not agree (xxx)"
    if code in SETS["all"].labels:
        return f"emotion {code} is not among the classes (--set labels=all keeps it)"
    return f"emotion '{code}' is not one of {' '.join(SETS['all'].labels)} xxx"


def _votes(lines: Sequence[str]) -> dict[str, float]:
    """Count the emotions that the raters name; a rater may name several, each counts one."""
    votes: dict[str, float] = {}
    for line in lines:
        rater = RATER.match(line)
        for name in rater["names"].split(";") if rater else ():
            code = name.strip().lower()[:3]  # "Neutral state", "Happiness", "Excited", …
            if code in SETS["all"].labels:
                votes[code] = votes.get(code, 0.0) + 1.0
    return votes


def _transcripts(session: Path, root: Path, dropped: list[Dropped]) -> dict[str, str]:
    """What is said in each turn of a session."""
    texts: dict[str, str] = {}
    for path in sorted((session / "dialog" / "transcriptions").glob("Ses*.txt")):
        lines = path.read_text(encoding=encoding_of(path)).split("\n")
        for number, line in enumerate(lines, 1):
            spoken = SPOKEN.match(line)
            if spoken:
                texts[spoken["turn"]] = spoken["text"].strip()
            elif line.startswith("Ses"):  # other lines are remarks of the transcribers
                reason = "not of the form TURN [start-end]: text"
                dropped.append(Dropped(f"{inside(path, root)}:{number}", reason))
    return texts
