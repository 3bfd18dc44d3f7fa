"""MSP-Podcast: English, spontaneous speech from podcasts, rated by a crowd.

Lotfian, Busso: Building naturalistic emotionally balanced speech corpus by retrieving emotional
speech from existing podcast recordings, IEEE Transactions on Affective Computing 10(4), 2019,
471-483. The consensus is the first choice of most raters: one of eight emotions, `other`, or no
agreement. The last two are not scored by anybody; kept on request, they are classes for training
alone, behind the eight in the label order, and never stand in dev or test.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from corpora.base.errors import ManifestError
from corpora.delimited import named_rows
from corpora.msp_files import Files, files_of, podcast_of, read_partitions
from corpora.msp_ratings import CODES, LABELS, OTHER, read_votes
from corpora.names import is_unknown, split_named
from corpora.options import ALLOW_OUTSIDE, SHARED_SPEAKERS, Option, Options, chosen
from corpora.registry import Dropped, ReadResult, register
from corpora.rows import SEX_SPELLINGS, number
from corpora.tree import inside, wrong_root
from corpora.utterance import Utterance

NO_AGREEMENT = "no_agreement"
EXTRA = {"O": OTHER, "X": NO_AGREEMENT}
SCALE = (1.0, 7.0)
TEST_SETS = ("Test1", "Test2", "Test3")
BLIND = "_test3_"  # in the file names of the test set without labels
TABLES = tuple(
    folder + name
    for folder in ("Labels/", "")
    for name in ("labels_consensus.csv", "labels_concensus.csv")  # 1.8 spells it so
)
RATINGS = ("EmoVal", "EmoAct", "EmoDom")
LOOKED_FOR = f"{TABLES[0]}, Audios/ and Transcripts/"


@register(
    "msp_podcast",
    title="MSP-Podcast, English, spontaneous speech from podcasts, official splits",
    licence="academic licence of the University of Texas at Dallas, on request",
    source="https://lab-msp.com/MSP/MSP-Podcast.html",
    needs="the folder that holds Labels/, Audios/, Transcripts/ and Partitions.txt",
    options={
        "keep": Option(
            "keep these, usually left out, as classes for training: never in dev or test",
            "",
            (OTHER, NO_AGREEMENT),
            many=True,
        ),
        "test": Option("the test sets to score on", "Test1", TEST_SETS, many=True),
        "allow_outside": ALLOW_OUTSIDE,
        "shared_speakers": SHARED_SPEAKERS,
    },
)
def read_msp_podcast(root: Path, options: Options) -> ReadResult:
    """Read the consensus table; files of a test set without labels are kept to be predicted."""
    table = next((root / name for name in TABLES if (root / name).is_file()), None)
    if table is None:
        raise wrong_root(root, "MSP-Podcast", LOOKED_FOR)
    dropped: list[Dropped] = []
    notes: tuple[str, ...] = ("No labels_detailed.csv: the utterances have no votes.",)
    votes: Mapping[str, Mapping[str, float]] = {}
    detailed = table.with_name("labels_detailed.csv")
    if detailed.is_file():
        votes, notes = read_votes(detailed, root, dropped)
    sets = read_partitions(root / "Partitions.txt", root, dropped)
    files = files_of(root, allow_outside=options["allow_outside"] is True)
    choice = _Choice(chosen(options, "keep"), chosen(options, "test"))
    rated = list(_rated(table, root, files, choice, sets, votes, dropped))
    blind = {file: TEST_SETS[-1] for file in files.recordings if BLIND in file}
    blind |= {file: part for file, part in sets.items() if part in TEST_SETS}
    for file, _ in rated:
        blind.pop(file, None)
    unrated = list(_unrated(blind, files, choice, dropped))
    return ReadResult(
        utterances=(*(u for _, u in rated if u is not None), *unrated),
        labels=(*LABELS, *(name for name in EXTRA.values() if name in choice.keep)),
        dropped=tuple(dropped),
        notes=(*notes, *_notes(choice, len(unrated))),
        tables=(table,),
        shared_speakers=options["shared_speakers"] is True,
        scales=dict.fromkeys(("valence", "arousal", "dominance"), SCALE),
    )


@dataclass(frozen=True)
class _Choice:
    """What the user wants: extra classes for training, and the test sets to score on."""

    keep: tuple[str, ...]
    tests: tuple[str, ...]

    def place(self, part: str, code: str) -> tuple[str, str]:
        """Return split and label of a row of the partition `part` with the consensus `code`.

        Raises:
            ManifestError: the row is not used; the message is the reason.
        """
        numbered = part[-1:].isdecimal()
        split = split_named(part) if part in TEST_SETS or not numbered else None
        if split is None:
            known = ", ".join(("Train", "Development", *TEST_SETS))
            raise ManifestError(f"Split_Set '{part}' is not one of {known}")
        if split == "test" and not code:
            return self.blind(part), ""
        if part in TEST_SETS and part not in self.tests:
            raise ManifestError(f"{part} is not among the test sets (--set test={part} takes it)")
        if code in CODES:
            return split, CODES[code]
        if code not in EXTRA:
            known = " ".join((*CODES, *EXTRA))
            raise ManifestError(f"EmoClass '{code}' is not one of {known}")
        if split != "train":
            raise ManifestError(f"{EXTRA[code]} ({code}) is not scored: never in dev or test")
        if EXTRA[code] not in self.keep:
            raise ManifestError(
                f"{EXTRA[code]} ({code}) is left out (--set keep={EXTRA[code]} trains on it)"
            )
        return split, EXTRA[code]

    def blind(self, part: str) -> str:
        """Return the split of a file of the test set `part` that has no label."""
        return "test" if part in self.tests else ""


def _rated(
    table: Path,
    root: Path,
    files: Files,
    choice: _Choice,
    sets: Mapping[str, str],
    votes: Mapping[str, Mapping[str, float]],
    dropped: list[Dropped],
) -> Iterator[tuple[str, Utterance | None]]:
    """Yield each file that the consensus table names, with its utterance if it is used."""
    place, listed = inside(table, root), set[str]()
    optional = ("Split_Set", "SpkrID", "Gender", *RATINGS)
    rows = named_rows(table, root, ("FileName", "EmoClass"), dropped, optional=optional)
    for line, (file, code, part, speaker, sex, *ratings) in rows:
        utterance: Utterance | None = None
        try:
            if not file or file in listed:
                raise ManifestError("the file is listed twice" if file else "FileName is empty")
            listed.add(file)
            split, label = choice.place(part or sets.get(file, ""), code)
            rated = dict(zip(RATINGS, ratings, strict=True))
            stem = os.path.splitext(file)[0]
            utterance = Utterance(
                id=stem,
                audio=files.recording(file),
                label=label,
                text=files.text(stem),
                speaker="" if is_unknown(speaker) else speaker,
                split=split,
                session=podcast_of(stem),
                sex=SEX_SPELLINGS.get(sex.lower(), ""),
                language="en",
                corpus="msp_podcast",
                alignment=files.alignment(stem),
                valence=number(rated, "EmoVal"),
                arousal=number(rated, "EmoAct"),
                dominance=number(rated, "EmoDom"),
                votes=votes.get(file),
                line=line,
            )
        except ManifestError as error:
            dropped.append(Dropped(f"{place}:{line}", str(error)))
        yield file, utterance


def _unrated(
    blind: Mapping[str, str], files: Files, choice: _Choice, dropped: list[Dropped]
) -> Iterator[Utterance]:
    """Yield the files of test sets that no table rates; `blind` is file name to set."""
    for file in sorted(blind):
        stem = os.path.splitext(file)[0]
        try:
            audio = files.recording(file)
        except ManifestError as error:
            dropped.append(Dropped(f"Partitions.txt ({file})", str(error)))
            continue
        yield Utterance(
            id=stem,
            audio=audio,
            label="",
            text=files.text(stem),
            split=choice.blind(blind[file]),
            session=podcast_of(stem),
            language="en",
            corpus="msp_podcast",
            alignment=files.alignment(stem),
        )


def _notes(choice: _Choice, unrated: int) -> Iterator[str]:
    if unrated:
        yield f"{unrated:,} files of a test set have no label: they can be predicted alone."
    if choice.keep:
        yield (
            f"{' and '.join(choice.keep)}: in train alone, as classes behind the eight in the "
            "label order. Scores run over the classes that dev and test hold: the eight."
        )
