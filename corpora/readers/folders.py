"""Recordings sorted into one folder for each label: the corpus that needs no table.

`LABEL/…/x.wav`, or with folders named like splits above or below those of the labels:
`SPLIT/LABEL/…/x.wav`, `LABEL/SPLIT/…/x.wav`. A `.txt` and a `.TextGrid` of the same name beside a
recording are its transcript and its alignment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from corpora.base.encodings import read_transcript
from corpora.base.errors import CorpusError
from corpora.readers.options import CORPUS, LANGUAGE, SHARED_SPEAKERS, Option, Options
from corpora.readers.registry import Dropped, ReadResult, register
from corpora.readers.tree import (
    CONVERT,
    SUFFIXES,
    files_below,
    ids_of_paths,
    inside,
    not_read,
    recordings_below,
    wrong_root,
)
from corpora.utterance import Utterance, splits_named, splits_note

FOLDER, PREFIX, NOBODY = "folder", "prefix", "unknown"
LOOKED_FOR = f"a folder for each label, with recordings in it ({', '.join(SUFFIXES)})"


@register(
    "folders",
    title="Any recordings sorted into a folder for each label",
    licence="that of your recordings",
    source="your own",
    needs="a folder for each label; or train, dev and test, each with a folder for each label",
    speakers="Put a folder for each speaker between label and recording, or say --set "
    "speaker=prefix where file names begin with the speaker",
    options={
        "speaker": Option(
            "who speaks: the folder between label and recording, if there is one; what stands "
            "before the first _ of the file name; or not known",
            FOLDER,
            (FOLDER, PREFIX, NOBODY),
        ),
        "corpus": CORPUS,
        "language": LANGUAGE,
        "shared_speakers": SHARED_SPEAKERS,
    },
)
def read_folders(root: Path, options: Options) -> ReadResult:
    """Read all recordings below the label folders."""
    paths, unreadable = recordings_below(root)
    level, splits = _splits([path.relative_to(root).parts[:-1] for path in paths], root)
    companions = {
        suffix: {path.with_suffix(""): path for path in files_below(root, suffix)}
        for suffix in (".txt", ".textgrid")
    }
    utterances: list[Utterance] = []
    dropped = [Dropped(inside(path, root), not_read(path)) for path in unreadable]
    for path in paths:
        folders = path.relative_to(root).parts[:-1]
        split = ""
        if splits:
            split = splits.get(folders[level], "") if len(folders) > level else ""
            if not split:
                dropped.append(Dropped(inside(path, root), "not in the folder of a split"))
                continue
            folders = folders[:level] + folders[level + 1 :]
        if not folders:
            dropped.append(Dropped(inside(path, root), "not in the folder of a label"))
            continue
        text = companions[".txt"].get(path.with_suffix(""))
        utterances.append(
            Utterance(
                id=path.stem,
                audio=path,
                label=folders[0],
                text=read_transcript(text) if text else "",
                speaker=_speaker(str(options["speaker"]), path, folders),
                split=split,
                language=str(options["language"]),
                corpus=str(options["corpus"]) or root.name,
                alignment=companions[".textgrid"].get(path.with_suffix("")),
            )
        )
    if not utterances:
        if unreadable:
            raise CorpusError(
                f"{root} holds {len(unreadable):,} recordings, such as {dropped[0].where}, and "
                f"none of a format that is read ({', '.join(SUFFIXES)}). {CONVERT}"
            )
        raise wrong_root(root, "folders of labels", LOOKED_FOR)
    ids = ids_of_paths([inside(u.audio, root) for u in utterances], utterances)
    return ReadResult(
        utterances=tuple(replace(u, id=name) for u, name in zip(utterances, ids, strict=True)),
        labels=tuple(sorted({u.label for u in utterances})),
        dropped=tuple(dropped),
        notes=splits_note(splits),
        shared_speakers=options["shared_speakers"] is True,
    )


def _splits(places: Sequence[tuple[str, ...]], root: Path) -> tuple[int, Mapping[str, str]]:
    """The level of the folders of splits, and the split that each says; {} for none.

    Args:
        places: the folders of each recording, as seen from the root.
        root: the corpus, for messages.

    Raises:
        CorpusError: one folder is named like a split, and others beside it are not.
    """
    for level in (0, 1):
        names = {folders[level] for folders in places if len(folders) > level}
        splits = splits_named(sorted(names))
        others = sorted(names - splits.keys())
        if len(set(splits.values())) > 1 or (splits and not others and not level):
            return level, splits
        if splits and not level:
            raise CorpusError(
                f"{root} holds {', '.join(splits)}, named like a split, beside "
                f"{', '.join(others)}. Sort recordings into a folder for each label, or into "
                "train, dev and test, each with a folder for each label; rename or move the rest."
            )
    return 0, {}


def _speaker(how: str, path: Path, folders: tuple[str, ...]) -> str:
    if how == FOLDER:
        return folders[1] if len(folders) > 1 else ""
    first, mark, _ = path.stem.partition("_")
    return first if how == PREFIX and mark else ""
