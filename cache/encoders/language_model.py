"""Language models: texts in, bits of surprisal of each word out.

The surprisal of a word is the sum over its tokens of −log2 p(token | what the model reads), words
being what white space separates:

- Causal: all tokens before it, and the token that begins a text (Hale 2001; Levy 2008).
- Masked: all other tokens of the text but the later ones of its own word, which are masked with it:
  the pseudo-log-likelihood "within-word left to right" of Kauf & Ivanova (ACL 2023), Salazar et
  al.'s (2020) without a word of many pieces being given away by its own pieces.

Tokens without a letter or digit, punctuation, are read and not counted: nobody speaks them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from cache.audio import batches
from cache.encoders.device import to_device
from cache.encoders.files import maximum_tokens, tokenizer_files
from cache.encoders.grid import read_config
from cache.encoders.hidden_states import load_model, loading
from cache.encoders.text_encoder import tokens_of
from corpora.base.errors import ConfigError

# Logits that are made at once: 256 MB in float32.
_LOGITS = 2**26
_HEADLESS = (
    "without a trained language-model head nothing says how surprising a word is. Name a masked or "
    "causal language model with --surprisal-model."
)


@dataclass(frozen=True, eq=False)
class _Row:
    """One pass of the model over a text.

    Attributes:
        text: its number.
        ids: `[T]`, some of them masked.
        read: `[n]`, the positions whose logits tell of
        wanted: `[n]`, these tokens, which are of
        words: `[n]`, these words.
    """

    text: int
    ids: NDArray[np.int64]
    read: NDArray[np.int64]
    wanted: NDArray[np.int64]
    words: NDArray[np.int64]


class LanguageModel:
    """A language model of transformers in float32; `load_language_model` makes one.

    Attributes:
        masked: it reads what comes after a token, too.
    """

    def __init__(self, model: Any, tokenizer: Any, limit: int, *, masked: bool) -> None:  # noqa: ANN401 (untyped library)
        self._model = model
        self._tokenizer = tokenizer
        self._limit = limit
        self.masked = masked

    def __call__(self, texts: Sequence[str]) -> list[NDArray[np.float64]]:
        """`[words]` bits of each text's words; of a text beyond the limit those that were read.

        Args:
            texts: normalised texts (`cache.keys.normalise_text`).
        """
        found: list[NDArray[np.float64]] = [np.zeros(0)] * len(texts)
        rows: list[_Row] = []
        for number, text in enumerate(texts):
            words, own = self._rows(number, text)
            found[number] = np.zeros(words)
            rows += own
        at_once = max(1, _LOGITS // int(self._model.config.vocab_size))
        longest_first = sorted(rows, key=lambda row: -len(row.ids))
        for batch in batches(longest_first, lambda row: len(row.ids), at_once):
            for row, bits in zip(batch, self._bits(batch), strict=True):
                np.add.at(found[row.text], row.words, bits)
        return found

    def _rows(self, number: int, text: str) -> tuple[int, Iterator[_Row]]:
        """How many words of a text are read, and the passes over it."""
        starts = np.array([word.start() for word in re.finditer(r"\S+", text)], dtype=np.int64)
        if not len(starts):
            return 0, iter(())
        (encoding,) = self._tokenizer([text], truncation=True, max_length=self._limit).encodings
        tokens = tokens_of(text, encoding)
        ids = tokens.ids
        ends = tokens.spans[:, 1]
        # By its end: a span may begin with the space before the word.
        word = np.where(tokens.kinds > 0, np.searchsorted(starts, ends - 1, side="right") - 1, -1)
        counted = np.array([any(c.isalnum() for c in text[a:b]) for a, b in tokens.spans], bool)
        words = len(starts)
        if tokens.truncated:  # the last word that was read may not be whole
            words = int(word.max(initial=0))
        positions = np.flatnonzero(counted & (word >= 0) & (word < words))
        if self.masked:
            return words, (self._hiding(number, ids, word, one) for one in positions.tolist())
        if not len(ids) or tokens.kinds[0]:  # a tokenizer that begins texts with no token
            ids, word = np.insert(ids, 0, self._begin), np.insert(word, 0, -1)
            positions = positions + 1
        return words, iter([_Row(number, ids, positions - 1, ids[positions], word[positions])])

    def _hiding(
        self, number: int, ids: NDArray[np.int64], word: NDArray[np.int64], position: int
    ) -> _Row:
        """The text without a token and the later ones of its word."""
        later = (word == word[position]) & (np.arange(len(ids)) >= position)
        hidden = np.where(later, self._tokenizer.mask_token_id, ids)
        at = np.array([position])
        return _Row(number, hidden, at, ids[at], word[at])

    @property
    def _begin(self) -> int:
        """The token that begins a text, or else the one that ends one, as GPT-2 was trained."""
        begin = self._tokenizer.bos_token_id
        return int(self._tokenizer.eos_token_id if begin is None else begin)

    def _bits(self, batch: Sequence[_Row]) -> list[NDArray[np.float64]]:
        lengths = torch.tensor([len(row.ids) for row in batch])
        ids = torch.zeros(len(batch), int(lengths.max()), dtype=torch.int64)
        for number, row in enumerate(batch):
            ids[number, : len(row.ids)] = torch.from_numpy(row.ids)
        mask = (torch.arange(ids.shape[1]) < lengths[:, None]).to(torch.int64)
        device = self._model.device
        with torch.inference_mode(), torch.autocast(device.type, enabled=False):
            logits: Tensor = self._model(
                input_ids=to_device(ids, device), attention_mask=to_device(mask, device)
            ).logits
            found = []
            for number, row in enumerate(batch):
                own = logits[number, torch.from_numpy(row.read).to(device)].double().log_softmax(-1)
                wanted = torch.from_numpy(row.wanted).to(device)
                found.append(-own.gather(1, wanted[:, None])[:, 0].cpu().numpy() / np.log(2))
        return found


def load_language_model(directory: Path, *, device: torch.device | str = "cpu") -> LanguageModel:
    """Load a language model from a directory that `resolve_encoder` gave.

    Raises:
        ConfigError: it cannot be loaded, it is none, or weights of its head are missing.
    """
    config = read_config(directory, "config.json")
    tokenizer_files(directory)
    with loading(f"the tokenizer in {directory} cannot be loaded", "Copy its files again."):
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
    named = (config.get("architectures") or [""])[0]
    kind = config.get("model_type")
    causal = named in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
    masked = kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not causal
    # The decoders of Whisper, BART and the like learnt to write what they hear or read.
    known = kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not config.get("is_encoder_decoder")
    if not tokenizer.is_fast or not (masked or known):
        what = "without a fast tokenizer" if not tokenizer.is_fast else "which is no language model"
        raise ConfigError(f"{directory} holds a {kind} {what}: {_HEADLESS}")
    model = load_model(
        directory,
        {},
        AutoModelForMaskedLM if masked else AutoModelForCausalLM,
        lacking=_HEADLESS,
    )
    most = getattr(model.config, "max_position_embeddings", None)  # GPT-2 names it otherwise
    limit = min(
        maximum_tokens({**config, "max_position_embeddings": most}), int(tokenizer.model_max_length)
    )
    # But for a place for the token that begins a text.
    return LanguageModel(model.to(device), tokenizer, limit - 1, masked=masked)
