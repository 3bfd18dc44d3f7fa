"""Which of several processes this is, as torchrun tells it. Nothing else of torchrun is needed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from corpora.base.errors import ConfigError


@dataclass(frozen=True)
class Rank:
    """One process of a job.

    Attributes:
        number: 0 to `count - 1`; 0 speaks and writes the record for all.
        count: how many there are.
        local: its number on this machine, which picks the GPU.
    """

    number: int = 0
    count: int = 1
    local: int = 0

    @property
    def leads(self) -> bool:
        """Whether it is the one that speaks."""
        return self.number == 0


def current_rank(environment: Mapping[str, str] | None = None) -> Rank:
    """This process's rank: from RANK, WORLD_SIZE and LOCAL_RANK, or the only one without them.

    Raises:
        ConfigError: one of them is not a number that fits the others.
    """
    values = os.environ if environment is None else environment
    if "RANK" not in values or "WORLD_SIZE" not in values:
        return Rank()
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    try:
        number, count, local = (int(values.get(name, "0")) for name in names)
    except ValueError:
        number, count, local = -1, 0, 0
    if not 0 <= number < count or local < 0:
        found = ", ".join(f"{name}={values.get(name, '')}" for name in names)
        raise ConfigError(
            f"{found} in the environment is no rank of a job. torchrun sets them; unset them to "
            "run one process."
        )
    return Rank(number, count, local)
