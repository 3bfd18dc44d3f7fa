"""The cache's benchmark: its rows, in the order of the table."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bench import extraction, front_end, reading
from bench.table import Outcome, Row, Settings
from corpora.errors import ConfigError, did_you_mean

RANDOM = "random utterances, 64 a draw"
ROWS = (
    Row("flat", RANDOM, "np.memmap on a flat file", "at least 0.8×", reading.against_flat),
    Row("hdf5", RANDOM, "h5py, one dataset an utterance", "at least 2×", reading.against_hdf5),
    Row("zarr", RANDOM, "zarr-python, 1,024-row chunks", "at least 10×", reading.against_zarr),
    Row("whole", "whole stream, sums checked", "np.fromfile", "at least 0.6×", reading.whole),
    Row(
        "front-end",
        "front end, CPU, fp64 FFT",
        "transformers extractor",
        "at least 1.8×",
        front_end.front_end,
    ),
    Row(
        "extract",
        "extract, CPU, scaled encoder",
        "the encoder alone",
        "at least 0.87×",
        extraction.against_encoder,
    ),
    Row(
        "no-op",
        "extract with nothing to do",
        "10,000 utterances in 2,000 parts",
        "under 3 s",
        extraction.nothing_to_do,
    ),
    Row(
        "memory",
        "peak memory, 2,000 utterances",
        "200 of the same lengths",
        "at most 1.1× + 3 parts",
        extraction.memory,
    ),
)


def choose(names: Sequence[str]) -> tuple[Row, ...]:
    """Rows by name, all without any.

    Raises:
        ConfigError: there is no row of a name.
    """
    known = {row.name: row for row in ROWS}
    for name in names:
        if name not in known:
            raise ConfigError(
                f"no row {name!r}; there are {', '.join(known)}.{did_you_mean(name, known)}"
            )
    return tuple(row for row in ROWS if row.name in names) if names else ROWS


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
