"""Recordings through Whisper: decoded ahead, without those that are silent, cut in pieces."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from cache.audio import decode_ahead, load_audio
from cache.config import TRANSFORMERS, TranscribeConfig
from cache.encoders.budget import batch_bytes
from cache.encoders.device import choose_device
from cache.encoders.files import CHUNK
from cache.encoders.signal import Signal
from cache.encoders.vad import SpeechDetector, load_detector
from cache.extract.audio_pass import measure
from cache.extract.encoding import Encoding
from cache.extract.targets import Item
from cache.transcribe.faster import FasterWhisper, load_faster_whisper
from cache.transcribe.journal import Heard, Journal, Transcript
from cache.transcribe.model_files import WhisperFiles
from cache.transcribe.transcription import UNSPACED
from cache.transcribe.whisper import PIECE_SECONDS, Piece, Whisper, cut_at_pauses, load_whisper
from corpora.base.terminal import AUDIO, progress_bar
from corpora.utterance import where_of

# Pieces decoded at once: a step of a GPU takes as long for one as for several; a CPU gains little.
BATCH_SIZE = {"cpu": 4, "cuda": 16}
_TOO_LARGE = "it does not fit the GPU's memory. Choose a smaller model, or --device cpu."


@dataclass(frozen=True)
class Listened:
    """What a run did.

    Attributes:
        transcripts: new ones.
        failures: reasons by recording and language told.
        seconds_of_audio: heard.
        seconds: it took, without loading the model.
        device: `cpu`, or a GPU such as `cuda:0`.
    """

    transcripts: Mapping[Heard, Transcript]
    failures: Mapping[Heard, str]
    seconds_of_audio: float
    seconds: float
    device: str


@dataclass(frozen=True)
class _Job:
    """A recording to be heard, and its length in seconds by header or bounds."""

    heard: Heard
    item: Item
    seconds: float


def listen(
    items: Mapping[Heard, Item],
    whisper: WhisperFiles,
    config: TranscribeConfig,
    journal: Journal,
    *,
    tell: Callable[[str], None],
    show_progress: bool,
) -> Listened:
    """Hear recordings, and put what is heard into the journal after each batch.

    Args:
        items: by recording and language told.
        whisper: with what.
        config: what the user asks.
        journal: takes the transcripts.
        tell: for lines to be read while it runs.
        show_progress: a bar.
    """
    device = choose_device(config.device)
    failures: dict[Heard, str] = {}
    jobs = _measured(items, failures)
    model = (
        load_whisper(whisper.directory, device=device)
        if config.engine == TRANSFORMERS
        else load_faster_whisper(whisper.directory, config.engine, device)
    )
    size = config.batch_size or pieces_at_once(model, device)
    listener = Listener(
        model,
        load_detector(device),
        batch_size=size,
        speech_threshold=config.speech_threshold,
        tell=tell,
    )

    def decode(job: _Job) -> tuple[_Job, NDArray[np.float32]]:
        one = job.item.utterance
        return job, load_audio(one.audio, one.start, one.end, where=where_of(one))

    def fail(job: _Job, reason: str) -> None:
        failures[job.heard] = reason

    transcripts: dict[Heard, Transcript] = {}
    started, done = time.monotonic(), 0.0
    total = sum(job.seconds for job in jobs)
    with (
        progress_bar("transcribing", total, AUDIO, show=show_progress) as bar,
        closing(decode_ahead(_batches(jobs, size), decode, fail)) as stream,
    ):
        for planned, batch in stream:
            found = listener([(job.heard[1], waveform) for job, waveform in batch])
            new = {}
            for (job, _), result in zip(batch, found, strict=True):
                if result is None:
                    fail(job, f"{where_of(job.item.utterance)}: {_TOO_LARGE}")
                else:
                    new[job.heard] = result
                    done += job.seconds
            journal.add(whisper.fingerprint, whisper.source, new)
            transcripts |= new
            speed = done / (time.monotonic() - started)
            bar.set_postfix_str(f"{speed:.1f}× real time", refresh=False)
            bar.update(sum(job.seconds for job in planned))
    return Listened(transcripts, failures, done, time.monotonic() - started, device)


def pieces_at_once(model: Whisper | FasterWhisper, device: str) -> int:
    """As many as keep a device busy, or as its memory takes."""
    return min(BATCH_SIZE[torch.device(device).type], model.need.fitting(batch_bytes(device)))


def _measured(items: Mapping[Heard, Item], failures: dict[Heard, str]) -> list[_Job]:
    """Longest first: batches hold like with like, and the time left is not underestimated."""
    seconds = measure(list(items.values()))
    jobs = []
    for heard, item in items.items():
        found = seconds[item.key]
        if isinstance(found, str):
            failures[heard] = found
        else:
            jobs.append(_Job(heard, item, found))
    return sorted(jobs, key=lambda job: (-job.seconds, job.heard))


def _batches(jobs: Sequence[_Job], size: int) -> list[list[_Job]]:
    """Recordings of one piece together; longer ones alone: their pieces are batches."""
    long = [[job] for job in jobs if job.seconds > PIECE_SECONDS]
    short = [job for job in jobs if job.seconds <= PIECE_SECONDS]
    return long + [short[first : first + size] for first in range(0, len(short), size)]


class Listener:
    """Hears whole recordings.

    Args:
        model: hears pieces.
        detector: of voice activity.
        batch_size: pieces at once.
        speech_threshold: pieces that never reach this probability of speech are not decoded.
        tell: for lines to be read while it runs.
    """

    def __init__(
        self,
        model: Whisper | FasterWhisper,
        detector: SpeechDetector,
        *,
        batch_size: int,
        speech_threshold: float,
        tell: Callable[[str], None],
    ) -> None:
        self._model = model
        self._detector = detector
        self._size = batch_size
        self._threshold = speech_threshold
        self._tell = tell

    def __call__(
        self, recordings: Sequence[tuple[str, NDArray[np.float32]]]
    ) -> list[Transcript | None]:
        """What is said in each recording.

        Args:
            recordings: the language told ("" is none) and `[samples]` at 16 kHz.

        Returns:
            None for a recording that does not fit the GPU's memory.
        """
        with torch.inference_mode():
            signal = Signal.of([waveform for _, waveform in recordings], self._detector.device)
            speech = [row.cpu().numpy() for row in self._detector(signal)]
        cut = [
            self._pieces(language, waveform, row)
            for (language, waveform), row in zip(recordings, speech, strict=True)
        ]
        # A long recording (which is alone) has one language, that of its first speech.
        if len(cut) == 1 and len(cut[0]) > 1 and not cut[0][0].language:
            first = self._hear(cut[0][:1])
            language = first[0].language if first[0] else ""
            told = [replace(piece, language=language) for piece in cut[0][1:]]
            return [_joined([*first, *self._hear(told)])]
        heard = iter(self._hear([piece for pieces in cut for piece in pieces]))
        return [_joined([next(heard) for _ in pieces]) for pieces in cut]

    def _pieces(
        self, language: str, waveform: NDArray[np.float32], speech: NDArray[np.float32]
    ) -> list[Piece]:
        """A recording's pieces with speech in them."""
        return [
            Piece(waveform[first:last], language)
            for first, last in cut_at_pauses(speech, len(waveform))
            if speech[first // CHUNK : -(-last // CHUNK)].max() >= self._threshold
        ]

    def _hear(self, pieces: Sequence[Piece]) -> list[Transcript | None]:
        """Each piece's transcript; None for one that does not fit."""
        found: dict[int, Transcript] = {}

        def run(batch: Sequence[tuple[int, Piece]]) -> None:
            heard = self._model([piece for _, piece in batch])
            found.update(zip((number for number, _ in batch), heard, strict=True))

        # Whatever its length, a piece is heard as 30 s.
        encoding = Encoding(run, lambda _: None, self._tell, lambda _: 1, option="--batch-size")
        numbered = list(enumerate(pieces))
        for first in range(0, len(numbered), self._size):
            encoding(numbered[first : first + self._size])
        return [found.get(number) for number in range(len(pieces))]


def _joined(heard: Sequence[Transcript | None]) -> Transcript | None:
    """One transcript of a recording's pieces; of none, that nobody speaks."""
    found = [one for one in heard if one is not None]
    if len(found) < len(heard):
        return None
    language = next((one.language for one in found if one.text), "")
    language = language or (found[0].language if found else "")
    space = "" if language in UNSPACED else " "
    text = space.join(one.text for one in found if one.text)
    return Transcript(text, language, silent=all(one.silent for one in found))
