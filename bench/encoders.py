"""Encoders of the two default architectures at any size, with random weights."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from transformers import (
    DebertaV2Config,
    DebertaV2Model,
    SeamlessM4TFeatureExtractor,
    Wav2Vec2BertConfig,
    Wav2Vec2BertModel,
    Wav2Vec2FeatureExtractor,
    WavLMConfig,
    WavLMModel,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)

from cache.encoders.hidden_states import quiet
from cache.encoders.tiny import make_tiny_encoder

_SEED = 1


def save_audio_encoder(folder: Path, *, layers: int = 24, dim: int = 1024, heads: int = 16) -> Path:
    """W2V-BERT; the defaults are those of `facebook/w2v-bert-2.0` (580 M parameters)."""
    config = Wav2Vec2BertConfig(
        hidden_size=dim,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * dim,
        position_embeddings_type="relative_key",
        layerdrop=0.0,
        apply_spec_augment=False,
        mask_time_prob=0.0,
    )
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(_SEED)
        Wav2Vec2BertModel(config).save_pretrained(folder)
    SeamlessM4TFeatureExtractor().save_pretrained(folder)
    return folder


def save_whisper_encoder(folder: Path) -> Path:
    """Of the shape of `openai/whisper-tiny.en` (8 M parameters)."""
    config = WhisperConfig(
        d_model=384,
        encoder_layers=4,
        decoder_layers=1,
        encoder_attention_heads=6,
        decoder_attention_heads=6,
        encoder_ffn_dim=1536,
        decoder_ffn_dim=384,
        vocab_size=128,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        suppress_tokens=[],
        begin_suppress_tokens=[],
    )
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(_SEED)
        WhisperModel(config).save_pretrained(folder)
    WhisperFeatureExtractor().save_pretrained(folder)
    return folder


def save_wavlm_encoder(folder: Path) -> Path:
    """WavLM's architecture, 6 layers of 192 on convolutions of 64."""
    config = WavLMConfig(
        hidden_size=192,
        num_hidden_layers=6,
        num_attention_heads=4,
        intermediate_size=768,
        conv_dim=(64,) * 7,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        num_conv_pos_embeddings=32,
        num_conv_pos_embedding_groups=4,
    )
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(_SEED)
        WavLMModel(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor().save_pretrained(folder)
    return folder


def save_text_encoder(folder: Path, *, layers: int = 12, dim: int = 768, heads: int = 12) -> Path:
    """DeBERTa-v3; the defaults are those of `microsoft/deberta-v3-base` (184 M parameters).

    Its tokenizer is that of the `tiny` encoder, whose words are common English ones: about as many
    tokens a text.
    """
    config = DebertaV2Config(
        vocab_size=128_100,
        hidden_size=dim,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * dim,
        relative_attention=True,
        position_buckets=256,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        pos_att_type=["p2c", "c2p"],
        position_biased_input=False,
        type_vocab_size=0,
        max_position_embeddings=512,
        pad_token_id=0,
    )
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(_SEED)
        DebertaV2Model(config).save_pretrained(folder)
    tiny = make_tiny_encoder(folder / "tokenizer", "text")
    for file in tiny.iterdir():
        if file.name not in ("config.json", "model.safetensors"):
            shutil.copy(file, folder)
    shutil.rmtree(folder / "tokenizer")
    return folder
