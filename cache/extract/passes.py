"""Extraction: decode, encode and write what the cache lacks.

Recordings are decoded in threads and stored by a thread while the encoder works, the longest first.
One bad recording is a reported failure; it does not stop the others and is tried again next time.
Any number of processes work together, each on the shares of the keys that it holds.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

import torch

from cache.audio import batches
from cache.encoders.budget import batch_budget
from cache.encoders.grid import encoder_shape
from cache.encoders.text_encoder import TextEncoder, Tokens, load_text_encoder
from cache.extract.audio_pass import AudioPass
from cache.extract.claims import Claimed
from cache.extract.encoding import Encoded, Encoding, encode_text, layers_of
from cache.extract.plan import Plan
from cache.extract.stream_writer import Shares, StreamWriter, open_shares, share_of
from cache.extract.summary import ExtractReport, changes_lines
from cache.extract.targets import Estimate, Item, Target, check_space, estimate, still_lacking
from cache.keys import normalise_text
from cache.last_extraction import Source
from cache.moments import ROWS, derive_moments
from cache.store.layout import open_features
from cache.store.mirror import pull
from corpora.base.errors import CacheError
from corpora.base.terminal import bytes_text, progress_bar, time_text
from corpora.base.work import Rank
from corpora.utterance import where_of

# Tokens encoded at once, padding included, by the same reasoning as seconds of audio.
BATCH_TOKENS = {"cpu": 1_000, "cuda": 25_000}
# Texts counted at once.
_CHUNK = 4_096


class TextPass:
    """Encodes texts.

    Args:
        plan: what is to be done.
        report: failures and truncated texts are noted here.
        tell: for lines to be read while it runs.
    """

    def __init__(self, plan: Plan, report: ExtractReport, tell: Callable[[str], None]) -> None:
        self.items = plan.text
        self._directory, self._device = plan.directories["text"], plan.device
        _, self._dim = encoder_shape(self._directory)
        self._stored = getattr(torch, plan.config.stored_dtype)
        self._report = report
        self._tell = tell
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
        if not items:
            return
        self._count(items)
        longest_first = sorted(items, key=lambda item: (-self._tokens[item.key], item.key))
        states = len(layers_of(items))
        frames = BATCH_TOKENS[torch.device(self._device).type]
        budget = batch_budget(frames, text=self._encoder, states=states)
        self._left = list(
            batches(longest_first, lambda one: budget.size(self._tokens[one.key]), frames)
        )
        encoding = Encoding(
            self._encode, self._too_large, self._tell, lambda one: budget.size(len(one[1].ids))
        )
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


_FULL = (errno.ENOSPC, errno.EDQUOT)


def run_plan(
    features: Path,
    plan: Plan,
    *,
    rank: Rank | None = None,
    tell: Callable[[str], None] | None = None,
    show_progress: bool = False,
) -> ExtractReport:
    """Fill the streams of a plan; returns when nobody has anything left to do.

    Leaving early (an interrupt, a full disk) keeps every utterance that was encoded.

    Args:
        features: the Zarr group of all streams.
        plan: from `make_plan`.
        rank: which of several processes this is.
        tell: for lines to be read while it runs.
        show_progress: bars on standard error.

    Returns:
        The report; `failures` names what could not be used.

    Raises:
        CacheError: the disk is too small or full.
    """
    rank = rank or Rank()
    tell = tell or (lambda _: None)
    report = ExtractReport(failures=dict(plan.absent))
    started = time.monotonic()
    open_features(features)
    passes: list[TextPass | AudioPass] = []
    if plan.text:
        passes.append(TextPass(plan, report, tell))
    if plan.audio:
        passes.append(AudioPass(plan, report, tell))
    if rank.leads:
        _announce(features.parent, plan, [one.estimate() for one in passes], report, tell)
    try:
        for one in passes:
            with open_shares(features.parent, [type(one).__name__, *plan.streams], rank) as shares:
                _fill(features, plan, one, shares, report, show_progress)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise CacheError(
            f"the disk of {features.parent} is full. What was stored is kept and can be read "
            f"({_added(report)}). Make room and run the same command again: it goes on from there."
        ) from error
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"Interrupted. What was encoded is stored ({_added(report)}). Run the same command "
            "again: it goes on from there."
        ) from None
    finally:
        report.seconds = time.monotonic() - started
    return report


def audio_bytes(plan: Plan) -> int:
    """Bytes of the audio streams that a plan would add, by the headers of the recordings."""
    if not plan.audio:
        return 0
    return AudioPass(plan, ExtractReport(), lambda _: None).estimate().nbytes


def _fill(
    features: Path,
    plan: Plan,
    one: TextPass | AudioPass,
    shares: Shares | Claimed,
    report: ExtractReport,
    show_progress: bool,
) -> None:
    """Work on shares until every one was looked at while it was held, and nothing was missing."""
    by_share: dict[int, list[Item]] = {}
    for item in one.items:
        by_share.setdefault(share_of(item.key), []).append(item)
    left = set(by_share)
    while left:
        taken = shares.take(left)
        if not taken:
            shares.wait()
            continue
        shares.busy()
        found = [
            item for share in taken for item in by_share[share] if item.key not in report.failed
        ]
        pull(features.parent)  # what other machines sent, where it is connected to an object store
        missing = still_lacking(features, found, windowed=plan.windowed)
        given: set[int] = set()
        if missing:
            _derive(features, plan, missing, report)
            with StreamWriter(features, report) as writer:
                needing = [item for item in missing if item.targets]
                given = _work(one, needing, writer, shares, show_progress)
        done = set(taken) - given
        shares.release(done)
        left -= done


def _derive(features: Path, plan: Plan, items: Sequence[Item], report: ExtractReport) -> None:
    """Moments whose frames are there, from those."""
    keys: dict[Target, list[str]] = {}
    for item in items:
        for target in item.derived:
            keys.setdefault(target, []).append(item.key)
    for target, found in keys.items():
        assert target.layer is not None
        source = Source(target.recipe, layers=(target.layer,), windowed=plan.windowed)
        report.add(target.path, derive_moments(features, source, target.layer, found))


def _work(
    one: TextPass | AudioPass,
    items: Sequence[Item],
    writer: StreamWriter,
    shares: Shares | Claimed,
    show_progress: bool,
) -> set[int]:
    """Encode and store inputs; returns the shares that were given to others on the way."""
    given: set[int] = set()

    def give() -> set[int]:
        """Every second share that still has something to be done, if others wait for it."""
        if not shares.is_anyone_waiting():
            return given
        # What is done in them has to be in the cache when somebody else looks.
        writer.commit()
        now = set(sorted({share_of(item.key) for item in one.remaining()} - given)[1::2])
        shares.give(now)
        given.update(now)
        return given

    one.run(items, writer.put, give, show_progress)
    return given


def _announce(
    root: Path,
    plan: Plan,
    estimates: Sequence[Estimate],
    report: ExtractReport,
    tell: Callable[[str], None],
) -> None:
    """Say why anything is extracted anew and how much, and refuse what the disk cannot hold."""
    for line in changes_lines(plan):
        tell(line)
    streams = {path: n for one in estimates for path, n in one.streams.items()}
    needed = Estimate(streams, sum(one.seconds for one in estimates))
    report.estimated.update(needed.streams)
    config = plan.config
    if "all" in (config.audio_layers, config.text_layers) and not config.moments_only:
        tell(
            f"Warning: the frames of all layers take {bytes_text(needed.nbytes)} "
            f"({needed.nbytes:,} bytes). --moments-only keeps each utterance's mean and deviation "
            "alone."
        )
    free = check_space(root, needed)
    audio = f"{time_text(needed.seconds)} of audio: " if needed.seconds else ""
    tell(f"To do: {audio}{bytes_text(needed.nbytes)} to be written, {bytes_text(free)} free.")


def _added(report: ExtractReport) -> str:
    count = max(report.added.values(), default=0)
    return f"{count:,} utterances in this run"
