"""The benchmark of explanations: 2,600 utterances from the cache, and the whole command.

Each is a process of its own, on a cache nobody has read yet but the system that wrote it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import TypeVar

from bench.table import Outcome, Row, Settings

UTTERANCES = 2_600
MOST_SECONDS = 60.0
ROOT = Path(__file__).parents[1]
#: Analyses that are no statistics from the cache: cues are taken from recordings.
LEFT_OUT = ("cues",)

T = TypeVar("T")


def statistics(settings: Settings) -> Outcome:
    """All that `explain` computes but cues, in seconds; nothing is drawn or written.

    Opening the head, reading frames and TextGrids, and the means and deviations that probing keeps
    in the cache are in it: they are computed in the first repeat.
    """
    found = [_measured(_made(settings)) for _ in range(settings.times(1))]
    took = {name: median(one[name] for one in found) for name in found[0]}
    total = sum(took.values())
    parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in took.items())
    rate = settings.scaled(UTTERANCES, 50) / total
    return Outcome(f"{total:.1f} s", parts, f"{rate:.0f} a second", total < MOST_SECONDS)


def command(settings: Settings) -> Outcome:
    """`cli.py explain` from start to end: imports, cues that are cached, pictures and page too."""
    work = _made(settings)
    arguments = [sys.executable, "cli.py", "explain", "--work", str(work), "--split", "dev"]
    seconds = []
    for _ in range(settings.times(1)):
        started = time.perf_counter()
        subprocess.run(
            arguments, check=True, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        seconds.append(time.perf_counter() - started)
    size = (work / "explain" / "report.html").stat().st_size
    return Outcome(f"{median(seconds):.1f} s", f"a page of {size / 1e6:.1f} MB", "", True)


def _made(settings: Settings) -> Path:
    """The work folder, made once; without moments, which are made when they are first needed."""
    from bench.explained_work import make_work

    folder = settings.folder / "explain"
    if not folder.is_dir():
        make_work(folder, settings.scaled(UTTERANCES, 50))
    return folder / "work"


def _measured(work: Path) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "bench.explain", str(work)],
        check=True,
        cwd=ROOT,
        env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},
        stdout=subprocess.PIPE,
        text=True,
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main(root: str) -> None:
    """Explain a work folder's development set, and print the seconds of each part as JSON."""
    from corpora.base.work import Work
    from corpora.manifest import read_manifest
    from explain.alignments import read_alignments
    from explain.analyses import ANALYSES, Context
    from explain.attention import read_texts
    from explain.config import ExplainConfig
    from explain.item import collect_items
    from explain.load import build_subject, cached_material, choose_rows
    from finetune.evaluating.subjects import open_head

    took: dict[str, float] = {}

    def timed(name: str, action: Callable[[], T]) -> T:
        started = time.perf_counter()
        result = action()
        took[name] = time.perf_counter() - started
        return result

    work, config = Work(Path(root)), ExplainConfig(split="dev", figures=False)
    manifest = read_manifest(work.manifest)
    opened = open_head(work, work.search)
    rows = choose_rows(manifest, config.split)
    material = timed("reading", lambda: cached_material(work, opened, rows))
    subject = timed(
        "head",
        lambda: build_subject(
            opened.head, material, source=opened.source, manifest=manifest, split=config.split
        ),
    )
    aligned = timed("TextGrids", lambda: read_alignments(subject.utterances))
    timed("items", lambda: collect_items(subject, aligned, read_texts(subject)))
    context = Context(subject, aligned, manifest, work, config)
    for name, analysis in ANALYSES.items():
        if name not in LEFT_OUT:
            timed(name, lambda analysis=analysis: analysis(context))  # type: ignore[misc]
    sys.stdout.write(json.dumps(took) + "\n")


ROWS = (
    Row(
        "statistics",
        "statistics of 2,600 utterances, cues, pictures and page excluded",
        "seconds of each part",
        f"under {MOST_SECONDS:.0f} s",
        statistics,
    ),
    Row(
        "command",
        "`explain` of 2,600 utterances, cached cues, pictures and page included",
        "what it writes",
        "",
        command,
    ),
)

if __name__ == "__main__":
    main(sys.argv[1])
