"""Progress on anything longer than two seconds: rate and time left, on standard error."""

from __future__ import annotations

import sys
from typing import Any

# Shorter work is over before a bar would be read.
DELAY_SECONDS = 2.0
# Between two updates: often enough for an eye on a terminal, seldom enough for a log file.
TERMINAL_SECONDS, LOG_SECONDS = 0.2, 10.0


def progress_bar(
    description: str, total: float, unit: str, *, show: bool = True, initial: float = 0
) -> Any:  # noqa: ANN401 - tqdm
    """A tqdm bar, as a context manager with `update(amount)`.

    Args:
        description: what is going on.
        total: in units; fractions are fine. Where more is done than that, it grows: a bar of tqdm's
            would have no total from there on, and none of the formats below.
        unit: such as `trial`, `step`; `h` of audio gets a real-time factor instead of a rate.
        show: False keeps it silent.
        initial: what was done before, in units; the time left does not count it.
    """
    from tqdm import tqdm

    class Growing(tqdm):  # type: ignore[misc] # tqdm has no types
        def update(self, n: float = 1) -> Any:  # noqa: ANN401 - tqdm's own
            self.total: float = max(self.total, self.n + n)
            return super().update(n)

    formats = {
        "h": "{desc}: {percentage:3.0f}% |{bar:24}| {n:.2f}/{total:.2f} h of audio "
        "[{elapsed}<{remaining}{postfix}]"
    }
    usual = (
        "{desc}: {percentage:3.0f}% |{bar:24}| {n:.0f}/{total:.0f}{unit} "
        "[{elapsed}<{remaining}, {rate_fmt}{postfix}]"
    )
    return Growing(
        desc=description,
        total=total,
        initial=initial,
        unit=unit if unit == "h" else f" {unit}",
        bar_format=formats.get(unit, usual),
        delay=DELAY_SECONDS,
        mininterval=TERMINAL_SECONDS if sys.stderr.isatty() else LOG_SECONDS,
        disable=not show,
        # In a log the last state stays, on a line that ends: what follows begins a new one.
        leave=not sys.stderr.isatty(),
        dynamic_ncols=True,
    )
