"""The `tiny` encoders: W2V-BERT and DeBERTa-v3 in small, with random weights from a fixed seed.

They exist so that everything runs on a laptop without a download. A random speech encoder still
carries signal: logistic regression on mean and deviation of its frames, leave-one-speaker-out on
381 EMO-DB utterances of 7 emotions, reaches macro-F1 .40 with 3 layers of 128 (mean of 3 seeds; 2
layers .40, 4 layers .33, 4 layers of 256 .38; chance is .14). A random text encoder tells
words apart but knows no meaning. What they give is a working pipeline, not accuracy.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import torch
from transformers import (
    DebertaV2Config,
    DebertaV2Model,
    DebertaV2Tokenizer,
    SeamlessM4TFeatureExtractor,
    Wav2Vec2BertConfig,
    Wav2Vec2BertModel,
)

from cache.encoders.files import Kind, tiny_folder
from cache.encoders.hidden_states import quiet
from corpora.base.files import new_folder

_SEED = 20_250_817
_SPECIAL_PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# Log-probabilities of pieces in the Unigram model: a whole word beats any spelling of it, a part
# such as "ing" beats its letters.
_WORD_SCORE, _PART_SCORE, _LETTER_SCORE = -8.0, -9.0, -12.0


def make_tiny_encoder(work: Path, kind: Kind) -> Path:
    """Create a tiny encoder under `work/encoders/`, unless it is there.

    The folder appears complete or not at all; of two processes that make it at once, one wins, and
    both made the same bytes.

    Args:
        work: the work folder.
        kind: "audio" (3 layers of 128) or "text" (3 layers of 96).

    Returns:
        The folder: weights as safetensors, config, front end or tokenizer.
    """
    target = tiny_folder(work, kind)
    if target.is_dir():
        return target
    # The seed holds here only: a caller's random numbers go on as if nothing had happened.
    with new_folder(target) as folder, torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(_SEED)
        (_save_audio if kind == "audio" else _save_text)(folder)
    return target


def _save_audio(folder: Path) -> None:
    """W2V-BERT 2.0's architecture, 3 × 128 instead of 24 × 1024."""
    config = Wav2Vec2BertConfig(
        hidden_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=256,
        position_embeddings_type="relative_key",
        layerdrop=0.0,
        apply_spec_augment=False,
        mask_time_prob=0.0,  # no mask vector: nothing is masked
    )
    Wav2Vec2BertModel(config).save_pretrained(folder)
    SeamlessM4TFeatureExtractor().save_pretrained(folder)


def _save_text(folder: Path) -> None:
    """DeBERTa-v3's architecture, 3 × 96 instead of 12 × 768, and a small Unigram tokenizer."""
    pieces = tiny_pieces()
    config = DebertaV2Config(
        vocab_size=len(pieces),
        hidden_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=192,
        relative_attention=True,
        position_buckets=64,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        pos_att_type=["p2c", "c2p"],
        position_biased_input=False,
        type_vocab_size=0,
        max_position_embeddings=512,
        pad_token_id=0,
    )
    DebertaV2Model(config).save_pretrained(folder)
    tokenizer = DebertaV2Tokenizer(
        vocab=pieces,
        do_lower_case=True,
        bos_token="[CLS]",
        eos_token="[SEP]",
        unk_token="[UNK]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        mask_token="[MASK]",
        unk_id=_SPECIAL_PIECES.index("[UNK]"),
        model_max_length=512,
    )
    tokenizer.save_pretrained(folder)


def tiny_pieces() -> list[tuple[str, float]]:
    """The tokenizer's vocabulary with scores: special pieces, then `tiny_vocabulary.txt`.

    The file holds one piece a line: letters and signs to spell any Latin text with, common parts,
    and common English and German words behind the ▁ that marks a word start. All lower case.
    """
    text = files("cache.encoders").joinpath("tiny_vocabulary.txt").read_text(encoding="utf-8")
    special = [(piece, 0.0) for piece in _SPECIAL_PIECES]
    return special + [(piece, _score(piece)) for piece in text.split("\n") if piece]


def _score(piece: str) -> float:
    if len(piece) == 1:
        return _LETTER_SCORE
    return _WORD_SCORE if piece.startswith("▁") else _PART_SCORE
