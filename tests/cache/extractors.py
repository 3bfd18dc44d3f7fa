"""Real processes that extract, and can be killed at any moment.

Importing torch and transformers takes seconds, so one process imports them once and forks a child
for each run. The encoder is slowed down and parts are made small, so that there is time to kill a
child and something it has committed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
PART_BYTES = 12_000

_CODE = f"""
import json, os, signal, sys, time, traceback
# A shell in the background starts its children with interrupts ignored; a user's terminal does not.
signal.signal(signal.SIGINT, signal.default_int_handler)
import cache.encoders.tiny, cache.store.writer
import cache.extract.audio_pass, cache.extract.compare_with_transformers
import cache.extract.claims, cache.extract.passes, cache.extract.stream_writer
from cli import main
cache.store.writer.PART_BYTES = {PART_BYTES}
cache.extract.stream_writer.POLL_SECONDS = 0.05
cache.extract.stream_writer._PAUSE_SECONDS = 0.15
cache.extract.claims.BEAT_S, cache.extract.claims.DEAD_S = 0.5, 10.0
cache.extract.claims._POLL_S, cache.extract.claims._PAUSE_S = 0.2, 0.6
encode = cache.extract.audio_pass.encode_audio
def slowly(*arguments, **options):
    time.sleep(float(os.environ.get("PAUSE", "0")))
    return encode(*arguments, **options)
cache.extract.audio_pass.encode_audio = slowly
if len(sys.argv) > 1:
    main(sys.argv[1:])
for line in sys.stdin:
    task = json.loads(line)
    if "wait" in task:
        print(os.waitpid(task["wait"], 0)[1], flush=True)
        continue
    pid = os.fork()
    if pid:
        print(pid, flush=True)
        continue
    log = os.open(task["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1); os.dup2(log, 2)
    os.environ.update(task["environment"])
    status = 1
    try:
        main(task["arguments"])
    except SystemExit as error:
        status = error.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush(); sys.stderr.flush()
        os._exit(status)
"""


class Extractors:
    """Starts runs of `extract` as processes of their own."""

    def __init__(self, parent: subprocess.Popen[str], log: Path) -> None:
        self._parent = parent
        self.log = log

    def start(self, arguments: Sequence[str], **environment: str) -> int:
        """Start one; its process id."""
        task = {"arguments": list(arguments), "environment": environment, "log": str(self.log)}
        return self._ask(task)

    def wait(self, pid: int) -> int:
        """Wait for the end of one; its exit status, negative if it was killed."""
        return os.waitstatus_to_exitcode(self._ask({"wait": pid}))

    def run(self, arguments: Sequence[str], **environment: str) -> None:
        """Run one that has to succeed."""
        status = self.wait(self.start(arguments, **environment))
        assert status == 0, self.log.read_text()

    def kill(self, pid: int, number: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal and wait for the end."""
        os.kill(pid, number)
        return self.wait(pid)

    def _ask(self, task: Mapping[str, object]) -> int:
        assert self._parent.stdin is not None
        assert self._parent.stdout is not None
        self._parent.stdin.write(json.dumps(task) + "\n")
        self._parent.stdin.flush()
        return int(self._parent.stdout.readline())


@contextmanager
def extractors(log: Path) -> Iterator[Extractors]:
    """A process that starts others."""
    command = [sys.executable, "-c", _CODE]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment,
    ) as parent:
        try:
            yield Extractors(parent, log)
        finally:
            assert parent.stdin is not None
            parent.stdin.close()


def script(path: Path) -> Path:
    """The same as a file, for whoever starts processes itself."""
    path.write_text(f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n{_CODE}")
    return path


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait for something that other processes do."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, f"waited a minute for {what}"
        time.sleep(0.005)
