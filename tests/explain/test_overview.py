"""The page of a whole work folder: what it says first, what is missing, damaged or out of date."""

from __future__ import annotations

import json
import os
import re
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from cli import main
from corpora.base.files import write_json
from corpora.base.work import Work
from corpora.manifest import Manifest, read_manifest, write_manifest
from explain.config import ExplainConfig
from explain.explain import explain_split
from explain.overview.overview import write_overview
from explain.overview.standing import HEAD, REGRESSION, read_standing
from heads.compare.comparison import CompareReport
from heads.compare.lines import Line, RowTable
from heads.compare.outcomes import Outcome, Score
from heads.compare.rendering import write_report
from heads.config import CompareConfig
from heads.records import load_head
from heads.search.report import read_search
from tests.explain.chromium import CHROMIUM, DRIVER, Browser, chromium
from tests.explain.conftest import SCRIPT
from tests.finetune.corpus import make_corpus
from tests.finetune.scoring import evaluate_head, evaluate_model
from tests.heads.test_attributes import SCALES, rated_dataset, report_of
from tests.test_old_work import KEPT

STAGES = ["Corpus", "Extraction", "Search", "Comparison", "Fine-tuning", "Evaluation"]
STAGES += ["Explanation", "Provenance"]
HOSTILE = f"{SCRIPT}</script>{{{{ 7 * 7 }}}}"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Work:
    """Every stage: a work folder of an earlier version, scored and explained by this one."""
    root = tmp_path_factory.mktemp("whole")
    make_corpus(root / "corpus", 24)
    with zipfile.ZipFile(KEPT) as archive:
        archive.extractall(root / "work")
    work = Work(root / "work")
    manifest = read_manifest(work.manifest)
    evaluate_model(work, manifest)
    evaluate_head(work, manifest)
    evaluate_head(work, manifest, head=work.search / "best.json")
    explain_split(work, manifest, ExplainConfig(figures=False, limit=4))
    write_report(compared(work), plot=False)
    write_overview(work)
    return work


def compared(work: Work) -> CompareReport:
    """A comparison of one row."""
    outcome = Outcome({"macro_f1": Score(0.5, None, None, (0.5,))})
    line = Line(f"{HOSTILE}0.5 | *", "row", (), False, {}, {"dev": outcome})
    return CompareReport(
        folder=work.compare,
        name="compare",
        origin=load_head(work.search)[1].origin,
        tables=(RowTable("poolings", HOSTILE, (line,), HOSTILE, HOSTILE),),
        division=HOSTILE,
        folded=False,
        config=CompareConfig(),
        epochs=1,
        sizes={"dev": (24, 12)},
        reasons={"dev": ""},
        heads={},
    )


