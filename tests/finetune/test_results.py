"""What a whole run found, as text and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from corpora.base.errors import MissingStepError
from corpora.base.work import Work
from finetune.demo import read_results
from tests.finetune.conftest import Searched


def test_results_are_text_and_json(searched: Searched) -> None:
    found = read_results(searched.work)
    value = json.loads(json.dumps(found.to_json()))
    assert value["trial"] == searched.record.trial
    assert value["encoders"] == {"audio": "tiny", "text": "tiny"}
    assert (value["reference"], value["model"]) == (None, None)
    assert "Guessing gives a UA of 0.333." in found.to_text()


def test_without_a_search_there_are_none(tmp_path: Path) -> None:
    with pytest.raises(MissingStepError, match="search"):
        read_results(Work(tmp_path))
