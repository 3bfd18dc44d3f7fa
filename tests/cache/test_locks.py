"""Locks: many add, one removes, and a dead process holds nothing."""

import errno
import fcntl
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cache.store.layout import open_features
from corpora.base.errors import CacheError
from corpora.base.work import exclusive_lock, lock_path, shared_lock

ROOT = Path(__file__).parents[2]


@pytest.fixture
def features(tmp_path: Path) -> Path:
    return open_features(tmp_path / "features.zarr")


def test_any_number_may_add_at_once(features: Path) -> None:
    with shared_lock(features), shared_lock(features):
        pass


def test_nothing_is_removed_while_somebody_adds(features: Path) -> None:
    refused = pytest.raises(CacheError, match="in use by another process")
    with shared_lock(features), refused, exclusive_lock(features):
        pytest.fail("got the lock")


def test_only_one_removes(features: Path) -> None:
    refused = pytest.raises(CacheError, match="in use")
    with exclusive_lock(features), refused, exclusive_lock(features):
        pytest.fail("got the lock")


def test_a_lock_is_free_again_afterwards(features: Path) -> None:
    for _ in range(2):
        with exclusive_lock(features):
            pass
        with shared_lock(features):
            pass


def test_the_lock_lies_outside_the_group(features: Path) -> None:
    with shared_lock(features):
        pass
    assert lock_path(features).is_file()
    assert [path.name for path in features.iterdir()] == ["zarr.json"]


def test_a_killed_process_holds_no_lock(features: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path\n"
        "from corpora.base.work import exclusive_lock\n"
        "with exclusive_lock(Path(sys.argv[1])):\n"
        "    print('held', flush=True); time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(features)], cwd=ROOT, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(CacheError), exclusive_lock(features):
            pytest.fail("got the lock")
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with exclusive_lock(features):
        pass


def test_a_file_system_without_locks_is_named(
    features: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(CacheError, match="no file locks"), shared_lock(features):
        pytest.fail("got the lock")
