"""Claims: how machines that share nothing but an object store divide an extraction.

`.claims/<hash>.json` below the URL holds, for each process that fills the same streams, the shares
it holds, whether it waits for some, and a count that it raises every few seconds. It is replaced
only on the condition that nobody did meanwhile, so what a process read is what it changes. A count
that stands still for a minute, by the watch of whoever looks, is that of a dead process; its shares
are free then. Should it live after all, both do the same, and of a key written twice one counts.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from cache.store.mirror import CLAIMS
from cache.store.remote import Remote
from corpora.base.errors import ObjectStoreError
from corpora.base.files import new_stamp
from corpora.base.work import Rank

#: Seconds between two signs of life, and without any until a process counts as dead.
BEAT_S, DEAD_S = 10.0, 60.0
# How often somebody without work looks for some, and somebody at work for those who wait.
_POLL_S = 2.0
_PAUSE_S = 3 * _POLL_S

Claims = dict[str, dict[str, Any]]


class Claimed:
    """The shares this process holds, as `cache.extract.stream_writer.Shares`.

    Args:
        remote: where the claims are.
        name: of this extraction.
        rank: this process's.
    """

    def __init__(self, remote: Remote, name: str, rank: Rank) -> None:
        self._remote = remote
        self._name = f"{CLAIMS}/{name}.json"
        self._rank = rank
        self._own = new_stamp()
        self._shares: set[int] = set()
        self._waiting = False
        self._beat = 0
        self._begun = False
        self._seen: dict[str, tuple[int, float]] = {}
        self._given = self._asked = time.monotonic() - _PAUSE_S
        self._lock = threading.RLock()

    def take(self, wanted: Collection[int]) -> list[int]:
        """Take those of the wanted shares that are free; at first only this rank's own."""
        own = {share for share in wanted if share % self._rank.count == self._rank.number}
        begun, self._begun = self._begun, True
        taken: set[int] = set()

        def change(others: Claims) -> None:
            held = {share for one in others.values() for share in one["shares"]}
            nonlocal taken  # again, if somebody was faster
            self._shares -= taken
            taken = (set(wanted) if begun else own) - held
            self._shares |= taken

        self._change(change)
        return sorted(taken)

    def release(self, shares: Iterable[int]) -> None:
        """Let go; what was done in them must have been committed."""
        gone = set(shares)
        self._change(lambda _: self._shares.difference_update(gone))

    def wait(self) -> None:
        """Say that this process has nothing to do, and wait a little."""
        self._waiting = True
        self._change(lambda _: None)
        time.sleep(_POLL_S)

    def busy(self) -> None:
        """This process has something to do again; its next sign of life says so."""
        self._waiting = False

    def is_anyone_waiting(self) -> bool:
        """Whether another process has nothing to do, and had time to take what was let go last."""
        now = time.monotonic()
        if now - self._given < _PAUSE_S or now - self._asked < _POLL_S:
            return False
        self._asked = now
        with self._lock:
            return any(one["waiting"] for one in self._read()[0].values())

    def give(self, shares: Iterable[int]) -> None:
        """Let go of shares for the sake of others; what was done in them is committed."""
        self.release(shares)
        self._given = time.monotonic()

    def beat(self, ended: threading.Event) -> None:
        """Give signs of life until `ended`; one that does not arrive is followed by the next."""
        while not ended.wait(BEAT_S):
            self._beat += 1
            try:
                self._change(lambda _: None)
            except ObjectStoreError:
                continue

    def leave(self) -> None:
        """Take this process out of the claims."""
        self._shares.clear()
        self._change(lambda _: None, here=False)

    def _read(self) -> tuple[Claims, dict[str, Any] | None]:
        """What the others that live claim, and the version that was read; None: there is none."""
        try:
            data, version = self._remote.get(self._name)
        except FileNotFoundError:
            return {}, None
        now, alive = time.monotonic(), {}
        for owner, one in json.loads(data).items():
            beat, since = self._seen.get(owner, (-1, now))
            if beat != one["beat"]:
                since = now
            self._seen[owner] = one["beat"], since
            if owner != self._own and now - since < DEAD_S:
                alive[owner] = one
        return alive, version

    def _change(self, change: Callable[[Claims], None], *, here: bool = True) -> None:
        """Change what this process claims, by what the others do."""
        with self._lock:
            while True:
                claims, version = self._read()
                change(claims)
                if here:
                    claims[self._own] = {
                        "beat": self._beat,
                        "waiting": self._waiting,
                        "shares": sorted(self._shares),
                    }
                if self._remote.put(self._name, json.dumps(claims).encode(), onto=version):
                    return
                time.sleep(random.uniform(0.0, 0.2))  # somebody was faster


@contextmanager
def open_claims(remote: Remote, name: str, rank: Rank) -> Iterator[Claimed]:
    """Claim shares of an extraction; leaving lets go of all."""
    claimed, ended = Claimed(remote, name, rank), threading.Event()
    thread = threading.Thread(target=claimed.beat, args=(ended,), name="claims", daemon=True)
    thread.start()
    try:
        yield claimed
    finally:
        ended.set()
        thread.join()
        claimed.leave()
