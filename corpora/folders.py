"""Recordings sorted into one folder for each label: the corpus that needs no table.

`LABEL/…/x.wav`, or `SPLIT/LABEL/…/x.wav` where every folder at the top is named like a split. A
`.txt` and a `.TextGrid` of the same name beside a recording are its transcript and its alignment.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from corpora.ids import ids_of_paths
from corpora.options import SHARED_SPEAKERS, Option, Options
from corpora.registry import Dropped, ReadResult, register
from corpora.transcripts import read_transcript
from corpora.tree import files_below, inside, wrong_root
from corpora.utterance import SPLIT_SPELLINGS, Utterance

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
FOLDER, PREFIX, NOBODY = "folder", "prefix", "unknown"
LOOKED_FOR = "a folder for each label, with recordings in it (.wav, .flac, .ogg, .mp3)"


@register(
    "folders",
    title="Any recordings sorted into a folder for each label",
    licence="that of your recordings",
    source="your own",
    needs="a folder for each label; or train, dev and test, each with a folder for each label",
    options={
        "speaker": Option(
            "who speaks: the folder between label and recording, if there is one; what stands "
            "before the first _ of the file name; or not known",
            FOLDER,
            (FOLDER, PREFIX, NOBODY),
        ),
        "language": Option("a tag such as en or de, for all recordings"),
        "shared_speakers": SHARED_SPEAKERS,
    },
)
def read_folders(root: Path, options: Options) -> ReadResult:
    """Read all recordings below the label folders."""
    paths = sorted(path for suffix in SUFFIXES for path in files_below(root, suffix))
    tops = {path.relative_to(root).parts[0] for path in paths if path.parent != root}
    split_level = bool(tops) and all(top.lower() in SPLIT_SPELLINGS for top in tops)
    companions = {
        suffix: {path.with_suffix(""): path for path in files_below(root, suffix)}
        for suffix in (".txt", ".textgrid")
    }
    utterances: list[Utterance] = []
    dropped: list[Dropped] = []
    for path in paths:
        folders = path.relative_to(root).parts[:-1]
        split = SPLIT_SPELLINGS[folders[0].lower()] if split_level and folders else ""
        folders = folders[1:] if split_level else folders
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
                corpus=root.name,
                alignment=companions[".textgrid"].get(path.with_suffix("")),
            )
        )
    if not utterances:
        raise wrong_root(root, "folders of labels", LOOKED_FOR)
    ids = ids_of_paths([inside(u.audio, root) for u in utterances], utterances)
    return ReadResult(
        utterances=tuple(replace(u, id=name) for u, name in zip(utterances, ids, strict=True)),
        labels=tuple(sorted({u.label for u in utterances})),
        dropped=tuple(dropped),
        shared_speakers=options["shared_speakers"] is True,
    )


def _speaker(how: str, path: Path, folders: tuple[str, ...]) -> str:
    if how == FOLDER:
        return folders[1] if len(folders) > 1 else ""
    first, mark, _ = path.stem.partition("_")
    return first if how == PREFIX and mark else ""
