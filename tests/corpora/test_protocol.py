"""Protocols: data that is complete, rows that follow it, defaults for later commands."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from corpora.arrangement import arrange
from corpora.base.command_options import Config, options, setting, with_defaults
from corpora.base.errors import ConfigError, ManifestError
from corpora.manifest import Manifest, read_manifest
from corpora.prepare import prepare
from corpora.protocol import (
    METRICS,
    Protocol,
    Scheme,
    SplitConfig,
    all_protocols,
    allows_refit,
    defaults,
    find_protocol,
    protocol_sentence,
    protocols_text,
    targets,
)
from corpora.readers.options import complete
from corpora.readers.registry import find_corpus
from corpora.splits import absent_speakers
from corpora.utterance import Utterance
from tests.corpora.fixture_trees import emodb, ravdess
from tests.corpora.people import people

PROTOCOLS = all_protocols()
ACTORS = [f"{number:02}" for number in range(1, 25)]


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_says_what_it_is_and_where_it_was_published(name: str) -> None:
    protocol = PROTOCOLS[name]
    assert all((protocol.title, protocol.source, protocol.metrics, protocol.corpora))
    assert set(protocol.metrics) <= set(METRICS)
    assert set(protocol.defaults) <= {"extract", "search", "finetune"}
    assert name in protocols_text()


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_is_for_corpora_and_options_that_there_are(name: str) -> None:
    for corpus, scheme in PROTOCOLS[name].corpora.items():
        complete(corpus, find_corpus(corpus).options, scheme.options)
        assert scheme.folds in ("own", "session", "speaker", "groups") or int(scheme.folds) > 2
        assert bool(scheme.groups) == (scheme.folds == "groups")


def test_an_unknown_protocol_names_the_close_match() -> None:
    with pytest.raises(ConfigError, match=r"no protocol 'emodb-los'\. Did you mean 'emodb-loso'"):
        find_protocol("emodb-los")


def test_a_protocol_for_another_corpus_is_refused() -> None:
    with pytest.raises(ConfigError, match="defined for emodb, not for ravdess"):
        find_protocol("emodb-loso").scheme("ravdess")


def test_the_published_ravdess_folds_hold_each_actor_once() -> None:
    groups = find_protocol("ravdess-6fold").scheme("ravdess").groups
    assert sorted(actor for group in groups for actor in group) == ACTORS
    assert {len(group) for group in groups} == {4}


def test_the_five_ranges_of_emo_superb_hold_each_actor_of_cremad_once() -> None:
    rows = people([str(number) for number in range(1001, 1092)], each=1, labels=("a",))
    made = arrange(rows, "cremad", SplitConfig(find_protocol("emo-superb")))
    assert list(made.folds.values()) == [18, 18, 18, 18, 19]
    assert made.settings["dev_fold"] == "2"


def splits_of(rows: tuple[Utterance, ...]) -> dict[str, set[str]]:
    homes: dict[str, set[str]] = {}
    for utterance in rows:
        homes.setdefault(utterance.speaker, set()).add(utterance.split)
    return homes


@pytest.mark.parametrize("number", range(5))
def test_each_session_is_tested_with_both_of_its_speakers(number: int) -> None:
    sessions = {f"{k}{sex}": str(k) for k in range(1, 6) for sex in "FM"}
    rows = people(list(sessions), sessions=sessions)
    wish = SplitConfig(find_protocol("iemocap-5fold"), test_fold=str(number + 1))
    made = arrange(rows, "iemocap", wish)
    homes = splits_of(made.utterances)
    assert {who for who, splits in homes.items() if splits == {"test"}} == {
        f"{number + 1}F",
        f"{number + 1}M",
    }
    assert all(len(splits) == 1 for splits in homes.values())
    assert all(u.fold == u.session for u in made.utterances)


def test_seeded_folds_of_a_protocol_repeat_and_are_noted() -> None:
    rows = people([str(number) for number in range(1001, 1021)])
    wish = SplitConfig(find_protocol("cremad-5fold"), seed=3)
    made = arrange(rows, "cremad", wish)
    assert arrange(rows, "cremad", wish) == made
    assert made.settings["seed"] == 3
    assert "seed 3" in made.how


def podcast() -> list[Utterance]:
    rows = []
    for split, each in (("train", 40), ("dev", 20), ("test", 5)):
        for label, count in (("neutral", each), ("fear", 2)):
            made = people([f"{split}1"], each=count, labels=(label,))
            rows += [replace(u, split=split) for u in made]
    return rows


def test_leygue_subsamples_train_and_balances_dev_and_leaves_test() -> None:
    made = arrange(podcast(), "msp_podcast", SplitConfig(find_protocol("leygue2025")))
    counts = {
        (split, label): sum(u.split == split and u.label == label for u in made.utterances)
        for split in ("train", "dev", "test", "")
        for label in ("neutral", "fear")
    }
    assert counts == {
        ("train", "neutral"): 16,
        ("train", "fear"): 2,
        ("dev", "neutral"): 2,
        ("dev", "fear"): 2,
        ("test", "neutral"): 5,
        ("test", "fear"): 2,
        ("", "neutral"): 42,
        ("", "fear"): 0,
    }
    assert made.removed == {"train": {"neutral": 24}, "dev": {"neutral": 18}}
    assert made.settings == {
        "max_imbalance": 8,
        "balanced_dev": True,
        "seed": 0,
        "metrics": ["macro_f1"],
    }


def test_a_protocol_with_the_corpus_own_splits_needs_them() -> None:
    with pytest.raises(ManifestError, match="no row here has one"):
        arrange(people(["a", "b", "c"]), "msp_podcast", SplitConfig(find_protocol("leygue2025")))


def test_a_test_fold_without_folds_is_refused() -> None:
    with pytest.raises(ConfigError, match="there are no folds"):
        arrange(people(["a", "b", "c"]), "c", SplitConfig(test_fold="2"))


def test_published_folds_of_all_speakers_are_as_published() -> None:
    groups = find_protocol("ravdess-6fold").scheme("ravdess").groups
    rows = people(sorted(actor for group in groups for actor in group))
    made = arrange(rows, "ravdess", SplitConfig(find_protocol("ravdess-6fold")))
    assert "as published" in made.how
    assert not made.notes
    crema = find_protocol("emo-superb").scheme("cremad").groups
    assert absent_speakers(people(["1001", "1090"]), crema)[:2] == ["1002", "1003"]
    assert len(absent_speakers(people(["1001", "1090"]), crema)) == 89


def test_folds_and_rows_left_out_do_not_go_together() -> None:
    wish = SplitConfig(find_protocol("emodb-loso"), max_imbalance=2)
    with pytest.raises(ConfigError, match="Take one or the other"):
        arrange(people(["a", "b", "c"]), "emodb", wish)


def test_prepare_writes_folds_protocol_and_settings(tmp_path: Path) -> None:
    ravdess(tmp_path / "ravdess")
    report = prepare(
        "ravdess",
        tmp_path / "ravdess",
        tmp_path / "work" / "manifest.csv",
        config=SplitConfig(find_protocol("ravdess-6fold"), test_fold="4"),
    )
    manifest = read_manifest(report.manifest)
    assert manifest.protocol == "ravdess-6fold"
    assert {u.speaker: (u.fold, u.split) for u in manifest.utterances} == {
        "01": ("1", "train"),
        "02": ("5", "dev"),
        "03": ("4", "test"),
        "04": ("2", "train"),
    }
    assert manifest.settings["test_fold"] == "4"
    assert "Rows by fold: 1 8, 2 8, 4 8, 5 8." in report.to_text()
    assert "as published" not in report.to_text()
    assert any(
        note.startswith("WARNING: 20 speakers of the published folds have no labelled recording")
        for note in report.notes
    )
    assert json.loads(json.dumps(report.to_json()))["protocol"] == "ravdess-6fold"


def test_prepare_takes_the_protocols_labels_unless_the_user_names_some(tmp_path: Path) -> None:
    emodb(tmp_path / "emodb")
    protocol = Protocol(
        "p", "t", "s", ("uar",), {"emodb": Scheme("speaker", labels=("sadness", "anger"))}
    )
    target = tmp_path / "work" / "manifest.csv"
    report = prepare("emodb", tmp_path / "emodb", target, config=SplitConfig(protocol))
    assert report.labels == ("sadness", "anger")
    report = prepare(
        "emodb", tmp_path / "emodb", target, config=SplitConfig(protocol), labels=("anger",)
    )
    assert report.labels == ("anger",)


def test_published_shared_speakers_are_declared_in_the_manifest(tmp_path: Path) -> None:
    emodb(tmp_path / "emodb")
    scheme = Scheme("speaker")
    protocol = Protocol("p", "t", "s", ("uar",), {"emodb": scheme}, shared_speakers=True)
    report = prepare(
        "emodb", tmp_path / "emodb", tmp_path / "manifest.csv", config=SplitConfig(protocol)
    )
    assert read_manifest(report.manifest).shared_speakers
    assert "share speakers, as declared" in " ".join(report.to_text().split())


def test_defaults_come_from_the_manifests_protocol() -> None:
    manifest = Manifest((), ("a",), "c", protocol="leygue2025")
    assert defaults(manifest, "search")["input_norm"] == "none"
    assert defaults(manifest, "finetune") == {
        "phases": "1,2,3",
        "head_patience": 5,
        "lr2": 3e-6,
        "lr3": 1e-6,
    }
    assert not allows_refit(manifest)
    assert allows_refit(replace(manifest, protocol="emodb-loso"))
    assert allows_refit(replace(manifest, protocol=""))
    assert defaults(manifest, "evaluate") == {}
    assert targets(manifest) == {}
    second = replace(manifest, protocol="msp-challenge-task2")
    assert targets(second) == {"targets": "attributes"}
    assert defaults(replace(manifest, protocol=""), "search") == {}
    assert defaults(replace(manifest, protocol="tomorrow's"), "search") == {}


def test_a_report_can_say_which_rows_it_is_about() -> None:
    settings = {"test_fold": "08", "folds": ["03", "08", "09"]}
    manifest = Manifest((), ("a",), "c", protocol="emodb-loso", settings=settings)
    assert protocol_sentence(manifest) == (
        "Protocol emodb-loso, tested on fold 08 of 3; it reports UA (mean recall), WA (accuracy)."
    )
    assert protocol_sentence(Manifest((), ("a",), "c", protocol="mine")) == "Protocol mine."
    assert protocol_sentence(Manifest((), ("a",), "c")) == ""


@dataclass(frozen=True)
class Rates(Config):
    lr2: float | None = setting(None)
    lr3: float = setting(9.0)


def rates(*words: str, environment: dict[str, str] | None = None) -> tuple[str, str]:
    """What a command with two options gets, and what it says."""

    @click.command(context_settings={"auto_envvar_prefix": "TEST"})
    @options(Rates)
    def command(config: Rates) -> None:
        merged = with_defaults(config, "Protocol p", {"lr2": 1.0, "lr3": 2.0})
        click.echo(json.dumps(asdict(merged)))

    result = CliRunner().invoke(command, words, env=environment)
    return result.stdout, result.stderr


def test_a_protocols_defaults_are_taken_and_told() -> None:
    values, told = rates()
    assert json.loads(values) == {"lr2": 1.0, "lr3": 2.0}
    assert told == "Protocol p sets: lr2 1.0, lr3 2.0 (your own options win).\n"


def test_the_users_own_options_win() -> None:
    values, told = rates("--lr3", "9.0", environment={"TEST_LR2": "5"})
    assert json.loads(values) == {"lr2": 5.0, "lr3": 9.0}
    assert told == ""
