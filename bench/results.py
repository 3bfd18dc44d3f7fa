"""Results anyone can make again: `make results` runs the commands and remembers what they said.

Every corpus has a folder of its own and goes through the same list of commands, one process each,
two corpora side by side. What a command says as JSON is kept in `WORK/<corpus>/answers`, so that a
stopped run goes on with the first one that is not there. `bench/results_page.py` makes the page.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.results_steps import EMODB, RAVDESS, SAMPLE, SIMULATION, Answers, Corpus, Step, steps
from corpora.base.errors import ConfigError, CorpusError
from corpora.base.files import file_sha256, read_json, write_json
from corpora.speech_synth import write_sample_corpus

ROOT = Path(__file__).parents[1]
FLOORS = ("corpora", "cache", "heads", "finetune", "explain")
#: Suffixes of files that decide results.
SOURCES = (".py", ".toml")
FORMAT, VERSION = "emopool-results", 1

Tell = Callable[[str], None]


def make_results(
    emodb: Path | None, ravdess: Path | None, work: Path, tell: Tell
) -> tuple[dict[Corpus, Answers], Mapping[str, Any]]:
    """Run what has not been run.

    Args:
        emodb: the folder of EMO-DB.
        ravdess: the folder of RAVDESS; without either, the sample corpus is made and used.
        work: where everything is kept.
        tell: called with a line when a command is done.

    Returns:
        By corpus the answers, and those of the simulation.

    Raises:
        CorpusError: a folder is not there.
        ConfigError: the work folder was begun by other code, or with another corpus; or a command
            failed, whose message it is.
    """
    given = ((EMODB, emodb), (RAVDESS, ravdess))
    corpora = [replace(corpus, root=path) for corpus, path in given if path is not None]
    for corpus in corpora:
        if not corpus.root.is_dir():
            raise CorpusError(
                f"{corpus.name.upper()}: there is no folder {corpus.root}. Name the one that you "
                f"unpacked {corpus.title} into: make results {corpus.name.upper()}=path/to/it."
            )
    if not corpora:
        corpora = [replace(SAMPLE, root=write_sample_corpus(work / "sample-corpus"))]
    plans: list[tuple[str, Path, Sequence[Step]]] = [(c.name, c.root, steps(c)) for c in corpora]
    plans.append(("simulation", Path(), SIMULATION))
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(_run, *plan, work, tell) for plan in plans]
        try:
            *found, simulated = [job.result() for job in jobs]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    coverage = {name: one for name, one in simulated["coverage"].items() if name != "files"}
    return dict(zip(corpora, found, strict=True)), coverage


def code_sha256() -> str:
    """Digest of the product's sources, in whatever order the disk has them."""
    paths = [p for floor in FLOORS for p in (ROOT / floor).rglob("*") if p.suffix in SOURCES]
    lines = [f"{p.relative_to(ROOT)} {file_sha256(p)}" for p in sorted([*paths, ROOT / "cli.py"])]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _run(name: str, root: Path, plan: Sequence[Step], work: Path, tell: Tell) -> Answers:
    folder = work / name
    kept = folder / "answers"
    kept.mkdir(parents=True, exist_ok=True)
    plans = json.dumps([(step.name, step.words) for step in plan])
    begun = {"root": str(root.resolve()), "code": code_sha256(), "plan": plans}
    stamp = kept / "begun.json"
    if not stamp.is_file():
        write_json(stamp, {"format": FORMAT, "version": VERSION, **begun})
    old = read_json(stamp, kind=FORMAT, version=VERSION)
    if old != {**old, **begun}:
        raise ConfigError(
            f"{folder} was begun with other code, commands or recordings, and results would be "
            "mixed. Remove it, or name another folder with --work."
        )
    answers: dict[str, Mapping[str, Any]] = {}
    for step in plan:
        path = kept / f"{step.name}.json"
        if not path.is_file():
            since = time.monotonic()
            answer = dict(step.does(folder, answers)) if step.does else {}
            if step.words:
                answer = _command(step, root, folder)
            files = {one: folder / one for one in step.keeps if (folder / one).is_file()}
            texts = {one: at.read_text(encoding="utf-8") for one, at in files.items()}
            kinds = {"format": FORMAT, "version": VERSION}
            write_json(path, {**kinds, "answer": answer, "files": texts})
            tell(f"{name}: {step.words or step.name} ({time.monotonic() - since:.0f} s)")
        value = read_json(path, kind=FORMAT, version=VERSION)
        answers[step.name] = {**value["answer"], "files": value["files"]}
    return answers


def _command(step: Step, root: Path, folder: Path) -> dict[str, Any]:
    """What a command says; it is run in the work folder, so that no path decides anything."""
    words = [word.removeprefix("W/") for word in shlex.split(step.words)]
    words = [str(root.resolve()) if w.startswith("path/to/") else w for w in words]
    done = subprocess.run(
        [sys.executable, str(ROOT / "cli.py"), *words, "--work", ".", "--json"],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise ConfigError(
            f"{step.line.replace('--work W', f'--work {folder}')} failed: {said[-1]} "
            "What was done before is kept: the same command goes on."
        )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer
