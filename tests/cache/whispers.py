"""A small Whisper with random weights, saved to a directory as a real one is."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import pre_tokenizers
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
    WhisperTokenizer,
)

from cache.encoders.hidden_states import quiet

LANGUAGES = ("en", "de", "ja")
#: Tokens of one text at most.
LENGTH = 12


def save_whisper(
    folder: Path, *, seed: int = 0, multilingual: bool = True, length: int = LENGTH
) -> Path:
    """Write one: bytes as tokens, and special tokens in the order of the real vocabulary."""
    vocabulary = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    languages = [f"<|{code}|>" for code in LANGUAGES] if multilingual else []
    tokenizer = WhisperTokenizer(
        vocab=vocabulary,
        merges=[],
        additional_special_tokens=[
            "<|startoftranscript|>",
            *languages,
            *("<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>"),
            *("<|nospeech|>", "<|notimestamps|>"),
        ],
    )
    tokenizer.add_tokens([f"<|{0.02 * i:.2f}|>" for i in range(1501)])
    number = tokenizer.convert_tokens_to_ids
    end, start = number("<|endoftext|>"), number("<|startoftranscript|>")
    special = {"eos_token_id": end, "bos_token_id": end, "pad_token_id": end}
    torch.manual_seed(seed)
    model = WhisperForConditionalGeneration(
        WhisperConfig(
            vocab_size=len(tokenizer),
            d_model=32,
            encoder_layers=1,
            decoder_layers=2,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=32,
            decoder_ffn_dim=32,
            max_target_positions=length + 4,
            decoder_start_token_id=start,
            init_std=0.7,  # so that texts depend on the sound
            suppress_tokens=None,
            begin_suppress_tokens=None,
            **special,
        )
    )
    settings = {"no_timestamps_token_id": number("<|notimestamps|>"), "is_multilingual": False}
    if multilingual:
        tasks = ("transcribe", "translate")
        settings |= {
            "is_multilingual": True,
            "lang_to_id": {token: number(token) for token in languages},
            "task_to_id": {task: number(f"<|{task}|>") for task in tasks},
        }
    # Control characters are cut out of texts; and nothing but bytes may be said here.
    spoken = {i for c, i in vocabulary.items() if c.isascii() and c.isalpha()}
    silenced = [i for i in range(number("<|notimestamps|>")) if i not in spoken and i != end]
    model.generation_config = GenerationConfig(
        decoder_start_token_id=start,
        max_length=length + 4,
        suppress_tokens=silenced,
        **special,
        **settings,
    )
    with quiet():
        model.save_pretrained(folder)
        WhisperProcessor(WhisperFeatureExtractor(), tokenizer).save_pretrained(folder)
    return folder
