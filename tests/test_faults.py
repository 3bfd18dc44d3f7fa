"""Killed, or refused by the disk, at the n-th file operation of a command; then run again.

`faulty_disk.c`, loaded before libc, counts the calls that change the work folder (opened for
writing, written, synced, cut, renamed, removed, made, linked), those of SQLite, HDF5 and
safetensors too. At one of them the process dies, half of what it wrote on disk; or the call fails:
once with EIO, or from there on with ENOSPC. Such a run ends in one message, and the same command
then ends as if it had never been interrupted, with nothing left behind. Counts are in
docs/reliability.md; `python -m tests.test_faults 20 [COMMAND,…]` prints them.
"""

from __future__ import annotations

import ast
import ctypes
import errno
import gc
import hashlib
import importlib
import json
import mmap
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from matplotlib.figure import Figure

from cli import main
from corpora.manifest import read_manifest
from tests.test_damage import EXTRACT, HEAD, MODEL, make_work, without_times

COUNT = 12  # utterances: one a speaker
LIBRARY = "EMOPOOL_FAULTY_DISK"
FAULTS = {"kill": 0, "EIO": errno.EIO, "ENOSPC": errno.ENOSPC}
FINETUNE = ["finetune", "--best", "--epochs", "1", "--checkpoint-every", "2"]
SEARCH = ["search", "--trials", "2", "--cohort", "2", "--epochs", "2", "--no-plots"]
COMPARE = [
    *("compare", "--poolings", "average,MQMHA 2/2", "--seeds", "1", "--epochs", "1"),
    *("--learning-rates", "1e-3", "--scorer-rates", "0.3", "--input-norms", "none", "--no-plots"),
]
# Tables whose rows depend on when a run was stopped: hashes are kept where they save reading again.
_OTHERWISE = ("sources", "trial_heartbeats")
_PART = re.compile(r"part-[0-9a-f]+-[0-9a-f]+")
_STAMP = re.compile(r"[0-9a-f]{16}-\d+-[0-9a-f]{8}-[A-Za-z0-9._-]+(?=\.(tmp|old))")
# Times, digests over times, and ids drawn anew.
_CHANCE = re.compile(
    r"\d{4}-\d\d-\d\d[ T][\d:.]+|sha256:[0-9a-f]{64}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    r'|(?<="study": ")[0-9a-f]{32}'
)
_FEATURES = ["features.zarr", "extraction.json", "layers.json"]


@dataclass(frozen=True)
class Trial:
    """A command: its words, what of a whole work folder is taken away before, what else is done."""

    words: Sequence[str]
    without: Sequence[str] = ()
    before: Callable[[Path], None] | None = None


def flip_a_part(work: Path) -> None:
    """Damage the largest part of the cache."""
    chunk = max(work.glob("features.zarr/*/*/part-*/c/*/*"), key=lambda path: path.stat().st_size)
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 1
    chunk.write_bytes(data)


def two_manifests(work: Path) -> None:
    """Halves of the manifest, as of two corpora."""
    for name, corpus in (("a", "one"), ("b", "other")):
        words = ["prepare", "csv", str(work.parent / "corpus"), "--corpus", corpus]
        own = work / name
        assert CliRunner().invoke(main, [*words, "--work", str(own)]).exit_code == 0
    (work / "manifest.csv").unlink()
    (work / "manifest.json").unlink()


def no_study(work: Path) -> None:
    """A search from the beginning, but for the reference, most of its time."""
    reference = (work / "search" / "reference.json").read_bytes()
    shutil.rmtree(work / "search")
    (work / "search").mkdir()
    (work / "search" / "reference.json").write_bytes(reference)


def another_recipe(work: Path) -> None:
    """Frames that the last extraction did not ask for."""
    for words in (["cache", "import", str(work.parent / "wavlm")], EXTRACT):
        assert CliRunner().invoke(main, [*words, "--work", str(work)]).exit_code == 0


