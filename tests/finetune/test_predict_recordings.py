"""Which recordings are predicted, and the file that goes to a challenge."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from corpora.base.errors import ConfigError, ManifestError
from corpora.manifest import Manifest, Utterance
from finetune.predict.conclude import submit
from finetune.predict.predict import rows_of, utterances_of
from finetune.predict.prediction import Answer, Prediction, Unusable


def test_a_folder_gives_all_recordings_below_it_and_an_empty_one_is_said(
    manifest: Manifest, tmp_path: Path
) -> None:
    folder = manifest.utterances[0].audio.parent
    found, unusable = utterances_of([str(folder), str(tmp_path)])
    assert [u.audio for u in found] == sorted(u.audio for u in manifest.utterances)
    assert [one.id for one in unusable] == [str(tmp_path)]
    with pytest.raises(ConfigError, match="--text was given 1 times for 2"):
        utterances_of(["a.wav", "b.wav"], ["hello"])
    with pytest.raises(ConfigError, match="no folder"):
        utterances_of([str(folder)], ["hello"])


def test_recordings_that_are_not_read_are_said_and_converted_ones_are_not(tmp_path: Path) -> None:
    for name in ("a.aiff", "a.m4a", "b.AMR", "c.opus"):
        (tmp_path / name).write_bytes(b"sound")
    found, unusable = utterances_of([str(tmp_path)])
    assert [u.audio.name for u in found] == ["a.aiff", "c.opus"]
    assert [one.error for one in unusable] == [
        f"{tmp_path / 'b.AMR'}: .amr is not read: convert it to WAV or FLAC (ffmpeg -i IN OUT.wav)."
    ]


def test_rows_of_a_manifest_need_no_label(manifest: Manifest) -> None:
    blind = Utterance("b", Path("MSP-PODCAST_test3_0001.wav"), "")
    both = replace(manifest, utterances=(*manifest.utterances, blind))
    assert rows_of(both, "test3") == [blind]
    assert len(rows_of(both, "all")) == len(both.utterances)
    assert rows_of(both, "dev") == list(manifest.in_split("dev"))
    with pytest.raises(ManifestError, match=r"has not a recording with _test3_.*test 9"):
        rows_of(manifest, "test3")


def answer(name: str, **probabilities: float) -> Answer:
    best = max(probabilities, key=lambda label: probabilities[label])
    return Prediction(name, f"audio/{name}", best, probabilities, "", "none")


def test_a_submission_has_the_challenges_letters_and_none_of_other_classes(tmp_path: Path) -> None:
    answers = [
        answer("t_1.wav", angry=0.7, neutral=0.3, other=0.0),
        answer("t_2.wav", angry=0.1, neutral=0.3, other=0.6),
        Unusable("t_3.wav", "t_3.wav", "gone"),
    ]
    assert submit(tmp_path / "out.csv", answers) == 2
    assert (tmp_path / "out.csv").read_text() == "FileName,EmoClass\nt_1.wav,A\nt_2.wav,N\n"
    with pytest.raises(ManifestError, match="the challenge asks for"):
        submit(tmp_path / "out.csv", [answer("a.wav", calm=0.5, bored=0.5)])


def test_the_second_task_is_that_of_attributes(tmp_path: Path) -> None:
    rated = {"arousal": 2.0, "valence": 3.5, "dominance": 6.0}
    alone = Prediction("t_1.wav", "audio/t_1.wav", "", {}, "", "none", attributes=rated)
    both = replace(alone, label="angry", probabilities={"angry": 0.9, "neutral": 0.1})
    out = tmp_path / "out.csv"
    assert submit(out, [alone]) == submit(out, [both], 2) == 1
    written = "FileName,EmoAct,EmoVal,EmoDom\nt_1.wav,2.000000,3.500000,6.000000\n"
    assert out.read_text() == written
    submit(out, [both])
    assert out.read_text() == "FileName,EmoClass\nt_1.wav,A\n"
    with pytest.raises(ManifestError, match="does not know dominance"):
        submit(out, [replace(alone, attributes={"arousal": 2.0, "valence": 3.5})])
