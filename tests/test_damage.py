"""Bit flips, cuts and deletions in every kind of file of a work folder.

After each one the commands that read the file either name what is wrong, or end as if nothing had
happened. They never give another number without a word. A file changed by hand counts as named
where that is said. Counts are in docs/reliability.md; `python -m tests.test_damage 2000` prints
them.
"""

from __future__ import annotations

import json
import random
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cli import main
from corpora.manifest import write_manifest
from tests.finetune.corpus import make_corpus

EXTRACT = ["extract", "--audio-encoder", "tiny", "--text-encoder", "tiny"]
SEARCH = ["search", "--trials", "6", "--epochs", "3", "--json"]
HEAD = ["evaluate", "--subject", "head", "--json"]
MODEL = ["evaluate", "--subject", "model", "--json"]
CHECK = ["prepare", "check", "--json"]
# The kinds of files of a work folder, first match, and the commands that read them.
KINDS: Mapping[str, tuple[str, list[list[str]]]] = {
    "manifest": (r"manifest\.(csv|json)", [CHECK, HEAD]),
    "record of the extraction": (r"extraction\.json|layers\.json", [EXTRACT, HEAD]),
    "content hashes": (r"sources\.sqlite", [EXTRACT, HEAD]),
    "cache": (r"features\.zarr/.*", [EXTRACT, SEARCH]),
    "encoders": (r"encoders/.*", [EXTRACT, HEAD]),
    "study": (r"search/study\.(db|json)", [SEARCH]),
    "best head": (r"search/(best\.json|head\.safetensors)", [HEAD, SEARCH]),
    "kept trials": (r"search/trials/.*", [SEARCH]),
    "probabilities": (r"search/selection/.*", [SEARCH]),
    "reference": (r"search/reference\.json", [SEARCH]),
    "tables of the search": (r"search/.*", [SEARCH]),
    "model": (r"model/.*", [MODEL]),
    "evaluation": (r"evaluation/.*", [HEAD, MODEL]),
    "rest": (r".*", [HEAD]),
}
# What a command prints and that differs from run to run.
_VOLATILE = re.compile(r"sha256|second|took|added|wrote|files|path|device|notes|temperature")
_SAID = re.compile(
    r"altered|damaged|is not as Emopool wrote it|not in .* any more|left out|There is no manifest"
)


@dataclass(frozen=True)
class Outcome:
    """What a command said after the damage."""

    status: int
    output: str
    result: Any


def make_work(root: Path, count: int = 36, search: Sequence[str] = SEARCH) -> Path:
    """A work folder with everything in it."""
    work = root / "work"
    write_manifest(make_corpus(root / "corpus", count), work / "manifest.csv")
    for words in (EXTRACT, search, ["finetune", "--best", "--epochs", "1"], HEAD, MODEL):
        run(words, work)
    return work


def run(words: Sequence[str], work: Path) -> Outcome:
    done = CliRunner().invoke(main, [*words, "--work", str(work)])
    try:
        result = without_times(json.loads(done.stdout))
    except ValueError:
        result = None
    return Outcome(done.exit_code, done.output, result)


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if not _VOLATILE.search(k)}
    if isinstance(value, list):
        return [without_times(entry) for entry in value]
    return value


def flip(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    changed[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(changed)


DAMAGES: Mapping[str, Callable[[bytes, random.Random], bytes | None]] = {
    "flip": flip,
    "cut": lambda data, chance: data[: chance.randrange(len(data))],
    "deletion": lambda data, chance: None,
}


def kind_of(name: str) -> str:
    return next(kind for kind, (pattern, _) in KINDS.items() if re.fullmatch(pattern, name))


def difference(found: Any, expected: Any, where: str = "") -> str:
    """The first place where two results differ."""
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in {**expected, **found}:
            if found.get(key) != expected.get(key):
                return difference(found.get(key), expected.get(key), f"{where}.{key}")
    return f"{where}: {found} instead of {expected}"


def judge(name: str, outcome: Outcome, expected: Outcome) -> str:
    """`named`, `harmless`, or what is wrong."""
    if "Traceback" in outcome.output or outcome.status not in (0, 1, 2):
        return f"WRONG: status {outcome.status}: {outcome.output[-300:]}"
    parts = Path(name).parts
    if outcome.status:
        named = (
            any(part in outcome.output for part in parts[-3:]) or "cache verify" in outcome.output
        )
        return "named" if named else f"WRONG: unnamed: {outcome.output[-300:]}"
    if _SAID.search(outcome.output):
        return "named"
    if outcome.result == expected.result:
        return "harmless"
    return f"WRONG: another result: {difference(outcome.result, expected.result)[:300]}"


def try_all(
    root: Path, count: int, seed: int = 0
) -> tuple[Counter[tuple[str, str, str]], list[str]]:
    """Damage files of a work folder one at a time; counts by kind, damage and end, and faults."""
    chance = random.Random(seed)
    work = make_work(root / "whole")
    files: dict[str, list[str]] = {}
    for path in sorted(work.rglob("*")):
        name = path.relative_to(work).as_posix()
        if path.is_file() and path.stat().st_size and not name.endswith(".lock"):
            files.setdefault(kind_of(name), []).append(name)
    commands = {json.dumps(words): words for _, all_ in KINDS.values() for words in all_}
    expected = {key: run(words, work) for key, words in commands.items()}
    assert all(outcome.status == 0 for outcome in expected.values()), expected
    shutil.copytree(work, root / "kept")
    counts: Counter[tuple[str, str, str]] = Counter()
    faults: list[str] = []
    kinds = sorted(files)
    for number in range(count):
        kind = kinds[number % len(kinds)]
        name = chance.choice(files[kind])
        damage = chance.choice(list(DAMAGES))
        data = DAMAGES[damage]((work / name).read_bytes(), chance)
        if data is None:
            (work / name).unlink()
        else:
            (work / name).write_bytes(data)
        ends = []
        for words in KINDS[kind][1]:
            ends.append(judge(name, run(words, work), expected[json.dumps(words)]))
            if ends[-1] != "harmless":
                break
        counts[kind, damage, ends[-1].split(":")[0]] += 1
        if ends[-1].startswith("WRONG"):
            faults.append(f"{number} {damage} of {name}: {ends[-1]}")
            print(faults[-1], flush=True)  # noqa: T201
        shutil.rmtree(work)
        shutil.copytree(root / "kept", work)  # at the same place: results name paths
    return counts, faults


@pytest.mark.slow
def test_damage_is_named_healed_or_harmless(tmp_path: Path) -> None:
    _, faults = try_all(tmp_path, 2_000)
    assert not faults


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        found, wrong = try_all(Path(folder), *(int(word) for word in sys.argv[1:]))
    for (kind, damage, end), times in sorted(found.items()):
        print(f"{kind:26} {damage:9} {end:9} {times:5}")  # noqa: T201
    print(sum(found.values()), "tried,", len(wrong), "wrong")  # noqa: T201
