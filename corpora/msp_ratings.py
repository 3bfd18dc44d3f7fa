"""The single ratings of MSP-Podcast, counted as votes.

`Labels/labels_detailed.csv` has one rating a row, in one of two layouts: since 2.0, and in 1.6, the
rater's first choice has the column `EmoClass_Major`; in 1.7 to 1.12 the column `EmoDetail` holds
`WORKER0001; Neutral; Neutral,Concerned; A:4; V:3; D:4;`. First choices count, second ones do not.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from corpora.delimited import lines_of_cells, named_rows
from corpora.registry import Dropped
from corpora.tree import inside

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
    """Return the votes of each file name, and notes for the user.

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
