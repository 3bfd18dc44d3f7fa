"""Noise reaches what is trained, by seeds, and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from corpora.base.errors import ConfigError
from corpora.manifest import Manifest
from finetune import training
from finetune.batches import load_batches
from finetune.launch import SPAN, Augment, Trainee, masked
from finetune.model import EmotionModel
from finetune.phases import PhaseConfig, trainable_parts, unfreeze
from finetune.training import augmentation
from tests.finetune.corpus import make_model


def logits(model: EmotionModel, manifest: Manifest, augment: Augment, seed: int) -> torch.Tensor:
    (batch,) = load_batches(manifest.utterances, [(0, 1, 2)], audio=True)
    with torch.no_grad():
        found: torch.Tensor = Trainee(model.eval(), None, augment)(batch, seed)
    return found


def noise(model: EmotionModel, phase: int, **options: float) -> Augment:
    parts = trainable_parts(model, phase)
    unfreeze(model, parts)
    return augmentation(model, PhaseConfig(phase, 1e-3, **options), parts)  # type: ignore[arg-type]


def test_masks_cover_about_their_share_of_time_and_at_most_that_of_the_bands() -> None:
    generator = torch.Generator().manual_seed(0)
    features, mask = torch.ones(200, 100, 160), torch.ones(200, 100, dtype=torch.long)
    mask[:, 80:] = 0
    hidden = masked(features, mask, 0.25, generator) == 0
    in_time = hidden.all(dim=2)
    # Stretches overlap: each of 2 hides a tenth or so of what the other left.
    assert 0.18 < float(in_time[:, :80].float().mean()) < 0.25
    assert not in_time[:, 80:].any()
    bands = hidden.all(dim=1)
    assert torch.equal(bands[:, :80], bands[:, 80:])
    assert int(bands[:, :80].sum(dim=1).max()) <= 20


@pytest.mark.parametrize("frames", [1, 5, SPAN])
def test_short_utterances_can_be_masked(frames: int) -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        found = masked(torch.ones(1, frames, 160), torch.ones(1, frames), 0.5, generator)
        assert found.shape == (1, frames, 160)


@pytest.mark.parametrize("options", [{"spec_augment": 0.3}, {"layerdrop": 0.7}], ids=str)
def test_noise_follows_its_seed(
    options: dict[str, float], encoders: Path, manifest: Manifest
) -> None:
    model = make_model(encoders)
    augment = noise(model, 3, **options)
    first = logits(model, manifest, augment, 1)
    assert torch.equal(logits(model, manifest, augment, 1), first)
    others = [logits(model, manifest, augment, seed) for seed in range(2, 8)]
    assert not all(torch.equal(other, first) for other in others)


def test_layerdrop_passes_over_trained_layers_alone(encoders: Path) -> None:
    augment = noise(make_model(encoders), 2, layerdrop=0.5)
    assert augment.layers == {"audio": (2,), "text": (2,)}
    assert noise(make_model(encoders), 3, layerdrop=0.5).layers["audio"] == (0, 1, 2)
    assert noise(make_model(encoders), 2).layers == {}


def test_a_model_without_all_its_layers_is_that_of_layerdrop_one(
    encoders: Path, manifest: Manifest
) -> None:
    model, shorter = make_model(encoders), make_model(encoders, layers={"audio": 2, "text": 2})
    shorter.head.load_state_dict(model.head.state_dict())
    dropped = logits(
        model,
        manifest,
        Augment(0.0, 1.0, {"audio": (2,), "text": (2,)}, {"audio": 0, "text": 2}),
        1,
    )
    torch.testing.assert_close(dropped, logits(shorter, manifest, Augment(), 1), atol=1e-5, rtol=0)


def test_a_frozen_encoder_is_not_masked(encoders: Path) -> None:
    model = make_model(encoders)
    parts = trainable_parts(model, 2, 0)
    assert augmentation(model, PhaseConfig(2, 1e-3, spec_augment=0.3), parts).spec == 0


def test_an_encoder_of_waveforms_has_no_bands_to_mask(
    encoders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "takes_spectrograms", lambda _: False)
    with pytest.raises(ConfigError, match="--spec-augment"):
        noise(make_model(encoders), 3, spec_augment=0.1)


def test_masks_change_the_input_and_leave_the_encoder_as_it_was(
    encoders: Path, manifest: Manifest
) -> None:
    model = make_model(encoders)
    plain = logits(model, manifest, Augment(), 1)
    assert not torch.equal(logits(model, manifest, noise(model, 3, spec_augment=0.5), 1), plain)
    np.testing.assert_array_equal(logits(model, manifest, Augment(), 1), plain)
