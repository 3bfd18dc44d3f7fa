"""Extraction: decode, encode and write what the cache lacks.

Recordings are decoded in threads while the encoder works, and written by content key. One bad
recording is a reported failure; it does not stop the others and is tried again next time.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from cache.audio import audio_seconds, load_audio
from cache.audio_encoder import AudioEncoder, load_audio_encoder
from cache.energy import energy
from cache.extraction import TOKEN_KIND
from cache.frames import Frames
from cache.grid import SAMPLE_RATE, Grid
from cache.keys import normalise_text
from cache.layout import ensure_stream, open_features
from cache.plan import Item, Plan, Target
from cache.text_encoder import load_text_encoder
from cache.vad import SpeechDetector, load_detector, speech
from cache.writer import PartWriter
from corpora.errors import AudioError, CacheError
from corpora.manifest import Utterance
from corpora.progress import progress_bar
from corpora.work import Work

# Seconds of audio encoded at once: a CPU gains nothing from more, a GPU needs enough to be busy.
BATCH_SECONDS = {"cpu": 40.0, "cuda": 600.0}
# Characters of text encoded at once, by the same reasoning.
BATCH_CHARACTERS = {"cpu": 4_000, "cuda": 100_000}
# Batches decoded ahead of the encoder: enough to hide one slow file, little enough to hold.
BATCHES_AHEAD = 3
DECODING_THREADS = 4

Waveform = NDArray[np.float32]
T = TypeVar("T")


@dataclass
class ExtractReport:
    """What an extraction did.

    Attributes:
        added: new utterances by stream path.
        failures: reasons by utterance id.
        seconds_of_audio: decoded in this run.
        seconds: it took.
        truncated: texts that were longer than their encoder reads.
    """

    added: dict[str, int] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    seconds_of_audio: float = 0.0
    seconds: float = 0.0
    truncated: int = 0


@dataclass(frozen=True)
class _Recording:
    item: Item
    seconds: float


def run_plan(
    work: Work, plan: Plan, *, max_seconds: float, show_progress: bool = False
) -> ExtractReport:
    """Fill the streams of a plan.

    Leaving early (an interrupt, a full disk) keeps every utterance that was encoded.

    Args:
        work: the work folder.
        plan: from `make_plan`.
        max_seconds: longer recordings are refused by name.
        show_progress: bars on standard error.

    Returns:
        The report; `failures` names what could not be used.
    """
    report = ExtractReport(failures=dict(plan.absent))
    started = time.monotonic()
    open_features(work.features)
    # TF32 would change digits that the recipe promises.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    if plan.text:
        with _Writers(work, plan, report) as writers:
            _run_text(plan, writers, report, show_progress)
    if plan.audio:
        with _Writers(work, plan, report) as writers:
            _run_audio(plan, writers, report, max_seconds, show_progress)
    report.seconds = time.monotonic() - started
    return report


class _Writers:
    """The open writers of all streams of a pass, made when the first frames of each arrive."""

    def __init__(self, work: Work, plan: Plan, report: ExtractReport) -> None:
        self._work = work
        self._plan = plan
        self._report = report
        self._stack = ExitStack()
        self._open: dict[str, PartWriter] = {}

    def __enter__(self) -> _Writers:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def add(self, item: Item, values: Mapping[Target, NDArray[Any]]) -> None:
        """Store one utterance in all its streams; what cannot be stored is a failure."""
        try:
            for target, frames in values.items():
                self._writer(target, frames).add(item.key, frames)
                self._report.added[target.path] = self._report.added.get(target.path, 0) + 1
        except CacheError as error:
            self.fail(item, str(error))

    def fail(self, item: Item, reason: str) -> None:
        """Note why an input has no frames, for every utterance that has it."""
        for utterance in item.utterances:
            self._report.failures[utterance.id] = reason

    def _writer(self, target: Target, frames: NDArray[Any]) -> PartWriter:
        if target.path not in self._open:
            dtype = "uint8" if target.name == TOKEN_KIND else target.recipe.fields["stored_dtype"]
            folder = ensure_stream(
                self._work.features, target.recipe, target.name, frames.shape[1], str(dtype)
            )
            writer = PartWriter(folder, frames.shape[1], np.dtype(str(dtype)))
            self._open[target.path] = self._stack.enter_context(writer)
        return self._open[target.path]


def _run_text(plan: Plan, writers: _Writers, report: ExtractReport, show: bool) -> None:
    encoder = load_text_encoder(plan.directories["text"], device=plan.device)
    texts = {item.key: normalise_text(item.utterance.text) for item in plan.text}
    items = sorted(plan.text, key=lambda item: (-len(texts[item.key]), item.key))
    budget = BATCH_CHARACTERS[plan.device]
    with progress_bar("extracting text", len(items), "texts", show=show) as bar:
        for batch in _batches(items, lambda item: len(texts[item.key]) + 8, budget):
            tokens = encoder.tokenise([texts[item.key] for item in batch])
            report.truncated += sum(text.truncated for text in tokens)
            with torch.inference_mode():
                frames = encoder(tokens, _layers(batch))
            for row, item in enumerate(batch):
                values = _rows_of(item, frames, row)
                for target in item.targets:
                    if target.name == TOKEN_KIND:
                        values[target] = tokens[row].kinds[:, None]
                writers.add(item, values)
            bar.update(len(batch))


def _run_audio(
    plan: Plan, writers: _Writers, report: ExtractReport, max_seconds: float, show: bool
) -> None:
    grid = plan.grid
    assert grid is not None, "audio is planned with its grid"
    recordings = _measured(plan.audio, writers, max_seconds)
    lacking = {target.recipe.kind for item in plan.audio for target in item.targets}
    encoder = detector = None
    if "audio" in lacking:
        encoder = load_audio_encoder(
            plan.directories["audio"],
            device=plan.device,
            compute_dtype="bf16" if plan.compute_dtype == "bf16" else "fp32",
        )
    if "speech" in lacking:
        detector = load_detector(plan.device)
    budget = BATCH_SECONDS[plan.device]
    batches = _batches(recordings, lambda recording: recording.seconds, budget)
    hours = sum(recording.seconds for recording in recordings) / 3600
    started = time.monotonic()
    with progress_bar("extracting audio", hours, "h", show=show) as bar:
        for batch, waveforms in _decoded(batches, grid, writers):
            items = [recording.item for recording in batch]
            if items:
                frames, probabilities = _encode(items, waveforms, grid, encoder, detector)
                for row, item in enumerate(items):
                    values = _rows_of(item, frames, row)
                    for target in item.targets:
                        if target.recipe.kind == "energy":
                            values[target] = energy(waveforms[row], grid)[:, None]
                        elif target.recipe.kind == "speech" and probabilities is not None:
                            values[target] = probabilities[row][:, None]
                    writers.add(item, values)
            seconds = sum(len(waveform) for waveform in waveforms) / SAMPLE_RATE
            report.seconds_of_audio += seconds
            bar.set_postfix_str(
                f"{report.seconds_of_audio / (time.monotonic() - started):.0f}× real time",
                refresh=False,
            )
            bar.update(seconds / 3600)


def _encode(
    items: Sequence[Item],
    waveforms: Sequence[Waveform],
    grid: Grid,
    encoder: AudioEncoder | None,
    detector: SpeechDetector | None,
) -> tuple[dict[int, Frames], list[NDArray[np.float32]] | None]:
    """Frames by layer, and the speech probabilities, of a batch."""
    layers = _layers(items)
    with torch.inference_mode():
        frames = encoder(waveforms, layers) if encoder is not None and layers else {}
        probabilities = speech(waveforms, grid, detector) if detector is not None else None
    return frames, probabilities


def _rows_of(item: Item, frames: Mapping[int, Frames], row: int) -> dict[Target, NDArray[Any]]:
    """The layers that an item lacks, as arrays `[T, D]`."""
    return {
        target: frames[target.layer].utterance(row).float().cpu().numpy()
        for target in item.targets
        if target.layer is not None and target.layer in frames
    }


def _layers(items: Sequence[Item]) -> list[int]:
    """The layers that any of these items lacks."""
    found = {target.layer for item in items for target in item.targets}
    return sorted(layer for layer in found if layer is not None)


def _measured(items: Sequence[Item], writers: _Writers, max_seconds: float) -> list[_Recording]:
    """The recordings that can be used, longest first: memory is at its peak at the start."""
    recordings = []
    for item in items:
        try:
            seconds = _seconds(item.utterance)
        except AudioError as error:
            writers.fail(item, str(error))
            continue
        if seconds > max_seconds:
            writers.fail(
                item,
                f"{item.utterance.audio}: {seconds:.1f} s long, more than --max-seconds "
                f"{max_seconds:g}. Cut it into shorter utterances, or raise the limit.",
            )
        else:
            recordings.append(_Recording(item, seconds))
    return sorted(recordings, key=lambda recording: (-recording.seconds, recording.item.key))


def _seconds(utterance: Utterance) -> float:
    start = utterance.start or 0.0
    if utterance.end is not None:
        return utterance.end - start
    return audio_seconds(utterance.audio, where=_where(utterance)) - start


def _where(utterance: Utterance) -> str:
    line = f"manifest line {utterance.line}, " if utterance.line else ""
    return f"{line}utterance {utterance.id}"


def _batches(items: Sequence[T], size: Callable[[T], float], budget: float) -> Iterator[list[T]]:
    """Runs of items of at most `budget`, counted as padded: the largest times their number."""
    batch: list[T] = []
    largest = 0.0
    for item in items:
        largest = max(largest, size(item))
        if batch and largest * (len(batch) + 1) > budget:
            yield batch
            batch, largest = [], size(item)
        batch.append(item)
    if batch:
        yield batch


def _decoded(
    batches: Iterator[list[_Recording]], grid: Grid, writers: _Writers
) -> Iterator[tuple[list[_Recording], list[Waveform]]]:
    """Batches with their waveforms, decoded ahead; recordings that fail are left out."""

    def decode(recording: _Recording) -> Waveform:
        utterance = recording.item.utterance
        return load_audio(
            utterance.audio,
            utterance.start,
            utterance.end,
            where=_where(utterance),
            minimum_samples=grid.minimum_samples,
        )

    with ThreadPoolExecutor(DECODING_THREADS) as threads:
        ahead: deque[list[tuple[_Recording, Future[Waveform]]]] = deque()
        exhausted = False
        while ahead or not exhausted:
            while not exhausted and len(ahead) < BATCHES_AHEAD:
                batch = next(batches, None)
                if batch is None:
                    exhausted = True
                else:
                    ahead.append([(one, threads.submit(decode, one)) for one in batch])
            if ahead:
                kept, waveforms = [], []
                for recording, future in ahead.popleft():
                    try:
                        waveforms.append(future.result())
                        kept.append(recording)
                    except AudioError as error:
                        writers.fail(recording.item, str(error))
                yield kept, waveforms
