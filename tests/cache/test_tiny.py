from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
import torch
from transformers import DebertaV2Model, Wav2Vec2BertModel

from cache.encoders.audio_encoder import load_audio_encoder
from cache.encoders.files import Kind, hash_files, tiny_folder
from cache.encoders.names import resolve_encoder
from cache.encoders.text_encoder import load_text_encoder
from cache.encoders.tiny import make_tiny_encoder, tiny_pieces


def contents(folder: Path) -> dict[str, str]:
    return {path.name: digest for path, digest in hash_files(sorted(folder.iterdir())).items()}


@pytest.mark.parametrize("kind", ["audio", "text"])
def test_two_work_folders_get_the_same_bytes(tmp_path: Path, kind: Kind) -> None:
    torch.manual_seed(1)
    first = make_tiny_encoder(tmp_path / "a", kind)
    torch.manual_seed(2)
    second = make_tiny_encoder(tmp_path / "b", kind)
    assert contents(first) == contents(second)


@pytest.mark.parametrize("kind", ["audio", "text"])
def test_making_one_leaves_the_callers_random_numbers_alone(tmp_path: Path, kind: Kind) -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    make_tiny_encoder(tmp_path, kind)
    torch.testing.assert_close(torch.rand(4), expected)


def test_a_second_call_touches_nothing(tmp_path: Path) -> None:
    folder = make_tiny_encoder(tmp_path, "text")
    times = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert resolve_encoder("tiny", "text", tmp_path) == folder == tiny_folder(tmp_path, "text")
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == times


def test_nothing_is_left_beside_the_folder(tmp_path: Path) -> None:
    make_tiny_encoder(tmp_path, "audio")
    assert [path.name for path in (tmp_path / "encoders").iterdir()] == ["tiny-audio"]


def test_they_have_the_architectures_of_the_real_ones(tmp_path: Path) -> None:
    audio = load_audio_encoder(resolve_encoder("tiny", "audio", tmp_path))
    text = load_text_encoder(resolve_encoder("tiny", "text", tmp_path))
    assert isinstance(audio.model, Wav2Vec2BertModel)
    assert isinstance(text.model, DebertaV2Model)
    assert audio.model.config.position_embeddings_type == "relative_key"
    assert text.model.config.relative_attention
    assert (audio.layers, audio.dim, text.layers, text.dim) == (3, 128, 3, 96)


def test_different_words_get_different_frames(tmp_path: Path) -> None:
    text = load_text_encoder(resolve_encoder("tiny", "text", tmp_path))
    with torch.inference_mode():
        frames = text(["happy", "angry", "happy"], [3])[3]
    word = [frames.utterance(index)[1] for index in range(3)]
    torch.testing.assert_close(word[0], word[2])
    assert (word[0] - word[1]).abs().mean() > 0.5


@pytest.mark.parametrize(
    "text",
    [
        "Das schwarze Blatt Papier befindet sich da oben neben dem Holzstück.",
        "Kids are talking by the door!",
        "Ça va, señor? Łódź, Århus …",
        "I DON'T KNOW: 1234",
    ],
)
def test_latin_text_is_spelt_without_unknown_pieces(tmp_path: Path, text: str) -> None:
    encoder = load_text_encoder(resolve_encoder("tiny", "text", tmp_path))
    (tokens,) = encoder.tokenise([text])
    assert "[UNK]" not in tokens.pieces


def test_common_words_are_whole_pieces(tmp_path: Path) -> None:
    encoder = load_text_encoder(resolve_encoder("tiny", "text", tmp_path))
    (tokens,) = encoder.tokenise(["I am so happy, wir sind traurig."])
    assert tokens.pieces[1:-1] == (
        "▁i",
        "▁am",
        "▁so",
        "▁happy",
        ",",
        "▁wir",
        "▁sind",
        "▁traurig",
        ".",
    )


def test_the_vocabulary_is_lower_case_composed_and_without_repeats() -> None:
    pieces = [piece for piece, _ in tiny_pieces()]
    plain = [piece for piece in pieces if not piece.startswith("[") or len(piece) == 1]
    assert len(set(pieces)) == len(pieces)
    assert all(piece == piece.lower() for piece in plain)
    assert all(piece == unicodedata.normalize("NFC", piece) for piece in plain)
