"""For all tests: threads of torch sleep while they wait, as under `cli.py`."""

from __future__ import annotations

import os

# Read when torch is first imported, which is after this file.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
