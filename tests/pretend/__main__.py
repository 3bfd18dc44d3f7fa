"""`python -m tests.pretend NAME [LIBRARY]`: one check, with what it counted.

Counts go to standard output, a line of JSON each; what they are made of to standard error.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from tests.pretend.guard import compile_guard, register


def main() -> None:
    name, *library = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        register(Path(library[0]) if library else compile_guard(Path(folder)))
    from tests.pretend.checks import CHECKS

    if name not in CHECKS:
        import tests.pretend.commands  # noqa: F401 - these take long to import

    CHECKS[name]()
    # Autograd's device threads let go of Python's objects when they get to it; one that does so
    # while Python is being taken down aborts the process.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


main()