TRIALS: Mapping[str, Trial] = {
    "prepare": Trial(["prepare", "csv", "ROOT/corpus"], ["manifest.csv", "manifest.json"]),
    "prepare again": Trial(["prepare", "csv", "ROOT/corpus", "--seed", "3", "--replace"]),
    "prepare merge": Trial(
        ["prepare", "merge", "WORK/a/manifest.csv", "WORK/b/manifest.csv"], [], two_manifests
    ),
    "prepare split": Trial(["prepare", "split", "--seed", "3"]),
    "prepare folds": Trial(["prepare", "split", "--folds", "3"]),
    "transcribe": Trial(["transcribe", "--whisper", "ROOT/whisper", "--speech-threshold", "0"]),
    "extract": Trial(
        [*EXTRACT, "--audio-layers", "2", "--text-layers", "1"],
        [*_FEATURES, "encoders", "sources.sqlite"],
    ),
    "extract auto": Trial(EXTRACT, _FEATURES),
    "search": Trial(SEARCH, [], no_study),
    "search on": Trial([*SEARCH, "--trials", "4"]),
    "search fresh": Trial([*SEARCH, "--seed", "1", "--fresh"]),
    "compare": Trial(COMPARE),
    "finetune": Trial(FINETUNE, ["model"]),
    "finetune again": Trial([*FINETUNE, "--seed", "1", "--fresh"]),
    "evaluate head": Trial(HEAD, ["evaluation"]),
    "evaluate model": Trial(MODEL, ["evaluation"]),
    "explain": Trial(["explain", "--subject", "head", "--split", "test", "--no-plots"]),
    "cache export": Trial(["cache", "export", "WORK/out.h5"]),
    "cache import HDF5": Trial(["cache", "import", "ROOT/features.h5"], _FEATURES),
    "cache import folder": Trial(["cache", "import", "ROOT/wavlm", "--name", "wavlm"], _FEATURES),
    "cache verify --fix": Trial(["cache", "verify", "--fix"], [], flip_a_part),
    "cache compact": Trial(["cache", "compact"]),
    "cache prune": Trial(["cache", "prune", "--last-only", "--yes"], [], another_recipe),
}


def make_all(root: Path) -> None:
    """A work folder with everything in it, and what commands read beside it."""
    from tests.cache.whispers import save_whisper

    work = make_work(root, COUNT, SEARCH)
    save_whisper(root / "whisper")
    manifest = read_manifest(work / "manifest.csv")
    rows = [
        f"{u.audio.relative_to(root / 'corpus')},{u.label},{u.speaker},{u.text}"
        for u in manifest.utterances
    ]
    (root / "corpus" / "table.csv").write_text("\n".join(["audio,label,speaker,text", *rows]))
    (root / "wavlm").mkdir()
    for utterance in manifest.utterances:
        frames = np.random.default_rng(len(utterance.id)).normal(size=(4, 6)).astype(np.float32)
        np.save(root / "wavlm" / f"{utterance.id}.npy", frames)
    words = ["cache", "export", str(root / "features.h5"), "--work", str(work)]
    assert CliRunner().invoke(main, words).exit_code == 0


