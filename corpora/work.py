"""The work folder: where every command finds the output of the earlier ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Work:
    """Paths inside a work folder.

    Attributes:
        root: the folder; made by the first command that writes into it.
    """

    root: Path

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
    def extraction(self) -> Path:
        """What the last `extract` made: encoders, layers and recipes."""
        return self.root / "extraction.json"

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
    def model(self) -> Path:
        """The fine-tuned model."""
        return self.root / "model"

    @property
    def evaluation(self) -> Path:
        """Reports and predictions of `evaluate`, by subject and split."""
        return self.root / "evaluation"
