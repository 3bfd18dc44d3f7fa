"""Extract a work folder's manifest with the tiny encoders; print this process's peak memory.

`python -m bench.peak WORK`: a process of its own, since a peak is kept for the life of one.
"""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path

from cache.config import ExtractConfig
from cache.extract.extract import extract
from corpora.base.work import Work
from corpora.manifest import read_manifest


def peak_bytes() -> int:
    """The most memory this process ever held.

    From the kernel's record of this program; `getrusage` also counts the process that started it.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None, "the kernel gives a peak"
    return int(found[1]) * 1024


def main(root: str) -> None:
    """Extract and print."""
    work = Work(Path(root))
    config = ExtractConfig(audio_encoder="tiny", text_encoder="tiny", device="cpu")
    outcome = extract(work, read_manifest(work.manifest), config)
    assert outcome.report is not None
    assert not outcome.report.failures
    sys.stdout.write(f"{peak_bytes()}\n")


if __name__ == "__main__":
    main(sys.argv[1])
