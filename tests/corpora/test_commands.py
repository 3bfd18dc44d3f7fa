"""The `prepare` group: any first word but a tool's is a corpus, options anywhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cli import main
from corpora.base.errors import ConfigError
from corpora.commands import label_names
from corpora.manifest import read_manifest
from tests.corpora.fixture_trees import emodb, write_wav


def run(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    emodb(tmp_path / "emodb")
    return tmp_path / "emodb"


def test_a_corpus_is_read_with_options_after_or_before(corpus: Path, tmp_path: Path) -> None:
    after = run("prepare", "emodb", corpus, "--work", tmp_path / "w", "--seed", 3)
    before = run("prepare", "--seed", 3, "--work", tmp_path / "v", "emodb", corpus)
    assert (after.exit_code, before.exit_code) == (0, 0)
    paths = [tmp_path / name / "manifest.csv" for name in "wv"]
    assert read_manifest(paths[0]) == read_manifest(paths[1])


def test_the_list_shows_corpora_and_protocols() -> None:
    text = run("prepare", "--list").output
    assert "emodb: EMO-DB" in text
    assert "leygue2025: " in text
    listed = json.loads(run("prepare", "--list", "--json").output)
    assert {"emodb", "csv"} <= {corpus["name"] for corpus in listed["corpora"]}
    meld = next(one for one in listed["protocols"] if one["name"] == "meld")
    assert meld["metrics"] == ["weighted_f1", "macro_f1"]


def test_an_unknown_corpus_or_tool_names_the_close_match(tmp_path: Path) -> None:
    result = run("prepare", "emodbb", tmp_path)
    assert result.exit_code == 1
    assert "Did you mean 'emodb'" in result.output


def test_no_root_is_a_usage_error() -> None:
    result = run("prepare", "emodb")
    assert result.exit_code == 2
    assert "name a CORPUS and its ROOT" in result.output


@pytest.mark.parametrize("tool", ["merge", "split", "check"])
def test_every_tool_has_help(tool: str) -> None:
    result = run("prepare", tool, "--help")
    assert result.exit_code == 0
    assert f"prepare {tool}" in result.output


def test_a_protocol_is_named_and_reported(corpus: Path, tmp_path: Path) -> None:
    words = ("prepare", "emodb", corpus, "--protocol", "emodb-loso", "--test-fold", "08")
    found = json.loads(run(*words, "--work", tmp_path / "w", "--json").output)
    assert found["protocol"] == "emodb-loso"
    assert found["folds"] == {"03": 7, "08": 7, "11": 1, "16": 7}
    manifest = read_manifest(tmp_path / "w" / "manifest.csv")
    assert {u.speaker for u in manifest.in_split("test")} == {"08"}


def test_the_tools_work_on_the_work_folders_manifest(corpus: Path, tmp_path: Path) -> None:
    work = ("--work", tmp_path / "w")
    run("prepare", "emodb", corpus, *work)
    report = json.loads(run("prepare", "split", "--folds", "loso", "--json", *work).output)
    assert report["settings"]["folds"] == ["03", "08", "11", "16"]
    merged = run(
        "prepare", "merge", tmp_path / "w" / "manifest.csv", *work, "--out", tmp_path / "m.csv"
    )
    assert merged.exit_code == 1
    assert "takes two manifests or more" in merged.output


def test_a_label_with_a_comma_can_be_named(tmp_path: Path) -> None:
    rows = ["audio,label,speaker"]
    for who in ("ann", "bob", "cyd"):
        for number, label in enumerate(("sad, tired", "joy", "calm")):
            write_wav(tmp_path / "c" / f"{who}{number}.wav")
            rows.append(f'{who}{number}.wav,"{label}",{who}')
    (tmp_path / "c" / "t.csv").write_text("\n".join(rows) + "\n")
    words = ("--labels", 'joy,"sad, tired"', "--work", tmp_path / "w")
    assert run("prepare", "csv", tmp_path / "c", *words).exit_code == 0
    assert read_manifest(tmp_path / "w" / "manifest.csv").labels == ("joy", "sad, tired")


def test_labels_are_named_in_one_option_or_in_several() -> None:
    assert label_names(("a, b", "c")) == label_names(("a", "b,c")) == ("a", "b", "c")
    assert label_names(('"x, y",z',)) == ("x, y", "z")


def test_quotation_marks_that_do_not_pair_up_are_refused() -> None:
    with pytest.raises(ConfigError, match="--labels"):
        label_names(('"a,b',))


def test_columns_corpus_and_language_are_told_by_options_of_their_own(tmp_path: Path) -> None:
    rows = ["the file, wav;emotion;who"]
    for who in ("ann", "bob", "cyd"):
        write_wav(tmp_path / "c" / f"{who}.wav")
        rows.append(f"{who}.wav;joy;{who}")
    (tmp_path / "c" / "t.csv").write_text("\n".join(rows) + "\n")
    words = ["prepare", "csv", tmp_path / "c", "--work", tmp_path / "w"]
    assert "--column label=emotion" in run(*words).output
    words += ["--column", "audio=the file, wav", "--column", "label=Emotion", "--column"]
    words += ["speaker=who", "--corpus", "mine", "--language", "no"]
    assert run(*words).exit_code == 0
    manifest = read_manifest(tmp_path / "w" / "manifest.csv")
    assert {(u.speaker, u.corpus, u.language) for u in manifest.utterances} == {
        (who, "mine", "no") for who in ("ann", "bob", "cyd")
    }


def test_another_corpus_is_written_over_only_where_told(corpus: Path, tmp_path: Path) -> None:
    write_wav(tmp_path / "c" / "joy" / "a.wav")
    work = ("--work", tmp_path / "w")
    assert run("prepare", "emodb", corpus, *work).exit_code == 0
    for number, label in enumerate(("joy", "calm", "sad")):
        write_wav(tmp_path / "c" / label / f"{number}.wav")
    refused = run("prepare", "folders", tmp_path / "c", *work)
    assert refused.exit_code == 1
    assert "the manifest of another corpus (emodb; " in refused.output
    assert run("prepare", "folders", tmp_path / "c", *work, "--replace").exit_code == 0


def test_an_option_of_another_corpus_is_refused(corpus: Path) -> None:
    result = run("prepare", "emodb", corpus, "--corpus", "mine")
    assert result.exit_code == 1
    assert "corpus 'emodb' has no option 'corpus'" in result.output
