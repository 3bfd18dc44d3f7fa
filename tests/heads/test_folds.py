"""Folds: who is held out where, and that a head learns nothing from rows held out from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from corpora.base.errors import ConfigError
from heads.config import SearchConfig
from heads.confusion import confusion_matrix, macro_f1
from heads.dataset import Dataset
from heads.folds import Folds, Selection, automatic, make_folds
from heads.gold import Gold, selection_scores
from heads.head import HeadConfig
from heads.losses import LossConfig
from heads.records import load_head
from heads.search.rounds import Candidates
from heads.search.search import search_heads
from heads.search.space import PROBES
from heads.training import Cohort, Schedule, TrainingConfig
from heads.vector_store import VectorStore
from tests.heads.searches import (
    essence,
    make_origin,
    relabelled,
    small_dataset,
    small_search,
    stored_trials,
)
from tests.heads.synthetic import make_configs, make_dataset

SCHEDULE = Schedule(2, batch_size=16)
CONFIGS = [
    (head, TrainingConfig(1e-2, loss=loss, seed=number))
    for number, (head, loss) in enumerate(
        zip(
            make_configs(),
            [LossConfig(), LossConfig("cross_entropy", class_weight=False), LossConfig("kl")] * 3,
            strict=False,
        )
    )
]


def folded(dataset: Dataset, how: str = "speaker") -> Folds:
    folds = make_folds(dataset, how)
    assert folds is not None
    return folds


def trained(dataset: Dataset, configs: list[tuple[HeadConfig, TrainingConfig]]) -> Tensor:
    """`[trials, m, C]` after two epochs, each row by the head it was held out from."""
    candidates = Candidates(
        configs, VectorStore(dataset), SCHEDULE, Selection.of(dataset, folded(dataset))
    )
    for _ in range(2):
        candidates.run_epoch()
    return candidates.trial_probabilities()


def speakers_by_fold(dataset: Dataset, folds: Folds) -> list[set[str]]:
    return [set(dataset.speakers(folds.rows[folds.numbers == fold])) for fold in range(folds.count)]


def test_a_fold_is_one_speaker_of_train_or_dev() -> None:
    dataset = make_dataset()
    folds = folded(dataset)
    assert folds.count == 7
    assert all(len(names) == 1 for names in speakers_by_fold(dataset, folds))
    assert set(folds.rows.tolist()) == {
        *dataset.rows("train").tolist(),
        *dataset.rows("dev").tolist(),
    }
    assert str(folds) == "7 folds of train and dev, each one speaker"


@pytest.mark.parametrize("count", [2, 3, 5])
def test_groups_of_speakers_share_none_and_are_of_a_size(count: int) -> None:
    dataset = small_dataset()
    folds = folded(dataset, str(count))
    groups = speakers_by_fold(dataset, folds)
    assert len(groups) == count
    assert sum(len(group) for group in groups) == len(set.union(*groups))
    sizes = torch.bincount(folds.numbers)
    assert int(sizes.max() - sizes.min()) <= 3
    for fold in range(count):
        own = dataset.targets(folds.rows[folds.numbers == fold])
        assert len(set(own.tolist())) == len(dataset.labels)


def test_a_fold_is_one_session() -> None:
    dataset = make_dataset()
    sessions = tuple(
        replace(u, session=f"session{n % 3}") for n, u in enumerate(dataset.utterances)
    )
    folds = folded(replace(dataset, utterances=sessions), "session")
    assert folds.count == 3
    with pytest.raises(ConfigError, match="column session"):
        make_folds(dataset, "session")


def test_utterances_of_unknown_speakers_are_dealt_out_one_by_one() -> None:
    dataset = make_dataset()
    strangers = replace(
        dataset, utterances=tuple(replace(u, speaker="") for u in dataset.utterances)
    )
    assert torch.bincount(folded(strangers, "5").numbers).tolist() == [14] * 5
    with pytest.raises(ConfigError, match="70 of 70 utterances"):
        make_folds(strangers, "speaker")


@pytest.mark.parametrize("how", ["1", "0", "speakers", "-2", "2.5", "51"])
def test_what_is_no_number_of_folds_is_refused(how: str) -> None:
    with pytest.raises(ConfigError, match="folds"):
        make_folds(make_dataset(), how)


def test_more_folds_than_speakers_are_refused() -> None:
    with pytest.raises(ConfigError, match="have 7 speakers"):
        make_folds(make_dataset(), "8")


def test_folds_are_automatic_on_small_corpora_with_few_development_speakers() -> None:
    assert automatic(make_dataset()) == automatic(small_dataset()) == "5"
    many = make_dataset(300)
    crowd = tuple(
        replace(u, speaker=f"s{number}" if u.split == "dev" else u.speaker)
        for number, u in enumerate(many.utterances)
    )
    assert automatic(replace(many, utterances=crowd)) == "off"
    assert automatic(make_dataset(2999, dim=2)) == "5"
    assert automatic(make_dataset(3000, dim=2)) == "off"
    assert make_folds(make_dataset(), "off") is None


def test_labels_of_rows_held_out_do_not_reach_their_head() -> None:
    dataset = make_dataset()
    folds = folded(dataset)
    own = folds.numbers == 2
    changed = {int(row) for row in folds.rows[own]}
    following = dict(zip(dataset.labels, dataset.labels[1:] + dataset.labels[:1], strict=True))
    utterances = tuple(
        replace(u, label=following[u.label]) if n in changed else u
        for n, u in enumerate(dataset.utterances)
    )
    before = trained(dataset, CONFIGS)
    after = trained(replace(dataset, utterances=utterances), CONFIGS)
    assert torch.equal(before[:, own], after[:, own])
    assert not torch.equal(before[:, ~own], after[:, ~own])


def test_a_trial_of_folds_is_the_same_alone_and_in_company() -> None:
    dataset = make_dataset()
    together = trained(dataset, CONFIGS)
    for position, config in enumerate(CONFIGS):
        torch.testing.assert_close(
            trained(dataset, [config])[0], together[position], atol=1e-5, rtol=1e-4
        )


def test_halving_keeps_the_folds_of_those_who_stay() -> None:
    dataset = make_dataset()
    selection = Selection.of(dataset, folded(dataset))
    expected = trained(dataset, CONFIGS)
    candidates = Candidates(CONFIGS, VectorStore(dataset), SCHEDULE, selection)
    candidates.run_epoch()
    candidates.keep_trials([0, 5, 6])
    candidates.run_epoch()
    torch.testing.assert_close(
        candidates.trial_probabilities(), expected[[0, 5, 6]], atol=1e-5, rtol=1e-4
    )


def test_each_fold_has_the_input_statistics_of_its_own_training_rows() -> None:
    dataset = make_dataset()
    folds = folded(dataset)
    config = (replace(make_configs()[1], dropout=0.0), TrainingConfig(1e-3))
    store = VectorStore(dataset)
    candidates = Candidates([config], store, SCHEDULE, Selection.of(dataset, folds))
    for fold, head in enumerate(candidates.heads):
        frames = dataset.frames["audio"].select(folds.rows[folds.numbers != fold]).values
        torch.testing.assert_close(
            head.get_buffer("audio_shift"), frames.mean(0), atol=1e-5, rtol=1e-4
        )


def test_a_fold_without_a_held_out_row_trains_as_without_folds() -> None:
    dataset = make_dataset()
    rows = dataset.rows("train")
    store = VectorStore(dataset)
    shape, training = CONFIGS[0]
    outcomes = []
    for folds, held_out in ((None, ()), (torch.zeros_like(rows), (1,))):
        candidates = Candidates([(shape, training)], store, SCHEDULE, Selection(rows, rows))
        cohort = Cohort(candidates.heads, [training], store, rows, SCHEDULE, folds, held_out)
        cohort.run_epoch()
        outcomes.append(torch.cat([p.detach().flatten() for p in cohort.heads[0].parameters()]))
    assert torch.equal(*outcomes)


def test_the_score_is_macro_f1_over_all_rows_together() -> None:
    dataset = make_dataset()
    folds = folded(dataset)
    said = trained(dataset, CONFIGS[:2])
    gold = dataset.targets(folds.rows)
    expected = [
        float(macro_f1(confusion_matrix(gold.numpy(), own.argmax(-1).numpy(), 3))) for own in said
    ]
    assert selection_scores(said, Gold.of(dataset, folds.rows)) == expected


@pytest.mark.parametrize("refit", [True, False])
def test_a_search_on_folds_selects_by_them_and_trains_the_best_on_both(
    refit: bool, tmp_path: Path
) -> None:
    folder = tmp_path / "search"
    report = small_search(folder, 13, folds="3", ensemble=2, refit=refit)
    best = report.best
    assert report.selected_on == "folds"
    assert best.selected_on == "3 folds of train and dev, each one group of speakers"
    # A head that learnt from dev has no score there.
    splits = {"folds", "test"} if refit else {"folds", "dev", "test"}
    assert report.reference is not None
    assert set(best.scores) == set(report.reference.scores) == splits
    assert best.trained_on == report.reference.trained_on == ("train+dev" if refit else "train")
    assert best.scores["folds"].n == 48
    assert best.dev_macro_f1 == pytest.approx(best.scores["folds"].macro_f1)
    assert report.ensemble is not None
    assert set(report.ensemble.scores) == splits
    assert len(report.fold_scores) == 3
    text = report.to_text()
    for part in (
        "3 folds",
        "over 3 folds: macro-F1",
        f"then trained on {best.trained_on},",
        f"on the folds, trained on {best.trained_on}",
    ):
        assert part in text
    # The kept head is the one that its record describes, trained on these rows.
    dataset = small_dataset()
    head, record = load_head(folder)
    rows = torch.cat([dataset.rows(name) for name in best.trained_on.split("+")]).sort().values
    candidates = Candidates(
        [(record.head, record.training)],
        VectorStore(dataset),
        record.schedule,
        Selection(rows, rows),
    )
    for _ in range(record.schedule.epochs):
        candidates.run_epoch()
    for name, value in candidates.heads[0].state_dict().items():
        torch.testing.assert_close(head.state_dict()[name], value, atol=1e-4, rtol=1e-3)
    kept = {path.stem for path in (folder / "trials").glob("*.json")}
    assert kept == {f"{number:05}" for number in {record.trial, *report.ensemble.trials}}


def test_a_search_on_folds_resumes_and_never_sees_the_test_set(tmp_path: Path) -> None:
    options: dict[str, Any] = {"folds": "2", "epochs": 3, "cohort": 6}
    most = len(PROBES) + 6
    relabelled_test = relabelled(small_dataset(), "test")
    small_search(tmp_path / "one", most + 2, **options)
    small_search(tmp_path / "two", most, **options)
    small_search(tmp_path / "two", most + 2, dataset=relabelled_test, **options)
    assert essence(stored_trials(tmp_path / "one")) == essence(stored_trials(tmp_path / "two"))


def test_other_folds_make_another_study(tmp_path: Path) -> None:
    small_search(tmp_path / "search", 1, folds="2", epochs=1)
    with pytest.raises(ConfigError, match="folds"):
        small_search(tmp_path / "search", 2, folds="off", epochs=1)


def test_automatic_folds_are_on_where_dev_has_few_speakers(tmp_path: Path) -> None:
    config = SearchConfig(trials=1, batch_size=16, epochs=1, folds="auto")
    report = search_heads(make_dataset(dim=8), tmp_path / "search", make_origin(), config)
    assert report.best.selected_on == "5 folds of train and dev, each one group of speakers"
