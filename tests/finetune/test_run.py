"""`finetune` from a searched head to a model and its scores."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cache.last_extraction import write_failures
from cache.lookup import FrameCache
from corpora.base.errors import ConfigError, ManifestError, MissingStepError
from corpora.base.work import Work
from corpora.manifest import Manifest
from finetune.assembly import build_model, failed_at_extraction
from finetune.config import EvaluateConfig, FinetuneConfig, parse_phases
from finetune.curves import CSV
from finetune.evaluate.evaluate import evaluate
from finetune.finetune import FinetuneReport, run_finetune
from finetune.model import EmotionModel
from finetune.phases import TINY_LEARNING_RATES, PhaseConfig
from heads.bootstrap import Interval
from heads.records import BEST, claim_folder, save_head, trial_file
from tests.finetune.conftest import Searched
from tests.finetune.scoring import evaluate_model
from tests.finetune.searched import copy_work

SHORT = FinetuneConfig(epochs=2, patience=2, frame_budget=200, device="cpu")


@pytest.fixture(scope="module")
def finished(
    searched: Searched, manifest: Manifest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Work, FinetuneReport, str]:
    work = copy_work(searched.work, tmp_path_factory.mktemp("run") / "work")
    said: list[str] = []
    report = run_finetune(work, manifest, SHORT, tell=said.append)
    return work, report, "\n".join(said)


def test_phases_2_and_3_are_kept_where_they_are_above_what_was_there(
    finished: tuple[Work, FinetuneReport, str],
) -> None:
    phases = finished[1].phases
    assert [phase.config.phase for phase in phases] == [2, 3]
    for phase in phases:
        assert phase.crosswise is not None
        assert phase.bar is not None
        assert (phase.best_epoch > 0) == (phase.crosswise > phase.bar)
        if not phase.best_epoch:
            assert phase.best == phase.start
    if phases[0].best_epoch:
        assert phases[1].bar == phases[0].crosswise
    # Phase 2 is scored from cached hidden states, phase 3 from recordings.
    assert phases[1].start.macro_f1 == phases[0].best.macro_f1
    assert phases[1].start.loss == pytest.approx(phases[0].best.loss, abs=1e-4)


def test_where_no_phase_gains_the_model_has_the_head_that_learnt_from_dev_too(
    searched: Searched, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetune.training.crosswise", lambda *_: 0.0)
    work = copy_work(searched.work, tmp_path / "work")
    record = replace(searched.record, trained_on="train+dev")
    save_head(work.search / BEST, work.search / "head.safetensors", searched.head, record)
    report = run_finetune(work, manifest, replace(SHORT, epochs=1))
    assert any("No phase gained anything" in note for note in report.notes)
    model = EmotionModel.from_pretrained(work.model)
    assert model.provenance["trained_on"] == "train+dev"
    for name, value in searched.head.state_dict().items():
        assert torch.equal(model.head.state_dict()[name], value)
    scored = evaluate(work, manifest, config=EvaluateConfig(calibration=True))
    assert scored.calibration is None
    assert "dev was learnt from" in scored.to_text()
    assert "learnt from these utterances" in evaluate_model(work, manifest, "dev").note


def test_each_phase_says_what_it_trains(finished: tuple[Work, FinetuneReport, str]) -> None:
    said = finished[2]
    for words in ("Phase 2 trains", "layer 3", "Phase 3 trains", "layers 1 to 3", "dev macro-F1"):
        assert words in said


def test_the_model_that_was_saved_is_the_one_that_was_scored(
    finished: tuple[Work, FinetuneReport, str], manifest: Manifest
) -> None:
    work, report, _ = finished
    assert report.model is not None
    assert evaluate_model(work, manifest).report == report.model.report


def test_the_model_says_where_it_comes_from(
    finished: tuple[Work, FinetuneReport, str], searched: Searched
) -> None:
    provenance = EmotionModel.from_pretrained(finished[0].model).provenance
    assert provenance["encoders"] == {"audio": "tiny", "text": "tiny"}
    assert provenance["trial"] == searched.record.trial
    assert provenance["manifest_sha256"] == searched.record.origin.manifest_sha256
    assert set(provenance["recipes"]["audio"]) >= {"weights", "config", "front_end"}
    assert [phase["config"]["phase"] for phase in provenance["phases"]] == [2, 3]
    assert {"emopool", "torch", "transformers"} <= set(provenance["versions"])


def test_the_model_names_the_study_of_its_head(searched: Searched, tmp_path: Path) -> None:
    work = copy_work(searched.work, tmp_path / "work")
    claim_folder(work.search, "7-voices")
    kept = trial_file(work.search, searched.record.trial)
    save_head(kept, kept.with_suffix(".safetensors"), searched.head, searched.record)
    for source in (work.search / BEST, kept):
        model, _ = build_model(FrameCache(work), source, "cpu", "fp32")
        assert model.provenance["study"] == "7-voices"


def test_what_was_written_is_listed_with_its_curves(
    finished: tuple[Work, FinetuneReport, str],
) -> None:
    work, report, _ = finished
    assert work.finetune / CSV in report.files
    assert all(path.exists() for path in report.files)


def test_the_report_is_text_and_json(finished: tuple[Work, FinetuneReport, str]) -> None:
    work, report, _ = finished
    text = report.to_text()
    for words in ("searched head", "fine-tuned model", "synthetic", "random weights", "Next:"):
        assert words in text
    assert f"evaluate --manifest o.csv --work {work.root}" in report.to_text(Path("o.csv"))
    value = json.loads(json.dumps(report.to_json()))
    assert value["phases"][0]["config"]["learning_rate"] == TINY_LEARNING_RATES[2]
    assert all(path.exists() for path in report.files)
    assert (work.model / "training.csv").read_text().startswith("phase,epoch,step")


def test_without_a_test_split_there_is_a_model_and_no_result(
    searched: Searched, manifest: Manifest, tmp_path: Path
) -> None:
    work = copy_work(searched.work, tmp_path / "my work")
    rows = tuple(replace(u, split="") if u.split == "test" else u for u in manifest.utterances)
    config = replace(SHORT, phases=(2,), lr2=1e-4, epochs=1)
    report = run_finetune(work, replace(manifest, utterances=rows), config)
    assert report.head is None
    assert report.model is None
    assert report.phases[0].config.learning_rate == 1e-4
    assert "no labelled test split" in report.to_text()
    assert f"evaluate --split dev --work '{work.root}'" in report.to_text()
    assert "manifest has changed since the search" in report.to_text()
    EmotionModel.from_pretrained(work.model)


def test_splits_that_changed_since_the_search_stop_it_before_anything_is_trained(
    searched: Searched, manifest: Manifest, tmp_path: Path
) -> None:
    work = copy_work(searched.work, tmp_path / "work")
    other = {"train": "test", "test": "train", "dev": "dev"}
    rows = tuple(replace(u, split=other[u.split]) for u in manifest.utterances)
    with pytest.raises(ConfigError, match="has changed since the head was searched"):
        run_finetune(work, replace(manifest, utterances=rows), SHORT)
    assert not work.model.exists()


def test_a_listed_failure_counts_only_without_frames_in_the_cache(
    searched: Searched, manifest: Manifest, tmp_path: Path
) -> None:
    work = copy_work(searched.work, tmp_path / "work")
    first, second, *_ = manifest.utterances
    write_failures(work.failures, {first.id: "corrupt", second.id: "corrupt"})
    rows = [first, replace(second, end=0.2)]  # a segment that was never extracted
    found = failed_at_extraction(FrameCache(work), searched.record, rows)
    assert found == {second.id: "corrupt"}


def test_without_a_usable_recording_the_first_reason_is_told(
    searched: Searched, manifest: Manifest, tmp_path: Path
) -> None:
    work = copy_work(searched.work, tmp_path / "work")
    rows = tuple(
        replace(u, audio=Path("nowhere.wav")) for u in manifest.utterances if u.split != "test"
    )
    with pytest.raises(ConfigError, match=r"0 training.*27 utterances.*First: .*no such file"):
        run_finetune(work, replace(manifest, utterances=rows), SHORT)


def test_a_trial_that_was_not_kept_is_answered_with_those_that_were(
    searched: Searched, manifest: Manifest, tmp_path: Path
) -> None:
    work = copy_work(searched.work, tmp_path / "work")
    for number in (3, 12):
        save_head(
            trial_file(work.search, number),
            trial_file(work.search, number).with_suffix(".safetensors"),
            searched.head,
            searched.record,
        )
    with pytest.raises(MissingStepError, match=r"No head of trial 99 .* trials 3, 12\."):
        run_finetune(work, manifest, SHORT, head=trial_file(work.search, 99))


def test_a_bootstrap_without_known_speakers_is_over_utterances(
    finished: tuple[Work, FinetuneReport, str],
) -> None:
    report = finished[1]
    assert report.model is not None
    intervals = dict.fromkeys(("macro_f1", "uar", "accuracy"), Interval(0.1, 0.9))
    scores = replace(
        report.model.report, speakers=0, intervals=intervals, interval_reason="unknown speakers"
    )
    text = replace(report, model=replace(report.model, classes=scores)).to_text()
    assert "bootstrap over utterances." in text
    assert "Note: unknown speakers." in text


def test_a_head_of_other_labels_is_refused_before_anything_is_trained(
    searched: Searched, manifest: Manifest, tmp_path: Path
) -> None:
    work = copy_work(searched.work, tmp_path / "work")
    rows = tuple(replace(u, label="joy") for u in manifest.utterances)
    with pytest.raises(ConfigError, match="the manifest alone has joy"):
        run_finetune(work, replace(manifest, utterances=rows, labels=("joy",)), SHORT)
    assert not work.model.exists()


def test_a_folder_that_is_no_model_stops_it_before_anything_is_trained(
    searched: Searched, manifest: Manifest, tmp_path: Path
) -> None:
    work = copy_work(searched.work, tmp_path / "work")
    work.model.mkdir()
    (work.model / "thesis.txt").write_text("the only copy")
    said: list[str] = []
    with pytest.raises(ConfigError, match="not replaced"):
        run_finetune(work, manifest, SHORT, tell=said.append)
    assert not said


def test_without_a_search_or_a_development_set_there_is_nothing_to_do(
    searched: Searched, cached: tuple[Work, str], manifest: Manifest
) -> None:
    with pytest.raises(MissingStepError, match="search"):
        run_finetune(cached[0], manifest, SHORT)
    rows = tuple(u for u in manifest.utterances if u.split != "dev")
    with pytest.raises(ManifestError, match="no labelled utterance"):
        run_finetune(searched.work, replace(manifest, utterances=rows), SHORT)


@pytest.mark.parametrize(
    "options",
    [
        {"phases": ()},
        {"lr2": 0.0},
        {"epochs": 0},
        {"patience": 0},
        {"phases": (0, 2)},
        {"boundary_dtype": "int8"},
        {"checkpoint_every": 0},
        {"layer_decay": 0.0},
        {"layerdrop": 1.0},
        {"accumulate": 0},
        {"phases": (3, 2)},
        {"lr3": 0.0},
        {"seed": -1},
        {"frame_budget": 0},
    ],
    ids=str,
)
def test_unusable_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        FinetuneConfig(**options)  # type: ignore[arg-type]


def test_full_encoders_get_the_published_rates() -> None:
    config = FinetuneConfig(lr3=2e-6)
    assert PhaseConfig.of(config, 2, tiny=False).learning_rate == 3e-6
    assert PhaseConfig.of(config, 3, tiny=False).learning_rate == 2e-6
    assert PhaseConfig.of(config, 2, tiny=True).learning_rate == TINY_LEARNING_RATES[2]


def test_phases_are_read_as_written() -> None:
    assert parse_phases("2, 3") == (2, 3)
    with pytest.raises(ValueError, match="numbers such as 2,3"):
        parse_phases("two")
