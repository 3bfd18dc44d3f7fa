"""Rows of a benchmark as a table, on the screen and in `bench/README.md`."""

from __future__ import annotations

import os
import platform
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median

from corpora.base.errors import ConfigError, did_you_mean
from corpora.base.files import write_text
from corpora.base.report import markdown_table
from corpora.base.terminal import aligned, bytes_text


@dataclass(frozen=True)
class Comparison:
    """Medians over the repeats.

    Attributes:
        ours: seconds.
        theirs: seconds.
        ratio: of their time to ours in the same repeat: above 1 we are faster.
    """

    ours: float
    theirs: float
    ratio: float


def compare(
    ours: Callable[[], object], theirs: Callable[[], object], repeats: int, *, warm_up: bool = True
) -> Comparison:
    """Time both `repeats` times, one after the other; who begins changes from repeat to repeat.

    Args:
        ours: does the work once.
        theirs: does the same work in the other way.
        repeats: how often; medians are taken over these.
        warm_up: whether each runs once before, untimed.
    """
    if warm_up:
        theirs()
        ours()
    mine, others = [], []
    for repeat in range(repeats):
        if repeat % 2:
            mine.append(seconds(ours))
            others.append(seconds(theirs))
        else:
            others.append(seconds(theirs))
            mine.append(seconds(ours))
    ratios = [other / own for other, own in zip(others, mine, strict=True)]
    return Comparison(median(mine), median(others), median(ratios))


def seconds(action: Callable[[], object]) -> float:
    """How long it takes, freeing its result included."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


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


HEADER = ("what", "against", "here", "there", "ratio", "required", "")
_LIBRARIES = ("torch", "transformers", "numpy", "zarr", "h5py")


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Attributes:
        folder: for temporary data; removed by the caller.
        size: of the data, as a share of the full size.
        repeats: of every row; None leaves each row its own number.
    """

    folder: Path
    size: float = 1.0
    repeats: int | None = None

    def scaled(self, amount: float, least: int = 1) -> int:
        """A number of things at this size."""
        return max(least, round(amount * self.size))

    def times(self, usual: int) -> int:
        """How often a row that usually takes so many repeats is repeated."""
        return usual if self.repeats is None else self.repeats


@dataclass(frozen=True)
class Outcome:
    """What a row found.

    Attributes:
        here: what Emopool reached, with its unit.
        there: what the other reached.
        ratio: both compared; above 1 is better where it is of speeds.
        passed: whether the required was reached.
    """

    here: str
    there: str
    ratio: str
    passed: bool


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: for `--rows`.
        what: is measured.
        against: what it is compared with.
        required: as text.
        measure: does it.
    """

    name: str
    what: str
    against: str
    required: str
    measure: Callable[[Settings], Outcome]


def rate_outcome(found: Comparison, nbytes: float, least: float) -> Outcome:
    """An outcome in bytes a second."""
    return Outcome(
        f"{nbytes / found.ours / 1e9:.2f} GB/s",
        f"{nbytes / found.theirs / 1e9:.2f} GB/s",
        f"{found.ratio:.2f}×",
        found.ratio >= least,
    )


def seconds_outcome(found: Comparison, least: float) -> Outcome:
    """An outcome in seconds."""
    return Outcome(
        f"{found.ours:.2f} s", f"{found.theirs:.2f} s", f"{found.ratio:.2f}×", found.ratio >= least
    )


def lines(results: Sequence[tuple[Row, Outcome]]) -> list[str]:
    """An aligned table for a terminal."""
    cells = [HEADER, *(_cells(row, outcome) for row, outcome in results)]
    return aligned(cells, right=range(2, len(HEADER)))


def markdown(results: Sequence[tuple[Row, Outcome]]) -> str:
    """The table for a README, with what it was measured on."""
    rows = [_cells(row, outcome) for row, outcome in results]
    return f"Measured on {machine()}.\n\n{markdown_table(HEADER, rows)}"


def machine() -> str:
    """Cores, processor, memory, system and versions; nothing that tells which machine it is."""
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    processor = found[1].strip() if found else platform.machine()
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    versions = ", ".join(f"{name} {version(name)}" for name in _LIBRARIES)
    return (
        f"{os.cpu_count()} cores ({processor}), {bytes_text(memory)} of memory, "
        f"{platform.system()}, Python {platform.python_version()}, {versions}"
    )


def write_section(readme: Path, name: str, text: str) -> None:
    """Replace what stands between `<!-- name:begin -->` and `<!-- name:end -->`.

    Raises:
        ValueError: the file has no such section.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, found, rest = readme.read_text(encoding="utf-8").partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"{readme} lacks the lines {begin} and {end}")
    write_text(readme, f"{before}{begin}\n{text}\n{end}{after}")


def _cells(row: Row, outcome: Outcome) -> tuple[str, ...]:
    mark = "pass" if outcome.passed else "FAIL"
    return (
        row.what,
        row.against,
        outcome.here,
        outcome.there,
        outcome.ratio,
        row.required,
        mark,
    )
