"""All commands with tiny encoders, on a GPU and beside it on the CPU: the same scores."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

from bench.gpu_counts import ROOT, Finding, Setup
from corpora.base.work import Work
from corpora.manifest import write_manifest
from tests.finetune.corpus import make_corpus

UTTERANCES = 72
COMMANDS = {
    "extract": ("--audio-encoder tiny --text-encoder tiny --audio-layers last --text-layers last"),
    "search": "--trials 11 --cohort 11 --epochs 3 --batch-size 8 --folds off",
    # The first trial, which is in both searches, for the best may not be the same.
    "finetune": "--trial 0 --epochs 1 --frame-budget 400",
    "evaluate": "--subject model --no-plots",
    "predict": "--manifest {work}/manifest.csv --split test",
    "explain --subject head": "--split test --no-plots --occlusion 2",
    "explain --subject model": "--split test --no-plots --occlusion 2",
}


def commands(setup: Setup) -> Iterator[Finding]:
    """From extraction to explanation, each on both devices; then what came out, side by side."""
    manifest = make_corpus(setup.folder / "tones", UTTERANCES)
    works = [Work(setup.folder / f"commands-{name}") for name in ("cpu", "device")]
    for work in works:
        write_manifest(manifest, work.manifest)
    places = list(zip(works, ("cpu", setup.device), strict=True))
    outputs: list[str] = []
    for command, options in COMMANDS.items():
        with ThreadPoolExecutor(2) as threads:
            runs = list(threads.map(lambda place: _run(command, options, *place), places))  # noqa: B023
        outputs.append(runs[1].stdout)
        took = f"{runs[0].seconds:.1f} s on the CPU, {runs[1].seconds:.1f} s on {setup.device}"
        yield Finding(f"{command}, tiny encoders", f"{took}: {_compared(command, runs)}")


class _Ran:
    """A command's output and time; raises with the end of its errors where it failed."""

    def __init__(self, done: subprocess.CompletedProcess[str], seconds: float) -> None:
        if done.returncode:
            raise RuntimeError(f"{' '.join(done.args[1:])}\n{done.stderr[-2000:]}")
        self.stdout, self.seconds = done.stdout, seconds


def _run(command: str, options: str, work: Work, device: str) -> _Ran:
    words = [*command.split(), *options.format(work=work.root).split(), "--json"]
    where = ["--device", device, "--work", str(work.root)]
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, str(ROOT / "cli.py"), *words, *where],
        capture_output=True,
        text=True,
        check=False,
    )
    return _Ran(done, time.perf_counter() - started)


def _numbers(value: object, name: str = "") -> Iterator[tuple[str, float]]:
    """All numbers in what a command said, by their place in it."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _numbers(inner, f"{name}.{key}")
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            # A trial by its number: its place among the best may differ.
            number = inner.get("number", place) if isinstance(inner, Mapping) else place
            yield from _numbers(inner, f"{name}.{number}")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield name, float(value)


def _compared(command: str, runs: list[_Ran]) -> str:
    """Scores and probabilities side by side; how far apart any of them are at most."""
    ours, theirs = (
        dict(_numbers([json.loads(line) for line in _documents(run.stdout)])) for run in runs
    )
    wanted = ("macro_f1", "macro-F1", "probabilit", "score")
    shared = [
        name
        for name in ours
        if name in theirs and any(word in name for word in wanted) and "seconds" not in name
    ]
    if not shared:
        return "done"
    far = max(shared, key=lambda name: abs(ours[name] - theirs[name]))
    return (
        f"{len(shared)} scores differ by {abs(ours[far] - theirs[far]):.2g} at most "
        f"({far.lstrip('.')}: {ours[far]:.4g}, {theirs[far]:.4g})"
    )


def _documents(text: str) -> list[str]:
    """One JSON document, or one a line."""
    try:
        json.loads(text)
    except ValueError:
        return [line for line in text.splitlines() if line.startswith("{")]
    return [text]
