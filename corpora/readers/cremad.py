"""CREMA-D: English, acted, 91 speakers, twelve sentences, rated by a crowd.

Cao, Cooper, Keutmann, Gur, Nenkova, Verma: CREMA-D: Crowd-sourced Emotional Multimodal Actors
Dataset, IEEE Transactions on Affective Computing 5(4), 2014, 377-390. A recording is named
`1001_IEO_ANG_HI`: actor, sentence, emotion to be acted, intensity. Raters heard the voice, saw
the face, or both, and often disagree with what was to be acted; so whose label it is, is an option.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from corpora.base.errors import CorpusError
from corpora.readers.delimited import named_rows
from corpora.readers.options import DROP, TIES, Option, Options, leaders
from corpora.readers.registry import Dropped, ReadResult, register
from corpora.readers.tree import files_below, inside, wrong_root
from corpora.utterance import SEX_SPELLINGS, Utterance

LETTERS = {
    "A": "anger", "D": "disgust", "F": "fear", "H": "happy", "N": "neutral", "S": "sad",
}  # fmt: skip
LABELS = tuple(LETTERS.values())
ACTED = {
    "ANG": "anger", "DIS": "disgust", "FEA": "fear", "HAP": "happy", "NEU": "neutral", "SAD": "sad",
}  # fmt: skip
SENTENCES = {
    "IEO": "It's eleven o'clock.",
    "TIE": "That is exactly what happened.",
    "IOM": "I'm on my way to the meeting.",
    "IWW": "I wonder what this is about.",
    "TAI": "The airplane is almost full.",
    "MTI": "Maybe tomorrow it will be cold.",
    "IWL": "I would like a new alarm clock.",
    "ITH": "I think I have a doctor's appointment.",
    "DFA": "Don't forget a jacket.",
    "ITS": "I think I've seen this before.",
    "TSI": "The surface is slick.",
    "WSI": "We'll stop in a couple of minutes.",
}
NAME = re.compile(r"(?P<actor>\d{4})_(?P<sentence>[A-Z]{3})_(?P<acted>[A-Z]{3})_[A-Z]{1,2}")
INTENDED, VOICE, MULTIMODAL = "intended", "voice", "multimodal"
FIRST_DIGIT = {VOICE: "1", MULTIMODAL: "3"}  # of a row's number; 2 is the face alone
TABLES = ("processedResults/tabulatedVotes.csv", "tabulatedVotes.csv")
AUDIO = "AudioWAV"
LOOKED_FOR = f"{AUDIO}/ with recordings named like 1001_IEO_ANG_HI.wav, or {TABLES[0]}"


@register(
    "cremad",
    title="CREMA-D, English, acted, 91 speakers, crowd-sourced ratings",
    licence="Open Database License 1.0; contents under the Database Contents License 1.0",
    source="https://github.com/CheyneyComputerScience/CREMA-D (recordings by git lfs)",
    needs=f"the folder that holds {AUDIO}/ and, for votes, {TABLES[0]}",
    options={
        "label_source": Option(
            "whose emotion is the label: the one to be acted, or the vote of those who heard the "
            "voice, or who heard and saw",
            INTENDED,
            (INTENDED, VOICE, MULTIMODAL),
        ),
        "ties": TIES,
    },
)
def read_cremad(root: Path, options: Options) -> ReadResult:
    """Read every recording and every clip of the table of votes, whether or not it is recorded.

    `votes` are the multimodal ones for `label_source=multimodal`, else those on the voice alone.
    """
    source, ties = str(options["label_source"]), str(options["ties"])
    dropped: list[Dropped] = []
    recordings = {path.stem: path for path in files_below(root, ".wav")}
    table = next((root / name for name in TABLES if (root / name).is_file()), None)
    heard = MULTIMODAL if source == MULTIMODAL else VOICE
    votes = _votes(table, root, heard, dropped) if table else {}
    if not any(NAME.fullmatch(name) for name in (*recordings, *votes)):
        raise wrong_root(root, "CREMA-D", LOOKED_FOR)
    if source != INTENDED and not table:
        raise CorpusError(
            f"{root} has no {TABLES[0]}, so there is no {source} vote. Get the table from the "
            "corpus's repository, or take --set label_source=intended."
        )
    sexes = _sexes(root, dropped)
    utterances: list[Utterance] = []
    for name in sorted({*recordings, *votes}):
        path = recordings.get(name, root / AUDIO / f"{name}.wav")
        parts = NAME.fullmatch(name)
        if parts is None or parts["acted"] not in ACTED:
            where = inside(path, root) if name in recordings else f"{TABLES[0]} ({name})"
            dropped.append(Dropped(where, "not named like 1001_IEO_ANG_HI"))
            continue
        label = ACTED[parts["acted"]]
        if source != INTENDED:
            best = leaders(votes.get(name, {}), LABELS)
            if not best or (len(best) > 1 and ties == DROP):
                tied = f"the {source} vote ties (--set ties=first keeps it)"
                reason = tied if best else f"no {source} vote"
                dropped.append(Dropped(inside(path, root), reason))
                continue
            label = best[0]
        utterances.append(
            Utterance(
                id=name,
                audio=path,
                label=label,
                text=SENTENCES.get(parts["sentence"], ""),
                speaker=parts["actor"],
                sex=sexes.get(parts["actor"], ""),
                language="en",
                corpus="cremad",
                votes=votes.get(name),
            )
        )
    return ReadResult(
        utterances=tuple(utterances),
        labels=LABELS,
        dropped=tuple(dropped),
        notes=_notes(utterances, votes, heard, recordings),
        tables=(table,) if table else (),
    )


def _votes(
    table: Path, root: Path, heard: str, dropped: list[Dropped]
) -> dict[str, Mapping[str, float]]:
    """The votes on each clip, by those who heard the voice or who heard and saw it."""
    votes: dict[str, Mapping[str, float]] = {}
    needed = ("", "fileName", *LETTERS)  # the number of a row is in a column without a name
    for line, (number, name, *cells) in named_rows(table, root, needed, dropped):
        if not number.startswith(FIRST_DIGIT[heard]):
            continue
        if not all(cell.isdecimal() for cell in cells):
            reason = "a number of votes is not a whole number"
            dropped.append(Dropped(f"{inside(table, root)}:{line}", reason))
            continue
        counts = {label: float(cell) for label, cell in zip(LABELS, cells, strict=True)}
        if any(counts.values()):
            votes[name] = {label: count for label, count in counts.items() if count}
    return votes


def _sexes(root: Path, dropped: list[Dropped]) -> dict[str, str]:
    table = root / "VideoDemographics.csv"
    if not table.is_file():
        return {}
    rows = named_rows(table, root, ("ActorID", "Sex"), dropped)
    return {actor: SEX_SPELLINGS.get(sex.lower(), "") for _, (actor, sex) in rows}


def _notes(
    utterances: Sequence[Utterance],
    votes: Mapping[str, Mapping[str, float]],
    heard: str,
    recordings: Mapping[str, Path],
) -> tuple[str, ...]:
    notes = [
        "All actors say the same twelve sentences: text tells nothing about the emotion, and a "
        "speaker-disjoint split still shares its texts."
    ]
    if votes:
        best = {name: leaders(counts, LABELS) for name, counts in votes.items()}
        same = sum(labels == (ACTED.get(name[9:12]),) for name, labels in best.items())
        tied = sum(len(labels) > 1 for labels in best.values())
        notes.append(
            f"The {heard} vote is the emotion that was to be acted in {same / len(votes):.1%} of "
            f"{len(votes):,} clips; {tied:,} ties count as misses."
        )
    else:
        notes.append(f"No {TABLES[0]}: the utterances have no votes.")
    absent = sum(u.id not in recordings for u in utterances)
    if absent:
        notes.append(
            f"{absent:,} of {len(utterances):,} clips have no recording below the folder: the "
            f"repository keeps {AUDIO}/ in Git LFS (`git lfs pull`)."
        )
    return tuple(notes)