@pytest.fixture
def copy(whole: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Work:
    """One that a test may change; its recordings are where they were. Its figures are empty."""
    monkeypatch.setattr("explain.overview.overview.render", lambda *_: {".svg": b"<svg/>"})
    shutil.copytree(whole.root, tmp_path / "deep" / "work")
    shutil.copytree(whole.root.parent / "corpus", tmp_path / "deep" / "corpus")
    return Work(tmp_path / "deep" / "work")


def sections(page: str) -> list[str]:
    return re.findall(r'id="section-[^"]*">(?:<summary><h2>|<b>)([^<.]+)', page)


def section(page: str, title: str) -> str:
    """The text of one section."""
    found = re.search(rf'id="section-{title.lower()}">(.*?)(?=id="section-|</main>)', page, re.S)
    assert found is not None, title
    return found[1]


def test_it_answers_first_and_then_has_every_stage(whole: Work) -> None:
    page = (whole.root / "report.html").read_text(encoding="utf-8")
    assert sections(page) == STAGES
    places = [page.index(part) for part in ("How good is it?", "What is missing?", STAGES[0])]
    assert places == sorted(places)
    assert "The fine-tuned model, on the test split, is right in" in page
    assert "Did fine-tuning gain?" in page
    assert 'href="explain/report.html"' in page
    # Nothing is fetched.
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', page)
    for title, said in {
        "Corpus": "24 utterances, 12 known speakers",
        "Extraction": "layer_2",
        "Search": "statistics",
        "Fine-tuning": "crosswise",
        "Evaluation": "Confusion matrix, model-test",
        "Explanation": "analysis",
        "Provenance": "emopool 0.1.0",
    }.items():
        assert said in section(page, title), title


def test_text_of_the_user_is_text(whole: Work) -> None:
    page = (whole.root / "report.html").read_text(encoding="utf-8")
    assert "<script>document" not in page
    assert "{{ 7 * 7 }}" in section(page, "Comparison")
    assert "0.5 | *" in section(page, "Comparison")


def test_labels_and_speakers_are_text_too(whole: Work, tmp_path: Path) -> None:
    manifest = read_manifest(whole.manifest)
    rows = tuple(
        replace(u, label=f"<b>{u.label}{{{{x}}}}", speaker=f"<i>{u.speaker}", text=HOSTILE)
        for u in manifest.utterances
    )
    labels = tuple(f"<b>{label}{{{{x}}}}" for label in manifest.labels)
    work = Work(tmp_path / "<u>work")
    work.root.mkdir()
    write_manifest(replace(manifest, utterances=rows, labels=labels, corpus=SCRIPT), work.manifest)
    found = write_overview(work)
    page = (work.root / "report.html").read_text(encoding="utf-8")
    assert not re.findall("<script>document|<b>anger|<i>s1|<u>work", page)
    assert "&lt;b&gt;anger{{x}}" in page
    states = {title: own["state"] for title, own in found.data["stages"].items()}
    assert [name for name, state in states.items() if state == "done"] == ["Corpus", "Provenance"]
    assert set(states.values()) == {"done", "missing"}
    assert "Not known yet" in page
    assert "cli.py extract --work" in page


def test_without_a_manifest_it_says_what_to_do(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["report", "--work", str(tmp_path)])
    assert done.exit_code == 1
    assert "No manifest at" in done.output
    assert "prepare" in done.output
    assert not (tmp_path / "report.html").exists()


def test_what_is_damaged_is_a_line(copy: Work) -> None:
    evaluated = copy.evaluation / "model-test" / "report.json"
    damaged = {
        copy.extraction: "Extraction",
        copy.search / "best.json": "Search",
        copy.compare / "compare.json": "Comparison",
        copy.model / "config.json": "Fine-tuning",
        evaluated: "Evaluation",
        copy.explain / "summary.json": "Explanation",
    }
    for path, text in zip(damaged, ["", "[1]", "{}", '{"format": 1}', "[", "\0"], strict=True):
        path.write_text(text, encoding="utf-8")
    done = CliRunner().invoke(main, ["report", "--json", "--work", str(copy.root)])
    assert done.exit_code == 0, done.output
    stages = json.loads(done.stdout)["stages"]
    assert {name for name, own in stages.items() if own["state"] == "damaged"} == {
        *damaged.values()
    }
    page = (copy.root / "report.html").read_text(encoding="utf-8")
    assert sections(page) == STAGES
    for title in damaged.values():
        assert "annot be read: " in section(page, title)


def test_a_damaged_study_is_a_line(copy: Work) -> None:
    (copy.search / "study.db").write_bytes(b"no database")
    found = write_overview(copy)
    assert found.data["stages"]["Search"]["state"] == "damaged"


def test_what_was_made_of_other_rows_is_out_of_date(copy: Work) -> None:
    manifest = read_manifest(copy.manifest)
    first, *others = manifest.utterances
    changed = replace(first, label="sadness" if first.label == "anger" else "anger")
    write_manifest(replace(manifest, utterances=(changed, *others)), copy.manifest)
    stages = write_overview(copy).data["stages"]
    late = {name for name, own in stages.items() if own["out_of_date"]}
    assert late >= {"Search", "Comparison", "Fine-tuning", "Evaluation"}
    page = (copy.root / "report.html").read_text(encoding="utf-8")
    assert "OUT OF DATE: " in section(page, "Comparison")
    assert "Comparison is out of date" in page


def test_a_head_that_was_searched_again_makes_what_is_about_the_other_one_out_of_date(
    copy: Work,
) -> None:
    trial = next(
        path
        for path in sorted((copy.search / "trials").glob("*.json"))
        if path.with_suffix(".safetensors").read_bytes()
        != (copy.search / "head.safetensors").read_bytes()
    )
    value = json.loads(trial.read_text(encoding="utf-8"))
    shutil.copy(trial.with_suffix(".safetensors"), copy.search / value["weights"]["file"])
    shutil.copy(trial, copy.search / "best.json")
    note = json.loads((copy.search / "study.json").read_text(encoding="utf-8"))
    note = {name: own for name, own in note.items() if name != "digest"} | {"study": "another"}
    write_json(copy.search / "study.json", note)
    stages = write_overview(copy).data["stages"]
    assert "another search" in stages["Fine-tuning"]["out_of_date"][0]
    assert any("head-test" in text for text in stages["Evaluation"]["out_of_date"])


def test_a_search_is_read_back_and_stands_as_it_was_said(tmp_path: Path) -> None:
    found = report_of(tmp_path / "search", "both", folds="2", epochs=1, trials=3, ensemble=2)
    dataset = rated_dataset()
    manifest = Manifest(tuple(dataset.utterances), dataset.labels, "toy", scales=SCALES)
    standing = read_standing(Work(tmp_path), manifest)
    assert set(standing.rows) == {"folds", "test"}
    assert (standing.logistic, standing.ridge) == (found.logistic, found.ridge)
    for split, held in standing.rows.items():
        by, reason = standing.ahead(HEAD, REGRESSION, split)
        assert (by is None) == (split not in found.ahead), reason
        if by is not None:
            assert by.value == pytest.approx(found.ahead[split].value, abs=1e-5)
            assert by.value == pytest.approx(held[HEAD].value - held[REGRESSION].value, abs=1e-5)
            assert by.p == pytest.approx(found.ahead[split].p, abs=1e-2)
    again = read_search(tmp_path / "search", found.logistic, found.ridge, found.ahead)
    assert again.best == load_head(tmp_path / "search")[1]
    for name in ("completed", "halved", "ensemble", "selected_on", "objective"):
        assert getattr(again, name) == getattr(found, name)
    shown = [table.shown for table in again.to_report().tables]
    # How trials compare is not kept.
    trials, *scores = (table.shown for table in found.to_report().tables)
    assert [row[:7] for row in shown[0]] == [row[:7] for row in trials]
    assert shown[1:] == scores
    write_manifest(manifest, Work(tmp_path).manifest)
    page = write_overview(Work(tmp_path))
    assert page.data["stages"]["Search"]["state"] == "done"
    text = page.to_text()
    assert "Is it ahead of the regressions?" in text
    assert "arousal: CCC" in text


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not (CHROMIUM and DRIVER):
        pytest.skip("chromium and chromedriver are not installed")
    with chromium() as own:
        yield own


def test_in_a_browser_sections_fold_and_links_of_cards_open_them(
    browser: Browser, whole: Work
) -> None:
    browser.open(whole.root / "report.html")
    opened = "return [...document.querySelectorAll('details.section')].filter((d) => d.open).length"
    assert browser.run(opened) == 0
    browser.click('.card a[href="#section-fine-tuning"]')
    browser.wait("document.getElementById('section-fine-tuning').open")
    assert browser.run(opened) == 1
    browser.click("#unfold")
    count = browser.run("return document.querySelectorAll('details.section').length")
    assert browser.run(opened) == count
    ids = browser.run("return [...document.querySelectorAll('[id]')].map((one) => one.id)")
    assert len(ids) == len(set(ids))
    wide = browser.run("return document.documentElement.scrollWidth > innerWidth")
    assert not wide
    if "EMOPOOL_AXE" in os.environ:
        browser.run(Path(os.environ["EMOPOOL_AXE"]).read_text(encoding="utf-8"))
        browser.run("axe.run().then((all) => { window.found = all.violations })")
        browser.wait("window.found !== undefined")
        said = "return found.map((one) => `${one.impact} ${one.id}: ${one.nodes[0].html}`)"
        assert browser.run(said) == []
    assert browser.console() == []
