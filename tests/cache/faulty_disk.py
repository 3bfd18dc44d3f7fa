"""A disk on which a process dies at a chosen operation.

`FaultyDisk` stands between the cache and the system: it counts the operations that change the disk
and "kills the process" at a chosen one, after which nothing more happens. It then takes away what
a power cut may take: contents of files that were not fsynced, renames whose folder was not.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar
from unittest.mock import patch

import cache.store.layout
import cache.store.writer
import cache.upkeep.compact
import corpora.base.files

DIM = 3
PART_BYTES = 20 * DIM * 2  # twenty frames


class KilledError(BaseException):
    """The process ended here."""


class FaultyDisk(ModuleType):
    """The `os` module, with a count-down to death."""

    CHANGING: ClassVar = ("open", "mkdir", "pwrite", "ftruncate", "fsync", "rename", "rmdir")

    def __init__(self, operations: int, *, power_cut: bool) -> None:
        super().__init__("os")
        self.left = operations
        self.power_cut = power_cut
        self.paths: dict[int, str] = {}
        self.unsynced: dict[int, int] = {}  # descriptor -> one of our own, for the same file
        self.renamed: dict[str, str] = {}  # new path -> old path, until its folder is fsynced

    def __getattr__(self, name: str) -> Any:
        original = getattr(os, name)
        if name not in self.CHANGING:
            return original

        def operation(*arguments: Any, **options: Any) -> Any:
            if self.left <= 0:
                if name == "pwrite" and self.left == 0:  # torn in the middle
                    descriptor, data, offset = arguments
                    original(descriptor, data[: len(data) // 2], offset)
                self.left = -1
                raise KilledError
            self.left -= 1
            result = original(*arguments, **options)
            getattr(self, f"_after_{name}", lambda *_: None)(result, *arguments)
            return result

        return operation

    def _after_open(self, descriptor: int, path: Path, flags: int, *_: int) -> None:
        self.paths[descriptor] = str(path)
        if descriptor in self.unsynced:  # closed without fsync, and its number used again
            self.unsynced[-len(self.unsynced) - 1] = self.unsynced.pop(descriptor)
        if flags & os.O_CREAT:
            self._after_pwrite(None, descriptor)

    def _after_pwrite(self, _: object, descriptor: int, *__: object) -> None:
        if descriptor not in self.unsynced:
            self.unsynced[descriptor] = os.dup(descriptor)

    def _after_fsync(self, _: None, descriptor: int) -> None:
        if descriptor in self.unsynced:
            os.close(self.unsynced.pop(descriptor))
        synced = self.paths.get(descriptor)
        # What enters the cache is safe with its new folder, what leaves it with its old one.
        self.renamed = {
            new: old
            for new, old in self.renamed.items()
            if synced not in (os.path.dirname(new), os.path.dirname(old))
        }

    def _after_rename(self, _: None, old: Path, new: Path) -> None:
        self.renamed[str(new)] = str(old)

    def end(self, *, killed: bool) -> None:
        """Let the power cut take what was not safe, and close our descriptors."""
        for descriptor in self.unsynced.values():
            if killed and self.power_cut:
                os.ftruncate(descriptor, 0)
            os.close(descriptor)
        if killed and self.power_cut:
            for new, old in reversed(self.renamed.items()):
                os.rename(new, old)


@contextmanager
def faulty(operations: int, *, power_cut: bool) -> Iterator[None]:
    """Die at the given operation of what is done inside, if it comes to that."""
    disk = FaultyDisk(operations, power_cut=power_cut)
    killed = False

    def leave(folder: Path, **_: object) -> None:
        """A dead process clears nothing away."""
        if disk.left >= 0:
            shutil.rmtree(folder, ignore_errors=True)

    with (
        patch.object(cache.store.writer, "os", disk),
        patch.object(cache.store.layout, "os", disk),
        patch.object(corpora.base.files, "os", disk),
        patch.object(cache.store.layout, "shutil", type("", (), {"rmtree": staticmethod(leave)})),
        patch.object(cache.store.writer, "PART_BYTES", PART_BYTES),
        patch.object(cache.upkeep.compact, "PART_BYTES", PART_BYTES),
    ):
        try:
            yield
        except KilledError:
            killed = True
        finally:
            disk.end(killed=killed)
