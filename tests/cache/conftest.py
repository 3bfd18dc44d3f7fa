"""Fixtures of the cache's tests."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.cache.streams import fast_folder


@pytest.fixture
def fast_path() -> Iterator[Path]:
    """As `tmp_path`, in memory where that is possible."""
    with TemporaryDirectory(dir=fast_folder()) as folder:
        yield Path(folder)
