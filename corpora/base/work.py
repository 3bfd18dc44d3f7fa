"""The work folder: where every command finds the output of the earlier ones, and who may touch it.

Adding parts takes the shared lock: any number of processes may add at once. Pruning, merging and
repairing take the exclusive lock: nobody adds meanwhile. Reading takes none: parts are never
changed in place, and a reader that finds a part gone looks again.

The locks are `flock` on an empty file beside the group, `WORK/.features.zarr.lock` (inside the
group it would be a foreign object to Zarr; in `.tmp` somebody may sweep it away, and two processes
would hold locks on two different files). The file is never deleted. A killed process loses its
locks with its descriptors. Linux and macOS; Windows has no `flock`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from corpora.base.errors import CacheError, ConfigError


def command_line(words: str, root: Path | str, manifest: Path | None = None) -> str:
    """A command on a work folder as a user can paste it into a shell.

    Args:
        words: the command and its options.
        root: the work folder.
        manifest: to be named where it is another one than the folder's own.
    """
    other = ""
    if manifest is not None and manifest.resolve() != Work(Path(root)).manifest.resolve():
        other = f" --manifest {shlex.quote(str(manifest))}"
    return f"python cli.py {words}{other} --work {shlex.quote(str(root))}"


@dataclass(frozen=True)
class Work:
    """Paths inside a work folder.

    Attributes:
        root: the folder; made by the first command that writes into it.
        results: where the model and its evaluation go, if not into the root: a comparison
            fine-tunes several.
    """

    root: Path
    results: Path | None = None

    @property
    def manifest(self) -> Path:
        """The manifest that `prepare` writes (its JSON lies beside it)."""
        return self.root / "manifest.csv"

    @property
    def features(self) -> Path:
        """The Zarr group of all frame streams."""
        return self.root / "features.zarr"

    @property
    def sources(self) -> Path:
        """The index of content hashes, so that files are not read again."""
        return self.root / "sources.sqlite"

    @property
    def transcripts(self) -> Path:
        """What `transcribe` has heard, by recording and model."""
        return self.root / "transcripts.sqlite"

    @property
    def words(self) -> Path:
        """TextGrids of `transcribe --word-times`."""
        return self.root / "words"

    @property
    def extraction(self) -> Path:
        """What the last `extract` made: encoders, layers and recipes."""
        return self.root / "extraction.json"

    @property
    def layers(self) -> Path:
        """How the layers of each encoder were ranked by the training data."""
        return self.root / "layers.json"

    @property
    def failures(self) -> Path:
        """Utterances the last `extract` could not use, with reasons."""
        return self.root / "failures.csv"

    @property
    def encoders(self) -> Path:
        """Encoders made here, such as `tiny`."""
        return self.root / "encoders"

    @property
    def search(self) -> Path:
        """The study and its best heads."""
        return self.root / "search"

    @property
    def compare(self) -> Path:
        """Tables of published heads on this corpus, and the runs behind them."""
        return self.root / "compare"

    @property
    def finetune(self) -> Path:
        """A fine-tuning under way: checkpoints, and its curves, which stay."""
        return (self.results or self.root) / "finetune"

    @property
    def model(self) -> Path:
        """The fine-tuned model."""
        return (self.results or self.root) / "model"

    @property
    def evaluation(self) -> Path:
        """Reports and predictions of `evaluate`, by subject and split."""
        return (self.results or self.root) / "evaluation"

    @property
    def explain(self) -> Path:
        """The report of `explain`, its figures and tables."""
        return (self.results or self.root) / "explain"


def lock_path(features: Path) -> Path:
    """The lock file of the group at `features`."""
    return features.with_name(f".{features.name}.lock")


@contextmanager
def shared_lock(features: Path) -> Iterator[None]:
    """Hold the lock for adding to `features`; waits for a running prune, merge or repair.

    Raises:
        CacheError: the file system has no locks.
    """
    with _flock(features, fcntl.LOCK_SH):
        yield


@contextmanager
def exclusive_lock(features: Path) -> Iterator[None]:
    """Hold the lock for removing from `features`; refuses at once, for adding may take hours.

    Raises:
        CacheError: somebody is adding or removing, or the file system has no locks.
    """
    with _flock(features, fcntl.LOCK_EX | fcntl.LOCK_NB):
        yield


@contextmanager
def _flock(features: Path, operation: int) -> Iterator[None]:
    path = lock_path(features)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(descriptor, operation)
        except BlockingIOError as error:
            raise CacheError(
                f"{features} is in use by another process, which is adding to it or changing it. "
                "Wait until that is done, or stop it, and try again."
            ) from error
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
            raise CacheError(
                f"The file system of {features} has no file locks ({error.strerror}), so the cache "
                "cannot be kept safe there. Mount it with locks (Lustre: `-o flock`), or put the "
                "work folder elsewhere."
            ) from error
        yield
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class Rank:
    """One process of a job.

    Attributes:
        number: 0 to `count - 1`; 0 speaks and writes the record for all.
        count: how many there are.
        local: its number on this machine, which picks the GPU.
    """

    number: int = 0
    count: int = 1
    local: int = 0

    @property
    def leads(self) -> bool:
        """Whether it is the one that speaks."""
        return self.number == 0


def current_rank(environment: Mapping[str, str] | None = None) -> Rank:
    """This process's rank: from RANK, WORLD_SIZE and LOCAL_RANK, or the only one without them.

    Raises:
        ConfigError: one of them is not a number that fits the others.
    """
    values = os.environ if environment is None else environment
    if "RANK" not in values or "WORLD_SIZE" not in values:
        return Rank()
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    try:
        number, count, local = (int(values.get(name, "0")) for name in names)
    except ValueError:
        number, count, local = -1, 0, 0
    if not 0 <= number < count or local < 0:
        found = ", ".join(f"{name}={values.get(name, '')}" for name in names)
        raise ConfigError(
            f"{found} in the environment is no rank of a job. torchrun sets them; unset them to "
            "run one process."
        )
    return Rank(number, count, local)
