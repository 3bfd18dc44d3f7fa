"""The search over heads that weigh layers: the axis, published heads, memory, records."""

from __future__ import annotations

import json
from pathlib import Path

import optuna
import pytest

from corpora.base.errors import ConfigError
from heads.axes import Choice
from heads.head import Head
from heads.predict import predict
from heads.records import Origin, layer_weights, load_head, trial_file
from heads.search.layer_axes import weighing_notes
from heads.search.space import PROBES, Space, start_params, trial_configs
from heads.search.space_file import narrow
from heads.vector_store import VectorStore
from tests.heads.searches import BEGINNINGS, make_origin, small_dataset, small_search, stored_trials
from tests.heads.synthetic import make_dataset, with_lower

DIM = 16
KINDS = ["average", "statistics"]
TOP = {"audio": 4, "text": 2}


def test_a_modality_with_one_layer_is_read_as_ever_beside_one_that_is_weighed() -> None:
    space = Space.of(with_lower(make_dataset(6)))
    params = {**start_params(space)[0]["statistics"], "layers": "weighted"}
    head, _ = trial_configs(optuna.trial.FixedTrial(params), space, seed=0)
    assert head.pooling["audio"] == {"kind": "statistics", "layers": 3}
    assert head.pooling["text"] == {"kind": "statistics"}
    assert dict(head.dims) == {"audio": 3 * DIM, "text": DIM}


@pytest.mark.parametrize("tied", [True, False])
def test_the_axis_is_there_where_several_layers_are_cached_alone(tied: bool) -> None:
    plain, several = make_dataset(6), with_lower(make_dataset(6))
    assert not any(
        name.endswith("layers") and "scorer" not in name for name in Space.of(plain, tied=tied).axes
    )
    found = {name for name in Space.of(several, tied=tied).axes if "scorer" not in name}
    assert {name for name in found if name.endswith("layers")} == {
        "layers" if tied else "audio_layers"
    }


@pytest.mark.parametrize("tied", [True, False])
def test_only_average_and_statistics_of_such_a_modality_weigh_layers(tied: bool) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = Space.of(with_lower(make_dataset(6)), tied=tied)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen = set()
    for _ in range(80):
        trial = study.ask()
        drawn = trial_configs(trial, space, seed=0)
        head = drawn[0]
        Head(head)
        study.tell(trial, 0.0)
        assert trial_configs(study.trials[-1], space, seed=0) == drawn
        for name in head.modalities:
            kind = head.pooling[name]["kind"]
            seen.add((name, kind, head.layers(name)))
            if name == "text" or kind not in KINDS:
                assert head.layers(name) == 1
    assert {("audio", kind, layers) for kind in KINDS for layers in (1, 3)} <= seen


def test_starts_read_the_highest_layer() -> None:
    space = Space.of(with_lower(make_dataset(6)))
    params, notes = start_params(space)
    assert list(params) == list(BEGINNINGS)
    assert notes == ()
    for values in params.values():
        head, _ = trial_configs(optuna.trial.FixedTrial(values), space, seed=0)
        assert head.layers("audio") == 1


def test_a_space_fixed_to_weighing_leaves_published_poolings_of_one_layer_out() -> None:
    space = narrow(Space.of(with_lower(make_dataset(6))), {"layers": "weighted"}, "space.toml")
    assert space.axes["layers"] == Choice(("weighted",))
    params, notes = start_params(space)
    left_out = [*PROBES, *KINDS]
    assert list(params) == [name for name in BEGINNINGS if name not in left_out]
    assert notes == (f"Starting configurations outside the narrowed space: {', '.join(left_out)}.",)


def test_the_axis_of_a_space_without_layers_to_weigh_is_refused_with_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"no axis 'layers'\. It needs several cached layers"):
        narrow(Space.of(make_dataset(6)), {"layers": "weighted"}, "space.toml")


