"""Folds of the training and development rows: selection where one small set would decide it.

With few development speakers the luck of who they are decides which head looks best. In folds,
every utterance of train and dev is held out once, from heads that never heard its speaker, and
heads are compared on all of them together. The test set stays out.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from corpora.base.errors import ConfigError
from corpora.folds import deal
from corpora.utterance import SPLITS, Utterance, speaker_key
from heads.dataset import Dataset

# Folds are switched on by themselves below both of these: with 20 speakers and more, and on larger
# corpora, one development set tells heads apart well enough for what folds cost.
FEW_SPEAKERS = 20
FEW_UTTERANCES = 3000
# Each fold costs as much as a search without; five leave four fifths of the speakers to train on.
GROUPED = 5
# More heads than this side by side for one trial take hours.
MOST_FOLDS = 50
CHOICES = "auto, off, speaker, session, or a number of folds from 2 on"


@dataclass(frozen=True, eq=False)
class Folds:
    """Which fold each row of train and dev is held out in.

    Attributes:
        rows: `[n]` utterance numbers, labelled ones of train and dev.
        numbers: `[n]` the fold of each, from 0.
        unit: what makes a fold: `speaker`, `session` or `group of speakers`.
    """

    rows: Tensor
    numbers: Tensor
    unit: str

    @property
    def count(self) -> int:
        """Number of folds."""
        return int(self.numbers.max()) + 1

    def __str__(self) -> str:
        return f"{self.count} folds of train and dev, each one {self.unit}"


def make_folds(dataset: Dataset, how: str) -> Folds | None:
    """The folds of a data set.

    Args:
        dataset: with its splits.
        how: `off`; `speaker` or `session`, one fold each; a number, of groups of speakers
            of about the same size and mixture of labels; `auto` as in `automatic`.

    Returns:
        None for no folds.

    Raises:
        ConfigError: another word, no such groups in the data, or too many folds.
    """
    choice = automatic(dataset) if how == "auto" else how
    if choice == "off":
        return None
    rows = torch.cat([dataset.rows(split) for split in ("train", "dev")]).sort().values
    utterances = [dataset.utterances[i] for i in rows.tolist()]
    if choice in ("speaker", "session"):
        numbers = _one_each(utterances, choice)
        unit = choice
    else:
        numbers = speaker_groups(utterances, _count(choice))
        unit = "group of speakers"
    return Folds(rows, torch.tensor(numbers), unit)


def automatic(dataset: Dataset) -> str:
    """What `auto` stands for: five groups of speakers on small corpora with few to develop on."""
    dev = [dataset.utterances[i] for i in dataset.rows("dev").tolist()]
    chosen = [u for u in dataset.utterances if u.label and u.split in ("train", "dev")]
    labelled = sum(bool(u.label) and u.split in SPLITS for u in dataset.utterances)
    few = len({speaker_key(u) for u in dev} - {None}) < FEW_SPEAKERS
    if not few or labelled >= FEW_UTTERANCES or len(_units(chosen)) < GROUPED:
        return "off"
    return str(GROUPED)


def _count(choice: str) -> int:
    if not choice.isdecimal() or int(choice) < 2:
        raise ConfigError(f"folds must be {CHOICES}; got {choice!r}")
    if int(choice) > MOST_FOLDS:
        raise ConfigError(f"{choice} folds were asked for; {MOST_FOLDS} is the most.")
    return int(choice)


def _one_each(utterances: list[Utterance], unit: str) -> list[int]:
    """The fold of each utterance, one a speaker or session."""
    keys = [speaker_key(u) if unit == "speaker" else (u.corpus, u.session) for u in utterances]
    unknown = sum(key is None or not key[1] for key in keys)
    if unknown:
        raise ConfigError(
            f"Folds by {unit} need to know every {unit}: {unknown} of {len(keys)} utterances in "
            f"train and dev have none. Fill the column {unit} of the manifest, or ask for a "
            "number of folds."
        )
    names = {key: number for number, key in enumerate(sorted(set(keys), key=str))}
    if not 2 <= len(names) <= MOST_FOLDS:
        raise ConfigError(
            f"Folds by {unit} would be {len(names)}, expected 2 to {MOST_FOLDS}. "
            "Ask for a number of folds, or for none."
        )
    return [names[key] for key in keys]


def _units(utterances: Sequence[Utterance]) -> dict[Hashable, list[int]]:
    """Positions of what may not be torn apart: a known speaker, or one utterance."""
    units: dict[Hashable, list[int]] = {}
    for position, utterance in enumerate(utterances):
        units.setdefault(speaker_key(utterance) or position, []).append(position)
    return units


def speaker_groups(utterances: Sequence[Utterance], count: int) -> list[int]:
    """The fold of each utterance: speakers are dealt out as in `corpora.folds.deal`.

    Raises:
        ConfigError: there are fewer speakers.
    """
    units = _units(utterances)
    if len(units) < count:
        raise ConfigError(
            f"{count} folds were asked for, but train and dev have {len(units)} speakers."
        )
    groups = [positions for _, positions in sorted(units.items(), key=lambda item: str(item[0]))]
    numbers = deal(groups, [u.label for u in utterances], count)
    return [numbers[position] for position in range(len(utterances))]
