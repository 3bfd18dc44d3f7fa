"""MSP-Podcast: English, spontaneous speech from podcasts, rated by a crowd.

Lotfian, Busso: Building naturalistic emotionally balanced speech corpus by retrieving emotional
speech from existing podcast recordings, IEEE Transactions on Affective Computing 10(4), 2019,
471-483. The consensus is the first choice of most raters: one of eight emotions, `other`, or no
agreement. The last two are not scored by anybody; kept on request, they are classes for training
alone, behind the eight in the label order, and never stand in dev or test.

What lies in the folders of MSP-Podcast, known from one listing of each.

A release has 270,000 recordings: asking for each text and alignment whether it exists would cost
more than reading the labels.

The single ratings of MSP-Podcast, counted as votes.

`Labels/labels_detailed.csv` has one rating a row, in one of two layouts: since 2.0, and in 1.6, the
rater's first choice has the column `EmoClass_Major`; in 1.7 to 1.12 the column `EmoDetail` holds
`WORKER0001; Neutral; Neutral,Concerned; A:4; V:3; D:4;`. First choices count, second ones do not.

The files in which the MSP-Podcast challenges (Odyssey 2024, Interspeech 2025) take predictions.

Categories (task 1): a CSV `FileName,EmoClass`, one letter of A S H U F D C N for each recording,
with the header that published entries use.

File names stand as they are, unlike in tables made to be looked at
(`corpora.base.terminal.inert`): a program compares them, and an apostrophe more would name another
recording.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from corpora.base.encodings import encoding_of, read_transcript
from corpora.base.errors import ManifestError, did_you_mean
from corpora.base.files import write_text
from corpora.readers.delimited import lines_of_cells, named_rows
from corpora.readers.options import ALLOW_OUTSIDE, SHARED_SPEAKERS, Option, Options, chosen
from corpora.readers.registry import Dropped, ReadResult, register
from corpora.readers.tree import inside, locator, names_in, wrong_root
from corpora.utterance import SEX_SPELLINGS, Utterance, is_unknown, number, split_named


@dataclass(frozen=True)
class Files:
    """The folders and the names in them.

    Attributes:
        audio: the folder of the recordings.
        transcripts: the folder of the texts.
        alignments: the folder of the TextGrids.
        recordings: the names in `audio`.
        written: the names in `transcripts`.
        aligned: the names in `alignments`.
        locate: makes a path of a name with folders in it.
    """

    audio: Path
    transcripts: Path
    alignments: Path
    recordings: frozenset[str]
    written: frozenset[str]
    aligned: frozenset[str]
    locate: Callable[[str], Path]

    def recording(self, file: str) -> Path:
        """The path of a recording.

        Raises:
            ManifestError: it leads outside of the corpus.
        """
        plain = "/" not in file and "\\" not in file and file not in (".", "..")
        return Path(f"{self.audio}/{file}") if plain else self.locate(file)

    def text(self, stem: str) -> str:
        """What is said, "" where it is not written down."""
        known = f"{stem}.txt" in self.written
        return read_transcript(f"{self.transcripts}/{stem}.txt") if known else ""

    def alignment(self, stem: str) -> Path | None:
        """The TextGrid, if there is one."""
        name = f"{stem}.TextGrid"
        return Path(f"{self.alignments}/{name}") if name in self.aligned else None


def files_of(root: Path, *, allow_outside: bool) -> Files:
    """List the folders of a corpus; those that are absent count as empty."""
    audio, texts, grids = (root / name for name in ("Audios", "Transcripts", "ForceAligned"))
    return Files(
        audio=audio,
        transcripts=texts,
        alignments=grids,
        recordings=names_in(audio),
        written=names_in(texts),
        aligned=names_in(grids),
        locate=locator(audio, root, allow_outside=allow_outside),
    )


def read_partitions(path: Path, root: Path, dropped: list[Dropped]) -> dict[str, str]:
    """The set of each file name, of lines `Test3; MSP-PODCAST_test3_0001.wav`.

    Args:
        path: `Partitions.txt`; where it is absent nothing is returned.
        root: the corpus, for the names of places.
        dropped: gets the lines that cannot be read.
    """
    sets: dict[str, str] = {}
    if not path.is_file():
        return sets
    with path.open(encoding=encoding_of(path)) as lines:
        for number, line in enumerate(lines, 1):
            part, mark, file = (cell.strip() for cell in line.partition(";"))
            if mark and part and file:
                sets[file] = part
            elif line.strip():
                dropped.append(Dropped(f"{inside(path, root)}:{number}", "not SET; FILE"))
    return sets


def podcast_of(stem: str) -> str:
    """1023 of MSP-PODCAST_1023_0235: the podcast, which its segments share."""
    parts = stem.split("_")
    return parts[1] if len(parts) > 2 else ""


CODES = {
    "A": "angry", "S": "sad", "H": "happy", "U": "surprise",
    "F": "fear", "D": "disgust", "C": "contempt", "N": "neutral",
}  # fmt: skip
LABELS = tuple(CODES.values())
OTHER = "other"
COUNTED = (*LABELS, OTHER)  # raters may write an emotion of their own: it counts as other
# By name, and by the letters of the consensus.
PLACES = {name: n for n, name in enumerate(COUNTED)} | {
    code.lower(): n for n, code in enumerate((*CODES, "O"))
}
OWN_WORDS = len(COUNTED)
SEPARATE, JOINED = "EmoClass_Major", "EmoDetail"


def read_votes(
    table: Path, root: Path, dropped: list[Dropped]
) -> tuple[dict[str, Mapping[str, float]], tuple[str, ...]]:
    """The votes of each file name, and notes for the user.

    Args:
        table: `labels_detailed.csv`.
        root: the corpus, for the names of places.
        dropped: gets the rows that cannot be read.
    """
    _, header = next(lines_of_cells(table), (0, None))
    names = {cell.strip().lower() for cell in header or []}
    column = SEPARATE if SEPARATE.lower() in names else JOINED
    if not {"filename", column.lower()} <= names:
        reason = f"no columns FileName and {SEPARATE} or {JOINED}: there are no votes"
        dropped.append(Dropped(inside(table, root), reason))
        return {}, ()
    tallies: dict[str, list[int]] = {}
    spelled: dict[str, int] = {}  # the few spellings there are, looked up once each
    rows = named_rows(table, root, ("FileName", column), dropped, rest=column == JOINED)
    for line, (file, rating) in rows:
        if column == JOINED:
            _, mark, rating = rating.partition(";")
            if not mark:
                reason = "the rating is not of the form WORKER; EMOTION; …"
                dropped.append(Dropped(f"{inside(table, root)}:{line}", reason))
                continue
            rating = rating.partition(";")[0]
        at = spelled.get(rating)
        if at is None:
            at = spelled[rating] = PLACES.get(rating.strip().lower(), OWN_WORDS)
        tally = tallies.get(file)
        if tally is None:
            tally = tallies[file] = [0] * (OWN_WORDS + 1)
        tally[at] += 1
    own_words = sum(tally[OWN_WORDS] for tally in tallies.values())
    votes: dict[str, Mapping[str, float]] = {}
    for file, tally in tallies.items():
        tally[PLACES[OTHER]] += tally.pop()
        votes[file] = {label: float(n) for label, n in zip(COUNTED, tally, strict=True) if n}
    notes = (
        (f"{own_words:,} ratings in words of the raters' own are counted as {OTHER}.",)
        if own_words
        else ()
    )
    return votes, notes


LETTERS = {label: code for code, label in CODES.items()}


def write_submission(path: Path, rows: Iterable[tuple[str, str]]) -> int:
    """Write predicted emotions; returns how many.

    Args:
        path: the CSV.
        rows: (file name, label), for example (utterance.audio.name, "neutral").

    Raises:
        ManifestError: no row, a file twice, or a label that the challenge does not have.
    """
    lines = []
    for file, label in rows:
        if label not in LETTERS:
            raise ManifestError(
                f"{file}: '{label}' is no class of the challenge.{did_you_mean(label, LETTERS)} "
                f"It has: {', '.join(LETTERS)}."
            )
        lines.append((file, LETTERS[label]))
    return _write(path, ("FileName", "EmoClass"), lines)


# By attribute the challenge's column, in its order.
RATED = {"arousal": "EmoAct", "valence": "EmoVal", "dominance": "EmoDom"}


def write_attribute_submission(path: Path, rows: Iterable[tuple[str, Mapping[str, float]]]) -> int:
    """Write predicted attributes, from 1 to 7; returns how many.

    Args:
        path: the CSV.
        rows: (file name, attributes by name).

    Raises:
        ManifestError: no row, a file twice, or a value that is not on the scale.
    """
    low, high = SCALE
    lines = []
    for file, attributes in rows:
        values = [attributes[name] for name in RATED]
        if not all(low <= value <= high for value in values):
            raise ManifestError(
                f"{file}: a predicted attribute is not from {low:g} to {high:g}, the challenge's "
                "scale. Train on ratings on that scale."
            )
        lines.append((file, *(f"{value:.6f}" for value in values)))
    return _write(path, ("FileName", *RATED.values()), lines)


def _write(path: Path, header: Sequence[str], lines: Sequence[Sequence[str]]) -> int:
    files = [line[0] for line in lines]
    if not lines or len(set(files)) < len(files):
        twice = next((file for file in files if files.count(file) > 1), "")
        raise ManifestError(
            f"{path}: {twice} is predicted twice." if twice else f"{path}: nothing to submit."
        )
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator="\n").writerows([header, *lines])
    write_text(path, out.getvalue())
    return len(lines)


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
        """Split and label of a row of the partition `part` with the consensus `code`.

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
        """The split of a file of the test set `part` that has no label."""
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
