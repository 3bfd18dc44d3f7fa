"""Golden runs: what every command prints and writes, kept to be compared after a change of shape.

`python -m tests.golden keep DIR` runs the demo's corpus with its small encoders through every
command, and EMO-DB's recordings too with `--emodb FOLDER`; `python -m tests.golden compare DIR`
runs them again and shows each line that differs. Times, rates and places are left out. Numbers
are compared to the digit, so both runs have to be on one machine.
"""

from __future__ import annotations

import argparse
import csv
import difflib
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
DEMO = {"demo": "demo --seed 0 --trials 12 --utterances 200"}
# On a work folder with a head and a model.
LATER = {
    "evaluate model": "evaluate --subject model",
    "evaluate all": "evaluate --subject head --split all --json",
    "predict": "predict --split test --json",
    "predict table": "predict --split dev",
    "explain": "explain --subject head --limit 40",
    "explain model": "explain --subject model --limit 12 --no-plots",
    "info": "cache info",
    "info json": "cache info --json",
    "verify": "cache verify",
}
EMODB = {
    "prepare": "prepare emodb CORPUS",
    "check": "prepare check",
    "extract": "extract --audio-encoder whisper-tiny.en --text-encoder ",
    "extract again": "extract --audio-encoder whisper-tiny.en --text-encoder ",
    "search": "search --trials 12 --epochs 6",
    "trial": "search --trials 14 --epochs 6 --json",
    "compare": "compare --tables poolings --epochs 4",
    "finetune": "finetune --best --epochs 1",
    "evaluate": "evaluate --subject head",
}
_TIME = re.compile(
    r"\d[\d.,]*\s*(?:h\b|hours?|min(?:utes?)?\b|s\b|seconds?)(?:\s*\d+\s*s\b)?"
    r"|\d[\d.,]* ?[×x] real time"
    r"|\d[\d.,]* utterances/s|\d[\d.,]*/s\b|\d{4}-\d\d-\d\d[T ][\d:+.Z]*|[\d.]+ GB free"
)
_VOLATILE = re.compile(
    r"second|took|_at$|created|finished|duration|path|^sha256$|^digest$|_per_s|^study$"
)


def plain(value: Any, places: Mapping[str, str]) -> Any:
    """A value of JSON without times and places."""
    if isinstance(value, dict):
        return {k: plain(v, places) for k, v in value.items() if not _VOLATILE.search(k)}
    if isinstance(value, list):
        return [plain(entry, places) for entry in value]
    return placed(value, places) if isinstance(value, str) else value


def placed(text: str, places: Mapping[str, str]) -> str:
    for place, name in places.items():
        text = text.replace(place, name)
    return _TIME.sub("TIME", text)


def lines(text: str, places: Mapping[str, str]) -> list[str]:
    """What a command printed; JSON one value a line."""
    try:
        value = plain(json.loads(text), places)
    except ValueError:
        return [" ".join(line.split()) for line in placed(text, places).splitlines()]
    return json.dumps(value, indent=1, sort_keys=True).splitlines()


def files(work: Path, places: Mapping[str, str]) -> Iterator[tuple[str, list[str]]]:
    """Every file of a work folder but those that a database keeps."""
    for path in sorted(work.rglob("*")):
        name = re.sub(r"part-[0-9a-f]+-[0-9a-f]+", "part", path.relative_to(work).as_posix())
        if not path.is_file() or name.endswith((".lock", ".db", ".sqlite", "-wal", "-shm")):
            continue
        if name.startswith(("encoders/", "features.zarr/")):
            yield name, []  # whose contents carry random names and times
        elif name == "search/trials.csv":
            rows = csv.DictReader(path.read_text(encoding="utf-8").splitlines())
            yield name, [str({k: v for k, v in row.items() if k != "seconds"}) for row in rows]
        elif path.suffix in (".json", ".jsonl", ".csv", ".md", ".txt", ".html"):
            yield name, lines(path.read_text(encoding="utf-8"), places)
        elif path.suffix in (".png", ".svg"):
            yield name, []
        else:
            yield name, [hashlib.sha256(path.read_bytes()).hexdigest()]


def run(name: str, words: str, work: Path, corpus: Path | None) -> tuple[list[str], list[str]]:
    """What one command says and what it leaves, as lines."""
    own = [str(corpus) if word == "CORPUS" else word for word in words.split(" ")]
    done = subprocess.run(
        [sys.executable, "cli.py", *own, "--work", str(work)],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100"},
    )
    print(f"{name}: status {done.returncode}", flush=True)  # noqa: T201
    places = {str(work): "WORK", str(corpus): "CORPUS", str(ROOT): "ROOT"}
    said = [f"status {done.returncode}", *lines(done.stdout, places)]
    if done.returncode:
        said += placed(done.stderr, places).splitlines()
    return said, [f"{file}: {line}" for file, all_ in files(work, places) for line in all_ or [""]]


def runs(corpus: Path | None) -> Iterator[tuple[str, list[str]]]:
    """Every command's lines, by a name that a file can bear."""
    with tempfile.TemporaryDirectory() as folder:
        chains = {"demo": {**DEMO, **LATER}}
        if corpus:
            chains["emodb"] = {**EMODB, **LATER}
        for chain, commands in chains.items():
            before: set[str] = set()
            for name, words in commands.items():
                said, left = run(f"{chain} {name}", words, Path(folder) / chain, corpus)
                new = [line for line in left if line not in before]
                before = set(left)
                yield f"{chain} {name}.txt", [*said, "--- files", *new]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.golden", description=__doc__)
    parser.add_argument("what", choices=("keep", "compare"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--emodb", type=Path, help="EMO-DB's folder")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    different = 0
    for name, found in runs(given.emodb and given.emodb.resolve()):
        kept = given.folder / name
        if given.what == "keep":
            kept.write_text("\n".join(found) + "\n", encoding="utf-8")
            continue
        expected = kept.read_text(encoding="utf-8").splitlines()
        for line in difflib.unified_diff(expected, found, name, name, n=0, lineterm=""):
            different += 1
            print(line[:400])  # noqa: T201
    print(f"{different} lines differ" if given.what == "compare" else "kept")  # noqa: T201
    return bool(different)


if __name__ == "__main__":
    sys.exit(main())
