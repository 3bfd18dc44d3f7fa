"""Kaldi's data directories: `wav.scp`, and what stands beside it.

A file is a table of two columns, a key and the rest of the line. `segments` cuts utterances out of
recordings (utterance, recording, start, end in seconds; an end of -1 is the recording's); without
it each recording is one utterance. Commands in `wav.scp`, a line that ends in `|`, are never run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from corpora.base.encodings import encoding_of
from corpora.base.errors import CorpusError
from corpora.readers.options import AUDIO, CORPUS, LANGUAGE, SHARED_SPEAKERS, Option, Options
from corpora.readers.registry import Dropped, ReadResult, register
from corpora.readers.rows import Row, located, read_rows
from corpora.readers.tree import inside, wrong_root
from corpora.utterance import split_named

LIST = "wav.scp"
# The manifest's columns, by the files that tell them of utterances.
COLUMN_FILES = {
    "label": ("utt2emo", "utt2emotion"),
    "text": ("text",),
    "speaker": ("utt2spk",),
    "language": ("utt2lang",),
    "sex": ("utt2gender",),
}
SEX_FILE = "spk2gender"
IN_ARCHIVE = re.compile(r".*:\d+$")  # feats.ark:1234
COMMAND = (
    f"{LIST} has a command in place of a path (it ends in |), and no command is run here: write "
    "what it gives into files, and list these"
)


@register(
    "kaldi",
    title="A data directory of Kaldi or ESPnet",
    licence="that of your recordings",
    source="your own",
    needs=f"a folder with {LIST} and, where there are, segments, utt2emo, utt2spk, {SEX_FILE} "
    "or utt2gender, text and utt2lang; or one such folder for each of train, dev and test",
    speakers="Name them in utt2spk",
    options={
        "base": Option(f"the folder where relative paths of {LIST} start; else that of {LIST}"),
        "audio": AUDIO,
        "corpus": CORPUS,
        "language": LANGUAGE,
        "shared_speakers": SHARED_SPEAKERS,
    },
)
def read_kaldi(root: Path, options: Options) -> ReadResult:
    """Read the data directory `root`, or those in it that are named like splits."""
    folders = [path.parent for path in (root / LIST, *sorted(root.glob(f"*/{LIST}")))]
    folders = [folder for folder in folders if (folder / LIST).is_file()]
    if not folders:
        raise wrong_root(root, "a data directory of Kaldi", f"{LIST}, or folders with one")
    dropped: list[Dropped] = []
    rows: list[Row] = []
    if folders[0] == root:
        rows += _rows(root, root, "", options)
    else:
        for folder in folders:
            split = split_named(folder.name)
            if split:
                rows += _rows(folder, root, split, options)
            else:
                dropped.append(Dropped(inside(folder, root), "not named like a split"))
    if not rows:
        names = ", ".join(folder.name for folder in folders)
        raise CorpusError(
            f"{root} has no data directory that is named like a split or has a line in {LIST}; "
            f"found {names}. Name the one to read."
        )
    result = read_rows(
        rows,
        root,
        located(options, root),
        corpus=str(options["corpus"]) or root.name,
        language=str(options["language"]),
        dropped=dropped,
    )
    return replace(
        result,
        shared_speakers=options["shared_speakers"] is True,
        tables=tuple(folder / LIST for folder in folders),
    )


def _rows(folder: Path, root: Path, split: str, options: Options) -> Iterator[Row]:
    """Yield the rows of one data directory; their paths start at the folder that is the base."""
    base = Path(str(options["base"]) or folder).expanduser().resolve()
    recordings = _table(folder / LIST)
    known = {
        column: {key: rest for name in names for key, (_, rest) in _table(folder / name).items()}
        for column, names in COLUMN_FILES.items()
    }
    sexes = _table(folder / SEX_FILE)
    segments = _table(folder / "segments")
    listed = inside(folder / ("segments" if segments else LIST), root)
    for name, (line, rest) in (segments or recordings).items():
        fields = rest.split() if segments else [name, "", ""]
        recording, start, end = fields if len(fields) == 3 else ("", "", "")
        path = recordings.get(recording, (0, ""))[1]
        problem = ""
        if not recording:
            problem = f"{len(fields) + 1} fields, expected utterance, recording, start and end"
        elif not path:
            problem = f"{LIST} does not list its recording"
        elif path.endswith("|"):
            problem = COMMAND
        elif IN_ARCHIVE.fullmatch(path):
            problem = "it is in an archive of Kaldi's: write it into a file of its own"
        cells = {column: values.get(name, "") for column, values in known.items()}
        # Where nobody knows who speaks, Kaldi has each utterance be a speaker of its own name.
        cells["speaker"] = "" if cells["speaker"] == name else cells["speaker"]
        cells |= {"id": name, "audio": str(base / path), "split": split, "start": start}
        cells["end"] = "" if end in ("-1", "-1.0") else end
        cells["sex"] = cells["sex"] or sexes.get(cells["speaker"], (0, ""))[1]
        yield Row(f"{listed}:{line}", cells, problem=problem)


def _table(path: Path) -> dict[str, tuple[int, str]]:
    """The lines of a file by their first word: the number of each, and the rest of it."""
    if not path.is_file():
        return {}
    table: dict[str, tuple[int, str]] = {}
    with path.open(encoding=encoding_of(path)) as file:
        for number, line in enumerate(file, 1):
            key, *rest = line.split(maxsplit=1)[:2] or [""]
            if key in table:
                raise CorpusError(f"{path}, line {number}: {key} stands there twice. Remove one.")
            if key:
                table[key] = number, rest[0].strip() if rest else ""
    return table
