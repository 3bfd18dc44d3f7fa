"""A search of 100 trials on 10,000 generated utterances, in a process of its own for its memory."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

from bench.table import Outcome, Settings

UTTERANCES, FRAMES, DIM = 10_000, 250, 1024
MOST_SECONDS, MOST_BYTES = 1800.0, 12e9


def large_search(settings: Settings) -> Outcome:
    """Time, memory and matrix throughput of `heads.search.run.search_heads`."""
    utterances, trials = settings.scaled(UTTERANCES, 200), settings.scaled(100, 8)
    done = subprocess.run(
        [sys.executable, "-m", "bench.large_search", str(utterances), str(trials)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    share = found["achieved"] / found["peak"]
    return Outcome(
        f"{found['seconds'] / 60:.1f} min, {found['bytes'] / 1e9:.1f} GB, "
        f"{found['achieved'] / 1e9:.0f} GFLOP/s",
        f"{found['peak'] / 1e9:.0f} GFLOP/s",
        f"{share:.0%} of peak",
        found["seconds"] < MOST_SECONDS and found["bytes"] < MOST_BYTES,
    )


def main(utterances: int, trials: int) -> None:
    """Search, and print what it took as JSON."""
    from bench.frames import LABELS, generated
    from bench.peak import peak_bytes
    from bench.throughput import head_epoch_flops, peak_flops
    from heads.origin import Origin
    from heads.search.candidates import Candidates
    from heads.search.config import SearchConfig
    from heads.search.run import search_heads

    dataset = generated(utterances, DIM, FRAMES, FRAMES)
    rows = len(dataset.rows("train"))
    flops = 0.0

    class Counting(Candidates):
        """Adds up the arithmetic of every epoch."""

        def run_epoch(self) -> None:
            nonlocal flops
            flops += sum(head_epoch_flops(head.config, rows, FRAMES) for head in self.heads)
            super().run_epoch()

    origin = Origin(corpus="generated", synthetic=True, labels=LABELS)
    with tempfile.TemporaryDirectory(prefix="emopool-bench-") as folder:
        started = time.perf_counter()
        config = SearchConfig(trials=trials, epochs=9, folds="off")
        with patch("heads.search.rounds.Candidates", Counting):
            report = search_heads(dataset, Path(folder), origin, config, show_progress=True)
        took = time.perf_counter() - started
    sys.stderr.write(report.to_text() + "\n")
    found = {
        "seconds": took,
        "bytes": peak_bytes(),
        "achieved": flops / took,
        "peak": peak_flops(),
    }
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:3]))
