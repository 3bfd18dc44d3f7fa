"""Lhotse's cuts: JSON lines, packed or not, each a stretch of a recording with its supervisions.

Each supervision is an utterance (its times count from the cut's start); a cut without one is an
utterance without a label. What lhotse would make on the fly (mixtures, transforms, the output of
commands) is no recording: it is left out, with the reason. The package is not needed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from corpora.base.errors import ManifestError
from corpora.readers.options import AUDIO, CORPUS, LANGUAGE, SHARED_SPEAKERS, Option, Options
from corpora.readers.registry import ReadResult, register
from corpora.readers.rows import Row, cell, json_lines, located, read_rows
from corpora.readers.table import MEANINGS
from corpora.readers.tree import files_below, inside, wrong_root
from corpora.utterance import ATTRIBUTES, format_number, split_named

SUFFIXES = (".jsonl", ".jsonl.gz")
WHOLE = 1e-3  # seconds by which a cut may miss its recording's end: lhotse rounds durations
SAVE = "save it with CutSet.save_audios, and list what that returns"


@register(
    "lhotse",
    title="A CutSet of lhotse, as JSON lines",
    licence="that of your recordings",
    source="your own",
    needs="a file of cuts (.jsonl or .jsonl.gz), or a folder with some, train, dev or test in "
    "their names",
    speakers="Fill in the supervisions' speaker",
    options={
        "label": Option(
            "the entry of `custom`, of supervision or cut, that is the label", "emotion"
        ),
        "audio": AUDIO,
        "corpus": CORPUS,
        "language": LANGUAGE,
        "shared_speakers": SHARED_SPEAKERS,
    },
)
def read_lhotse(root: Path, options: Options) -> ReadResult:
    """Read one file of cuts, or all in the folder `root`."""
    files = [root] if root.is_file() else sorted(files_below(root, SUFFIXES))
    if not files:
        raise wrong_root(root, "lhotse's cuts", "files of cuts such as cuts_train.jsonl.gz")
    folder = root.parent if root.is_file() else root
    result = read_rows(
        [row for path in files for row in _rows(path, folder, str(options["label"]))],
        root,
        located(options, folder),
        corpus=str(options["corpus"]) or folder.name,
        language=str(options["language"]),
    )
    return replace(result, shared_speakers=options["shared_speakers"] is True, tables=tuple(files))


def _rows(path: Path, root: Path, label: str) -> Iterator[Row]:
    """Yield the utterances of a file of cuts."""
    words = re.split(r"[^a-z]+", path.name.lower())
    split = next((split for word in words if (split := split_named(word))), "")
    for line, cut in json_lines(path):
        place = f"{inside(path, root)}:{line}"
        try:
            if cut is None:
                raise ManifestError("not a JSON object")
            sound = _sound(cut)
            several = cut.get("supervisions") or [{}]
            for number, supervision in enumerate(several, 1):
                cells = _cells(cut, supervision, label)
                name = cell(cut.get("id")) if len(several) == 1 else cell(supervision.get("id"))
                yield Row(
                    f"{place}:{number}",
                    {**cells, **sound, **_times(cut, supervision), "id": name, "split": split},
                )
        except (ManifestError, TypeError, AttributeError, KeyError, ValueError) as error:
            known = isinstance(error, ManifestError)
            problem = str(error) if known else "not a cut as lhotse writes them"
            yield Row(place, {}, problem=problem)


def _sound(cut: Mapping[str, Any]) -> dict[str, str]:
    """The path of a cut's recording.

    Raises:
        ManifestError: it is none that lies on disk as it would be heard.
    """
    kind = cut.get("type", "MonoCut")
    if kind != "MonoCut":
        raise ManifestError(f"a {kind} is made on the fly: {SAVE}")
    recording = cut.get("recording")
    if recording is None:
        raise ManifestError("it has no recording (features alone are not read)")
    if recording.get("transforms"):
        raise ManifestError(f"its recording is transformed on the fly: {SAVE}")
    sources = recording["sources"]
    if len(sources) != 1 or sources[0]["type"] != "file":
        kinds = ", ".join(sorted({str(source["type"]) for source in sources}))
        raise ManifestError(
            f"its sound is of {len(sources)} sources ({kinds}), expected one file: {SAVE}"
        )
    if len(sources[0]["channels"]) > 1:
        raise ManifestError(f"it is one channel of a file with several: {SAVE}")
    return {"audio": str(sources[0]["source"])}


def _times(cut: Mapping[str, Any], supervision: Mapping[str, Any]) -> dict[str, str]:
    """Where in the recording a supervision is; a whole recording has no times."""
    length = float(cut["duration"])
    begin = float(supervision.get("start", 0.0))
    first = max(begin, 0.0)
    last = min(begin + float(supervision.get("duration", length)), length)
    start, end = float(cut["start"]) + first, float(cut["start"]) + last
    if start < WHOLE and end > float(cut["recording"]["duration"]) - WHOLE:
        return {}
    return {"start": format_number(round(start, 9)), "end": format_number(round(end, 9))}


def _cells(cut: Mapping[str, Any], supervision: Mapping[str, Any], label: str) -> dict[str, str]:
    """What is known of an utterance beside its sound."""
    custom = {**(cut.get("custom") or {}), **(supervision.get("custom") or {})}
    told = {MEANINGS.get(name.lower(), name.lower()): value for name, value in custom.items()}
    return {
        **{name: cell(told[name]) for name in (*ATTRIBUTES, "session", "corpus") if name in told},
        "label": cell(custom.get(label)),
        "text": cell(supervision.get("text")),
        "speaker": cell(supervision.get("speaker")),
        "language": cell(supervision.get("language")),
        "sex": cell(supervision.get("gender")),
    }
