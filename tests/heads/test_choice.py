"""Which trial is taken: the simplest of those whose score is next to the best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
import torch
from optuna.distributions import BaseDistribution
from optuna.trial import FixedTrial, FrozenTrial, create_trial
from torch import Tensor

from heads.bootstrap import paired_differences
from heads.dataset import Dataset
from heads.folds import Selection
from heads.gold import selection_scores
from heads.head import Head
from heads.records import save_probabilities, selection_file
from heads.search.choice import ALLOWED_ERRORS, choose, head_size
from heads.search.rounds import SearchContext
from heads.search.space import Space, start_params, trial_configs
from heads.search.trials import SEED
from heads.training import Schedule
from heads.vector_store import VectorStore
from tests.heads.searches import make_origin
from tests.heads.synthetic import make_dataset

# From the fewest parameters to the most.
SMALL, MIDDLE, LARGE = "linear average standardise decay 0.01", "average", "SA"
SPEAKERS, EACH = 20, 12


def spoken_by(speakers: int) -> Dataset:
    """A data set of which every utterance is in dev."""
    dataset = make_dataset(SPEAKERS * EACH, dim=8)
    utterances = tuple(
        replace(u, split="dev", speaker=f"s{number % speakers}")
        for number, u in enumerate(dataset.utterances)
    )
    return replace(dataset, utterances=utterances)


@pytest.fixture
def setting(tmp_path: Path, request: pytest.FixtureRequest) -> SearchContext:
    dataset = spoken_by(getattr(request, "param", SPEAKERS))
    rows = dataset.rows("dev")
    return SearchContext(
        VectorStore(dataset),
        Space.of(dataset),
        Schedule(1),
        Selection(rows, rows),
        make_origin(),
        tmp_path,
        0,
    )


def said_with(setting: SearchContext, wrong: Sequence[int]) -> Tensor:
    """Probabilities of a head that is right but for these utterances."""
    classes = torch.from_numpy(setting.gold.classes.copy())
    classes[list(wrong)] = (classes[list(wrong)] + 1) % 3
    return torch.nn.functional.one_hot(classes, 3).float()


def trials(
    setting: SearchContext, mistakes: Sequence[tuple[str, Sequence[int]]]
) -> list[FrozenTrial]:
    """Completed trials of these starts with these mistakes, the best first."""
    starts, _ = start_params(setting.space)
    found = []
    for number, (name, wrong) in enumerate(mistakes):
        said = said_with(setting, wrong)
        save_probabilities(selection_file(setting.folder, number), said)
        study = optuna.create_study(direction="maximize")
        study.enqueue_trial(starts[name])
        drawn = study.ask()
        trial_configs(drawn, setting.space, 0)
        distributions: dict[str, BaseDistribution] = dict(drawn.distributions)
        (value,) = selection_scores(said[None], setting.gold)
        trial = create_trial(
            params=drawn.params,
            distributions=distributions,
            value=value,
            user_attrs={SEED: 0},
        )
        trial.number = number
        found.append(trial)
    return sorted(found, key=lambda trial: (-(trial.value or 0), trial.number))


def scattered(count: int, seed: int = 0) -> list[int]:
    """Utterances here and there; of other seeds others."""
    order = torch.randperm(SPEAKERS * EACH, generator=torch.Generator().manual_seed(seed))
    return order[:count].tolist()


def test_sizes_are_those_of_the_heads(setting: SearchContext) -> None:
    starts, _ = start_params(setting.space)
    found = {}
    for trial, name in zip(
        trials(setting, [(name, []) for name in (SMALL, MIDDLE, LARGE)]),
        (SMALL, MIDDLE, LARGE),
        strict=True,
    ):
        head, _ = trial_configs(FixedTrial(starts[name]), setting.space, 0)
        found[name] = head_size(setting, trial)
        assert found[name] == sum(p.numel() for p in Head(head).parameters())
    assert found[SMALL] < found[MIDDLE] < found[LARGE]


def test_of_trials_next_to_the_best_the_one_with_the_fewest_parameters_is_taken(
    setting: SearchContext,
) -> None:
    """Each is wrong at as many places, one more for the simpler ones; they differ by chance."""
    ranked = trials(
        setting,
        [(LARGE, scattered(60)), (MIDDLE, scattered(61, 5)), (SMALL, scattered(61, 1))],
    )
    assert ranked[0].number == 0
    choice = choose(setting, ranked)
    assert (choice.trial.number, choice.best.number, choice.within) == (2, 0, 3)
    assert choice.difference is not None
    assert -ALLOWED_ERRORS * choice.difference.error <= choice.difference.value < 0
    assert "Trial 2 is taken, the simplest of 3" in choice.to_text()


def test_one_that_is_worse_by_more_is_not_taken_however_simple(setting: SearchContext) -> None:
    ranked = trials(setting, [(LARGE, scattered(10)), (SMALL, scattered(90, 6))])
    choice = choose(setting, ranked)
    assert choice.trial is choice.best is ranked[0]
    assert (choice.within, choice.difference, choice.to_text()) == (1, None, "")


def test_the_border_is_a_part_of_the_standard_error_of_the_paired_difference(
    setting: SearchContext,
) -> None:
    taken = []
    for worse in range(1, 13):
        wrong = (scattered(60), scattered(60 + worse, 6))
        ranked = trials(setting, [(LARGE, wrong[0]), (SMALL, wrong[1])])
        best, other = (said_with(setting, own).argmax(-1).numpy() for own in wrong)
        speakers = setting.store.dataset.speakers(setting.selection.scored)
        found, _ = paired_differences(setting.gold.classes, other[None], best, 3, speakers)
        assert found is not None
        within = -found[0].value <= ALLOWED_ERRORS * found[0].error
        assert (choose(setting, ranked).trial.number == 1) == within
        taken.append(within)
    assert taken[0]
    assert not taken[-1]


def test_pairing_makes_a_small_but_certain_loss_count(setting: SearchContext) -> None:
    """Alone both scores are uncertain by far more; of every speaker one more is wrong."""
    base = scattered(60)
    more = sorted({*base, *range(SPEAKERS)})
    ranked = trials(setting, [(LARGE, base), (SMALL, more)])
    assert choose(setting, ranked).trial.number == 0


def test_of_equal_answers_the_simpler_head_is_taken(setting: SearchContext) -> None:
    wrong = scattered(15)
    ranked = trials(setting, [(LARGE, wrong), (SMALL, wrong), (MIDDLE, wrong)])
    choice = choose(setting, ranked)
    assert (choice.trial.number, choice.within) == (1, 3)


def test_of_equally_simple_heads_the_better_one_is_taken_then_the_earlier(
    setting: SearchContext,
) -> None:
    same = "linear average standardise decay 1"
    ranked = trials(
        setting,
        [
            (LARGE, scattered(60)),
            (SMALL, scattered(61, 6)),
            (same, scattered(60, 9)),
            (SMALL, scattered(60, 9)),
        ],
    )
    assert choose(setting, ranked).trial.number == 2


def test_a_best_trial_that_is_the_simplest_stays(setting: SearchContext) -> None:
    ranked = trials(setting, [(SMALL, scattered(60)), (LARGE, scattered(61, 6))])
    choice = choose(setting, ranked)
    assert choice.trial is choice.best
    assert choice.within == 2
    assert "also the simplest of 2" in choice.to_text()


@pytest.mark.parametrize("setting", [5], indirect=True)
def test_with_too_few_speakers_the_best_is_taken_and_the_reason_said(
    setting: SearchContext,
) -> None:
    ranked = trials(setting, [(LARGE, scattered(60)), (SMALL, scattered(61))])
    choice = choose(setting, ranked)
    assert choice.trial is choice.best is ranked[0]
    assert "5 speakers" in choice.reason
    assert choice.reason in choice.to_text()


def test_a_trial_whose_answers_are_not_here_is_left_alone(setting: SearchContext) -> None:
    ranked = trials(setting, [(LARGE, scattered(60)), (SMALL, scattered(60))])
    assert choose(setting, ranked).trial.number == 1
    selection_file(setting.folder, 1).unlink()
    assert choose(setting, ranked).trial.number == 0


def test_one_trial_is_the_best(setting: SearchContext) -> None:
    ranked = trials(setting, [(LARGE, [])])
    choice = choose(setting, ranked)
    assert choice.trial is choice.best is ranked[0]
    assert choice.to_text() == ""
