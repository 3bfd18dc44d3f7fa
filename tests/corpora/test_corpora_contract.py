"""What every registered corpus reader must do, on its fixture tree."""

from __future__ import annotations

from pathlib import Path

import pytest

from corpora.base.errors import ConfigError, CorpusError
from corpora.manifest import Manifest, check_manifest, read_manifest, write_manifest
from corpora.prepare import prepare
from corpora.readers import registry
from corpora.readers.registry import (
    all_corpora,
    corpora_text,
    find_corpus,
    parse_options,
    read_corpus,
    register,
)
from corpora.utterance import SEXES, SPLITS, speaker_key
from tests.corpora.fixture_trees import TREES, Expected

NAMES = [reader.name for reader in all_corpora()]


@pytest.fixture(params=NAMES)
def corpus(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path, Expected]:
    root = tmp_path / "corpus"
    root.mkdir()
    return request.param, root, TREES[request.param](root)


def test_every_reader_has_a_fixture_tree() -> None:
    assert set(NAMES) == set(TREES)


@pytest.mark.parametrize("name", NAMES)
def test_it_says_what_it_is_and_where_to_get_it(name: str) -> None:
    reader = find_corpus(name)
    assert reader.name == name
    assert all((reader.title, reader.licence, reader.source, reader.needs))
    assert all(option.help for option in reader.options.values())
    assert reader.licence in corpora_text()


def test_it_finds_what_the_tree_holds(corpus: tuple[str, Path, Expected]) -> None:
    name, root, expected = corpus
    result = read_corpus(name, root)
    assert len(result.utterances) == expected.utterances
    assert len(result.dropped) == expected.dropped
    assert result.labels == expected.labels
    assert {u.speaker for u in result.utterances} == expected.speakers
    assert result.scales == expected.scales


def test_utterances_are_complete_and_valid(corpus: tuple[str, Path, Expected]) -> None:
    name, root, _ = corpus
    result = read_corpus(name, root)
    for utterance in result.utterances:
        assert utterance.audio.is_absolute()
        assert utterance.audio.is_file()
        assert utterance.alignment is None or utterance.alignment.is_file()
        assert utterance.label in ("", *result.labels)
        assert utterance.split in ("", *SPLITS)
        assert utterance.sex in ("", *SEXES)
        assert utterance.corpus


def test_ratings_stand_on_the_scale_the_reader_states(corpus: tuple[str, Path, Expected]) -> None:
    name, root, _ = corpus
    result = read_corpus(name, root)
    for utterance in result.utterances:
        for attribute in ("valence", "arousal", "dominance"):
            value = getattr(utterance, attribute)
            low, high = result.scales.get(attribute, (None, None))
            assert value is None or (low is not None and low <= value <= high)


def test_every_value_of_every_option_is_read(corpus: tuple[str, Path, Expected]) -> None:
    name, root, _ = corpus
    for option, declared in find_corpus(name).options.items():
        values = (True, False) if isinstance(declared.default, bool) else declared.choices
        for value in values:
            result = read_corpus(name, root, {option: value})
            assert {u.label for u in result.utterances} <= {"", *result.labels}


def test_ids_are_unique(corpus: tuple[str, Path, Expected]) -> None:
    name, root, expected = corpus
    result = read_corpus(name, root)
    assert len({u.id for u in result.utterances}) == expected.utterances


def test_dropped_things_have_a_place_and_a_reason(corpus: tuple[str, Path, Expected]) -> None:
    name, root, _ = corpus
    assert all(item.where and item.reason for item in read_corpus(name, root).dropped)


def test_reading_twice_gives_the_same(corpus: tuple[str, Path, Expected]) -> None:
    name, root, _ = corpus
    assert read_corpus(name, root) == read_corpus(name, root)


def test_what_is_read_survives_a_manifest(
    corpus: tuple[str, Path, Expected], tmp_path: Path
) -> None:
    name, root, _ = corpus
    result = read_corpus(name, root)
    manifest = Manifest(
        result.utterances,
        result.labels,
        name,
        shared_speakers=result.shared_speakers,
        synthetic=result.synthetic,
        scales=result.scales,
    )
    check_manifest(manifest, "here")
    write_manifest(manifest, tmp_path / "work" / "manifest.csv")
    assert read_manifest(tmp_path / "work" / "manifest.csv") == manifest


def test_prepare_fills_every_split_with_speakers_of_its_own(
    corpus: tuple[str, Path, Expected], tmp_path: Path
) -> None:
    name, root, _ = corpus
    report = prepare(name, root, tmp_path / "work" / "manifest.csv")
    manifest = read_manifest(report.manifest)
    homes = [{speaker_key(u) for u in manifest.in_split(split)} - {None} for split in SPLITS]
    assert all(homes)
    assert manifest.shared_speakers or len(set().union(*homes)) == sum(map(len, homes))


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_root_says_what_was_looked_for(name: str, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"Looked for .* found nothing") as error:
        read_corpus(name, tmp_path)
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_root_says_what_was_found(name: str, tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(CorpusError, match=r"Looked for .* found holiday\.jpg"):
        read_corpus(name, tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_an_absent_root_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="absent does not exist"):
        read_corpus(name, tmp_path / "absent")


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_option_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no option 'colour'"):
        read_corpus(name, tmp_path, {"colour": "red"})


def test_an_unknown_corpus_names_the_close_match() -> None:
    with pytest.raises(CorpusError, match=r"no corpus 'emdb'\. Did you mean 'emodb'"):
        find_corpus("emdb")


def test_a_name_registered_twice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_READERS", dict(registry._READERS))
    reader = find_corpus("emodb")
    with pytest.raises(ValueError, match="'emodb' is registered twice"):
        register("emodb", title="t", licence="l", source="s", needs="n")(reader.read)


@pytest.mark.parametrize(
    ("value", "message"),
    [("Test4", "expected one of Test1, Test2, Test3, or several"), ("Test1,test2", "Did you mean")],
)
def test_a_value_that_an_option_does_not_take_names_the_choices(
    tmp_path: Path, value: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        read_corpus("msp_podcast", tmp_path, {"test": value})


def test_the_list_shows_choices_and_defaults() -> None:
    assert "labels=4|6|all: " in corpora_text()
    assert "(default: 4)" in corpora_text()


def test_a_hyphen_in_the_name_of_a_setting_is_an_underscore() -> None:
    assert parse_options("cremad", ("label-source=voice",)) == {"label_source": "voice"}


def test_settings_become_options() -> None:
    settings = ("allow_outside=true", "shared_speakers = no")
    assert parse_options("csv", settings) == {"allow_outside": True, "shared_speakers": False}


@pytest.mark.parametrize(
    "setting", ["allow_outside", "=true", "allow_outside=", "alow_outside=true"]
)
def test_a_malformed_or_unknown_setting_is_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match=r"allow_outside|NAME=VALUE"):
        parse_options("csv", (setting,))
