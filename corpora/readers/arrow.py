"""Rows of Parquet and Arrow files as Python values, by pyarrow, which is an extra.

Both formats are data alone: nothing in them is run. Pickles are, and are read nowhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from corpora.base.errors import CorpusError, MissingExtraError

AT_ONCE = 16  # rows made Python objects at once: they may carry whole recordings
SECONDS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}  # of Arrow's durations


def arrow_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a `.parquet` or (as `datasets` saves them) `.arrow` file.

    Durations are seconds; entries that are not there are None.

    Raises:
        MissingExtraError: pyarrow is not installed.
        CorpusError: the file is no such file, or damaged.
    """
    pyarrow = _pyarrow(path)
    try:
        for batch in _batches(path, pyarrow):
            units = {
                field.name: SECONDS[field.type.unit]
                for field in batch.schema
                if pyarrow.types.is_duration(field.type)
            }
            columns = [
                column.cast(pyarrow.int64()) if name in units else column
                for name, column in zip(batch.schema.names, batch.columns, strict=True)
            ]
            batch = pyarrow.RecordBatch.from_arrays(columns, names=batch.schema.names)
            for start in range(0, batch.num_rows, AT_ONCE):
                for row in batch.slice(start, AT_ONCE).to_pylist():
                    for name, unit in units.items():
                        row[name] = None if row[name] is None else row[name] / unit
                    yield row
    except (pyarrow.ArrowException, OSError) as error:
        raise _damaged(path, error) from error


def arrow_metadata(path: Path) -> Mapping[bytes, bytes]:
    """What a file's schema says besides the columns.

    Raises:
        MissingExtraError: pyarrow is not installed.
        CorpusError: the file is no such file, or damaged.
    """
    pyarrow = _pyarrow(path)
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet as parquet

            return parquet.read_schema(path).metadata or {}
        with pyarrow.memory_map(str(path)) as file, pyarrow.ipc.open_stream(file) as stream:
            return stream.schema.metadata or {}
    except (pyarrow.ArrowException, OSError) as error:
        raise _damaged(path, error) from error


def _batches(path: Path, pyarrow: ModuleType) -> Iterator[Any]:
    if path.suffix == ".parquet":
        import pyarrow.parquet as parquet

        with parquet.ParquetFile(path) as file:
            yield from file.iter_batches(batch_size=AT_ONCE)
        return
    with pyarrow.memory_map(str(path)) as file, pyarrow.ipc.open_stream(file) as stream:
        yield from stream


def _damaged(path: Path, error: Exception) -> CorpusError:
    return CorpusError(f"{path} cannot be read ({str(error).splitlines()[0]}). Get it anew.")


def _pyarrow(path: Path) -> ModuleType:
    try:
        import pyarrow
    except ImportError as error:
        raise MissingExtraError(
            f"{path} is read by pyarrow, which is not installed: pip install 'emopool[parquet]'."
        ) from error
    module: ModuleType = pyarrow
    return module
