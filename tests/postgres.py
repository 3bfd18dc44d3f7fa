"""A PostgreSQL server of a test's own: in a temporary folder, on a socket of that folder alone."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

#: Where Debian puts what is not on the path.
_DEBIAN = Path("/usr/lib/postgresql")


def _program(name: str) -> str:
    found = shutil.which(name) or max(map(str, _DEBIAN.glob(f"*/bin/{name}")), default=None)
    if found is None:
        pytest.skip(f"there is no {name} here (Debian: apt-get install postgresql)")
    return found


@contextmanager
def postgres() -> Iterator[str]:
    """The URL of an empty database. The test is skipped where there is no server or no driver."""
    pytest.importorskip("psycopg", reason="needs the extra postgresql")
    initdb, control = _program("initdb"), _program("pg_ctl")
    # The server refuses to be run by root.
    user = None
    if os.getuid() == 0:
        names = {one.pw_name for one in pwd.getpwall()}
        user = next(name for name in ("postgres", "nobody") if name in names)
    with tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as name:
        if user is not None:
            os.chown(name, pwd.getpwnam(user).pw_uid, pwd.getpwnam(user).pw_gid)
        data = f"{name}/data"

        def run(*command: str) -> None:
            subprocess.run(
                command,
                check=True,
                cwd=name,
                user=user,
                group=None if user is None else pwd.getpwnam(user).pw_gid,
                extra_groups=None if user is None else [],
                stdout=subprocess.DEVNULL,
            )

        run(initdb, "--pgdata", data, "--username", "test", "--auth", "trust", "--no-sync")
        options = f"-c listen_addresses= -c fsync=off -c unix_socket_directories={name}"
        run(control, "start", "-D", data, "--wait", "--log", f"{name}/log", "--options", options)
        try:
            yield f"postgresql+psycopg://test@/postgres?host={name}"
        finally:
            run(control, "stop", "-D", data, "--mode", "immediate")
