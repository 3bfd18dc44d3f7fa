"""The recordings of an extraction: measured, put in batches, decoded, encoded."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing

import torch

from cache.audio import (
    audio_seconds,
    batches,
    decode_ahead,
    each_in_threads,
    energy,
    load_audio,
)
from cache.encoders.audio_encoder import AudioEncoder, load_audio_encoder
from cache.encoders.budget import Budget, batch_budget
from cache.encoders.grid import SAMPLE_RATE, Grid, encoder_shape
from cache.encoders.vad import SpeechDetector, load_detector
from cache.extract.encoding import (
    Decoded,
    Encoded,
    Encoding,
    Recording,
    encode_audio,
    frames_of,
    layers_of,
)
from cache.extract.plan import Plan
from cache.extract.stream_writer import share_of
from cache.extract.summary import ExtractReport
from cache.extract.targets import Estimate, Item, estimate
from cache.keys import WINDOW_SECONDS
from cache.moments import ROWS
from cache.store.layout import DTYPES
from cache.store.parts import MAX_PART_BYTES
from corpora.base.errors import AudioError
from corpora.base.terminal import AUDIO, progress_bar
from corpora.utterance import where_of


def measure(items: Sequence[Item]) -> dict[str, float | str]:
    """Seconds of each recording by key, from its header; what is wrong where it has none."""

    def one(item: Item) -> float | str:
        utterance = item.utterance
        start = utterance.start or 0.0
        if utterance.end is not None:
            return utterance.end - start
        try:
            return audio_seconds(utterance.audio, where=where_of(utterance)) - start
        except AudioError as error:
            return str(error)

    return dict(zip((item.key for item in items), each_in_threads(one, items), strict=True))


def decoded(
    planned: Iterable[list[Recording]], grid: Grid, fail: Callable[[Item, str], None]
) -> Generator[tuple[list[Recording], list[Decoded]], None, None]:
    """Batches as planned, and decoded some batches ahead without those that fail."""

    def decode(recording: Recording) -> Decoded:
        utterance = recording.item.utterance
        waveform = load_audio(
            utterance.audio,
            utterance.start,
            utterance.end,
            where=where_of(utterance),
            minimum_samples=grid.minimum_samples,
        )
        return Decoded(recording, waveform, energy(waveform, grid))

    return decode_ahead(planned, decode, lambda one, reason: fail(one.item, reason))


# Seconds of audio encoded at once, padding included: a CPU gains nothing from more, a GPU needs
# enough to be busy. Fewer where they would not fit (`cache.encoders.budget`).
BATCH_SECONDS = {"cpu": 40.0, "cuda": 1200.0}


class AudioPass:
    """Encodes recordings.

    Args:
        plan: what is to be done.
        report: failures and seconds are noted here.
        tell: for lines to be read while it runs.
    """

    def __init__(self, plan: Plan, report: ExtractReport, tell: Callable[[str], None]) -> None:
        assert plan.grid is not None, "audio is planned with its grid"
        self.items = plan.audio
        self._plan = plan
        self._grid = plan.grid
        self._report = report
        self._tell = tell
        seconds = plan.config.batch_seconds or BATCH_SECONDS[torch.device(plan.device).type]
        frames = max(1, round(seconds * SAMPLE_RATE / plan.grid.hop))
        self._budget = Budget(frames, lambda length: length)
        self._stored = getattr(torch, plan.config.stored_dtype)
        _, self._dim = encoder_shape(plan.directories["audio"])
        self._padding = plan.padding
        self._seconds: dict[str, float | str] = {}
        self._encoder: AudioEncoder | None = None
        self._detector: SpeechDetector | None = None
        self._left: list[list[Recording]] = []

    def estimate(self) -> Estimate:
        """Bytes that all of it will take."""
        found = map(self._recording, self.items)
        recordings = [one for one in found if isinstance(one, Recording)]
        wanted = (
            (target, ROWS if target.moments else self._grid.frames(one.samples))
            for one in recordings
            for target in (*one.item.targets, *one.item.derived)
        )
        spoken = sum(one.seconds for one in recordings)
        return estimate(wanted, {"audio": self._dim}, spoken)

    def remaining(self) -> Iterator[Item]:
        """What `run` has not begun; nothing if too little is left to be worth sharing."""
        if len(self._left) > 1:
            yield from (one.item for batch in self._left for one in batch)

    def run(
        self,
        items: Sequence[Item],
        put: Callable[[Encoded], None],
        give: Callable[[], set[int]],
        show_progress: bool,
    ) -> None:
        """Encode recordings.

        Args:
            items: which.
            put: takes what was encoded.
            give: between two batches: the shares that others have taken over.
            show_progress: a bar.
        """
        self._load({target.recipe.kind for item in items for target in item.targets})
        # Longest first: memory is at its peak at the start, and batches hold like with like.
        recordings = sorted(self._usable(items), key=lambda one: (-one.seconds, one.item.key))
        if self._plan.config.batch_seconds is None and self._encoder is not None:
            layers = len(layers_of(items))
            self._budget = batch_budget(self._budget.frames, audio=self._encoder, states=layers)
        # Those encoded in windows go alone: their windows are a batch.
        whole = [one for one in recordings if not one.windowed]
        self._left = [[one] for one in recordings if one.windowed]
        self._left += batches(whole, lambda r: self._counted_frames(r.samples), self._budget.frames)
        encoding = Encoding(
            self._encode,
            self._too_large,
            self._tell,
            lambda one: self._counted_frames(len(one.waveform)),
        )
        started, done = time.monotonic(), 0.0
        total = sum(one.seconds for one in recordings)
        with (
            progress_bar("extracting audio", total, AUDIO, show=show_progress) as bar,
            # Decoding runs ahead in a copy: what others take over is dropped when its turn comes.
            closing(decoded(list(self._left), self._grid, self._report.fail)) as stream,
        ):
            for planned, batch in stream:
                given = give()
                self._left = self._left[1:]
                kept = [
                    one
                    for one in batch
                    if share_of(one.recording.item.key) not in given and self._fits(one)
                ]
                for encoded in encoding(kept):
                    put(encoded)
                seconds = sum(one.seconds for one in kept)
                done += seconds
                self._report.seconds_of_audio += seconds
                speed = done / (time.monotonic() - started)
                bar.set_postfix_str(f"{speed:.0f}× real time", refresh=False)
                bar.update(sum(one.seconds for one in planned))

    def _counted_frames(self, samples: int) -> int:
        """As how many frames a recording counts in a batch, silence behind it included."""
        padding = self._padding
        encoded = samples if padding is None else padding.padded(samples)
        return self._budget.size(self._grid.frames(encoded))

    def _fits(self, one: Decoded) -> bool:
        """Whether a recording is as short as its header said; else it is a failure."""
        padding = self._padding
        if padding is None or one.recording.windowed or len(one.waveform) <= padding.limit:
            return True
        self._report.fail(one.recording.item, self._too_long(one.recording.item, one.seconds))
        return False

    def _encode(self, batch: Sequence[Decoded]) -> Encoded:
        length = max(1, frames_of(WINDOW_SECONDS, self._grid))
        return encode_audio(
            batch,
            self._grid,
            self._encoder,
            self._detector,
            stored=self._stored,
            batch_frames=min(self._budget.frames, self._budget.at_once(length) * length),
            whole=self._plan.config.whole,
        )

    def _load(self, lacking: set[str]) -> None:
        """The encoder and the detector, as far as their streams lack anything."""
        if "audio" in lacking and self._encoder is None:
            self._encoder = load_audio_encoder(
                self._plan.directories["audio"],
                device=self._plan.device,
                compute_dtype="bf16" if self._plan.compute_dtype == "bf16" else "fp32",
                padding=self._padding,
            )
            self._encoder.cast_weights()
            if self._plan.config.compile:
                self._encoder.compile_layers()
        if "speech" in lacking and self._detector is None:
            self._detector = load_detector(self._plan.device)

    def _usable(self, items: Sequence[Item]) -> list[Recording]:
        """The recordings that can be encoded; the others are failures."""
        unknown = [item for item in items if item.key not in self._seconds]
        self._seconds.update(measure(unknown))
        usable = []
        for item in items:
            found = self._recording(item)
            if isinstance(found, Recording):
                usable.append(found)
            else:
                self._report.fail(item, found)
        return usable

    def _recording(self, item: Item) -> Recording | str:
        """A recording with its length; or why it is refused."""
        if not self._seconds:
            self._seconds.update(measure(self.items))
        seconds = self._seconds[item.key]
        if isinstance(seconds, str):
            return seconds
        found = Recording(item, seconds, windowed=seconds > self._longest)
        if found.windowed and not self._plan.windowed:
            return self._too_long(item, seconds)
        frame_bytes = self._dim * DTYPES[self._plan.config.stored_dtype].itemsize
        longest = MAX_PART_BYTES // frame_bytes * self._grid.hop / SAMPLE_RATE
        has_frames = any(t.layer is not None and not t.moments for t in item.targets)
        if has_frames and seconds > longest:
            return (
                f"{_place(item)}: {seconds:.1f} s long; an utterance of the cache is one piece of "
                f"at most {MAX_PART_BYTES // 1_000_000} MB, which is {longest:.0f} s here. Cut it "
                "into shorter utterances."
            )
        return found

    @property
    def _longest(self) -> float:
        """Seconds of the longest recording that is encoded whole."""
        own = math.inf if self._padding is None else self._padding.limit_seconds
        return min(own, self._plan.config.max_seconds)

    def _too_long(self, item: Item, seconds: float) -> str:
        if self._longest == self._plan.config.max_seconds:
            limit, raised = f"--max-seconds {self._longest:g}", ", raise the limit,"
        else:
            limit, raised = f"the {self._longest:g} s that this encoder takes at once", ""
        return (
            f"{_place(item)}: {seconds:.1f} s long, more than {limit}. Cut it into shorter "
            f"utterances{raised} or encode it in overlapping windows with --long window."
        )

    def _too_large(self, one: Decoded) -> None:
        item = one.recording.item
        self._report.fail(
            item,
            f"{_place(item)}: {one.seconds:.1f} s do not fit the GPU's memory. Lower --max-seconds "
            "and use --long window, or cut it.",
        )


def _place(item: Item) -> str:
    return f"{where_of(item.utterance)}: {item.utterance.audio}"
