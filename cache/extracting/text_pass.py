"""The texts of an extraction: counted in tokens, put in batches, encoded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

import torch

from cache.encoders.grid import encoder_shape
from cache.encoders.text_encoder import TextEncoder, Tokens, load_text_encoder
from cache.extracting.decoding import batches, where_of
from cache.extracting.encoding import Encoded, Encoding, encode_text
from cache.extracting.estimate import Estimate, estimate
from cache.extracting.plan import Plan
from cache.extracting.report import ExtractReport
from cache.extracting.shares import share_of
from cache.extracting.targets import Item
from cache.keys import normalise_text
from cache.moments import ROWS
from corpora.base.terminal import progress_bar

# Tokens encoded at once, padding included, by the same reasoning as seconds of audio.
BATCH_TOKENS = {"cpu": 1_000, "cuda": 25_000}
# Texts counted at once.
_CHUNK = 4_096


class TextPass:
    """Encodes texts.

    Args:
        plan: what is to be done.
        device: `cpu` or `cuda:0`.
        report: failures and truncated texts are noted here.
        tell: for lines to be read while it runs.
    """

    def __init__(
        self, plan: Plan, device: str, report: ExtractReport, tell: Callable[[str], None]
    ) -> None:
        self.items = plan.text
        self._directory, self._device = plan.directories["text"], device
        _, self._dim = encoder_shape(self._directory)
        self._stored = getattr(torch, plan.config.stored_dtype)
        self._report = report
        self._tell = tell
        self._budget = BATCH_TOKENS[plan.device]
        self._tokens: dict[str, int] = {}
        self._left: list[list[Item]] = []

    def estimate(self) -> Estimate:
        """Bytes that all of it will take."""
        self._count([item for item in self.items if item.targets])
        wanted = (
            (target, ROWS if target.moments else self._tokens[item.key])
            for item in self.items
            for target in (*item.targets, *item.derived)
        )
        return estimate(wanted, {"text": self._dim})

    def remaining(self) -> Iterator[Item]:
        """What `run` has not begun; nothing if too little is left to be worth sharing."""
        if len(self._left) > 1:
            yield from (item for batch in self._left for item in batch)

    def run(
        self,
        items: Sequence[Item],
        put: Callable[[Encoded], None],
        give: Callable[[], set[int]],
        show_progress: bool,
    ) -> None:
        """Encode texts; the arguments are those of `AudioPass.run`."""
        self._count(items)
        longest_first = sorted(items, key=lambda item: (-self._tokens[item.key], item.key))
        self._left = list(batches(longest_first, lambda one: self._tokens[one.key], self._budget))
        encoding = Encoding(self._encode, self._too_large, self._tell)
        with progress_bar("extracting text", len(items), "texts", show=show_progress) as bar:
            while self._left:
                given = give()
                batch, self._left = self._left[0], self._left[1:]
                kept = [item for item in batch if share_of(item.key) not in given]
                tokens = self._encoder.tokenise([_text(item) for item in kept])
                self._report.truncated += sum(text.truncated for text in tokens)
                for encoded in encoding(list(zip(kept, tokens, strict=True))):
                    put(encoded)
                bar.update(len(batch))

    @cached_property
    def _encoder(self) -> TextEncoder:
        return load_text_encoder(self._directory, device=self._device)

    def _encode(self, batch: Sequence[tuple[Item, Tokens]]) -> Encoded:
        return encode_text(batch, self._encoder, stored=self._stored)

    def _count(self, items: Sequence[Item]) -> None:
        """How many tokens each text has."""
        unknown = [item for item in items if item.key not in self._tokens]
        for start in range(0, len(unknown), _CHUNK):
            chunk = unknown[start : start + _CHUNK]
            counts = self._encoder.count_tokens([_text(item) for item in chunk])
            self._tokens.update(zip((item.key for item in chunk), counts, strict=True))

    def _too_large(self, one: tuple[Item, Tokens]) -> None:
        item, tokens = one
        self._report.fail(
            item,
            f"{where_of(item.utterance)}: its text of {len(tokens.ids)} tokens does not fit the "
            "GPU's memory. Shorten it.",
        )


def _text(item: Item) -> str:
    return normalise_text(item.utterance.text)
