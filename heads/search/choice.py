"""Which trial is taken: the simplest of those whose score is next to the best.

The best score of a hundred is the luckiest one too. Among heads whose score is within a part of one
standard error of the best's, the one with the fewest parameters is taken (after the rule of Breiman
et al. 1984 for pruning trees, which allows one error). The error is that of the difference between
the two, which answer for the same utterances; speakers are resampled for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial
from torch import Tensor

from heads.bootstrap import Difference
from heads.head import Head
from heads.records import load_probabilities, selection_file
from heads.search.rounds import SearchContext
from heads.search.space import trial_configs
from heads.search.trials import SEED, final_value

# Standard errors. A whole one gives away .016 of macro-F1 on EMO-DB and .057 on RAVDESS, where the
# error is large, a half .007 and .027, a quarter nothing (docs/studies.md).
ALLOWED_ERRORS = 0.25


@dataclass(frozen=True)
class Choice:
    """The trial that is taken, and why.

    Attributes:
        trial: it.
        best: the one with the best score, perhaps the same.
        within: how many trials were within `ALLOWED_ERRORS` of the best, itself included.
        difference: of the trial taken from the best; None where it is the best.
        reason: why the rule could not be applied; "" where it was.
    """

    trial: FrozenTrial
    best: FrozenTrial
    within: int = 1
    difference: Difference | None = None
    reason: str = ""

    def to_text(self) -> str:
        """A sentence on the choice; "" where there is nothing to say."""
        if self.reason:
            return f"The trial with the best score is taken: {self.reason}."
        if self.within == 1:
            return ""
        if self.difference is None:
            return (
                f"The best trial is also the simplest of {self.within} within {ALLOWED_ERRORS:g} "
                "standard errors of its score."
            )
        return (
            f"Trial {self.trial.number} is taken, the simplest of {self.within} within "
            f"{ALLOWED_ERRORS:g} standard errors (over speakers) of the best, trial "
            f"{self.best.number}: it scores "
            f"{final_value(self.trial):.3f} where that scores {final_value(self.best):.3f}."
        )


def choose(setting: SearchContext, ranked: Sequence[FrozenTrial]) -> Choice:
    """The trial that is taken of completed ones.

    Args:
        setting: the search.
        ranked: completed trials, the best first.
    """
    best = ranked[0]
    said = answers(setting, ranked)
    others = [trial for trial in ranked[1:] if trial.number in said]
    if best.number not in said or not others:
        return Choice(best, best)
    found, reason = setting.gold.differences(
        [said[trial.number].numpy() for trial in others], said[best.number].numpy()
    )
    if found is None:
        return Choice(best, best, reason=reason)
    near = {
        trial.number: (trial, difference)
        for trial, difference in zip(others, found, strict=True)
        if -difference.value <= ALLOWED_ERRORS * difference.error
    }
    sizes = {number: head_size(setting, trial) for number, (trial, _) in near.items()}
    simplest = min(near, key=lambda n: (sizes[n], -final_value(near[n][0]), n), default=None)
    if simplest is None or sizes[simplest] >= head_size(setting, best):
        return Choice(best, best, within=1 + len(near))
    trial, difference = near[simplest]
    return Choice(trial, best, within=1 + len(near), difference=difference)


def answers(setting: SearchContext, trials: Sequence[FrozenTrial]) -> Mapping[int, Tensor]:
    """By trial, what it said of the rows that trials are compared by, where that is here."""
    found = {
        trial.number: load_probabilities(selection_file(setting.folder, trial.number))
        for trial in trials
    }
    return {number: said for number, said in found.items() if said is not None}


def head_size(setting: SearchContext, trial: FrozenTrial) -> int:
    """How many parameters a trial's head has."""
    head, _ = trial_configs(trial, setting.space, trial.user_attrs[SEED])
    return sum(parameter.numel() for parameter in Head(head).parameters())
