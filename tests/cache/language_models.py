"""Small language models with random weights, saved as real ones are, and their equations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)

from cache.encoders.hidden_states import quiet

Array = NDArray[np.float64]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PIECES = ["number", "is", "said", "##d", "haus", "##boot", "##e", *"abcdefghijklmnopqrstuvwxyz"]
PIECES += [*(f"##{c}" for c in "abcfghijklmnopqrstuvwxyz"), *"0123456789.,?!'-"]
HEADS, WIDTH, LAYERS = 2, 16, 2


def save_bert(folder: Path, *, head: bool = True, seed: int = 0) -> Path:
    """A masked one that splits words into pieces; without its head as sentence encoders come."""
    vocabulary = {piece: number for number, piece in enumerate([*SPECIAL, *PIECES])}
    tokenizer = Tokenizer(models.WordPiece(vocab=vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = ("pad", "unk", "cls", "sep", "mask")
    special = {f"{name}_token": f"[{name.upper()}]" for name in names}
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=24,
        max_position_embeddings=24,
        initializer_range=0.5,
        hidden_act="relu",
    )
    return _saved(folder, (BertForMaskedLM if head else BertModel)(config), tokenizer, special)


def save_gpt2(folder: Path, *, seed: int = 0) -> Path:
    """A causal one that reads bytes and has no token around a text but one that ends it."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: number for number, piece in enumerate(["<|endoftext|>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=len(vocabulary),
        n_embd=WIDTH,
        n_layer=LAYERS,
        n_head=HEADS,
        n_positions=40,
        initializer_range=0.5,
        activation_function="relu",
        bos_token_id=0,
        eos_token_id=0,
    )
    return _saved(folder, GPT2LMHeadModel(config), tokenizer, {"eos_token": "<|endoftext|>"})


def _saved(folder: Path, model: Any, tokenizer: Tokenizer, special: dict[str, str]) -> Path:
    with quiet():
        model.save_pretrained(folder)
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    return folder


def _norm(x: Array, own: dict[str, Array], name: str, epsilon: float) -> Array:
    centred = x - x.mean(1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(1, keepdims=True) + epsilon)
    result: Array = scaled * own[f"{name}.weight"] + own[f"{name}.bias"]
    return result


def _softmax(x: Array) -> Array:
    grown = np.exp(x - x.max(-1, keepdims=True))
    result: Array = grown / grown.sum(-1, keepdims=True)
    return result


def _attention(queries: Array, keys: Array, values: Array, mask: Array) -> Array:
    parts = []
    for q, k, v in zip(
        *(np.split(one, HEADS, axis=1) for one in (queries, keys, values)), strict=True
    ):
        parts.append(_softmax(q @ k.T / np.sqrt(q.shape[1]) + mask) @ v)
    return np.concatenate(parts, axis=1)


def bert_bits(own: dict[str, Array], ids: list[int]) -> Array:
    """`[T, V]` bits of every token of the vocabulary at every place (Devlin et al. 2019)."""
    x = own["bert.embeddings.word_embeddings.weight"][ids]
    x = x + own["bert.embeddings.position_embeddings.weight"][: len(ids)]
    x = x + own["bert.embeddings.token_type_embeddings.weight"][0]
    x = _norm(x, own, "bert.embeddings.LayerNorm", 1e-12)

    def linear(x: Array, name: str) -> Array:
        result: Array = x @ own[f"{name}.weight"].T + own[f"{name}.bias"]
        return result

    for number in range(LAYERS):
        layer = f"bert.encoder.layer.{number}"
        q, k, v = (linear(x, f"{layer}.attention.self.{one}") for one in ("query", "key", "value"))
        heard = _attention(q, k, v, np.zeros((len(ids), len(ids))))
        x = x + linear(heard, f"{layer}.attention.output.dense")
        x = _norm(x, own, f"{layer}.attention.output.LayerNorm", 1e-12)
        inner = np.maximum(linear(x, f"{layer}.intermediate.dense"), 0)
        x = _norm(
            x + linear(inner, f"{layer}.output.dense"), own, f"{layer}.output.LayerNorm", 1e-12
        )
    x = np.maximum(linear(x, "cls.predictions.transform.dense"), 0)
    x = _norm(x, own, "cls.predictions.transform.LayerNorm", 1e-12)
    logits = x @ own["bert.embeddings.word_embeddings.weight"].T + own["cls.predictions.bias"]
    return -np.log2(_softmax(logits))


def gpt2_bits(own: dict[str, Array], ids: list[int]) -> Array:
    """The same of what follows each place (Radford et al. 2019)."""
    x = own["transformer.wte.weight"][ids] + own["transformer.wpe.weight"][: len(ids)]
    mask = np.triu(np.full((len(ids), len(ids)), -np.inf), 1)

    def linear(x: Array, name: str) -> Array:  # its matrices lie the other way round
        result: Array = x @ own[f"{name}.weight"] + own[f"{name}.bias"]
        return result

    for number in range(LAYERS):
        layer = f"transformer.h.{number}"
        seen = linear(_norm(x, own, f"{layer}.ln_1", 1e-5), f"{layer}.attn.c_attn")
        q, k, v = np.split(seen, 3, axis=1)
        x = x + linear(_attention(q, k, v, mask), f"{layer}.attn.c_proj")
        inner = np.maximum(linear(_norm(x, own, f"{layer}.ln_2", 1e-5), f"{layer}.mlp.c_fc"), 0)
        x = x + linear(inner, f"{layer}.mlp.c_proj")
    logits = _norm(x, own, "transformer.ln_f", 1e-5) @ own["transformer.wte.weight"].T
    return -np.log2(_softmax(logits))
