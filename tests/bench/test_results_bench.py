"""`make results`: made-up answers in, the page out; what is refused; what a stopped run keeps."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bench import results
from bench.__main__ import main
from bench.results import make_results
from bench.results_page import results_page
from bench.results_steps import EMODB, RAVDESS, Corpus, Step, steps
from corpora.base.errors import ConfigError

SIMULATED = {
    "8": {"covered": dict.fromkeys(("macro_f1", "uar", "accuracy"), 0.9475), "false": 0.05}
}
CUES = """predicted,prediction,cue,difference (deviations),low,high,expected,agrees
anger,correct,f0,1.5,1.25,1.75,up,yes
anger,correct,hnr,0.5,,,down,no
anger,wrong,f0,9,,,up,yes
"""


def line(title: str, mean: float, lead: float = 0.0) -> dict[str, Any]:
    """A line of a comparison."""
    score = {"mean": mean, "deviation": None, "interval": [mean - 0.1, mean + 0.1]}
    less = {"value": lead, "interval": [lead - 0.1, lead + 0.1]}
    params = {} if "regression" in title else {"pooling": title}
    return {
        "title": title,
        "params": params,
        "layer": 2,
        "test": {"macro_f1": score, "to_reference": less},
    }


def answers(corpus: Corpus) -> dict[str, Mapping[str, Any]]:
    """What the commands said, in the shapes that the page reads."""
    rows = [line("average", 0.81), line("AS", 0.91, 0.2), line("logistic regression", 0.85)]
    sources = {"audio": {"encoder": "whisper", "best": 2, "recipe": {"weights": ["abcdef" * 9]}}}
    report = {"n": 7, "speakers": 2, "macro_f1": 0.625, "intervals": None}
    tables = {
        name: [{"name": name, "lines": rows}] for name in ("poolings", "modalities", "layers-audio")
    }
    found: dict[str, Mapping[str, Any]] = {
        "facts": {
            "utterances": 381, "speakers": 10, "texts": 3, "labels": list("abcd"),
            "rows_sha256": "1" * 64, "recordings_sha256": "2" * 64,
        },
        "layers": {"tables": tables["layers-audio"]},
        "extract-both": {"files": {"extraction.json": json.dumps({"sources": sources})}},
        "finetune": {"head": {"report": report}, "model": {"report": {**report, "macro_f1": 0.75}}},
        "explain": {
            "sections": {
                "Localisation": {"audio": {"mean_share": 0.5, "gini": 0.25}},
                "Faithfulness": {"audio": {"verdict": "Nobody knows."}},
            },
            "files": {"explain/tables/cues-levels.csv": CUES},
        },
        "pauses": {"value": 0.02, "interval": [-0.01, 0.05], "p": 0.2},
        "search": {
            "folds": [
                {
                    "name": "1",
                    "head": "AS",
                    "optimism": {"selected": 0.9, "nested": 0.8},
                    "report": {"macro_f1": 0.7},
                }
            ],
            "report": {"macro_f1": 0.7, "intervals": {"macro_f1": [0.6, 0.8]}},
            "difference": None,
        },
    }  # fmt: skip
    for step in steps(corpus):
        if step.name.startswith(("poolings", "dealt")):
            found[step.name] = {"tables": tables["poolings"]}
        if step.name.startswith("modalities"):
            found[step.name] = {"tables": tables["modalities"]}
        if step.name.startswith(("average-", "vad_average-")):
            found[step.name] = {"report": {"macro_f1": 0.5}}
    return found


def test_every_answer_has_its_place_and_two_pages_are_equal() -> None:
    found = {corpus: answers(corpus) for corpus in (EMODB, RAVDESS)}
    page = results_page(found, SIMULATED)
    assert page == results_page(found, SIMULATED)
    assert re.findall(r"^## (\d)", page, re.MULTILINE) == list("12345678")
    for row in (
        "| EMO-DB | 381 of 10 speakers | 4 (guessing 0.250) | `111111111111` | `222222222222` |",
        "| 2 | 0.910 [0.81, 1.01] | 0.850 [0.75, 0.95] | 0.910 [0.81, 1.01] | 0.850 [0.75, 0.95] |",
        "| model after phases 2 and 3 | 0.750 | 0.750 |",
        "| EMO-DB, anger | f0 | up | +1.50 [1.25, 1.75] |",
        "| 8 | 94.8 % | 94.8 % | 94.8 % | 5.0 % |",
        "| 1 | AS | 0.900 | 0.800 | 0.700 |",
        "| guessing | 0.250 | 0.250 |",
    ):
        assert row in page
    assert "+0.020 [-0.01, 0.05] holds 0: not shown" in page
    assert "paired interval: EMO-DB AS (none), EMO-DB AS (standardise), RAVDESS AS (none)" in page
    assert "EMO-DB 1 of 2, RAVDESS 1 of 2" in page
    assert "$" not in page
    assert page.count("\n") <= 200


@pytest.mark.parametrize("option", ["emodb", "ravdess"])
def test_a_folder_that_is_not_there_is_one_message(tmp_path: Path, option: str) -> None:
    asked = ["results", f"--{option}", str(tmp_path / "gone"), "--work", str(tmp_path / "w")]
    said = CliRunner().invoke(main, asked)
    assert said.exit_code == 1
    assert said.output.startswith(f"Error: {option.upper()}: there is no folder {tmp_path}/gone.")
    assert f"make results {option.upper()}=path/to/it" in said.output
    assert not (tmp_path / "w").exists()


def test_a_stopped_run_goes_on_and_a_failed_command_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = []

    def counted(folder: Path, said: Mapping[str, Any]) -> Mapping[str, Any]:
        called.append(folder.name)
        return {"one": 1}

    plan = [Step("first", does=counted), Step("prepare", "prepare emodb path/to/emodb")]
    monkeypatch.setattr(results, "steps", lambda corpus: plan)
    monkeypatch.setattr(results, "SIMULATION", (Step("coverage", does=counted),))
    (tmp_path / "empty").mkdir()
    for _ in range(2):
        with pytest.raises(
            ConfigError, match=r"prepare emodb path/to/emodb --work .* failed: .*empty"
        ):
            make_results(tmp_path / "empty", None, tmp_path / "w", lambda line: None)
    assert called.count("emodb") == 1
    (tmp_path / "other").mkdir()
    with pytest.raises(ConfigError, match="begun with other code, commands or recordings"):
        make_results(tmp_path / "other", None, tmp_path / "w", lambda line: None)
