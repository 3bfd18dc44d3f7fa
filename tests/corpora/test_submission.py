from __future__ import annotations

import math
from pathlib import Path

import pytest

from corpora.base.errors import ManifestError
from corpora.readers.msp_podcast import write_attribute_submission, write_submission
from corpora.readers.registry import read_corpus
from tests.corpora.field_trees import msp_podcast

FILE = "MSP-PODCAST_test3_0001.wav"


def test_categories_are_written_as_letters(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    assert write_submission(path, [(FILE, "neutral"), ("b.wav", "surprise")]) == 2
    assert path.read_bytes() == f"FileName,EmoClass\n{FILE},N\nb.wav,U\n".encode()


def test_the_blind_test_set_of_a_corpus_can_be_submitted(tmp_path: Path) -> None:
    msp_podcast(tmp_path)
    blind = [u for u in read_corpus("msp_podcast", tmp_path).utterances if not u.label]
    write_submission(tmp_path / "out.csv", [(u.audio.name, "sad") for u in blind])
    assert (tmp_path / "out.csv").read_text().splitlines()[1:] == [
        "MSP-PODCAST_test3_0000.wav,S",
        "MSP-PODCAST_test3_0001.wav,S",
    ]


def test_attributes_are_written_in_the_order_of_the_header(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    rated = {"valence": 4.25, "dominance": 7.0, "arousal": 1.0}
    assert write_attribute_submission(path, [(FILE, rated)]) == 1
    assert path.read_text().splitlines() == [
        "FileName,EmoAct,EmoVal,EmoDom",
        f"{FILE},1.000000,4.250000,7.000000",
    ]


@pytest.mark.parametrize("value", [math.nan, 0.9, 7.5])
def test_an_attribute_that_is_not_on_the_scale_is_refused(tmp_path: Path, value: float) -> None:
    rated = {"valence": 4.25, "dominance": value, "arousal": 1.0}
    with pytest.raises(ManifestError, match=f"{FILE}: .* not from 1 to 7"):
        write_attribute_submission(tmp_path / "out.csv", [(FILE, rated)])


@pytest.mark.parametrize("label", ["other", "no_agreement", "", "Neutral"])
def test_a_class_that_the_challenge_does_not_have_is_refused(tmp_path: Path, label: str) -> None:
    with pytest.raises(ManifestError, match=f"'{label}' is no class of the challenge"):
        write_submission(tmp_path / "out.csv", [(FILE, label)])
    assert not (tmp_path / "out.csv").exists()


def test_a_file_predicted_twice_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=f"{FILE} is predicted twice"):
        write_submission(tmp_path / "out.csv", [(FILE, "sad"), (FILE, "sad")])


def test_no_prediction_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="nothing to submit"):
        write_submission(tmp_path / "out.csv", [])
