"""What a comparison keeps of each run, so that a stopped one goes on: a file for each.

`rows/<row>/<tuning>-seed<k>-part<p>.safetensors` holds the probabilities `[n, C]` of every scored
split of a part of the division, and without folds of the first seed the head's weights too.
`rows/identity.json` says what they all come from: runs over other data or settings are never mixed
with them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from corpora.base.files import read_json, write_json
from heads.comparing.config import Tuning
from heads.head import Head
from heads.results import load_tensors, save_tensors
from heads.search.identity import refuse_differences

FORMAT, VERSION = "emopool-compare", 2
IDENTITY = "identity.json"
HEAD, HEAD_WEIGHTS = "head.json", "head.safetensors"
REMEDY = "Compare with --fresh, which removes it, use another --work, or go back to these settings."
_WEIGHTS = "weights."


@dataclass(frozen=True)
class Unit:
    """One run.

    Attributes:
        row: key of the row.
        tuning: its rates and normalisation.
        seed: of first parameters, dropout and batch order.
        part: number of the part of the division.
    """

    row: str
    tuning: Tuning
    seed: int
    part: int = 0


class Kept:
    """The runs in a folder.

    Args:
        folder: `rows`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def claim(self, identity: Mapping[str, Any]) -> None:
        """Note what the runs come from, or check it.

        Raises:
            ConfigError: those in the folder come from something else; each difference is shown.
        """
        path = self.folder / IDENTITY
        if not path.is_file():
            write_json(path, {"format": FORMAT, "version": VERSION, "identity": dict(identity)})
            return
        known = read_json(path, kind=FORMAT, version=VERSION).get("identity", {})
        refuse_differences(known, identity, f"{self.folder.parent} holds a comparison", REMEDY)

    def path(self, unit: Unit) -> Path:
        """The file of a run."""
        name = f"{unit.tuning.key}-seed{unit.seed}-part{unit.part}.safetensors"
        return self.folder / unit.row / name

    def __contains__(self, unit: object) -> bool:
        return isinstance(unit, Unit) and self.path(unit).is_file()

    def save(self, unit: Unit, answers: Mapping[str, Tensor], head: Head | None) -> None:
        """Keep a run.

        Args:
            unit: which one.
            answers: by split the probabilities `[n, C]`.
            head: its trained head, where that is kept.
        """
        state = {} if head is None else head.state_dict()
        weights = {f"{_WEIGHTS}{name}": value.detach().cpu() for name, value in state.items()}
        save_tensors(self.path(unit), {**answers, **weights})

    def answers(self, unit: Unit) -> dict[str, Tensor]:
        """By split the probabilities `[n, C]` of a run."""
        return dict(self._tensors(unit, weights=False))

    def weights(self, unit: Unit) -> dict[str, Tensor]:
        """The head of a run, empty where it was not kept."""
        found = self._tensors(unit, weights=True)
        return {name.removeprefix(_WEIGHTS): value for name, value in found}

    def _tensors(self, unit: Unit, *, weights: bool) -> Iterator[tuple[str, Tensor]]:
        tensors = load_tensors(
            self.path(unit),
            "Delete it and run `compare` again: this run of the comparison is then trained anew.",
        )
        for name, value in tensors.items():
            if name.startswith(_WEIGHTS) == weights:
                yield name, value

    def save_note(self, name: str, value: Mapping[str, Any]) -> None:
        """Keep JSON beside the runs, under a name of its own."""
        write_json(self.folder / f"{name}.json", {"format": FORMAT, "version": VERSION, **value})

    def note(self, name: str) -> dict[str, Any] | None:
        """JSON kept under a name; None where there is none."""
        path = self.folder / f"{name}.json"
        return read_json(path, kind=FORMAT, version=VERSION) if path.is_file() else None

    def clear(self) -> None:
        """Remove all runs, and nothing else."""
        for path in [*self.folder.glob("*/*-seed*.safetensors"), *self.folder.glob("*.json")]:
            path.unlink()
        for path in [*self.folder.glob(f"*/{HEAD}"), *self.folder.glob(f"*/{HEAD_WEIGHTS}")]:
            path.unlink()
