"""Checkpoints: where a fine-tuning stands, so that a killed one goes on to the same end.

    WORK/finetune/checkpoint-000007/
        state.json              what it belongs to, position, scores and log so far, and the SHA-256
                                of each file
        weights.safetensors     what the phases so far have changed
        best.safetensors        the best weights of the phase so far
        first.safetensors       those that it started from
        moments.safetensors     the optimiser's, by parameter

A checkpoint is built beside, fsynced and renamed into place: what is not renamed does not exist.
The newest two are kept. Random numbers follow from seed and position, and so need no file.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from cache.encoders.files import hash_files
from cache.store.scratch import publish
from corpora.base.errors import FormatVersionError
from corpora.base.files import new_stamp, read_json, sweep, under_way, write_json, writing
from finetune.model_files import fsync
from heads.search.identity import refuse_differences

FORMAT, VERSION = "emopool-checkpoint", 1
STATE = "state.json"
KEPT = 2
_NAME = re.compile(r"checkpoint-(\d{6})")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A checkpoint as it was read.

    Attributes:
        state: JSON values.
        tensors: by file and name; whoever has used a file takes it out, for they are large.
    """

    state: Mapping[str, Any]
    tensors: dict[str, dict[str, Tensor]]


class _DamagedError(Exception):
    """A checkpoint's files are not those that were written."""


class Checkpoints:
    """The checkpoints of one fine-tuning.

    Args:
        folder: where they are.
        identity: all that decides what comes out, JSON values; others are refused.

    Attributes:
        damaged: what `latest` passed over, in words.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self.folder = folder
        self.damaged: list[str] = []
        self._identity = identity
        self._unchanged: Mapping[str, str] = {}  # what files of the newest checkpoint hold

    def save(
        self,
        state: Mapping[str, Any],
        tensors: Mapping[str, Mapping[str, Tensor]],
        unchanged: Mapping[str, str] | None = None,
    ) -> None:
        """Write a checkpoint, then remove those behind the newest two.

        Args:
            state: JSON values.
            tensors: by file and name, on the CPU.
            unchanged: names what some of the files hold: as long as it stays, they are not written
                again.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        earlier = self._found()
        sweep(self.folder)
        site = under_way(self.folder / "checkpoint", new_stamp())
        site.mkdir()
        try:
            with writing(self.folder):
                for name, named in tensors.items():
                    path = site / f"{name}.safetensors"
                    holds = (unchanged or {}).get(name)
                    same = holds is not None and holds == self._unchanged.get(name)
                    before = self.folder / earlier[-1] / path.name if earlier else None
                    if not (same and before is not None and _link(before, path)):
                        _write(path, named)
                head = {"format": FORMAT, "version": VERSION, "identity": dict(self._identity)}
                write_json(site / STATE, {**head, **state, "files": _digests(site)})
                number = int(earlier[-1].rpartition("-")[2]) + 1 if earlier else 1
                publish(site, self.folder / f"checkpoint-{number:06}")
        finally:
            shutil.rmtree(site, ignore_errors=True)  # gone already when it was put in place
        self._unchanged = dict(unchanged or {})
        for name in earlier[: 1 - KEPT]:
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint that can be read; None where there is none.

        Raises:
            ConfigError: it is of a fine-tuning with other settings; each difference is named.
        """
        for name in reversed(self._found()):
            try:
                state = read_json(self.folder / name / STATE, kind=FORMAT, version=VERSION)
                refuse_differences(
                    state["identity"],
                    self._identity,
                    f"{self.folder} holds an unfinished fine-tuning",
                    "Restore what changed to go on with it, or start over with --fresh.",
                )
                _compare(self.folder / name, state["files"])
                return Checkpoint(
                    state,
                    {p.stem: load_file(p) for p in (self.folder / name).glob("*.safetensors")},
                )
            except (FormatVersionError, SafetensorError, KeyError, OSError, _DamagedError) as error:
                # Damaged after it was written: the one before it will do.
                self.damaged.append(f"{self.folder / name} is damaged and passed over ({error}).")
        return None

    def clear(self) -> None:
        """Remove all of them, and what killed runs left behind (OSError where the disk fails)."""
        for name in self._found():
            shutil.rmtree(self.folder / name)
        sweep(self.folder)

    def _found(self) -> list[str]:
        """Names, the oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted(name for name in os.listdir(self.folder) if _NAME.fullmatch(name))


def _digests(folder: Path) -> dict[str, str]:
    paths = sorted(folder.glob("*.safetensors"))
    return {path.name: digest for path, digest in hash_files(paths).items()}


def _compare(folder: Path, expected: Mapping[str, str]) -> None:
    found = _digests(folder)
    wrong = sorted(n for n in {*found, *expected} if found.get(n) != expected.get(n))
    if wrong:
        raise _DamagedError(f"{', '.join(wrong)}: SHA-256 differs")


def _write(path: Path, tensors: Mapping[str, Tensor]) -> None:
    save_file({name: value.contiguous() for name, value in tensors.items()}, path)
    fsync(path)


def _link(source: Path, target: Path) -> bool:
    """Whether a second name for a file could be made; some file systems have none."""
    try:
        os.link(source, target)
    except OSError:
        return False
    return True
