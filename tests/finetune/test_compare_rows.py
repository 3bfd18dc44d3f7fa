"""`compare` on a cache: layers, and rows taken on with their encoders."""

from __future__ import annotations

from dataclasses import replace

import pytest

import finetune.compare_rows as compare_rows
from corpora.base.errors import ConfigError
from corpora.base.work import Work
from corpora.manifest import Manifest
from finetune.compare_rows import DONE, check_names, finetune_rows, row_of
from finetune.config import FinetuneConfig
from finetune.model import EmotionModel
from heads.compare.compare import run_compare
from heads.compare.comparison import CompareReport
from heads.compare.layer_sweep import run_layers
from heads.compare.rendering import terminal_text
from heads.config import CompareConfig
from tests.finetune.conftest import Searched
from tests.finetune.searched import copy_work

SMALL = CompareConfig(
    seeds=1,
    learning_rates=(1e-2,),
    epochs=2,
    batch_size=16,
    tables=("poolings",),
    poolings=("statistics",),
    plot=False,
)


@pytest.fixture(scope="module")
def compared(
    searched: Searched, manifest: Manifest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Work, CompareReport]:
    work = copy_work(searched.work, tmp_path_factory.mktemp("compare") / "work")
    return work, run_compare(work, manifest, SMALL)


@pytest.fixture(scope="module")
def tuned(compared: tuple[Work, CompareReport], manifest: Manifest) -> CompareReport:
    work, report = compared
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare_rows, "row_of", short_row)
        return finetune_rows(work, manifest, report, ["Statistics"], device="cpu", plot=False)


def short_row(text: str) -> tuple[str, FinetuneConfig]:
    name, config = row_of(text)
    return name, replace(config, epochs=1, patience=1, frame_budget=200)


def test_a_fine_tuned_row_has_a_model_of_its_own_and_the_users_stays(
    compared: tuple[Work, CompareReport], tuned: CompareReport
) -> None:
    work, report = compared
    (row,) = tuned.finetuned
    assert row.directory == work.compare / "finetuned" / "audio+text-statistics" / "model"
    assert EmotionModel.from_pretrained(row.directory).labels == report.origin.labels
    assert not work.model.exists()


def test_the_table_says_which_phases_were_done_and_both_scores(
    compared: tuple[Work, CompareReport], tuned: CompareReport
) -> None:
    (row,) = tuned.finetuned
    assert row.head is not None
    assert row.model is not None
    for text in (terminal_text(tuned), (compared[0].compare / "compare.md").read_text()):
        assert DONE in text
        assert f"{row.model.macro_f1:.3f}" in text
        assert f"{row.head.macro_f1:.3f}" in text


def test_a_row_that_is_done_is_not_fine_tuned_again(
    compared: tuple[Work, CompareReport],
    tuned: CompareReport,
    manifest: Manifest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compare_rows, "run_finetune", None)
    work, report = compared
    again = finetune_rows(work, manifest, report, ["statistics"], device="cpu", plot=False)
    assert again.finetuned == tuned.finetuned


def test_a_row_with_adapters_stands_beside_the_one_without(
    compared: tuple[Work, CompareReport], tuned: CompareReport, manifest: Manifest
) -> None:
    pytest.importorskip("peft")
    work, report = compared
    asked = ["Statistics", "Statistics:lora:2:linear_q+query_proj"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare_rows, "row_of", short_row)
        found = finetune_rows(work, manifest, report, asked, device="cpu", plot=False)
    whole, adapted = found.finetuned
    assert whole == tuned.finetuned[0]
    assert adapted.title == "statistics, LoRA rank 2 on linear_q+query_proj"
    assert adapted.directory.parent.name.endswith("-statistics-lora-2-linear_q-query_proj")
    head = EmotionModel.from_pretrained(adapted.directory).head
    # Two matrices of rank 2 in each of 3 layers of both encoders, which are 128 and 96 wide.
    adapters = 3 * 2 * 2 * (128 + 96)
    assert adapted.trained == adapters + sum(p.numel() for p in head.parameters())
    assert adapted.trained < whole.trained
    assert f"{adapted.trained:,}" in terminal_text(found)


@pytest.mark.parametrize("text", ["MHA:dora", "MHA:lora:x", "MHA:lora:4:q_proj:2", "MHA:"])
def test_what_stands_behind_a_row_is_checked(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--finetune .*expected a row's name.*:lora:RANK"):
        row_of(text)


@pytest.mark.parametrize(
    ("name", "words"), [("statistic", "Did you mean 'statistics'"), ("MHA", "no row 'MHA'")]
)
def test_a_row_that_will_not_be_there_is_refused_at_once(
    name: str, words: str, manifest: Manifest
) -> None:
    with pytest.raises(ConfigError, match=words):
        check_names([name], manifest, SMALL)


def test_rows_compared_over_folds_are_not_fine_tuned(manifest: Manifest) -> None:
    utterances = tuple(replace(u, fold=u.speaker) for u in manifest.utterances)
    with pytest.raises(ConfigError, match="folds"):
        check_names(["statistics"], replace(manifest, utterances=utterances), SMALL)


@pytest.fixture(scope="module")
def swept(compared: tuple[Work, CompareReport], manifest: Manifest) -> CompareReport:
    return run_layers(compared[0], manifest, replace(SMALL, plot=True))


def test_every_cached_layer_of_every_encoder_is_swept(
    compared: tuple[Work, CompareReport], swept: CompareReport
) -> None:
    report = swept
    assert [table.name for table in report.tables] == ["layers-audio", "layers-text"]
    for table in report.tables:
        lines = [line for line in table.lines if not line.is_reference]
        references = [line for line in table.lines if line.is_reference]
        assert [line.layer for line in lines] == [line.layer for line in references] == [0, 1, 2, 3]
    folder = compared[0].compare
    assert (folder / "layers.png").read_bytes().startswith(b"\x89PNG")
    assert "Layers of the audio encoder tiny" in (folder / "layers.md").read_text()


def test_the_last_layer_from_moments_scores_as_from_frames(
    compared: tuple[Work, CompareReport], swept: CompareReport, manifest: Manifest
) -> None:
    alone = replace(SMALL, tables=("modalities",))
    frames = run_compare(compared[0], manifest, alone)
    for title, other in (
        ("logistic regression, audio", "audio 3, logistic regression"),
        ("logistic regression, text", "text 3, logistic regression"),
    ):
        both = [frames.find(title), swept.find(other)]
        first, second = (line.outcomes["test"].scores for line in both if line is not None)
        assert first == second


def test_layer_normalisation_of_moments_is_refused(
    compared: tuple[Work, CompareReport], manifest: Manifest
) -> None:
    with pytest.raises(ConfigError, match="needs frames"):
        run_layers(compared[0], manifest, replace(SMALL, input_norms=("layernorm",)))
