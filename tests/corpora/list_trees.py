"""Fixture trees of corpora as other tools keep them: their layouts, invented rows."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.corpora.tree_parts import Expected, write_lines, write_wav

PEOPLE = ("anna", "ben", "cem")
LABELS = ("angry", "calm")


def write_json_lines(path: Path, objects: Iterable[Mapping[str, Any]]) -> Path:
    """Write one object a line, packed where the name says so."""
    data = "".join(json.dumps(one) + "\n" for one in objects).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def kaldi(root: Path) -> Expected:
    """One recording a speaker, of two segments; one more recording is a command."""
    scp = ["piped sox a.wav -t wav - |"]
    segments = ["piped-1 piped 0.0 0.1"]
    tables: dict[str, list[str]] = {name: [] for name in ("utt2spk", "utt2emo", "text")}
    for person in PEOPLE:
        write_wav(root / "wav" / f"{person}.wav", seconds=0.3)
        scp.append(f"{person} wav/{person}.wav")
        for number, label in enumerate(LABELS):
            name = f"{person}-{number}"
            segments.append(f"{name} {person} {0.1 * number:.2f} {-1 if number else 0.1}")
            tables["utt2spk"].append(f"{name} {person}")
            tables["utt2emo"].append(f"{name} {label}")
            tables["text"].append(f"{name} yes  {person}")
    write_lines(root / "wav.scp", scp)
    write_lines(root / "segments", segments)
    write_lines(root / "spk2gender", ["anna f", "ben m"])
    for name, lines in tables.items():
        write_lines(root / name, lines)
    return Expected(utterances=6, labels=LABELS, speakers=frozenset(PEOPLE), dropped=1)


def cut(name: str, path: str, speaker: str, label: str, **changes: Any) -> dict[str, Any]:
    """A cut of a whole recording of 0.3 s as lhotse writes it."""
    supervision = {
        "id": name, "recording_id": name, "start": 0.0, "duration": 0.3, "channel": 0,
        "text": "Yes.", "language": "en", "speaker": speaker, "gender": "f",
        "custom": {"emotion": label},
    }  # fmt: skip
    recording = {
        "id": name, "sources": [{"type": "file", "channels": [0], "source": path}],
        "sampling_rate": 16000, "num_samples": 4800, "duration": 0.3, "channel_ids": [0],
    }  # fmt: skip
    return {
        "id": name, "start": 0.0, "duration": 0.3, "channel": 0, "supervisions": [supervision],
        "recording": recording, "type": "MonoCut", **changes,
    }  # fmt: skip


def lhotse(root: Path) -> Expected:
    """A cut of a whole recording a label and speaker, and one that would be mixed on the fly."""
    cuts = [{"id": "mixed", "tracks": [], "type": "MixedCut"}]
    for person in PEOPLE:
        for label in LABELS:
            path = write_wav(root / "wav" / f"{person}_{label}.wav", seconds=0.3)
            cuts.append(cut(path.stem, f"wav/{path.name}", person, label))
    write_json_lines(root / "cuts.jsonl.gz", cuts)
    return Expected(utterances=6, labels=LABELS, speakers=frozenset(PEOPLE), dropped=1)


DB_YAML = """
name: small
usage: research
languages: [deu]
schemes:
  emotion: {dtype: str, labels: [angry, calm]}
  arousal: {dtype: float, minimum: 1, maximum: 5}
  speaker:
    dtype: str
    labels: {anna: {gender: female}, ben: {gender: male}, cem: {}}
  transcription: {dtype: str, labels: {a01: Ja., a02: Nein.}}
splits:
  train: {type: train}
  test: {type: test}
tables:
  emotion:
    type: filewise
    columns: {emotion: {scheme_id: emotion}, arousal: {scheme_id: arousal}}
  files:
    type: filewise
    columns: {speaker: {scheme_id: speaker}, transcription: {scheme_id: transcription}}
