"""What a batch takes inside an encoder, against what is alive on a CPU while it runs."""

from __future__ import annotations

import gc
import warnings
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import (
    BertConfig,
    BertModel,
    DebertaV2Config,
    DebertaV2Model,
    HubertConfig,
    HubertModel,
    Wav2Vec2BertConfig,
    Wav2Vec2BertModel,
    WavLMConfig,
    WavLMModel,
    WhisperConfig,
)

from cache.encoders.audio_encoder import ShortWhisperEncoder, load_audio_encoder
from cache.encoders.budget import CPU_BYTES, Need, batch_budget, batch_need, dictation_need
from cache.encoders.names import resolve_encoder
from cache.encoders.text_encoder import load_text_encoder

# A second is 50 frames.
SECOND = 50


class Alive(TorchDispatchMode):
    """Adds up the bytes of all storages that operations make, for as long as they live."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        # Weights are there before, and views of them take nothing.
        held = [*model.parameters(), *model.buffers()]
        self._seen = {one.untyped_storage()._cdata: 0 for one in held}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for one in tree_leaves(out):
            if isinstance(one, torch.Tensor):
                storage = one.untyped_storage()
                if storage._cdata not in self._seen:
                    self._seen[storage._cdata] = storage.nbytes()
                    self.now += storage.nbytes()
                    weakref.finalize(storage, self._gone, storage._cdata)
        self.peak = max(self.peak, self.now)
        return out

    def _gone(self, number: int) -> None:
        self.now -= self._seen.pop(number)


@dataclass(frozen=True)
class Sizes:
    dim: int
    wide: int
    heads: int
    layers: int = 2

    @property
    def common(self) -> dict[str, Any]:
        return {
            **{"hidden_size": self.dim, "intermediate_size": self.wide},
            **{"num_attention_heads": self.heads, "num_hidden_layers": self.layers},
        }


def w2v_bert(sizes: Sizes, positions: str) -> nn.Module:
    off = {"layerdrop": 0.0, "apply_spec_augment": False, "mask_time_prob": 0.0}
    config = Wav2Vec2BertConfig(**sizes.common, **off, position_embeddings_type=positions)
    return Wav2Vec2BertModel(config)  # type: ignore[no-any-return]


def waveform(sizes: Sizes, kind: str) -> nn.Module:
    more = {
        **{"conv_dim": (sizes.dim // 2,) * 7, "num_conv_pos_embeddings": 16, "layerdrop": 0.0},
        **{"num_conv_pos_embedding_groups": 4, "apply_spec_augment": False},
        # A GPU's kernels drop scores without writing them down, a CPU's do not.
        **({} if kind == "wavlm" else {"attention_dropout": 0.0}),
    }
    norm = {"feat_extract_norm": "group" if kind == "group" else "layer"}
    stable = {"do_stable_layer_norm": kind != "group"}
    if kind == "wavlm":
        return WavLMModel(WavLMConfig(**sizes.common, **more, **norm, **stable))  # type: ignore[no-any-return]
    return HubertModel(HubertConfig(**sizes.common, **more, **norm, **stable))  # type: ignore[no-any-return]


def whisper(sizes: Sizes) -> nn.Module:
    config = WhisperConfig(
        d_model=sizes.dim,
        encoder_ffn_dim=sizes.wide,
        encoder_layers=sizes.layers,
        encoder_attention_heads=sizes.heads,
    )
    config._attn_implementation = "sdpa"
    return ShortWhisperEncoder(config)


def deberta(sizes: Sizes) -> nn.Module:
    config = DebertaV2Config(
        **sizes.common,
        vocab_size=200,
        relative_attention=True,
        position_buckets=256,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        pos_att_type=["p2c", "c2p"],
        position_biased_input=False,
        type_vocab_size=0,
        max_position_embeddings=512,
    )
    return DebertaV2Model(config)  # type: ignore[no-any-return]


def bert(sizes: Sizes) -> nn.Module:
    config = BertConfig(**sizes.common, vocab_size=200, attention_probs_dropout_prob=0.0)
    return BertModel(config)  # type: ignore[no-any-return]


AUDIO: dict[str, Callable[[Sizes], nn.Module]] = {
    "W2V-BERT": lambda sizes: w2v_bert(sizes, "relative_key"),
    "W2V-BERT, relative": lambda sizes: w2v_bert(sizes, "relative"),
    "WavLM": lambda sizes: waveform(sizes, "wavlm"),
    "HuBERT": lambda sizes: waveform(sizes, "hubert"),
    "HuBERT, group": lambda sizes: waveform(sizes, "group"),
    "Whisper": whisper,
}
TEXT: dict[str, Callable[[Sizes], nn.Module]] = {"DeBERTa": deberta, "BERT": bert}
FAMILIES = AUDIO | TEXT


def inputs(name: str, model: Any, batch: int, length: int) -> dict[str, torch.Tensor]:
    mask = torch.ones(batch, length, dtype=torch.long)
    mask[1:, max(1, length // 2) :] = 0
    if name in TEXT:
        return {"input_ids": torch.full((batch, length), 7), "attention_mask": mask}
    if name == "Whisper":
        return {"input_features": torch.randn(batch, 80, 2 * length)}
    if name.startswith("W2V"):
        return {"input_features": torch.randn(batch, length, 160), "attention_mask": mask}
    waves = torch.randn(batch, length * 320 + 80)
    if model.config.feat_extract_norm == "group":
        return {"input_values": waves}
    mask = torch.ones(waves.shape, dtype=torch.long)
    mask[1:, waves.shape[1] // 2 :] = 0
    return {"input_values": waves, "attention_mask": mask}


def measured(
    name: str, model: nn.Module, batch: int, length: int, *, bf16: bool = False, train: bool = False
) -> int:
    """The most bytes alive at once beside weights, their gradients, and the inputs."""
    model.train(train).requires_grad_(train)
    given = inputs(name, model, batch, length)
    gc.collect()
    alive = Alive(model)
    with (
        torch.set_grad_enabled(train),
        warnings.catch_warnings(),
        alive,
        torch.autocast("cpu", torch.bfloat16, enabled=bf16),
    ):
        warnings.filterwarnings("ignore", message="Support for mismatched key_padding_mask")
        last = model(**given).last_hidden_state
        if train:
            last.sum().backward()
        else:
            last.flatten(0, 1).clone()  # without its padding
    gradients = sum(p.numel() * p.element_size() for p in model.parameters() if train)
    return alive.peak - gradients


def shapes(name: str, longest: int) -> list[tuple[int, int]]:
    """Inputs of a batch and their length: many short ones, some, one long."""
    if name in TEXT:
        return [(300, 3), (16, 64), (2, 500)]
    longest = min(longest, 1_500) if name == "Whisper" else longest
    return [(100, 5), (4, 3 * SECOND), (1, longest)]


def check(name: str, sizes: Sizes, longest: int, **options: Any) -> None:
    model = FAMILIES[name](sizes)
    trained = sizes.layers if options.get("train") else 0
    dtype: Any = "bf16" if options.get("bf16") else "fp32"
    for batch, length in shapes(name, longest):
        need = batch_need(model.config, length, compute_dtype=dtype, trained=trained)
        found = measured(name, model, batch, length, **options)
        ratio = need.of(batch) / found
        # A CPU's autocast leaves norms in bf16; a GPU's, which is reckoned with, computes fp32.
        assert 1 <= ratio <= (3.5 if dtype == "bf16" else 2.1), (
            f"{name}, {sizes}, {batch} of {length}: {ratio:.2f} of {found:,}"
        )


@pytest.mark.parametrize("name", FAMILIES)
def test_a_pass_takes_at_most_what_is_reckoned(name: str) -> None:
    check(name, Sizes(64, 256, 4), 6 * SECOND)


@pytest.mark.slow
@pytest.mark.parametrize("name", AUDIO)
def test_so_it_does_in_bf16(name: str) -> None:
    check(name, Sizes(64, 256, 4), 10 * SECOND, bf16=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_so_it_does_in_other_proportions(name: str) -> None:
    check(name, Sizes(256, 256, 2), 10 * SECOND)
    check(name, Sizes(128, 512, 8, layers=3), 6 * SECOND)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_a_step_takes_at_most_what_is_reckoned(name: str) -> None:
    check(name, Sizes(64, 256, 4, layers=3), 6 * SECOND, train=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", AUDIO)
def test_a_minute_takes_at_most_what_is_reckoned(name: str) -> None:
    check(name, Sizes(64, 256, 2, layers=1), 60 * SECOND)


def test_checkpointing_and_frozen_layers_take_less() -> None:
    config = AUDIO["W2V-BERT"](Sizes(64, 256, 4, layers=4)).config

    def need(**options: Any) -> int:
        return batch_need(config, 100, **options).of(4)

    assert need() < need(trained=1) < need(trained=4)
    assert need(trained=4, checkpointing=True) < need(trained=2)
    assert need(states=5) > need()


def full_deberta() -> Any:
    return DebertaV2Config(
        **Sizes(768, 3072, 12, 12).common, relative_attention=True, position_buckets=256
    )


def test_short_texts_pay_for_their_tables_of_positions() -> None:
    """2 · 256 positions of 768 numbers, twice, for each: 13 GB a copy for 8,333 of them."""
    config = full_deberta()
    tables = 2 * 512 * 768 * 4
    assert 8_333 * tables > 26e9
    assert batch_need(config, 3).each > tables
    fitting = batch_need(config, 3).fitting(10e9)
    assert 1_000 < fitting < 10e9 / tables


def test_a_batch_is_as_large_as_asked_for_or_as_memory_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    audio = load_audio_encoder(resolve_encoder("tiny", "audio", tmp_path))
    text = load_text_encoder(resolve_encoder("tiny", "text", tmp_path))
    roomy = batch_budget(2_000, audio=audio, text=text)
    assert [roomy.size(length) for length in (1, 50, 3_000)] == [1, 50, 3_000]
    assert roomy.at_once(50) == 40
    monkeypatch.setattr("cache.encoders.budget.CPU_BYTES", CPU_BYTES / 100)
    for given in ({"audio": audio}, {"text": text}, {"audio": audio, "text": text}):
        tight = batch_budget(2_000, **given)
        sizes = [tight.size(length) for length in range(1, 400)]
        assert sizes == sorted(sizes)
        for length in (2, 50, 200):
            need = Need(0, 0)
            if "audio" in given:
                need += batch_need(audio.model.config, length)
            if list(given) == ["text"]:
                need += batch_need(text.model.config, length)
            batch = tight.at_once(length)
            assert batch == 1 or need.of(batch) <= CPU_BYTES / 100
    assert batch_budget(2_000, audio=audio).at_once(3_000) == 1


def test_pieces_take_their_keys_and_values() -> None:
    config = WhisperConfig(
        d_model=1280, encoder_layers=32, decoder_layers=32, encoder_attention_heads=20
    )
    cached = 32 * 2 * (1500 + 448) * 1280 * 2
    assert cached < dictation_need(config, 2).each < 2 * cached
