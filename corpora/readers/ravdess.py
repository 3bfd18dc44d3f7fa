"""RAVDESS, its speech part: North American English, acted, 24 speakers, two sentences.

Livingstone, Russo: The Ryerson Audio-Visual Database of Emotional Speech and Song, PLoS ONE 13(5)
2018, e0196391. Seven two-digit fields make a name: modality, vocal channel, emotion, intensity,
statement, repetition, actor.
"""

from __future__ import annotations

import re
from pathlib import Path

from corpora.readers.registry import Dropped, Options, ReadResult, register
from corpora.readers.tree import files_below, inside, wrong_root
from corpora.utterance import Utterance

NAME = re.compile(r"\d\d(?:-\d\d){6}")
ACTOR_FOLDER = re.compile(r"Actor_(\d\d)")
AUDIO_ONLY, SPEECH = "03", "01"
EMOTIONS = {
    "01": "neutral",
    "02": "calm",
    "03": "happy",
    "04": "sad",
    "05": "angry",
    "06": "fearful",
    "07": "disgust",
    "08": "surprised",
}
STATEMENTS = {
    "01": "Kids are talking by the door.",
    "02": "Dogs are sitting by the door.",
}
LOOKED_FOR = "folders Actor_01, Actor_02, … with recordings named like 03-01-05-01-02-01-01.wav"


@register(
    "ravdess",
    title="RAVDESS, speech part, North American English, acted, 24 speakers",
    licence="CC BY-NC-SA 4.0: not for commercial use",
    source="https://zenodo.org/records/1188976 (Audio_Speech_Actors_01-24.zip)",
    needs="the folder that holds Actor_01, Actor_02, …",
)
def read_ravdess(root: Path, options: Options) -> ReadResult:
    """Read the audio-only speech recordings in `root`'s Actor folders."""
    utterances: list[Utterance] = []
    dropped: list[Dropped] = []
    for path in _recordings(root):
        if NAME.fullmatch(path.stem) is None:
            reason: str | None = "not named like 03-01-05-01-02-01-01.wav"
        else:
            reason = _unwanted(path)
        if reason is not None:
            dropped.append(Dropped(inside(path, root), reason))
            continue
        _, _, emotion, _, statement, _, actor = path.stem.split("-")
        utterances.append(
            Utterance(
                id=path.stem,
                audio=path,
                label=EMOTIONS[emotion],
                text=STATEMENTS.get(statement, ""),
                speaker=actor,
                sex="male" if int(actor) % 2 else "female",
                language="en",
                corpus="ravdess",
            )
        )
    if not utterances:
        raise wrong_root(root, "RAVDESS speech", LOOKED_FOR)
    return ReadResult(
        utterances=tuple(utterances),
        labels=tuple(EMOTIONS.values()),
        dropped=tuple(dropped),
        notes=(
            "All actors say the same two sentences: text tells nothing about the emotion, and a "
            "speaker-disjoint split still shares its texts.",
        ),
    )


def _recordings(root: Path) -> list[Path]:
    """The recordings of the Actor folders in `root`, or else of those anywhere below it.

    A common copy holds the Actor folders twice, at the top and in a folder of their own; the top
    ones are enough.
    """
    if not root.is_dir():
        return []
    tops = sorted(p for p in root.iterdir() if ACTOR_FOLDER.fullmatch(p.name) and p.is_dir())
    return [path for folder in tops or [root] for path in files_below(folder, ".wav")]


def _unwanted(path: Path) -> str | None:
    """Say why a recording with a proper name is left out, or return None."""
    modality, channel, emotion, _, _, _, actor = path.stem.split("-")
    if channel != SPEECH:
        return "song, not speech (vocal channel 02)" if channel == "02" else "unknown vocal channel"
    if modality != AUDIO_ONLY:
        return f"not audio-only (modality {modality}, wanted {AUDIO_ONLY})"
    if emotion not in EMOTIONS:
        return f"emotion code {emotion} is not one of 01 to 08"
    folder = ACTOR_FOLDER.fullmatch(path.parent.name)
    if folder and folder[1] != actor:
        return "the name has another actor than the folder"
    return None