def in_memory() -> str | None:
    """A folder that no disk slows down, where there is one."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def build(folder: Path) -> Path:
    """The library that fails."""
    library = folder / "faulty_disk.so"
    source = Path(__file__).with_name("faulty_disk.c")
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    return library


_COUNT = mmap.mmap(-1, 8)  # of the calls of a child


def calls() -> int:
    return ctypes.c_long.from_buffer(_COUNT).value


def run(words: Sequence[str], work: Path, said: Path, at: int = 0, number: int = 0) -> int:
    """Run a command in a process of its own; what it said goes to a file."""
    ctypes.c_long.from_buffer(_COUNT).value = 0
    child = os.fork()
    if child:
        try:
            status = os.waitpid(child, 0)[1]
        except KeyboardInterrupt:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise
        return os.waitstatus_to_exitcode(status)
    code = 99
    try:
        places = {"WORK": str(work), "ROOT": str(work.parent)}
        own = [re.sub("WORK|ROOT", lambda found: places[found[0]], word) for word in words]
        if at:
            counter = ctypes.byref(ctypes.c_long.from_buffer(_COUNT))
            folder = os.fsencode(work)
            ctypes.CDLL(None).fault_arm(folder, ctypes.c_long(at), number, counter)
        done = CliRunner().invoke(main, [*own, "--work", str(work)])
        said.write_text(done.output)
        if at < 0:
            keys = re._cache  # type: ignore[attr-defined]
            regexes = [(pattern, int(flags)) for _, pattern, flags in keys]
            known = {"modules": list(sys.modules), "regexes": regexes}
            said.with_name("known").write_text(repr(known))
        code = done.exit_code
    finally:
        os._exit(code)


def learn(said: Path) -> None:
    """Import and compile what a child did, so that the next one need not.

    Nothing is computed here: no fork outlives threads of torch.
    """
    known = ast.literal_eval(said.with_name("known").read_text())
    for name in known["modules"]:
        if name not in sys.modules:
            with suppress(Exception):
                importlib.import_module(name)
    for pattern, flags in known["regexes"]:
        re.compile(pattern, flags)
    gc.collect()
    gc.freeze()  # so that a child's collector does not touch, and copy, all of it


def state(work: Path) -> dict[str, Any]:
    """The files of a work folder; what is in them, as far as that is the same each time."""
    found: dict[str, Any] = {}
    for path in sorted(work.rglob("*")):
        name = _PART.sub("part", path.relative_to(work).as_posix())
        if path.is_dir() or name.endswith((".lock", "-wal", "-shm")):
            continue
        if name.endswith("part/zarr.json"):  # a part holds what its run came to
            stream = f"utterances of {Path(name).parent.parent}"
            keys = json.loads(path.read_bytes())["attributes"]["keys"]
            found[stream] = sorted({*found.get(stream, ()), *keys})
        found[name] = contents(path, name)
    return found


def contents(path: Path, name: str) -> Any:
    """Of one file, if it is the same each time."""
    if path.suffix in (".safetensors", ".npz", ".html") or (
        path.suffix == ".csv" and name != "search/trials.csv"
    ):
        return hashlib.sha256(path.read_bytes()).hexdigest()
    if path.suffix == ".json" and not name.startswith("features.zarr"):
        return values(path)
    if path.suffix == ".h5":
        with h5py.File(path) as file:
            sums = {}
            for group in file.values():
                for stream in group.values():
                    sums.update({key: data[()].tobytes() for key, data in stream.items()})
        return hashlib.sha256(repr(sorted(sums.items())).encode()).hexdigest()
    if path.suffix in (".sqlite", ".db"):
        with closing(sqlite3.connect(path)) as database:
            assert database.execute("pragma integrity_check").fetchone() == ("ok",)
            tables = database.execute("select name from sqlite_master where type = 'table'")
            return {
                table: database.execute(f"select count(*) from {table}").fetchone()[0]
                for (table,) in tables.fetchall()
                if table not in _OTHERWISE
            }
    return ""


def values(path: Path) -> str:
    """Of a JSON file, less what differs from run to run."""
    try:
        value = json.loads(path.read_text())
    except ValueError:
        return f"torn: {path.read_text()}"
    table = path.with_suffix(".csv")
    sha256 = hashlib.sha256(table.read_bytes()).hexdigest() if table.is_file() else ""
    if value.get("csv_sha256") == sha256:
        value.pop("replaced", None)  # it speaks of the CSV before, which nobody asks for any more
    return _CHANCE.sub("", json.dumps(without_times(value), sort_keys=True))


def fingerprint(work: Path) -> str:
    """Of all on disk but for times and chance: what has the same goes on in the same way."""
    entries = []
    for path in work.rglob("*"):
        name = _STAMP.sub("stamp", _PART.sub("part", path.relative_to(work).as_posix()))
        entry = ""
        if path.is_file():
            entry = hashlib.sha256(path.read_bytes()).hexdigest()
            with suppress(ValueError, sqlite3.Error):
                if path.suffix == ".json" and not name.startswith("features.zarr"):
                    entry = values(path)
                alone = not path.with_name(f"{path.name}-journal").exists()
                if path.suffix in (".sqlite", ".db") and alone:
                    with closing(sqlite3.connect(path)) as database:
                        entry = _CHANCE.sub("", "\n".join(database.iterdump()))
        entries.append((name, entry))
    return hashlib.sha256(repr(sorted(entries)).encode()).hexdigest()


def different(found: dict[str, Any], expected: dict[str, Any]) -> str:
    """What of two states differs; "" where nothing does."""
    names = sorted({*found, *expected})
    pairs = [(name, found.get(name, "lacks"), expected.get(name, "lacks")) for name in names]
    return "; ".join(f"{name}: {str(a)[:300]} not {str(b)[:300]}" for name, a, b in pairs if a != b)


def try_command(trial: Trial, start: Path, work: Path, most: int) -> tuple[Counter[str], list[str]]:
    """Interrupt a command at up to `most` of its operations by each fault.

    Of faults that leave the same on disk one is followed by the command again.
    """

    def begin() -> None:
        shutil.rmtree(work)
        shutil.copytree(start, work)

    def interrupted(at: int, number: int) -> str:
        """What is wrong after one fault; "" where nothing is."""
        begin()
        said.write_text("")
        status = run(words, work, said, at, number)
        text = said.read_text()
        if calls() < at:
            counts["not reached"] += 1
        if number and ("Traceback" in text or status not in (0, 1)):
            return f"status {status}: {text[-300:]}"
        if not number and status not in (0, -signal.SIGKILL):
            return f"died of {status}"
        if status == 0:  # what it left over is the next run's; what it lacks, nobody is told of
            found = state(work)
            if differs := different({name: found.get(name) for name in expected}, expected):
                return f"silent: {differs} | {text[-300:]}"
        left = fingerprint(work)
        if left not in ends:
            counts["run again"] += 1
            again = run(words, work, said)
            differs = different(state(work), expected)
            ends[left] = f"not again: {said.read_text()[-300:]}" if again else differs
        return ends[left]

    words = trial.words
    said = work.parent.parent / "said"
    begin()
    assert run(words, work, said, at=-1) == 0, said.read_text()
    count, expected = calls(), state(work)
    learn(said)
    counts: Counter[str] = Counter({"operations": count})
    faults: list[str] = []
    ends: dict[str, str] = {}
    for at in random.Random(0).sample(range(1, count + 1), min(most, count)):
        found = {}
        try:
            for name, number in FAULTS.items():
                found[name] = interrupted(at, number)
        except KeyboardInterrupt:
            break
        counts["interrupted at"] += 1
        for name, wrong in found.items():
            counts[f"{name} {'wrong' if wrong else 'right'}"] += 1
            if wrong:
                faults.append(f"{' '.join(words)}: {name} at {at} of {count}: {wrong}")
                print(faults[-1][:900], flush=True)  # noqa: T201
    return counts, faults


def try_all(root: Path, most: int, only: str = "") -> list[str]:
    """Every command; prints counts, returns faults."""
    whole = root / "whole"
    re._MAXCACHE = 10**6  # type: ignore[attr-defined]
    # Pictures are not compared, and drawing them takes longer than all else.
    patch.object(Figure, "savefig", lambda *_, **__: None).start()
    if not os.fork():  # so that this process never has threads of torch, which no fork outlives
        code = 1
        try:
            make_all(whole)
            code = 0
        finally:
            os._exit(code)
    assert os.wait()[1] == 0
    work, start, faults = whole / "work", whole / "start", []
    shutil.copytree(work, root / "kept")
    for name, trial in TRIALS.items():
        if only and name not in only.split(","):
            continue
        began_s = time.monotonic()
        shutil.rmtree(work)
        shutil.copytree(root / "kept", work)
        for part in trial.without:
            path = work / part
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if trial.before is not None:
            child = os.fork()
            if not child:
                code = 1
                try:
                    trial.before(work)
                    code = 0
                finally:
                    os._exit(code)
            assert os.waitpid(child, 0)[1] == 0, name
        work.rename(start)
        work.mkdir()
        counts, wrong = try_command(trial, start, work, most)
        took_s = time.monotonic() - began_s
        print(name, dict(counts), f"{took_s:.0f} s", flush=True)  # noqa: T201
        faults += wrong
        shutil.rmtree(start)
    return faults


@pytest.mark.slow
def test_an_interrupted_command_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    if shutil.which("gcc") is None or sys.platform != "linux":
        pytest.skip("the disk that fails is a library for Linux, and gcc has to build it")
    words = [sys.executable, "-m", "tests.test_faults", str(10**6)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


if __name__ == "__main__":
    if LIBRARY not in os.environ:
        library = build(Path(tempfile.mkdtemp()))
        environment = {**os.environ, LIBRARY: str(library), "LD_PRELOAD": str(library)}
        words = ["-m", "tests.test_faults", *sys.argv[1:]]
        os.execve(sys.executable, [sys.executable, *words], environment)
    shutil.rmtree(Path(os.environ[LIBRARY]).parent)  # it is loaded
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends a command, prints its counts
    with tempfile.TemporaryDirectory(dir=in_memory()) as folder:
        faults = try_all(Path(folder), int(sys.argv[1]), *sys.argv[2:])
    print(len(faults), "wrong")  # noqa: T201
    sys.exit(bool(faults))