def test_a_pooling_whose_vectors_are_too_large_does_not_weigh(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dataset = with_lower(make_dataset(6))
    every = weighing_notes(dataset, TOP, Space.of(dataset).axes)
    assert every == [
        "Heads read one of audio layers 1, 3 and 4 (axis `audio_layer`).",
        "Heads of average and statistics may weigh audio layers 1, 3 and 4 (axis `layers`).",
    ]
    average, statistics = 3 * 3 * DIM * 6 * 4, (3 * 3 + 2 * 6) * DIM * 6 * 4
    monkeypatch.setattr("heads.search.layer_axes.MOST_BYTES", statistics - 1)
    assert Space.of(dataset).weighable == ("average",)
    assert (
        "statistics does not weigh layers here"
        in weighing_notes(dataset, TOP, Space.of(dataset).axes)[2]
    )
    monkeypatch.setattr("heads.search.layer_axes.MOST_BYTES", average - 1)
    assert "layers" not in Space.of(dataset).axes
    with pytest.raises(ConfigError, match=r"too large to be weighed: .* Extract fewer"):
        narrow(Space.of(dataset), {"layers": "weighted"}, "space.toml")


def test_nothing_is_said_of_weighing_where_the_space_was_narrowed_to_the_top_layer() -> None:
    dataset = with_lower(make_dataset(6))
    space = narrow(Space.of(dataset), {"layers": "top", "audio_layer": 4}, "space.toml")
    assert weighing_notes(dataset, TOP, space.axes) == []


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search whose space is fixed to weighing, on layers 1, 3 and 4."""
    folder = tmp_path_factory.mktemp("search") / "search"
    space = folder.with_name("space.toml")
    space.write_text(
        'layers = "weighted"\npooling = ["average", "statistics"]\nmodalities = "audio+text"\n'
    )
    report = small_search(folder, 6, dataset=with_lower(small_dataset()), space=space, epochs=3)
    text = report.to_text()
    assert "Layer weights: audio 1: 0." in text
    assert "audio tiny layers 1, 3 and 4, text tiny layer 2" in text
    assert "of weighted layers" in text
    return folder


def test_a_search_keeps_heads_that_weigh_layers(searched: Path) -> None:
    head, record = load_head(searched)
    assert record.params["layers"] == "weighted"
    assert record.origin.layers == {"audio": (1, 3, 4), "text": 2}
    assert record.layer_weights == layer_weights(head)
    best = json.loads((searched / "best.json").read_text())
    assert best["layers"] == {"audio": [1, 3, 4], "text": 2}
    assert sum(best["layer_weights"]["audio"]) == pytest.approx(1)
    header, *rows = (searched / "trials.csv").read_text().splitlines()
    assert "layers" in header.split(",")
    assert all("weighted" in row for row in rows)


def test_the_kept_head_says_what_was_recorded(searched: Path) -> None:
    dataset = with_lower(small_dataset())
    head, record = load_head(searched)
    rows = dataset.rows("dev")
    said = predict([head], VectorStore(dataset), rows)[0].argmax(dim=1)
    right = float((said == dataset.targets(rows)).double().mean())
    assert record.scores["dev"].accuracy == pytest.approx(right)


def test_a_search_goes_on_over_the_same_layers_alone(searched: Path) -> None:
    fixed = {"space": searched.with_name("space.toml"), "epochs": 3}
    small_search(searched, 6, dataset=with_lower(small_dataset()), **fixed)
    assert len(stored_trials(searched)) == 6
    with pytest.raises(ConfigError, match="lower layers"):
        small_search(searched, 7, dataset=with_lower(small_dataset(), (2, 3)), **fixed)


def test_heads_of_one_layer_in_the_same_search_say_so(tmp_path: Path) -> None:
    small_search(tmp_path, 2, dataset=with_lower(small_dataset()), epochs=1)
    record = load_head(trial_file(tmp_path, 0))[1]
    assert record.start == "linear average standardise decay 0.01"
    assert record.params["layers"] == "top"
    assert record.origin.layers == make_origin().layers
    assert record.layer_weights == {}


def test_records_of_one_layer_from_before_are_read(searched: Path) -> None:
    value = json.loads((searched / "best.json").read_text())
    before = {**value, "layers": {"audio": 4, "text": 2}}
    assert Origin.from_json(before).layers == {"audio": 4, "text": 2}
    with pytest.raises(ValueError, match="expected one number, or several that ascend"):
        Origin.from_json({**value, "layers": {"audio": [4, 1]}})
