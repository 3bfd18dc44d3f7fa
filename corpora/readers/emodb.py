"""EMO-DB, the Berlin Database of Emotional Speech: German, acted, ten speakers, ten sentences.

Burkhardt, Paeschke, Rolfes, Sendlmeier, Weiss: A database of German emotional speech,
Interspeech 2005, 1517-1520. All that is known of a recording stands in its name: SSTTTEV.wav is
the speaker, the sentence, the emotion's German initial and the version.
"""

from __future__ import annotations

import re
from pathlib import Path

from corpora.readers.registry import Dropped, Options, ReadResult, register
from corpora.readers.tree import files_below, inside, wrong_root
from corpora.utterance import Utterance

NAME = re.compile(r"(?P<speaker>\d\d)(?P<sentence>[ab]\d\d)(?P<emotion>[A-Z])(?P<version>[a-z]?)")
EMOTIONS = {
    "W": "anger",  # Wut
    "L": "boredom",  # Langeweile
    "E": "disgust",  # Ekel
    "A": "fear",  # Angst
    "F": "happiness",  # Freude
    "T": "sadness",  # Trauer
    "N": "neutral",
}
SEX = {
    "03": "male", "08": "female", "09": "female", "10": "male", "11": "male",
    "12": "male", "13": "female", "14": "female", "15": "male", "16": "female",
}  # fmt: skip
SENTENCES = {
    "a01": "Der Lappen liegt auf dem Eisschrank.",
    "a02": "Das will sie am Mittwoch abgeben.",
    "a04": "Heute abend könnte ich es ihm sagen.",
    "a05": "Das schwarze Stück Papier befindet sich da oben neben dem Holzstück.",
    "a07": "In sieben Stunden wird es soweit sein.",
    "b01": "Was sind denn das für Tüten, die da unter dem Tisch stehen?",
    "b02": "Sie haben es gerade hochgetragen und jetzt gehen sie wieder runter.",
    "b03": "An den Wochenenden bin ich jetzt immer nach Hause gefahren und habe Agnes besucht.",
    "b09": "Ich will das eben wegbringen und dann mit Karl was trinken gehen.",
    "b10": "Die wird auf dem Platz sein, wo wir sie immer hinlegen.",
}


@register(
    "emodb",
    title="EMO-DB (Berlin Database of Emotional Speech), German, acted, 10 speakers",
    licence="CC0-1.0 (as published by audEERING) or CC BY 4.0 (Zenodo, version 2.0)",
    source="http://emodb.bilderbar.info",
    needs="a folder that holds, at any depth, recordings named like 03a01Fa.wav",
)
def read_emodb(root: Path, options: Options) -> ReadResult:
    """Read all recordings below `root`; alignments are TextGrids of the same name below it."""
    recordings = list(files_below(root, ".wav")) if root.is_dir() else []
    alignments: dict[str, Path] = {}
    for path in files_below(root, ".textgrid"):
        alignments.setdefault(path.stem, path)
    utterances: list[Utterance] = []
    dropped: list[Dropped] = []
    for path in recordings:
        name = NAME.fullmatch(path.stem)
        if name is None:
            dropped.append(Dropped(inside(path, root), "not named like 03a01Fa.wav"))
            continue
        if name["emotion"] not in EMOTIONS:
            letters = " ".join(EMOTIONS)
            reason = f"emotion letter {name['emotion']} is not one of {letters}"
            dropped.append(Dropped(inside(path, root), reason))
            continue
        utterances.append(
            Utterance(
                id=path.stem,
                audio=path,
                label=EMOTIONS[name["emotion"]],
                text=SENTENCES.get(name["sentence"], ""),
                speaker=name["speaker"],
                sex=SEX.get(name["speaker"], ""),
                language="de",
                corpus="emodb",
                alignment=alignments.get(path.stem),
            )
        )
    if not utterances:
        raise wrong_root(root, "EMO-DB", "recordings named like 03a01Fa.wav at any depth")
    return ReadResult(
        utterances=tuple(utterances),
        labels=tuple(EMOTIONS.values()),
        dropped=tuple(dropped),
        notes=_notes(utterances),
    )


def _notes(utterances: list[Utterance]) -> tuple[str, ...]:
    notes = [
        "All speakers say the same ten sentences: text tells nothing about the emotion, and a "
        "speaker-disjoint split still shares its texts."
    ]
    bare = sum(u.alignment is None for u in utterances)
    if 0 < bare < len(utterances):
        notes.append(f"{bare} of {len(utterances)} recordings have no TextGrid of their name.")
    unheard = sorted({u.id[2:5] for u in utterances if not u.text})
    if unheard:
        notes.append(f"Unknown sentence codes, left without a text: {', '.join(unheard)}.")
    return tuple(notes)
