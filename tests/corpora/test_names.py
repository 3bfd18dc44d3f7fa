from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpora.base.errors import ManifestError
from corpora.label_map import parse_label_map
from corpora.manifest import Manifest, read_manifest
from corpora.utterance import (
    Utterance,
    is_missing,
    is_plain,
    plain_name,
    speaker_key,
    split_named,
    splits_named,
)

JOSE = "José"
APART = unicodedata.normalize("NFD", JOSE)


@given(st.text())
def test_a_plain_name_stays_as_it_is(text: str) -> None:
    plain = plain_name(text)
    assert plain_name(plain) == plain
    assert not is_plain(text) or plain == text


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        (APART, JOSE),
        ("ann\u00a0lee ", "ann lee"),
        ("ann \t lee\n", "ann lee"),
        ("\ufeffann\u200b\0", "ann"),
        ("\u200eann\u200f", "ann"),
        ("an\u00adn", "ann"),
        ("a\u0085b", "a b"),
        ("می\u200cخواهم", "می\u200cخواهم"),  # the joiner belongs to the word
        ("Ａ", "Ａ"),  # another letter, though it looks alike
        ("\u200b", ""),
    ],
)
def test_a_name_has_one_spelling(written: str, plain: str) -> None:
    assert plain_name(written) == plain


def test_every_name_of_an_utterance_is_spelled_so_and_its_paths_and_text_are_not() -> None:
    path = Path("/") / f"{APART}.wav"
    names = dict.fromkeys(("id", "label", "speaker", "fold", "session", "corpus"), APART)
    made = Utterance(audio=path, alignment=path, text=APART, votes={APART: 1, JOSE: 2}, **names)  # type: ignore[arg-type]
    assert {getattr(made, name) for name in names} == {JOSE}
    assert made.votes == {JOSE: 3}
    assert (made.audio, made.alignment, made.text) == (path, path, APART)


def test_one_person_in_two_splits_is_found_however_the_name_is_typed(tmp_path: Path) -> None:
    table = tmp_path / "manifest.csv"
    rows = [f"a,a.wav,sad,{JOSE},train", f"b,b.wav,sad,{APART},test"]
    table.write_text("\n".join(["id,audio,label,speaker,split", *rows]) + "\n", encoding="utf-8")
    with pytest.raises(ManifestError, match=r"speaker 'José' is in train .* and in test"):
        read_manifest(table)


def test_a_label_map_finds_a_label_however_it_is_typed() -> None:
    row = Utterance("a", Path("a.wav"), JOSE, corpus="c")
    for old in (JOSE, APART):
        (mapped,) = parse_label_map([f"{old}=x"]).apply([row])
        assert mapped.label == "x"


def test_label_order_and_rows_agree_on_a_decomposed_label(tmp_path: Path) -> None:
    table = tmp_path / "manifest.csv"
    table.write_text(f"id,audio,label\na,a.wav,{JOSE}\n", encoding="utf-8")
    table.with_suffix(".json").write_text(
        f'{{"format": "emopool-manifest", "version": 1, "labels": ["{APART}"]}}', encoding="utf-8"
    )
    assert read_manifest(table).labels == (JOSE,)


def test_a_missing_label_in_a_manifest_is_refused_and_a_missing_speaker_unknown(
    tmp_path: Path,
) -> None:
    table = tmp_path / "manifest.csv"
    table.write_text("id,audio,label,speaker\na,a.wav,nan,x\n")
    with pytest.raises(ManifestError, match="label 'nan' says that it is missing"):
        read_manifest(table)
    table.write_text(
        "id,audio,label,speaker,split,arousal\na,a.wav,x,nan,train,nan\nb,b,x,nan,test,\n"
    )
    manifest: Manifest = read_manifest(table)
    assert [speaker_key(u) for u in manifest.utterances] == [None, None]
    assert manifest.utterances[0].arousal is None


@pytest.mark.parametrize(
    "word", ["nan", "NaN", "None", "N/A", "NA", "null", "NULL", "-", "--", "?", "<NA>", "#N/A"]
)
def test_spellings_of_missing_are_known(word: str) -> None:
    assert is_missing(word)


@pytest.mark.parametrize("word", ["", "neutral", "nana", "no", "unknown", "0", "N"])
def test_words_are_not_missing(word: str) -> None:
    assert not is_missing(word)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train", "train"), ("Training", "train"), ("train_1", "train"), ("TRAIN-set", "train"),
        ("devel", "dev"), ("dev", "dev"), ("valid", "dev"), ("Val", "dev"), ("validation", "dev"),
        ("Test1", "test"), ("test-2", "test"), ("testset", "test"), ("testing", "test"),
        ("eval", None), ("trainer", None), ("tests", None), ("1", None), ("", None), ("set", None),
        ("contest", None),
    ],
)  # fmt: skip
def test_names_of_splits_by_themselves(name: str, split: str | None) -> None:
    assert split_named(name) == split


@pytest.mark.parametrize(
    ("names", "split"),
    [
        (("train", "dev", "eval"), "test"),
        (("train", "eval", "test"), "dev"),
        (("train", "eval"), "test"),
        (("train", "dev", "eval", "test"), None),
    ],
)
def test_eval_is_the_split_that_is_lacking(names: tuple[str, ...], split: str | None) -> None:
    assert splits_named(names).get("eval") == split