"""


def audformat(root: Path) -> Expected:
    """A filewise table of emotions, one of files, and a recording that leads out of the folder."""
    emotions, files = ["file,emotion,arousal"], ["file,speaker,transcription"]
    for person in PEOPLE:
        for number, label in enumerate(LABELS, 1):
            path = write_wav(root / "wav" / f"{person}_{label}.wav")
            emotions.append(f"wav/{path.name},{label},{number}.5")
            files.append(f"wav/{path.name},{person},a0{number}")
    emotions.append("../away.wav,calm,2.0")
    (root / "db.yaml").write_text(DB_YAML)
    write_lines(root / "db.emotion.csv", emotions)
    write_lines(root / "db.files.csv", files)
    return Expected(
        utterances=6,
        labels=LABELS,
        speakers=frozenset(PEOPLE),
        dropped=1,
        scales={"arousal": (1.0, 5.0)},
    )


def hf(root: Path) -> Expected:
    """An audiofolder with a `metadata.jsonl`, one line of which is broken."""
    rows = []
    for person in PEOPLE:
        for label in LABELS:
            path = write_wav(root / "data" / f"{person}_{label}.wav")
            rows.append({"file_name": path.name, "label": label, "speaker": person, "x": [1]})
    path = write_json_lines(root / "data" / "metadata.jsonl", rows)
    path.write_text(path.read_text() + "{broken\n")
    return Expected(utterances=6, labels=LABELS, speakers=frozenset(PEOPLE), dropped=1)


EMOBOX_LABELS = {"W": "Angry", "N": "Neutral"}


def emobox_entry(name: str, emotion: str) -> dict[str, Any]:
    """A line of EmoBox's lists."""
    return {
        "key": f"small-{name}", "dataset": "small", "wav": f"downloads/small/wav/{name}.wav",
        "type": "raw", "sample_rate": 16000, "num_frame": 1600.0, "task": "category",
        "length": 0.1, "emo": emotion, "channel": 1,
    }  # fmt: skip


def emobox(root: Path) -> Expected:
    """Three folds of one speaker each; one entry's emotion has no label in the map."""
    data = root / "data" / "small"
    entries = {
        person: [emobox_entry(f"{person}{emotion}", emotion) for emotion in EMOBOX_LABELS]
        for person in ("m1", "f2", "f3")
    }
    for number, person in enumerate(entries, 1):
        fold = data / f"fold_{number}"
        others = [one for other in entries if other != person for one in entries[other]]
        strange = [emobox_entry("f3X", "X")] if person == "f3" else []
        write_json_lines(fold / f"small_train_fold_{number}.jsonl", others)
        write_json_lines(fold / f"small_test_fold_{number}.jsonl", entries[person] + strange)
    spoken = []
    for person, own in entries.items():
        speaker = f"{'fe' if person[0] == 'f' else ''}male_{person[1]}"
        for one in own:
            write_wav(root / one["wav"])
            told = f"<id={one['key']},lang=en,spk={speaker},emotion={one['emo']}>"
            spoken.append(f"{one['key']} 1 {speaker} 0 0.1 {told} {one['emo']}")
    write_lines(data / "data.seg.wrd.stm", spoken)
    (data / "label_map.json").write_text(json.dumps(EMOBOX_LABELS))
    speakers = frozenset({"male_1", "female_2", "female_3"})
    return Expected(utterances=6, labels=("Angry", "Neutral"), speakers=speakers, dropped=1)


def nkululeko(root: Path) -> Expected:
    """Two tables, for training and for testing; one label is not among those of the INI file."""
    for name, people in (("train", ("a", "b", "c", "d", "e")), ("test", ("x", "y"))):
        rows = ["file,speaker,gender,emotion"]
        for person in people:
            for label in (*LABELS, *(["bored"] if person == "x" else [])):
                path = write_wav(root / "wav" / f"{person}_{label}.wav")
                rows.append(f"wav/{path.name},{person},male,{label}")
        write_lines(root / f"{name}.csv", rows)
    lines = [
        *("[EXP]", "root = ./", "[DATA]", "databases = ['train', 'test']", "target = emotion"),
        *("labels = ['calm', 'angry']", "no_reuse = True"),
        *("train = train.csv", "train.type = csv", "train.absolute_path = False"),
        *("train.split_strategy = train", "test = test.csv", "test.type = csv"),
        *("test.absolute_path = False", "test.split_strategy = test", "[FEATS]", "type = ['os']"),
    ]
    write_lines(root / "exp.ini", lines)
    return Expected(
        utterances=14, labels=("calm", "angry"), speakers=frozenset("abcdexy"), dropped=1
    )
