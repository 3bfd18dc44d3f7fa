"""What became of a folder of features that was imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corpora.base.terminal import bytes_text, count_text
from corpora.base.work import command_line

_SHOWN = 5


@dataclass(frozen=True)
class AdoptReport:
    """What became of a folder.

    Attributes:
        folder: the folder.
        stream: `<recipe's folder>/<stream>` in the cache.
        dim: values per frame.
        utterances: of the manifest, that have frames now.
        added: different inputs that were written; others were there.
        nbytes: of those.
        missing: ids without a file.
        extra: files that no utterance has.
        refused: reasons by id.
        work: the work folder.
    """

    folder: Path
    stream: str
    dim: int
    utterances: int
    added: int
    nbytes: int
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    refused: Mapping[str, str]
    work: Path

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return {
            "folder": str(self.folder),
            "stream": self.stream,
            "dim": self.dim,
            "utterances": self.utterances,
            "added": self.added,
            "bytes": self.nbytes,
            "missing": list(self.missing),
            "extra": list(self.extra),
            "refused": dict(self.refused),
        }

    def to_text(self, manifest: Path | None = None) -> str:
        """The same to read; with the manifest that was named in place of the work folder's."""
        lines = [
            f"Imported {self.folder} as {self.stream}, {self.dim}-d: "
            f"{count_text(self.utterances, 'utterance')} ({self.added:,} different inputs added, "
            f"{bytes_text(self.nbytes)})."
        ]
        for what, names in (
            ("utterances of the manifest have no file", self.missing),
            ("files are named by no utterance", self.extra),
            ("files could not be used", tuple(self.refused.values())),
        ):
            if names:
                lines.append(f"{len(names):,} {what}:")
                lines += [f"  {name}" for name in names[:_SHOWN]]
                if len(names) > _SHOWN:
                    lines.append(f"  and {len(names) - _SHOWN:,} more")
        lines.append(f"Next: {command_line('search --trials 100', self.work, manifest)}")
        return "\n".join(lines)
