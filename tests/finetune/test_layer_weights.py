"""A head that weighs layers, from the search through fine-tuning to predictions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from cache.audio import load_audio
from cache.last_extraction import write_extraction
from cache.lookup import FrameCache
from cache.recipe import LayersRead, layer_numbers
from corpora.base.errors import CacheError, ConfigError
from corpora.base.work import Work
from corpora.manifest import Manifest
from finetune.assembly import assemble, build_model
from finetune.batches import gather_examples
from finetune.boundary import open_boundary
from finetune.config import FinetuneConfig
from finetune.finetune import run_finetune
from finetune.model import EmotionModel
from finetune.model_directory import read_model_config
from finetune.phases import PhaseConfig, StepConfig, trainable_parts, unfreeze
from finetune.predict.answering import predict
from finetune.predict.prediction import Prediction
from finetune.session import agreement
from finetune.starting_head import retrain, starting_head
from finetune.steps import Trainer
from heads.config import SearchConfig
from heads.dataset import Dataset
from heads.head import Head, HeadConfig
from heads.load import load_dataset
from heads.pooling.fixed import LayerWeightedPooling
from heads.records import BEST, layer_weights, load_head, trial_file
from heads.search import search
from heads.search.search import run_search
from tests.finetune.conftest import Searched, make_work
from tests.finetune.corpus import DIMS, LABELS
from tests.finetune.scoring import evaluate_head, evaluate_model
from tests.finetune.searched import copy_work

READ: dict[str, LayersRead] = {"audio": (0, 1, 2, 3), "text": (0, 1, 2, 3)}
SPACE = """
layers = "weighted"
pooling = "statistics"
modalities = "audio+text"
learning_rate = { low = 1e-3, high = 3e-3 }
"""


def weighing_head(
    kind: str, read: dict[str, LayersRead] = READ, norm: str = "none", seed: int = 1
) -> Head:
    """A head whose layers do not count the same."""
    counts = {name: len(layer_numbers(own)) for name, own in read.items()}
    config = HeadConfig(
        labels=LABELS,
        dims={name: DIMS[name] * counts[name] for name in read},
        pooling={
            name: {"kind": kind, **({"layers": n} if n > 1 else {})} for name, n in counts.items()
        },
        input_norm=norm,
        mlp_width=16,
    )
    head = Head(config, seed)
    generator = torch.Generator().manual_seed(seed)
    for pooling in head.poolings.values():
        if isinstance(pooling, LayerWeightedPooling):
            nn.init.normal_(pooling.layer_scores, generator=generator)
    return head


@pytest.fixture(scope="module")
def weighed(tmp_path_factory: pytest.TempPathFactory, encoders: Path, manifest: Manifest) -> Work:
    """A work folder with all layers in float32 and a search of heads that weigh them."""
    root = tmp_path_factory.mktemp("weighed")
    work, _ = make_work(root, encoders, manifest, "float32")
    space = root / "space.toml"
    space.write_text(SPACE)
    run_search(work, manifest, SearchConfig(trials=12, epochs=3, folds="off", space=space))
    return work


@pytest.fixture(scope="module")
def model(weighed: Work) -> EmotionModel:
    return build_model(FrameCache(weighed), weighed.search / BEST, "cpu", "fp32")[0]


@pytest.mark.parametrize("norm", ["none", "layernorm", "standardise"])
@pytest.mark.parametrize("kind", ["average", "statistics"])
def test_logits_on_raw_input_equal_those_on_cached_frames(
    kind: str, norm: str, cached: tuple[Work, str], manifest: Manifest
) -> None:
    work, dtype = cached
    read: dict[str, LayersRead] = {"audio": (0, 2), "text": 1}
    head = weighing_head(kind, read, norm)
    if norm == "standardise":
        for name, dim in head.config.dims.items():
            head.set_input_statistics(name, torch.linspace(-1, 1, dim), torch.full((dim,), 0.8))
    collection = FrameCache(work).find(manifest, ("audio", "text"), layers=read)
    some = manifest.utterances[:8]
    directories = {name: work.encoders / f"tiny-{name}" for name in read}
    assembled = assemble(head, directories, read, speech_dtype=dtype)
    with torch.no_grad():
        expected = head({n: f.select(range(8)) for n, f in collection.all_layers().items()})
        found = assembled([load_audio(u.audio) for u in some], [u.text for u in some])
    near = 2e-4 if dtype == "float32" else 3e-2
    torch.testing.assert_close(found, expected, atol=near, rtol=0)


def test_the_assembled_model_says_what_the_head_says_before_any_step(
    weighed: Work, model: EmotionModel, manifest: Manifest
) -> None:
    record = load_head(weighed.search)[1]
    assert record.origin.layers == READ
    dev = gather_examples(model, manifest.in_split("dev"), {})[0]
    same, _, count = agreement(FrameCache(weighed), manifest, model, record, dev, 400)
    assert same == count == len(dev)


def test_layers_above_the_highest_that_is_weighed_are_left_out(encoders: Path) -> None:
    read: dict[str, LayersRead] = {"audio": (0, 2)}
    head = weighing_head("average", read)
    made = assemble(head, {"audio": encoders / "tiny-audio"}, read)
    assert made.audio_encoder is not None
    assert made.audio_encoder.layers == 2


def test_numbers_of_layers_that_do_not_fit_the_head_are_refused(encoders: Path) -> None:
    head = weighing_head("average", {"audio": (0, 2)})
    with pytest.raises(ConfigError, match=r"weighs 2 audio layers, and 3 are named \(0, 1, 2\)"):
        assemble(head, {"audio": encoders / "tiny-audio"}, {"audio": (0, 1, 2)})


def test_phase_2_counts_from_the_highest_layer_and_trains_the_weights(model: EmotionModel) -> None:
    parts = trainable_parts(model, 2)
    assert [(part.module, part.layers) for part in parts] == [
        ("audio encoder", "layer 3"),
        ("text encoder", "layer 3"),
        ("head", "all"),
    ]
    assert {"head.poolings.audio.layer_scores", "head.poolings.text.layer_scores"} <= set(
        parts[-1].parameters
    )


def losses(work: Work, manifest: Manifest, *, boundary: bool, layers: int) -> list[float]:
    """Of the first steps of phase 2, with so many layers trained."""
    torch.manual_seed(0)
    model, _ = build_model(FrameCache(work), work.search / BEST, "cpu", "fp32")
    found = None
    if boundary:
        found, told = open_boundary(
            FrameCache(work), manifest, model, layers, stored_dtype="float32", device="cpu"
        )
        assert found is not None, told
        below = " and ".join(f"{name} layers {told_layers(layers)}" for name in ("audio", "text"))
        assert told == [f"Trains from cached hidden states: {below}, float32."]
    parts = trainable_parts(model, 2, layers)
    unfreeze(model, parts)
    train = gather_examples(model, manifest.in_split("train"), {})[0]
    steps = StepConfig(frame_budget=200)
    trainer = Trainer(model, parts, PhaseConfig(2, 1e-3, epochs=3), steps, train, None, found)
    rows = [row for epoch in range(1, 4) for row in trainer.run_epoch(epoch)]
    return [row.loss for row in rows[:10] if row.loss is not None]


def told_layers(trained: int) -> str:
    return {1: "0, 1 and 2", 2: "0 and 1"}[trained]


@pytest.mark.parametrize("layers", [1, 2])
def test_losses_from_cached_lower_layers_equal_those_from_recordings(
    layers: int, weighed: Work, manifest: Manifest, tmp_path: Path
) -> None:
    work = copy_work(weighed, tmp_path / "work")
    found = losses(work, manifest, boundary=True, layers=layers)
    assert found == pytest.approx(losses(work, manifest, boundary=False, layers=layers), abs=1e-4)


def test_a_model_comes_back_with_its_layers_and_weights(
    model: EmotionModel, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path / "model")
    config = read_model_config(tmp_path / "model")
    assert config["layers"] == {"audio": [0, 1, 2, 3], "text": [0, 1, 2, 3]}
    assert config["layer_weights"]["audio"] == pytest.approx(layer_weights(model.head)["audio"])
    assert "hidden states with learnt weights: 0: 0." in (tmp_path / "model/README.md").read_text()
    again = EmotionModel.from_pretrained(tmp_path / "model")
    assert again.layers == READ
    noise = torch.rand(8_000, generator=torch.Generator().manual_seed(0)) - 0.5
    with torch.no_grad():
        torch.testing.assert_close(again([noise], ["stop"]), model([noise], ["stop"]))


def test_predictions_from_recordings_are_those_of_cached_frames(
    weighed: Work, model: EmotionModel, manifest: Manifest, tmp_path: Path
) -> None:
    work = copy_work(weighed, tmp_path / "work")
    evaluation = evaluate_head(work, manifest, "test")
    assert "Layer weights: audio 0: 0." in evaluation.to_text()
    rows = [u for u in manifest.in_split("test") if u.label]
    answers = list(predict([model], rows))
    table = (evaluation.folder / "predictions.csv").read_text().splitlines()
    header = table[0].split(",")
    for answer, line in zip(answers, table[1:], strict=True):
        cached = dict(zip(header, line.split(","), strict=True))
        assert isinstance(answer, Prediction)
        for label, value in answer.probabilities.items():
            assert value == pytest.approx(float(cached[f"p_{label}"]), abs=1e-4)


def test_fine_tuning_ends_in_a_model_that_says_its_weights(
    weighed: Work, manifest: Manifest, tmp_path: Path
) -> None:
    work = copy_work(weighed, tmp_path / "work")
    said: list[str] = []
    config = FinetuneConfig(epochs=1, frame_budget=400, device="cpu")
    report = run_finetune(work, manifest, config, tell=said.append)
    assert "audio layers 0, 1 and 2" in "\n".join(said)
    assert report.phases[1].start.loss == pytest.approx(report.phases[0].best.loss, abs=2e-3)
    assert "Layer weights: audio 0: 0." in report.to_text()
    value = json.loads((work.evaluation / "model-test" / "report.json").read_text())
    assert value["layers"]["audio"] == [0, 1, 2, 3]
    assert sum(value["layer_weights"]["text"]) == pytest.approx(1)
    assert evaluate_model(work, manifest).report == report.model.report  # type: ignore[union-attr]


def test_a_head_is_trained_again_from_its_seed_on_the_same_layers(
    weighed: Work, manifest: Manifest
) -> None:
    head, record = load_head(weighed.search)
    found = retrain(FrameCache(weighed), manifest, record).head.state_dict()
    assert all(torch.equal(value, found[name]) for name, value in head.state_dict().items())


def test_a_trial_that_was_not_kept_is_trained_again_on_its_layers(
    weighed: Work, manifest: Manifest, tmp_path: Path
) -> None:
    work = copy_work(weighed, tmp_path / "work")
    kept = trial_file(work.search, load_head(work.search)[1].trial)
    expected, record = load_head(kept)
    for path in (kept, kept.with_suffix(".safetensors")):
        path.unlink()
    head, again = load_head(starting_head(work, manifest, kept))
    assert again.origin == record.origin
    assert all(
        torch.equal(value, head.state_dict()[name]) for name, value in expected.state_dict().items()
    )


def test_a_trial_of_a_study_without_the_axis_is_trained_again_on_its_layer(
    searched: Searched, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of_one_layer(*names: Any, **options: Any) -> Dataset:
        return load_dataset(*names, **{**options, "others": False})

    work = copy_work(searched.work, tmp_path / "work")
    monkeypatch.setattr(search, "load_dataset", of_one_layer)
    run_search(work, manifest, SearchConfig(trials=1, epochs=1, folds="off"), fresh=True)
    kept = trial_file(work.search, 0)
    expected = load_head(kept)[0].state_dict()
    for path in (kept, kept.with_suffix(".safetensors")):
        path.unlink()
    found = load_head(starting_head(work, manifest, kept))[0].state_dict()
    assert all(torch.equal(value, found[name]) for name, value in expected.items())
    monkeypatch.undo()
    with pytest.raises(ConfigError, match="axis layers: null"):
        run_search(work, manifest, SearchConfig(trials=2, epochs=1, folds="off"))


def test_layers_that_the_last_extraction_did_not_make_are_missed(
    weighed: Work, manifest: Manifest, tmp_path: Path
) -> None:
    work = copy_work(weighed, tmp_path / "work")
    extraction = FrameCache(work).extraction
    fewer = {
        kind: replace(source, layers=tuple(n for n in source.layers if n != 1))
        for kind, source in extraction.sources.items()
    }
    write_extraction(work.extraction, replace(extraction, sources=fewer))
    with pytest.raises(CacheError, match="layer 1 of tiny was not extracted"):
        evaluate_head(work, manifest, "test")
    with pytest.raises(ConfigError, match="layer 1 of the audio encoder is needed"):
        retrain(FrameCache(work), manifest, load_head(work.search)[1])
