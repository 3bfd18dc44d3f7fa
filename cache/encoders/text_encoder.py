"""Text encoders: texts in, one frame a token out, with a flag of which tokens are words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoTokenizer

from cache.encoders.device import to_device
from cache.encoders.files import maximum_tokens, tokenizer_files
from cache.encoders.grid import read_config
from cache.encoders.hidden_states import Encoder, load_model, loading
from cache.frames import Frames
from corpora.base.errors import ConfigError

#: Token kinds, as stored beside the frames.
SPECIAL, WORD_START, INSIDE = 0, 1, 2


@dataclass(frozen=True, eq=False)
class Tokens:
    """One text's tokens, those the tokenizer adds (such as [CLS] and [SEP]) included.

    Attributes:
        ids: `[T]` int64.
        kinds: `[T]` uint8: 0 special, 1 the first token of a word, 2 inside a word. Words are what
            white space separates, so punctuation belongs to its word.
        pieces: T strings, as in the vocabulary.
        spans: `[T, 2]` int64, first and one-past-last character of the text; (0, 0) for special
            tokens.
        truncated: whether tokens at the end of the text were left out.
    """

    ids: NDArray[np.int64]
    kinds: NDArray[np.uint8]
    pieces: tuple[str, ...]
    spans: NDArray[np.int64]
    truncated: bool


class TextEncoder(Encoder):
    """A text encoder of transformers behind one interface, in float32.

    Attributes:
        tokenizer: its fast tokenizer.
        maximum_tokens: longer texts are truncated to this many tokens, special ones included.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, limit: int) -> None:  # noqa: ANN401 (untyped library)
        super().__init__(model)
        self.tokenizer = tokenizer
        self.maximum_tokens = limit

    def tokenise(self, texts: Sequence[str]) -> list[Tokens]:
        """Split texts into tokens.

        Args:
            texts: normalised texts (`cache.keys.normalise_text`). An empty one gives its special
                tokens.
        """
        if not texts:
            return []
        batch = self.tokenizer(list(texts), truncation=True, max_length=self.maximum_tokens)
        return [
            tokens_of(text, encoding) for text, encoding in zip(texts, batch.encodings, strict=True)
        ]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text has, as `tokenise` splits it."""
        if not texts:
            return []
        batch = self.tokenizer(list(texts), truncation=True, max_length=self.maximum_tokens)
        return [len(ids) for ids in batch["input_ids"]]

    def token_kinds(self, texts: Sequence[str]) -> list[NDArray[np.uint8]]:
        """`[T]` of each text: 0 special, 1 word start, 2 inside a word; one for each frame."""
        return [tokens.kinds for tokens in self.tokenise(texts)]

    def forward(
        self, texts: Sequence[str] | Sequence[Tokens], layers: Sequence[int]
    ) -> dict[int, Frames]:
        """Frames of a batch.

        Args:
            texts: normalised texts, or what `tokenise` gave for them.
            layers: layer numbers, 0 to `self.layers`.

        Returns:
            Layer number to float32 frames `[T, dim]` of each text, one a token, on the encoder's
            device.

        Raises:
            ConfigError: a layer does not exist.
        """
        plain = [item for item in texts if isinstance(item, str)]
        split = iter(self.tokenise(plain))
        tokens = [next(split) if isinstance(item, str) else item for item in texts]
        ids, mask = self._padded(tokens)
        there = to_device(mask, self.device)
        with torch.autocast(self.device.type, enabled=False):
            run = partial(self.model, input_ids=ids, attention_mask=there)
            states = self.read_layers(run, layers)
        # By lengths that the host knows: to look for them in the mask it would wait.
        counts = [len(item.ids) for item in tokens]
        return {
            layer: Frames.from_list([row[:n] for row, n in zip(values, counts, strict=True)])
            for layer, values in states.items()
        }

    def _padded(self, tokens: Sequence[Tokens]) -> tuple[Tensor, Tensor]:
        """`[B, T]` token ids on the encoder's device, and `[B, T]` int64 mask on the CPU."""
        lengths = torch.tensor([len(item.ids) for item in tokens])
        ids = torch.full((len(tokens), int(lengths.max())), int(self.tokenizer.pad_token_id))
        for row, item in enumerate(tokens):
            ids[row, : len(item.ids)] = torch.from_numpy(item.ids)
        mask = (torch.arange(ids.shape[1]) < lengths[:, None]).to(torch.int64)
        return to_device(ids, self.device), mask


def load_text_encoder(directory: Path, *, device: torch.device | str = "cpu") -> TextEncoder:
    """Load a text encoder from a directory that `resolve_encoder` gave.

    Raises:
        ConfigError: encoder or tokenizer cannot be loaded, the tokenizer gives no offsets, or it
            has no padding or special tokens.
    """
    tokenizer_files(directory)
    with loading(
        f"the tokenizer in {directory} cannot be loaded",
        "Check its files, or copy them again. A SentencePiece model needs two packages: pip "
        "install sentencepiece protobuf.",
    ):
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
        empty = tokenizer("")["input_ids"]
        longest = int(tokenizer.model_max_length)
    if not tokenizer.is_fast or tokenizer.pad_token_id is None:
        raise ConfigError(
            f"the tokenizer in {directory} is a {type(tokenizer).__name__} without "
            f"{'padding' if tokenizer.is_fast else 'offsets'}; expected a fast tokenizer with a "
            "padding token. Choose an encoder such as microsoft/deberta-v3-base."
        )
    if not empty:
        raise ConfigError(
            f"the tokenizer in {directory} gives an empty text no token; expected special tokens "
            "around every text. Choose an encoder such as microsoft/deberta-v3-base."
        )
    limit = min(maximum_tokens(read_config(directory, "config.json")), longest)
    return TextEncoder(load_model(directory, {}), tokenizer, limit).to(device)


def tokens_of(text: str, encoding: Any) -> Tokens:  # noqa: ANN401 (untyped library)
    """Tokens of one text from the tokenizers library's encoding of it."""
    special = np.asarray(encoding.special_tokens_mask, dtype=bool)
    spans = np.asarray(encoding.offsets, dtype=np.int64).reshape(-1, 2)
    spans[special] = 0
    return Tokens(
        ids=np.asarray(encoding.ids, dtype=np.int64),
        kinds=_kinds(text, spans, special),
        pieces=tuple(encoding.tokens),
        spans=spans,
        truncated=bool(encoding.overflowing),
    )


def _kinds(text: str, spans: NDArray[np.int64], special: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Token kinds from character spans.

    A token belongs to the word at its first character that is not white space: tokenizers differ
    in whether a span holds the space before a word, and in what they call a word.
    """
    kinds = np.full(len(spans), INSIDE, dtype=np.uint8)
    kinds[special] = SPECIAL
    previous = -1
    for index in np.flatnonzero(~special):
        position = int(spans[index, 0])
        while position < len(text) and text[position].isspace():
            position += 1
        start = position
        while start > 0 and not text[start - 1].isspace():
            start -= 1
        if start != previous:
            kinds[index] = WORD_START
        previous = start
    return kinds
