"""Heads that read another cached layer than the usual one: in training, search and records."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from optuna.trial import FixedTrial

from cache.frames import Frames
from corpora.base.errors import ConfigError
from heads.dataset import Dataset
from heads.head import Head, HeadConfig
from heads.predict import predict
from heads.records import load_head, origin_of_head
from heads.search.space import Space, start_params, trial_configs
from heads.search.space_file import narrow
from heads.training import Cohort, Schedule, TrainingConfig
from heads.vector_store import VectorStore
from tests.heads.searches import make_origin, small_dataset, small_search
from tests.heads.synthetic import LABELS, make_configs, make_dataset

KINDS = range(len(make_configs()))


def several(dataset: Dataset, usual: int = 2) -> Dataset:
    """The same with noise as layers 1 and 3; the usual one lies between them."""
    generator = torch.Generator().manual_seed(3)
    own = dataset.frames["audio"]
    assert isinstance(own, Frames)
    others = {
        layer: replace(own, values=layer + torch.randn(own.values.shape, generator=generator))
        for layer in (1, 3)
    }
    return replace(dataset, others={"audio": others}, layers={"audio": usual})


def trained(
    dataset: Dataset, configs: list[HeadConfig], members: list[int] | None = None
) -> torch.Tensor:
    """Probabilities of some heads after three epochs, each with a seed of its own."""
    numbers = list(range(len(configs))) if members is None else members
    store = VectorStore(dataset)
    heads = [Head(configs[k], k) for k in numbers]
    training = [TrainingConfig(1e-3, seed=k) for k in numbers]
    cohort = Cohort(heads, training, store, dataset.rows("train"), Schedule(3, 10))
    for _ in range(3):
        cohort.run_epoch()
    return predict(cohort.heads, store, dataset.rows("dev"))


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_a_head_on_another_layer_is_what_it_would_be_if_that_were_the_only_one(layer: int) -> None:
    """Every kind of pooling, speech-only averages among them, and every normalisation."""
    dataset = several(make_dataset())
    frames = dataset.one_layer("audio", layer)
    alone = replace(make_dataset(), frames={**dataset.frames, "audio": frames})
    shapes = [replace(shape, layer={"audio": layer}) for shape in make_configs()]
    torch.testing.assert_close(
        trained(dataset, shapes), trained(alone, make_configs()), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("kind", KINDS)
def test_company_on_other_layers_changes_nothing(kind: int) -> None:
    dataset = several(make_dataset())
    shape = make_configs()[kind]
    shapes = [replace(shape, layer={"audio": layer}) for layer in (1, 2, 3)]
    together = trained(dataset, shapes)
    for k in range(3):
        torch.testing.assert_close(trained(dataset, shapes, [k])[0], together[k], atol=1e-4, rtol=0)


def test_a_layer_that_is_not_there_is_refused() -> None:
    dataset = several(make_dataset())
    shape = replace(make_configs()[0], layer={"audio": 7})
    with pytest.raises(ConfigError, match="reads audio layer 7, and there are 1, 2, 3"):
        trained(dataset, [shape])


def test_every_kind_draws_its_layer_and_those_that_weigh_do_not() -> None:
    space = Space.of(several(make_dataset()))
    assert space.axes["audio_layer"].values == (1, 2, 3)  # type: ignore[union-attr]
    assert "text_layer" not in space.axes
    published, _ = start_params(space)
    for name, params in published.items():
        assert params["audio_layer"] == 2, name
        head, _ = trial_configs(FixedTrial({**params, "audio_layer": 3}), space, 0)
        assert head.layer == {"audio": 3}
    weighed = {**published["average"], "layers": "weighted"}
    head, _ = trial_configs(FixedTrial(weighed), space, 0)
    assert head.layer == {}
    assert head.layers("audio") == 3


def test_a_space_file_can_name_the_layer() -> None:
    space = narrow(Space.of(several(make_dataset())), {"audio_layer": [1, 3]}, "space.toml")
    assert space.axes["audio_layer"].values == (1, 3)  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match=r"needs several cached layers"):
        narrow(Space.of(make_dataset()), {"audio_layer": 1}, "space.toml")


def test_the_origin_of_a_head_names_its_layer_and_its_stream() -> None:
    dataset = several(make_dataset())
    origin = make_origin(
        layers={"audio": 2, "text": 2},
        streams={"audio": "audio-0/layer_2", "text": "text-0/layer_2", "speech": "speech-0/values"},
    )
    shape = replace(make_configs()[0], layer={"audio": 3})
    found = origin_of_head(origin, dataset, shape)
    assert found.layers["audio"] == 3
    assert found.streams["audio"] == "audio-0/layer_3"
    assert found.streams["speech"] == "speech-0/values"


def test_a_search_finds_the_layer_that_carries_the_class(tmp_path: Path) -> None:
    """The usual layer is noise; layer 3 is what the class can be read from."""
    plain = small_dataset()
    own = make_dataset(60, dim=8, signal=2.0).frames["audio"]
    assert isinstance(own, Frames)
    generator = torch.Generator().manual_seed(0)
    noise = replace(own, values=torch.randn(own.values.shape, generator=generator))
    dataset = replace(
        plain,
        frames={"audio": noise},
        others={"audio": {1: noise, 3: own}},
        layers={"audio": 2},
    )
    origin = make_origin(
        encoders={"audio": "tiny"}, layers={"audio": 2}, streams={"audio": "audio-0/layer_2"}
    )
    folder = tmp_path / "search"
    space = tmp_path / "space.toml"
    space.write_text('learning_rate = 3e-3\npooling = "statistics"\n')
    report = small_search(folder, 30, dataset=dataset, origin=origin, space=space, epochs=27)
    head, record = load_head(folder)
    assert head.config.layer == {"audio": 3}
    assert record.origin.layers == {"audio": 3}
    assert record.origin.streams == {"audio": "audio-0/layer_3"}
    assert "audio tiny layer 3" in report.to_text()


def test_heads_from_before_the_axis_are_read() -> None:
    value = make_configs()[0].to_json()
    del value["layer"]
    assert HeadConfig.from_json(value).layer == {}
    assert HeadConfig.from_json(value).labels == LABELS
