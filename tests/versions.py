"""`python -m tests.versions oldest|newest`: what pip is to install for the suite, a line each.

The oldest are the lower bounds of pyproject.toml. torch stays at the tested version in both.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
EXTRAS = ("containers", "cues", "demo", "explain", "parquet", "tensorboard", "wer")
#: What runs the tests may be new in any case.
TOOLS = ("hypothesis", "praatio", "pytest", "pytest-xdist")


def requirements(which: str) -> list[str]:
    """Names and versions for pip."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = dict.fromkeys([*project["dependencies"], *(d for e in EXTRAS for d in extras[e])])
    tested = re.search(r"^torch==\S+", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert tested is not None
    found = [*TOOLS, tested[0]]
    for one in wanted:
        name, bound = one.split(">=")
        if name != "torch":
            found.append(f"{name}=={bound}" if which == "oldest" else name)
    return found


if __name__ == "__main__":
    if sys.argv[1:] not in (["oldest"], ["newest"]):
        sys.exit("usage: python -m tests.versions oldest|newest")
    sys.stdout.write("\n".join(requirements(sys.argv[1])) + "\n")
