"""MELD: English, dialogues from the television series Friends.

Poria, Hazarika, Majumder, Naik, Cambria, Mihalcea: MELD: A multimodal multi-party dataset for
emotion recognition in conversations, ACL 2019, 527-536. A clip is named by dialogue and utterance,
`dia12_utt3`, and these numbers begin anew in each split, so that ids carry the split here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from corpora import containers
from corpora.base.errors import ManifestError
from corpora.readers.delimited import named_rows
from corpora.readers.options import Option, Options
from corpora.readers.registry import Dropped, ReadResult, register
from corpora.readers.tree import files_below, inside, wrong_root
from corpora.utterance import SPLITS, Utterance, split_named

EMOTIONS = ("anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise")
SENTIMENTS = ("negative", "neutral", "positive")
SETS = {"emotions": EMOTIONS, "sentiments": SENTIMENTS}
COLUMNS = ("Utterance", "Speaker", "Emotion", "Sentiment", "Dialogue_ID", "Utterance_ID")
CLIP = re.compile(r"(?:final_videos_test)?dia(\d+)_utt(\d+)")
SUFFIXES = (".wav", ".flac", ".mp4")  # in the order of preference
# cp1252 read as Latin-1 and written as UTF-8: the published tables say "It\x92s".
WINDOWS = {n: bytes([n]).decode("cp1252", "replace") for n in range(0x80, 0xA0)}
LOOKED_FOR = "train_sent_emo.csv, dev_sent_emo.csv or test_sent_emo.csv"

Clips = dict[tuple[str, int, int], Path]  # (split, dialogue, utterance) to recording


@register(
    "meld",
    title="MELD, English, dialogues from Friends, official splits",
    licence="GPL-3.0 for the tables; the clips are from a television series: research only",
    source="https://github.com/declare-lab/MELD (MELD.Raw.tar.gz)",
    needs="a folder with {train,dev,test}_sent_emo.csv and, anywhere below, dia0_utt0.wav "
    "in a folder for each split, as .mp4 (with the package av) or as .wav made of them",
    options={
        "labels": Option(
            "classes: the seven emotions, or negative, neutral and positive",
            "emotions",
            tuple(SETS),
        )
    },
)
def read_meld(root: Path, options: Options) -> ReadResult:
    """Read the three tables; the official splits share speakers, by declaration."""
    name = str(options["labels"])
    tables = _tables(root)
    if not tables:
        raise wrong_root(root, "MELD", LOOKED_FOR)
    clips = _clips(root)
    utterances: list[Utterance] = []
    dropped: list[Dropped] = []
    for split in SPLITS:
        if split in tables:
            utterances += _rows(tables[split], root, split, name, clips, dropped)
    return ReadResult(
        utterances=tuple(utterances),
        labels=SETS[name],
        dropped=tuple(dropped),
        notes=_notes(tables, utterances),
        tables=tuple(tables.values()),
        shared_speakers=True,
    )


def _tables(root: Path) -> dict[str, Path]:
    """The table of each split, the one nearest to the root."""
    found = sorted(files_below(root, "_sent_emo.csv"), key=lambda path: len(path.parts))
    tables: dict[str, Path] = {}
    for path in found:
        split = split_named(path.name.lower().removesuffix("_sent_emo.csv"))
        if split is not None:
            tables.setdefault(split, path)
    return tables


def _clips(root: Path) -> Clips:
    """The recordings below the root, sound before video, by what their names say."""
    clips: Clips = {}
    for suffix in SUFFIXES:
        for path in files_below(root, suffix):
            clip = CLIP.fullmatch(path.stem)
            split = _split(path.parent, root)
            if clip and split:
                clips.setdefault((split, int(clip[1]), int(clip[2])), path)
    return clips


def _split(folder: Path, root: Path) -> str | None:
    """The split that the nearest folder names: `train_splits`, `output_…_splits_test`."""
    for name in reversed(folder.relative_to(root).parts):
        for word in re.split(r"[^a-z]+", name.lower()):
            if split := split_named(word):
                return split
    return None


def _rows(
    table: Path, root: Path, split: str, labels: str, clips: Clips, dropped: list[Dropped]
) -> Iterator[Utterance]:
    """Yield the utterances of one table."""
    place, seen = inside(table, root), set[str]()
    rows = named_rows(table, root, COLUMNS, dropped, optional=("Season", "Episode"))
    for line, (text, speaker, emotion, sentiment, dialogue, number, season, episode) in rows:
        try:
            if not (dialogue.isdecimal() and number.isdecimal()):
                raise ManifestError("Dialogue_ID or Utterance_ID is not a number")
            key = split, int(dialogue), int(number)
            name = f"{split}_dia{key[1]}_utt{key[2]}"
            label = (emotion if labels == "emotions" else sentiment).lower()
            if label not in SETS[labels]:
                raise ManifestError(f"label '{label}' is not one of {', '.join(SETS[labels])}")
            if name in seen:
                raise ManifestError(f"dialogue {dialogue}, utterance {number} is listed twice")
        except ManifestError as error:
            dropped.append(Dropped(f"{place}:{line}", str(error)))
            continue
        seen.add(name)
        yield Utterance(
            id=name,
            audio=clips.get(key, root / split / f"dia{key[1]}_utt{key[2]}.wav"),
            label=label,
            text=text.translate(WINDOWS),
            speaker=speaker.translate(WINDOWS),
            split=split,
            session=f"s{season}e{episode}" if season and episode else "",
            language="en",
            corpus="meld",
        )


def _notes(tables: dict[str, Path], utterances: Sequence[Utterance]) -> tuple[str, ...]:
    notes = []
    for split in SPLITS:
        if split not in tables:
            notes.append(f"WARNING: no {split}_sent_emo.csv: there is no {split} split.")
    videos = sum(os.path.splitext(u.audio)[1].lower() == ".mp4" for u in utterances)
    if videos and not containers.available():
        notes.append(
            f"WARNING: {videos:,} utterances have a video alone. Install the package av, which "
            f"takes the sound out ({containers.INSTALL}), or do it into a .wav of the same name "
            "beside it: ffmpeg -i dia0_utt0.mp4 -ac 1 -ar 16000 dia0_utt0.wav"
        )
    return tuple(notes)
