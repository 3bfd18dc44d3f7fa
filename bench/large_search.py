"""A search of 100 trials on 10,000 generated utterances, in a process of its own for its memory."""

from __future__ import annotations

import json
import subprocess
import sys

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
    from bench.frames import generated
    from bench.measured_search import searched
    from bench.peak import peak_bytes
    from bench.throughput import peak_flops

    took = searched(generated(utterances, DIM, FRAMES, FRAMES), trials, "cpu")
    sys.stderr.write(took.text + "\n")
    found = {
        "seconds": took.seconds,
        "bytes": peak_bytes(),
        "achieved": took.flop / took.seconds,
        "peak": peak_flops("cpu"),
    }
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:3]))
