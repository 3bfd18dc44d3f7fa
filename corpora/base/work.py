"""The work folder: where every command finds the output of the earlier ones."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path


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
