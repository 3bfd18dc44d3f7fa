"""Ensembles, comparisons, groups, calibration, pictures and the model card of an evaluation."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from cache.lookup import FrameCache
from cli import main
from corpora.base.errors import ConfigError, MissingExtraError
from corpora.base.work import Work
from corpora.manifest import Manifest, write_manifest
from finetune.assembly import assemble
from finetune.config import EvaluateConfig
from finetune.evaluate.calibration import fit_temperature, reliability
from finetune.evaluate.evaluate import compare, evaluate
from finetune.evaluate.evaluation import Evaluation
from finetune.evaluate.scored import open_scored
from finetune.model import EmotionModel
from finetune.model_card import BEGIN, END
from heads.head import Head
from heads.metrics import classification_report
from heads.records import manifest_digest
from tests.finetune.conftest import Searched
from tests.finetune.corpus import LABELS, LAST, make_head, make_model
from tests.finetune.searched import copy_work


@pytest.fixture(scope="module")
def whole(searched: Searched, manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Work:
    """A work folder with its model, and another model beside it; evaluations may be written."""
    work = copy_work(searched.work, tmp_path_factory.mktemp("evaluating") / "work")
    write_manifest(manifest, work.manifest)
    digest = manifest_digest(manifest)
    model = assemble(
        searched.head,
        {name: work.encoders / f"tiny-{name}" for name in LAST},
        LAST,
        speech_dtype="float32",
        provenance={
            "encoders": dict.fromkeys(LAST, "tiny"),
            "corpus": "tones",
            "synthetic": True,
            "manifest_sha256": digest,
            "search_manifest_sha256": digest,
        },
    )
    model.save_pretrained(work.model)
    make_model(work.encoders).save_pretrained(work.root / "other")
    return work


@pytest.fixture
def own(whole: Work, tmp_path: Path) -> Work:
    """A copy that was not evaluated yet."""
    work = copy_work(whole, tmp_path / "own")
    shutil.rmtree(work.evaluation, ignore_errors=True)
    EmotionModel.from_pretrained(work.model).save_pretrained(work.model)
    return work


def many_speakers(manifest: Manifest) -> Manifest:
    """The same rows by so many speakers that a bootstrap over them says something."""
    rows = tuple(replace(u, speaker=u.id) for u in manifest.utterances)
    return replace(manifest, utterances=rows, corpus="elsewhere")


def written(evaluation: Evaluation) -> np.ndarray:
    with (evaluation.folder / "predictions.csv").open(encoding="utf-8") as file:
        return np.array([[float(r[f"p_{name}"]) for name in LABELS] for r in csv.DictReader(file)])


def test_an_ensemble_is_the_mean_of_its_members(whole: Work, manifest: Manifest) -> None:
    names = (whole.model, whole.root / "other")
    alone = [written(evaluate(whole, manifest, config=EvaluateConfig(models=(n,)))) for n in names]
    both = evaluate(whole, manifest, config=EvaluateConfig(models=names))
    np.testing.assert_allclose(written(both), np.mean(alone, axis=0), atol=1e-6)
    assert both.subject == "ensemble"
    assert both.folder.name == "ensemble-test"
    assert list(both.members) == [str(name) for name in names]
    assert "The ensemble of 2" in both.to_text()
    assert "member of the ensemble" in both.to_text()


def test_another_model_of_the_work_folder_does_not_take_the_place_of_its_own(
    whole: Work, manifest: Manifest
) -> None:
    found = evaluate(whole, manifest, config=EvaluateConfig(models=(whole.root / "other",)))
    assert found.folder.name == "model-other-test"
    head = evaluate(whole, manifest, config=EvaluateConfig(models=(whole.search,)))
    assert (head.subject, head.folder.name) == ("head", "head-test")


def test_members_with_other_labels_are_refused_with_the_difference(
    whole: Work, manifest: Manifest, tmp_path: Path
) -> None:
    shape = make_head({"kind": "average"}, ("audio",)).config
    head = Head(replace(shape, labels=("anger", "joy", "sadness")))
    model = assemble(head, {"audio": whole.encoders / "tiny-audio"}, {"audio": 2})
    model.save_pretrained(tmp_path / "joyful")
    for config in (
        EvaluateConfig(models=(whole.model, tmp_path / "joyful")),
        EvaluateConfig(against=(tmp_path / "joyful",)),
    ):
        with pytest.raises(ConfigError, match=r"alone has neutral; .*joyful alone has joy"):
            evaluate(whole, manifest, config=config)


def test_labels_in_another_order_are_the_same_labels(
    whole: Work, manifest: Manifest, tmp_path: Path
) -> None:
    """The same head with its classes turned round says the same."""
    model = EmotionModel.from_pretrained(whole.model)
    turned = Head(replace(model.head.config, labels=LABELS[::-1]))
    state = model.head.state_dict()
    for name in ("output.weight", "output.bias"):
        state[name] = state[name].flip(0)
    turned.load_state_dict(state)
    directories = {name: whole.encoders / f"tiny-{name}" for name in LAST}
    assemble(turned, directories, LAST, speech_dtype="float32").save_pretrained(tmp_path / "turned")
    alone = evaluate(whole, manifest, config=EvaluateConfig(subject="model"))
    config = EvaluateConfig(
        models=(whole.model, tmp_path / "turned"), against=(tmp_path / "turned",)
    )
    both = evaluate(whole, many_speakers(manifest), config=config)
    np.testing.assert_allclose(written(both), written(alone), atol=1e-6)
    assert both.against[0].own == both.against[0].other == alone.report.macro_f1


def test_a_comparison_is_the_difference_on_the_same_utterances(
    whole: Work, manifest: Manifest
) -> None:
    config = EvaluateConfig(models=(whole.root / "other",), against=(whole.model, whole.search))
    found = evaluate(whole, many_speakers(manifest), config=config)
    for one in found.against:
        assert one.difference is not None
        assert one.difference.value == pytest.approx(one.own - one.other)
        assert one.difference.interval.low <= one.difference.value <= one.difference.interval.high
        assert one.own == pytest.approx(found.report.macro_f1)
    assert [one.kind for one in found.against] == ["model", "head"]
    text = " ".join(found.to_text().split())
    assert "p corrected for the number of comparisons" in text
    assert json.loads(json.dumps(found.to_json()))["against"][0]["n"] == found.report.n


def test_only_what_both_could_use_is_compared(whole: Work, manifest: Manifest) -> None:
    rows = replace(manifest, utterances=manifest.in_split("test"))
    one, other = (
        open_scored(FrameCache(whole), whole.model),
        open_scored(FrameCache(whole), whole.search),
    )
    scored = one.score(rows)
    less = replace(scored, utterances=scored.utterances[2:], probabilities=scored.probabilities[2:])
    [found] = compare((one.source, less), [(other.source, other.score(rows))], [""])
    assert found.n == len(rows.utterances) - 2
    assert found.own == found.other  # the head says what the model says
    nothing = replace(scored, utterances=(), probabilities=scored.probabilities[:0])
    with pytest.raises(ConfigError, match="no utterance that both could use"):
        compare((one.source, nothing), [(one.source, scored)], [""])


def test_scores_by_sex_are_those_of_each_part(whole: Work, manifest: Manifest) -> None:
    sexes = ("female", "male", "")
    rows = tuple(replace(u, sex=sexes[n % 3]) for n, u in enumerate(manifest.utterances))
    found = evaluate(whole, replace(manifest, utterances=rows, corpus="elsewhere"))
    assert list(found.by_sex) == ["female", "male", "not given"]
    test = [u for u in rows if u.split == "test"]
    own = [row for row, u in enumerate(test) if u.sex == "male"]
    expected = classification_report([test[row].label for row in own], written(found)[own], LABELS)
    assert found.by_sex["male"].confusion == expected.confusion
    assert "sex        macro-F1" in found.to_text()


def test_calibration_is_fitted_on_dev_and_measured_on_test(whole: Work, manifest: Manifest) -> None:
    dev = written(evaluate(whole, manifest, "dev"))
    found = evaluate(whole, manifest, config=EvaluateConfig(calibration=True)).calibration
    gold = {s: [LABELS.index(u.label) for u in manifest.in_split(s)] for s in ("dev", "test")}
    assert found is not None
    assert found.temperature == pytest.approx(fit_temperature(dev, gold["dev"]), rel=1e-3)
    test = written(evaluate(whole, manifest))
    assert found.before.ece == pytest.approx(reliability(test, gold["test"]).ece, abs=1e-5)
    assert (found.fitted, found.same_rows) == (len(gold["dev"]), False)


def test_on_dev_itself_the_rows_are_said_to_be_the_same(whole: Work, manifest: Manifest) -> None:
    found = evaluate(whole, manifest, "dev", EvaluateConfig(calibration=True))
    assert found.calibration is not None
    assert found.calibration.same_rows
    assert "the very utterances scored here" in " ".join(found.to_text().split())


def test_another_corpus_is_calibrated_on_the_models_own_development_set(
    whole: Work, manifest: Manifest
) -> None:
    rows = tuple(u for u in manifest.utterances if u.split != "dev")
    other = replace(manifest, utterances=rows, corpus="others")
    own = evaluate(whole, manifest, config=EvaluateConfig(calibration=True)).calibration
    found = evaluate(whole, other, config=EvaluateConfig(calibration=True)).calibration
    assert own is not None
    assert found is not None
    assert found.temperature == own.temperature
    assert found.fitted_on == "the dev split of tones"


def test_without_a_development_set_there_is_no_calibration_and_a_reason(
    whole: Work, manifest: Manifest
) -> None:
    rows = tuple(u for u in manifest.utterances if u.split != "dev")
    other = replace(manifest, utterances=rows, corpus="others")
    config = EvaluateConfig(models=(whole.root / "other",), calibration=True)
    found = evaluate(whole, other, config=config)
    assert found.calibration is None
    assert "No calibration: the manifest has no development set" in found.to_text()


def test_pictures_are_drawn_where_they_are_asked_for(whole: Work, manifest: Manifest) -> None:
    config = EvaluateConfig(calibration=True, plots=True)
    found = evaluate(whole, manifest, config=config)
    for name in ("confusion.png", "confusion.svg", "reliability.png", "reliability.svg"):
        assert found.folder / name in found.files
        assert (found.folder / name).stat().st_size > 1_000


def test_without_matplotlib_pictures_are_refused_before_anything_is_scored(
    whole: Work, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("corpora.base.report.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"emopool\[plots\]', or evaluate without --plots"):
        evaluate(whole, manifest, config=EvaluateConfig(plots=True))
    evaluate(whole, manifest)


def test_subject_and_models_exclude_one_another() -> None:
    with pytest.raises(ConfigError, match="--subject chooses"):
        EvaluateConfig(subject="head", models=("a",))


def test_the_card_shows_what_was_found_and_keeps_what_a_person_wrote(
    own: Work, manifest: Manifest
) -> None:
    card = own.model / "README.md"
    assert "Not evaluated yet" in card.read_text()
    card.write_text(card.read_text().replace("## Licence", "## Licence\n\nOurs: CC BY 4.0.\n"))
    found = evaluate(own, manifest, config=EvaluateConfig(calibration=True))
    evaluate(own, manifest, "dev")
    text = card.read_text()
    assert "Not evaluated yet" not in text
    assert f"| tones, test | {found.report.macro_f1:.3f} |" in text
    assert "| tones, dev (selected on) |" in text
    assert "Ours: CC BY 4.0." in text
    assert (text.count(BEGIN), text.count(END)) == (1, 1)
    EmotionModel.from_pretrained(own.model)  # a card may change


def test_the_card_forgets_scores_of_the_model_before(own: Work, manifest: Manifest) -> None:
    evaluate(own, manifest, "dev")
    model = EmotionModel.from_pretrained(own.model)
    model.provenance["trained"] = "again"
    model.save_pretrained(own.model)
    evaluate(own, manifest)
    text = (own.model / "README.md").read_text()
    assert "tones, test" in text
    assert "tones, dev" not in text
    assert "| macro-F1 | UA | WA | weighted F1 |" in text


@pytest.mark.parametrize("card", [None, "# My own words\n"])
def test_a_card_without_marks_is_left_alone(
    card: str | None, own: Work, manifest: Manifest
) -> None:
    path = own.model / "README.md"
    path.unlink() if card is None else path.write_text(card)
    evaluate(own, manifest)
    assert (path.read_text() if path.is_file() else None) == card


def test_the_command_takes_models_and_comparisons(
    own: Work, manifest: Manifest, tmp_path: Path
) -> None:
    shutil.move(own.root / "other", tmp_path / "other")
    words = ["evaluate", "--work", str(own.root), "--model", str(own.model)]
    words += ["--model", str(tmp_path / "other"), "--against", str(own.search), "--json"]
    write_manifest(manifest, own.manifest)
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["subject"] == "ensemble"
    assert found["calibration"]["before"]["bins"]
    assert found["against"][0]["kind"] == "head"
