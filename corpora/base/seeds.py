"""Seeds made of seeds."""

from __future__ import annotations

import numpy as np


def seed_from(*numbers: int) -> int:
    """A 32-bit seed that changes unpredictably with each of the numbers (at least 0)."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
