"""Heads: shapes, normalisations, determinism, state."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from cache.frames import Frames
from corpora.base.errors import ConfigError
from heads.head import Head, HeadConfig, as_inputs, stack_logits
from heads.vector_store import VectorStore
from tests.heads.synthetic import LABELS, in_memory, make_configs, make_dataset
from tests.rounding import summed
from tests.scorers import draw_scorers

CONFIGS = make_configs()
# Of the longest sum behind a logit: frames of an utterance, features, pooled values, hidden units.
TERMS = 20 + 16 + 256 + 256


def audio_only(norm: str) -> HeadConfig:
    return HeadConfig(LABELS, {"audio": 16}, {"audio": {"kind": "as", "hidden": 4}}, norm, 8, 0.0)


@pytest.mark.parametrize("config", CONFIGS)
def test_configuration_round_trips_through_json(config: HeadConfig) -> None:
    assert HeadConfig.from_json(config.to_json()) == config


def test_logits_of_a_stack_equal_those_of_each_head_alone() -> None:
    frames = in_memory(make_dataset(9))
    heads = [draw_scorers(Head(config, seed), seed) for seed, config in enumerate(CONFIGS)]
    together = stack_logits(heads, as_inputs(frames))
    assert together.shape == (len(heads), 9, len(LABELS))
    for head, logits in zip(heads, together, strict=True):
        torch.testing.assert_close(head(frames), logits, atol=summed(logits, TERMS), rtol=0)


def test_the_same_seed_draws_the_same_parameters_whatever_was_drawn_before() -> None:
    first = Head(CONFIGS[0], seed=3)
    torch.rand(7)
    second = Head(CONFIGS[0], seed=3)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])


def test_standardise_equals_standardised_frames() -> None:
    frames = in_memory(make_dataset(9))["audio"]
    mean, deviation = frames.values.mean(0) + 1, frames.values.std(0) * 3
    head, plain = (draw_scorers(Head(audio_only(norm), 1)) for norm in ("standardise", "none"))
    head.set_input_statistics("audio", mean, deviation)
    changed = Frames((frames.values - mean) / deviation, frames.offsets)
    torch.testing.assert_close(
        head({"audio": frames}), plain({"audio": changed}), atol=1e-5, rtol=1e-5
    )


def test_layernorm_equals_normalised_frames() -> None:
    frames = in_memory(make_dataset(9))["audio"]
    head, plain = (draw_scorers(Head(audio_only(norm), 1)) for norm in ("layernorm", "none"))
    changed = Frames(F.layer_norm(frames.values, (16,)), frames.offsets)
    torch.testing.assert_close(
        head({"audio": frames}), plain({"audio": changed}), atol=1e-5, rtol=1e-5
    )


def test_a_constant_feature_is_not_scaled() -> None:
    head = Head(audio_only("standardise"), 0)
    head.set_input_statistics("audio", torch.zeros(16), torch.zeros(16))
    assert torch.equal(head.get_buffer("audio_scale"), torch.ones(16))


def test_a_feature_that_is_constant_over_the_training_frames_is_not_scaled() -> None:
    dataset = make_dataset(6)
    frames = in_memory(dataset)["audio"]
    frames.values[:, 3] = 7.25
    store = VectorStore(replace(dataset, frames={"audio": frames}))
    head = Head(audio_only("standardise"), 0)
    head.set_input_statistics("audio", *store.frame_statistics("audio", torch.arange(6)))
    scale = head.get_buffer("audio_scale")
    assert scale[3] == 1
    assert (scale[:3] != 1).all()


def test_dropout_depends_on_the_heads_own_seed_only() -> None:
    batch = as_inputs(in_memory(make_dataset(9)))
    heads = [draw_scorers(Head(config, seed), seed) for seed, config in enumerate(CONFIGS)]
    together = stack_logits(heads, batch, [11, 12, 13, 14, 15, 16, 17, 18])
    alone = stack_logits([heads[2]], batch, [13])
    torch.testing.assert_close(alone[0], together[2], atol=summed(together, TERMS), rtol=0)
    assert not torch.allclose(alone, stack_logits([heads[2]], batch, [14]))


def test_attention_of_a_head_covers_each_utterance_once() -> None:
    frames = in_memory(make_dataset(6))
    weights = draw_scorers(Head(CONFIGS[0], 0)).attention(frames, "audio")
    assert weights.shape == (frames["audio"].values.shape[0], 4)
    torch.testing.assert_close(weights.sum(0), torch.full((4,), 6.0))


def test_scorer_parameters_are_those_of_attention_in_every_modality() -> None:
    for config in CONFIGS:
        head = Head(config)
        expected = {
            name
            for name, _ in head.named_parameters()
            if name.startswith("poolings.")
            and config.pooling[name.split(".")[1]]["kind"] in ("as", "sa", "mha", "mqmha")
        }
        own = {id(parameter) for parameter in head.scorer_parameters()}
        assert {name for name, value in head.named_parameters() if id(value) in own} == expected
    assert not Head(CONFIGS[1]).scorer_parameters()
    both = Head(CONFIGS[0])
    assert {id(p) for p in both.scorer_parameters()} == {
        id(p) for name in ("audio", "text") for p in both.poolings[name].parameters()
    }


def test_weights_of_layers_are_no_scorers() -> None:
    pooling = {"kind": "statistics", "layers": 2}
    head = Head(HeadConfig(LABELS, {"audio": 16}, {"audio": pooling}))
    assert list(head.poolings.parameters())
    assert head.scorer_parameters() == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": ("one",)}, "at least two labels"),
        ({"dims": {"smell": 3}}, "some of audio, text, video"),
        (
            {"input_norm": "batch"},
            "one of none, layernorm, standardise, speaker",
        ),
        ({"dropout": 1.0}, r"dropout in \[0, 1\)"),
        ({"mlp_width": -1}, "mlp_width must be 0 or more"),
    ],
)
def test_a_bad_configuration_is_refused_with_what_is_allowed(
    change: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        HeadConfig.from_json({**audio_only("none").to_json(), **change})
