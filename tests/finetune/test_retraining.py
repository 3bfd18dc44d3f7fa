"""Phase 1, and heads whose weights were not kept: the search's own trainer, to the bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cache.lookup import FrameCache
from corpora.base.errors import ConfigError, MissingStepError
from corpora.base.work import Work
from corpora.manifest import Manifest
from finetune.config import FinetuneConfig
from finetune.finetune import run_finetune
from finetune.model import EmotionModel
from finetune.starting_head import retrain, starting_head
from heads.config import SearchConfig
from heads.head import Head
from heads.records import load_head, save_head, trial_file
from heads.search.search import run_search
from tests.finetune.conftest import Searched
from tests.finetune.searched import copy_work


def equal(first: Head, second: Head) -> bool:
    other = second.state_dict()
    return all(torch.equal(value, other[name]) for name, value in first.state_dict().items())


@pytest.fixture(scope="module")
def studied(
    searched: Searched, manifest: Manifest, tmp_path_factory: pytest.TempPathFactory
) -> Work:
    """A work folder with a real search of twelve trials, of which ten are kept."""
    work = copy_work(searched.work, tmp_path_factory.mktemp("studied") / "work")
    run_search(work, manifest, SearchConfig(trials=12, epochs=1, folds="off"), fresh=True)
    return work


def test_a_head_trained_again_is_the_searched_one(searched: Searched, manifest: Manifest) -> None:
    found = retrain(FrameCache(searched.work), manifest, searched.record)
    assert equal(found.head, searched.head)
    assert len(found.scores) == searched.record.schedule.epochs + 1


def test_another_rate_gives_another_head(searched: Searched, manifest: Manifest) -> None:
    assert not equal(
        retrain(FrameCache(searched.work), manifest, searched.record, 1e-2).head, searched.head
    )


def test_phase_1_ends_with_the_searched_head(
    searched: Searched, manifest: Manifest, tmp_path: Path
) -> None:
    work = copy_work(searched.work, tmp_path / "work")
    said: list[str] = []
    config = FinetuneConfig(phases=(1,), device="cpu")
    report = run_finetune(work, manifest, config, tell=said.append)
    assert report.phases[0].table[0].module == "head"
    assert "Phase 1 trains" in "\n".join(said)
    assert equal(EmotionModel.from_pretrained(work.model).head, searched.head)


def test_all_three_phases_follow_one_another(
    searched: Searched, manifest: Manifest, tmp_path: Path
) -> None:
    work = copy_work(searched.work, tmp_path / "work")
    config = FinetuneConfig(phases=(1, 2, 3), epochs=1, frame_budget=300, device="cpu")
    phases = run_finetune(work, manifest, config).phases
    assert [phase.config.phase for phase in phases] == [1, 2, 3]
    assert phases[1].start.macro_f1 == phases[0].best.macro_f1
    assert phases[1].start.loss == pytest.approx(phases[0].best.loss, abs=1e-4)
    curves = (work.finetune / "curves.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in curves[1:]] == sorted(line[0] for line in curves[1:])


def test_every_trial_of_the_study_can_be_trained_again(studied: Work, manifest: Manifest) -> None:
    for kept in (studied.search / "trials").glob("*.json"):
        expected = load_head(kept)[0]
        hidden = kept.rename(kept.with_suffix(".away"))
        try:
            found = starting_head(studied, manifest, trial_file(studied.search, int(kept.stem)))
        finally:
            hidden.rename(kept)
        assert found.parent == studied.finetune / "heads"
        # Company changes the last digits of shared products.
        for name, value in load_head(found)[0].state_dict().items():
            torch.testing.assert_close(value, expected.state_dict()[name], atol=1e-4, rtol=0)


def test_a_head_file_without_its_weights_is_trained_again(
    searched: Searched, manifest: Manifest, tmp_path: Path
) -> None:
    work = copy_work(searched.work, tmp_path / "work")
    alone = tmp_path / "mine.json"
    save_head(alone, tmp_path / "gone.safetensors", searched.head, searched.record)
    (tmp_path / "gone.safetensors").unlink()
    assert equal(load_head(starting_head(work, manifest, alone))[0], searched.head)


def test_a_trial_that_never_was_is_answered_with_those_that_were(
    studied: Work, manifest: Manifest
) -> None:
    with pytest.raises(MissingStepError, match=r"No trial 99 .* trained ones are 0 to 11\."):
        starting_head(studied, manifest, trial_file(studied.search, 99))


def test_changed_rows_are_named_and_refused(
    searched: Searched, manifest: Manifest, tmp_path: Path
) -> None:
    first, *rest = manifest.utterances
    other = replace(manifest, utterances=(replace(first, split="dev"), *rest))
    with pytest.raises(ConfigError, match=r"manifest_sha256: .*\n.*frames and rows of its search"):
        retrain(FrameCache(searched.work), other, searched.record)
