"""Killed, or refused by the disk, at the n-th file operation of a command; then run again.

An audit hook counts the operations that change the work folder (opened for writing, renamed,
removed, made, linked, a database opened). At one of them the process kills itself, or the
operation fails: once with EIO, or from there on with ENOSPC. Such a run ends in one message, and
the same command then ends as if it had never been interrupted, with nothing left behind. Counts
are in docs/reliability.md; `python -m tests.test_faults 20` prints them.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from cli import main
from tests.test_damage import EXTRACT, HEAD, MODEL, SEARCH, make_work, without_times

# What is tried, and what of a whole work folder is taken away before.
COMMANDS: Mapping[str, tuple[list[str], list[str]]] = {
    "prepare split": (["prepare", "split", "--seed", "3"], []),
    "extract": (EXTRACT, ["features.zarr", "encoders", "extraction.json", "layers.json"]),
    "search": (SEARCH, ["search"]),
    "finetune": (["finetune", "--best", "--epochs", "1", "--checkpoint-every", "2"], ["model"]),
    "finetune again": (["finetune", "--best", "--epochs", "1", "--checkpoint-every", "2"], []),
    "evaluate head": (HEAD, ["evaluation"]),
    "evaluate model": (MODEL, ["evaluation"]),
    "cache export": (["cache", "export", "WORK/out.h5"], []),
    "cache compact": (["cache", "compact"], []),
    "cache prune": (["cache", "prune", "--last-only", "--yes"], []),
}
FAULTS = {"kill": 0, "EIO": errno.EIO, "ENOSPC": errno.ENOSPC}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_CHANGES = frozenset(
    {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "sqlite3.connect"}
)
_FREES = frozenset({"os.remove", "os.rmdir"})


def hook(work: Path, at: int, number: int, count: Path) -> None:
    """Let the `at`-th change of the work folder fail; write the number of changes to `count`."""
    seen = [0]
    root = str(work)

    def counted(event: str, arguments: tuple[object, ...]) -> None:
        if event not in _CHANGES or not any(str(a).startswith(root) for a in arguments[:2]):
            return
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & _WRITES):
            return
        seen[0] += 1
        if at < 0:
            os.pwrite(descriptor, str(seen[0]).encode(), 0)
        elif seen[0] == at and not number:
            os.kill(os.getpid(), signal.SIGKILL)
        elif seen[0] == at or (seen[0] > at and number == errno.ENOSPC and event not in _FREES):
            raise OSError(number, os.strerror(number), root)

    descriptor = os.open(count, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    sys.addaudithook(counted)


def run(words: Sequence[str], work: Path, said: Path, at: int = 0, number: int = 0) -> int:
    """Run a command in a process of its own; what it said goes to a file."""
    child = os.fork()
    if child:
        status = os.waitpid(child, 0)[1]
        return os.waitstatus_to_exitcode(status)
    code = 99
    try:
        if at:
            hook(work, at, number, said.with_name("count"))
        own = [word.replace("WORK", str(work)) for word in words]
        done = CliRunner().invoke(main, [*own, "--work", str(work)])
        said.write_text(done.output)
        code = done.exit_code
    finally:
        os._exit(code)


def state(work: Path) -> dict[str, str]:
    """The files of a work folder; what is in them, where it is the same each time."""
    found = {}
    for path in sorted(work.rglob("*")):
        name = re.sub(r"part-[0-9a-f]+-[0-9a-f]+", "part", path.relative_to(work).as_posix())
        if path.is_dir() or name.endswith((".lock", "-wal", "-shm")):
            continue
        text = ""
        if path.suffix in (".safetensors", ".csv") and name != "search/trials.csv":
            text = hashlib.sha256(path.read_bytes()).hexdigest()
        elif name == "search/best.json":
            value = {**json.loads(path.read_text()), "digest": ""}
            text = json.dumps(without_times(value), sort_keys=True)
        found[name] = text
    return found


def try_command(
    words: Sequence[str], start: Path, work: Path, most: int
) -> tuple[Counter[str], list[str]]:
    """Interrupt a command at up to `most` of its operations by each fault."""

    def begin() -> None:
        shutil.rmtree(work)
        shutil.copytree(start, work)

    said = work.parent / "said"
    begin()
    assert run(words, work, said, at=-1) == 0, said.read_text()
    count = int(said.with_name("count").read_text())
    expected = state(work)
    counts: Counter[str] = Counter({"operations": count})
    faults: list[str] = []
    step = max(1, -(-count // most))
    for name, number in FAULTS.items():
        for at in range(1, count + 1, step):
            begin()
            said.write_text("")
            status = run(words, work, said, at, number)
            text = said.read_text()
            wrong = ""
            if number and ("Traceback" in text or status not in (0, 1)):
                wrong = f"status {status}: {text[-300:]}"
            elif (status := run(words, work, said)) != 0:
                wrong = f"not again: {said.read_text()[-300:]}"
            elif (found := state(work)) != expected:
                names = {*found, *expected}
                wrong = f"differs: {sorted(n for n in names if found.get(n) != expected.get(n))}"
            counts[f"{name} {'wrong' if wrong else 'right'}"] += 1
            if wrong:
                faults.append(f"{' '.join(words)}: {name} at {at} of {count}: {wrong}")
                print(faults[-1][:600], flush=True)  # noqa: T201
    return counts, faults


def try_all(root: Path, most: int, only: str = "") -> tuple[dict[str, Counter[str]], list[str]]:
    """Every command; counts by command, and faults."""
    work = root / "whole" / "work"
    if not os.fork():  # so that this process never has threads of torch, which no fork outlives
        make_work(root / "whole")
        os._exit(0)
    os.wait()
    shutil.copytree(work, root / "kept")
    counts, faults = {}, []
    for name, (words, without) in COMMANDS.items():
        if only and name not in only.split(","):
            continue
        start = root / "whole" / "start"
        shutil.copytree(root / "kept", start)
        for part in without:
            path = start / part
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        counts[name], wrong = try_command(words, start, work, most)
        print(name, dict(counts[name]), flush=True)  # noqa: T201
        faults += wrong
        shutil.rmtree(start)
    return counts, faults


@pytest.mark.slow
def test_an_interrupted_command_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    _, faults = try_all(tmp_path, 10**6)
    assert not faults


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        _, wrong = try_all(Path(folder), int(sys.argv[1]), *sys.argv[2:])
    print(len(wrong), "wrong")  # noqa: T201
