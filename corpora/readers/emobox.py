"""EmoBox's partitions of 32 corpora (Ma et al., Interspeech 2024), as its repository has them.

`data/<name>/fold_<k>/<name>_<part>_fold_<k>.jsonl`, part being train, test or (of a few) valid;
`label_map.json` gives the labels of the benchmark, and `data.seg.wrd.stm` tells who speaks. Three
folds or more are cross-validation: each row is marked with the fold whose test set it is in. Fewer
are splits.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from corpora.base.errors import CorpusError, ManifestError, did_you_mean
from corpora.readers.options import AUDIO, CORPUS, LANGUAGE, Option, Options
from corpora.readers.registry import ReadResult, register
from corpora.readers.rows import Row, cell, json_lines, located, read_rows, with_dev
from corpora.readers.tree import inside, wrong_root
from corpora.splits import FEWEST
from corpora.utterance import Utterance, speaker_key

PARTS = ("train", "valid", "test")
STM, LABEL_MAP = "data.seg.wrd.stm", "label_map.json"
SPEAKER = re.compile(r"<id=(?P<id>[^,>]+),(?:[^>]*,)?spk=(?P<speaker>[^,>]+)")
SEX = re.compile(r"(male|female)_")


@register(
    "emobox",
    title="EmoBox's folds of a corpus",
    licence="MIT for the partitions; that of the corpus for its recordings",
    source="https://github.com/emo-box/EmoBox (partitions; recordings from each corpus's makers)",
    needs="EmoBox's repository, or its folder data or data/NAME, and the corpus's recordings where "
    "its lists say (downloads/…), or anywhere: --set audio=FOLDER",
    options={
        "partition": Option("the corpus's name in EmoBox; needed where there are several"),
        "fold": Option("one fold's own train, valid and test set, in place of all folds"),
        "audio": AUDIO,
        "corpus": CORPUS,
        "language": LANGUAGE,
    },
)
def read_emobox(root: Path, options: Options) -> ReadResult:
    """Read all folds of one partition, or one of them."""
    folder = _partition(root, str(options["partition"]))
    folds = sorted((path.name.removeprefix("fold_") for path in folder.glob("fold_*")), key=_number)
    fold = str(options["fold"]) or ("" if len(folds) >= FEWEST else folds[0])
    if fold and fold not in folds:
        raise CorpusError(f"{folder} has no fold '{fold}'. It has: {', '.join(folds)}.")
    told = (folder / STM).read_text(encoding="utf-8") if (folder / STM).is_file() else ""
    speakers = {found["id"]: found["speaker"] for found in SPEAKER.finditer(told)}
    entries: dict[str, tuple[str, dict[str, Any]]] = {}
    homes: dict[str, dict[str, str]] = {}  # of each key, the part that it is in, by fold
    unread: list[Row] = []
    for number in folds:
        for part in PARTS:
            path = folder / f"fold_{number}" / f"{folder.name}_{part}_fold_{number}.jsonl"
            if not path.is_file() and part != "valid":
                raise CorpusError(f"{folder} has no {inside(path, folder)}. Get EmoBox anew.")
            for line, entry in json_lines(path) if path.is_file() else ():
                place = f"{inside(path, folder)}:{line}"
                key = str(entry.get("key", "")) if entry else ""
                if entry and key:
                    entries.setdefault(key, (place, entry))
                    homes.setdefault(key, {})[number] = part
                else:
                    unread.append(Row(place, {}, problem="no JSON object with a key"))
    labels = _labels(folder)
    rows = []
    for key, (place, entry) in entries.items():
        tests = [number for number, part in homes[key].items() if part == "test"]
        cells = {"id": key, "fold": tests[0] if tests else ""}
        cells["split"] = homes[key].get(fold, "")
        cells["speaker"] = speakers.get(key, "")
        sex = SEX.match(cells["speaker"])
        cells["sex"] = sex[1] if sex else ""
        rows.append(_row(place, entry, cells, labels, in_a_test=bool(tests or fold)))
    base = folder.parent.parent if folder.parent.name == "data" else folder
    result = read_rows(
        [*rows, *unread],
        folder,
        located(options, base),
        corpus=str(options["corpus"]) or folder.name,
        language=str(options["language"]),
    )
    made, notes = with_dev(result.utterances)
    shared = _shared(made, "split" if fold else "fold")
    if shared:
        notes += (
            f"EmoBox's own {'sets' if fold else 'folds'} share speakers: {shared} of them stand in "
            "several.",
        )
    return replace(
        result, utterances=made, notes=(*result.notes, *notes), shared_speakers=bool(shared)
    )


def _partition(root: Path, name: str) -> Path:
    """The folder of the partition of this name, or of the only one."""
    folds = (path for pattern in ("", "*/", "data/*/") for path in root.glob(f"{pattern}fold_*"))
    found = {path.parent.name: path.parent for path in folds if path.is_dir()}
    if not found:
        raise wrong_root(root, "EmoBox", "data/NAME/fold_1, with JSON lines in it")
    if name and name not in found:
        raise CorpusError(
            f"{root} has no partition '{name}'.{did_you_mean(name, found)} "
            f"It has: {', '.join(sorted(found))}."
        )
    if not name and len(found) > 1:
        raise CorpusError(
            f"{root} holds {len(found)} partitions: {', '.join(sorted(found))}. Say which with "
            "--partition NAME."
        )
    return found[name or next(iter(found))]


def _labels(folder: Path) -> Mapping[str, str]:
    """The benchmark's label of each of the corpus's, which are in lower case here.

    The lists and the maps of the repository do not always agree in upper case (EMO-DB: neutral).
    """
    path = folder / LABEL_MAP
    try:
        labels = json.loads(path.read_text(encoding="utf-8"))
        return {str(name).lower(): str(label) for name, label in labels.items()}
    except (OSError, ValueError, AttributeError) as error:
        raise CorpusError(f"{path} cannot be read ({error}). Get EmoBox anew.") from error


def _row(
    place: str,
    entry: Mapping[str, Any],
    cells: dict[str, str],
    labels: Mapping[str, str],
    *,
    in_a_test: bool,
) -> Row:
    """The row of one entry, to which `cells` are added."""
    try:
        names = {"audio": "wav", "start": "start_time", "end": "end_time", "label": "emo"}
        own = {column: cell(entry.get(name)) for column, name in names.items()}
    except ManifestError as error:
        return Row(place, cells, problem=str(error))
    label = labels.get(own["label"].lower(), "")
    problem = "" if in_a_test else "in no fold's test set"
    problem = problem if label else f"{LABEL_MAP} has no '{own['label']}'"
    return Row(place, {**cells, **own, "label": label}, problem=problem)


def _shared(utterances: tuple[Utterance, ...], unit: str) -> int:
    """How many speakers stand in several folds or splits."""
    homes: dict[object, set[str]] = {}
    for utterance in utterances:
        if speaker_key(utterance) and getattr(utterance, unit):
            homes.setdefault(speaker_key(utterance), set()).add(getattr(utterance, unit))
    return sum(len(several) > 1 for several in homes.values())


def _number(name: str) -> tuple[int, str]:
    return (int(name) if name.isdecimal() else 0, name)
