"""What a model card says before anything is evaluated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.finetune.corpus import make_model

MADE: dict[str, Any] = {
    "encoders": {"audio": "tiny", "text": "tiny"},
    "corpus": "tones",
    "synthetic": True,
    "trial": 7,
    "phases": [
        {
            "config": {"phase": 2, "learning_rate": 1e-4},
            "trainable": [{"parameters": 1000}, {"parameters": 234}],
            "start": {"macro_f1": 0.4},
            "best": {"macro_f1": 0.5},
        }
    ],
}


def card(encoders: Path, folder: Path, modalities: tuple[str, ...], made: dict[str, Any]) -> str:
    model = make_model(encoders, modalities=modalities, provenance=made)
    model.save_pretrained(folder / "model")
    return (folder / "model" / "README.md").read_text(encoding="utf-8")


def test_it_says_what_the_model_is_and_is_not(encoders: Path, tmp_path: Path) -> None:
    text = card(encoders, tmp_path, ("audio", "text"), MADE)
    assert text.startswith("---\nlibrary_name: emopool\n")
    for words in (
        "3 classes, trained on tones",
        "Tiny encoders",
        "Trained on synthetic speech",
        "One utterance of speech and its transcript go in",
        "`tiny` (wav2vec2-bert), hidden state 3",
        "anger, neutral, sadness",
        "EmotionModel.from_pretrained",
        "Trial 7 of a search",
        "| 2 | 0.0001 | 1,234 | 0.400 | 0.500 |",
        "Not evaluated yet",
        "Intended use and limits",
        "Licence",
    ):
        assert words in text


@pytest.mark.parametrize(
    ("modality", "words"),
    [("audio", "One utterance of speech goes"), ("text", "A transcript goes")],
)
def test_a_model_of_one_modality_does_not_speak_of_the_other(
    modality: str, words: str, encoders: Path, tmp_path: Path
) -> None:
    text = card(encoders, tmp_path, (modality,), {})
    assert words in text
    assert "Whisper" not in text
    assert "Tiny encoders" not in text  # nothing is known about where it comes from
    assert ("texts=" in text) == (modality == "text")


def test_what_comes_from_a_corpus_is_no_html(encoders: Path, tmp_path: Path) -> None:
    text = card(encoders, tmp_path, ("audio",), {**MADE, "corpus": "<script>alert(1)</script>"})
    assert "<script" not in text
    assert "trained on &lt;script&gt;alert(1)&lt;/script&gt;" in text
