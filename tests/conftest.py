"""For all tests: torch has one thread, and threads sleep while they wait, as under `cli.py`."""

from __future__ import annotations

import os

from hypothesis import settings

# Read when torch is first imported, which is after this file.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# `make test` runs a process a core; alone, too, tests count what one thread does.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A slow machine is no failure.
settings.register_profile("emopool", settings(), deadline=None)
settings.load_profile("emopool")
