"""Which parameters a phase trains."""

from __future__ import annotations

from pathlib import Path

import pytest

from corpora.base.errors import ConfigError
from finetune.phases import (
    format_table,
    trainable_parts,
    trainable_table,
    unfreeze,
    used_parameters,
)
from tests.finetune.corpus import make_model

RELATIVE = (
    "text_encoder.model.encoder.rel_embeddings.weight",
    "text_encoder.model.encoder.LayerNorm.weight",
)


def trainable(encoders: Path, phase: int, unfreeze_layers: int | None = None) -> set[str]:
    """Names of what a phase trains in a fresh model."""
    model = make_model(encoders)
    unfreeze(model, trainable_parts(model, phase, unfreeze_layers))
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_phase_2_trains_the_top_quarter_of_the_layers_but_at_least_one(encoders: Path) -> None:
    upper = ("audio_encoder.model.encoder.layers.2.", "text_encoder.model.encoder.layer.2.")
    model = make_model(encoders)
    expected = {n for n, _ in model.named_parameters() if n.startswith((*upper, "head."))}
    assert trainable(encoders, 2) == expected


def test_phase_2_trains_as_many_layers_as_asked_for(encoders: Path) -> None:
    names = {n for n in trainable(encoders, 2, 2) if n.startswith("text_encoder")}
    prefix = "text_encoder.model.encoder.layer."
    assert {name.removeprefix(prefix)[0] for name in names} == {"1", "2"}


def test_phase_2_with_no_layers_trains_the_head(encoders: Path) -> None:
    assert all(name.startswith("head.") for name in trainable(encoders, 2, 0))


def test_more_layers_than_there_are_means_all_layers_and_nothing_below(encoders: Path) -> None:
    names = trainable(encoders, 2, 99)
    assert all("encoder.layer" in name or name.startswith("head.") for name in names)
    assert "audio_encoder.model.encoder.layers.0.ffn1.intermediate_dense.weight" in names


def test_relative_embeddings_wait_for_phase_3(encoders: Path) -> None:
    assert not set(RELATIVE) & trainable(encoders, 2, 99)
    assert set(RELATIVE) < trainable(encoders, 3)


def test_phase_3_trains_everything(encoders: Path) -> None:
    model = make_model(encoders)
    assert trainable(encoders, 3) == {name for name, _ in model.named_parameters()}


def test_the_detector_is_never_trained(encoders: Path) -> None:
    model = make_model(encoders, {"kind": "vad_average"})
    names = {name for part in trainable_parts(model, 3) for name in part.parameters}
    assert model.detector is not None
    assert not any(name.startswith("detector.") for name in names)


def test_a_head_on_the_lowest_state_leaves_the_layers_above_untrained(encoders: Path) -> None:
    model = make_model(encoders, layers={"audio": 0, "text": 1})
    names = {name for part in trainable_parts(model, 3) for name in part.parameters}
    assert not any("audio_encoder.model.encoder.layers" in name for name in names)
    assert any("audio_encoder.model.feature_projection" in name for name in names)


def test_asking_what_is_used_leaves_the_model_as_it_was(encoders: Path) -> None:
    model = make_model(encoders)
    unfreeze(model, trainable_parts(model, 2))
    model.train()
    before = [(module.training) for module in model.modules()]
    flags = [parameter.requires_grad for parameter in model.parameters()]
    used_parameters(model)
    assert [module.training for module in model.modules()] == before
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_table_counts_every_trainable_number(encoders: Path) -> None:
    model = make_model(encoders)
    parts = trainable_parts(model, 3)
    rows = trainable_table(parts, 1e-6)
    assert sum(row.parameters for row in rows) == sum(p.numel() for p in model.parameters())
    assert [row.module for row in rows] == [
        *["audio encoder"] * 2,
        *["text encoder"] * 2,
        "head",
    ]
    assert "layers 1 to 3" in format_table(rows)
    assert "1e-06" in format_table(rows)


def test_unknown_phases_and_negative_layers_are_refused(encoders: Path) -> None:
    model = make_model(encoders)
    with pytest.raises(ConfigError, match="phase 4"):
        trainable_parts(model, 4)
    with pytest.raises(ConfigError, match="--unfreeze-layers -1"):
        trainable_parts(model, 2, -1)
