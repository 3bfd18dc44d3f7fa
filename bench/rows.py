"""Running rows of a benchmark: all, or those that were named."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bench.table import Outcome, Row, Settings
from corpora.base.errors import ConfigError, did_you_mean


def choose(rows: Sequence[Row], names: Sequence[str]) -> tuple[Row, ...]:
    """Rows by name, all without any.

    Raises:
        ConfigError: there is no row of a name.
    """
    known = {row.name: row for row in rows}
    for name in names:
        if name not in known:
            raise ConfigError(
                f"no row {name!r}; there are {', '.join(known)}.{did_you_mean(name, known)}"
            )
    return tuple(row for row in rows if row.name in names or not names)


def run(
    rows: Sequence[Row],
    *,
    size: float = 1.0,
    repeats: int | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Iterator[tuple[Row, Outcome]]:
    """Measure rows one after another.

    All data are made in a temporary folder (3.1 GB at most at full size) and removed at the end.

    Args:
        rows: which.
        size: of the data, as a share of the full size; figures of less mean nothing.
        repeats: of every row instead of each row's own number.
        tell: is told which row is being measured.
    """
    if not 0 < size <= 1:
        raise ConfigError(f"the size is a share of the full one, up to 1; got {size}")
    with tempfile.TemporaryDirectory(prefix="emopool-bench-") as folder:
        settings = Settings(Path(folder), size, repeats)
        for row in rows:
            tell(row.name)
            yield row, row.measure(settings)
