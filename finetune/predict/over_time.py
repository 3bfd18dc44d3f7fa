"""Emotion over time: answers to the stretches of a recording of any length, in flat memory.

The recording is decoded twice, in blocks: once for its length (and where somebody speaks), once to
hand out stretches as their ends go by. Each stretch is encoded by itself, as utterances were when
the head was trained: whatever a front end normalises over (W2V-BERT its mels, wav2vec 2.0 its
samples, Whisper what it takes for silence) it normalises over that stretch, no neighbour's emotion
reaches it through the encoder's attention, Whisper hears it at the positions that it was trained
at, and the answer is that of `predict` to the stretch as a file of its own. A front end that saw
the whole recording could not begin before its end, and its scale would depend on what comes an hour
later.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache.audio import stream_audio
from cache.encoders.files import CHUNK
from cache.encoders.grid import SAMPLE_RATE
from cache.encoders.vad import SpeechDetector
from corpora.base.errors import AudioError
from corpora.stretches import (
    Stretch,
    checked,
    evenly,
    read_stretches,
    textgrid_stretches,
)
from corpora.utterance import Utterance
from finetune.config import PredictConfig
from finetune.predict.answering import (
    FRAME_BUDGET,
    Hears,
    Model,
    Waveform,
    encoded_at_once,
    fewest_samples,
    predict,
)
from finetune.predict.prediction import Prediction, Unusable
from finetune.predict.timeline import Moment, Timeline
from finetune.utterance_seconds import UNKNOWN, UtteranceSeconds
from heads.strength import Strength

#: Seconds of a window where neither the user nor the model says.
WINDOW_SECONDS = 3.0
VAD, TEXTGRID = "vad", "textgrid"
# As Silero's own decisions; pauses within a sentence do not part it, and a click is no speech.
SPEECH, GAP_SECONDS, LEAST_SECONDS = 0.5, 0.5, 0.25
# Where a stretch of speech is too long it is parted at its least likely .3 s.
_PAUSE_CHUNKS = 9
# What is held of a recording at once: some 20 MB of samples.
LOT_SECONDS, LOT = 300.0, 128
# Frames of a batch on a CPU, padding included: a dozen windows stay near its caches, which is a
# quarter faster than many (whisper-tiny.en), and takes little memory.
CPU_FRAMES = 2_000

Pick = Callable[[Utterance, float, NDArray[np.float32]], Sequence[Stretch]]


def speech_stretches(
    speech: NDArray[np.float32], duration: float, longest: float = math.inf
) -> list[Stretch]:
    """Where somebody speaks.

    Gaps under half a second are closed, what then is under a quarter of one is left out, and what
    is longer than `longest` is parted where speech is least likely.

    Args:
        speech: `[chunks]`, the detector's probabilities.
        duration: of the recording, seconds.
        longest: of a stretch, seconds.
    """
    chunk = CHUNK / SAMPLE_RATE
    edges = np.flatnonzero(np.diff(np.concatenate([[0], speech >= SPEECH, [0]]).astype(int)))
    merged: list[tuple[int, int]] = []
    for first, last in edges.reshape(-1, 2).tolist():
        if merged and (first - merged[-1][1]) * chunk < GAP_SECONDS:
            merged[-1] = (merged[-1][0], last)
        else:
            merged.append((first, last))
    around = np.convolve(speech, np.ones(_PAUSE_CHUNKS), mode="same")
    parts = [part for one in merged for part in _parted(*one, around, longest / chunk)]
    found = [Stretch(first * chunk, min(last * chunk, duration)) for first, last in parts]
    return [one for one in found if one.seconds >= LEAST_SECONDS]


def _parted(
    first: int, last: int, around: NDArray[np.float64], most: float
) -> Iterator[tuple[int, int]]:
    """Chunks of one stretch in pieces of at most so many, parted in the later half of each."""
    while last - first > most:
        earliest, latest = first + int(most) // 2, first + int(most)
        cut = max(earliest + int(np.argmin(around[earliest:latest])), first + 1)
        yield first, cut
        first = cut
    yield first, last


def choose_stretches(config: PredictConfig, window: float, longest: float) -> Pick:
    """How the stretches of a recording are found.

    Args:
        config: what is asked.
        window: seconds, for `--every`.
        longest: what the models take at once, seconds.

    Raises:
        ConfigError: a file of stretches cannot be read.
    """
    if config.every is not None:
        every = config.every
        return lambda _, duration, __: evenly(duration, every, window)
    if config.segments == VAD:
        return lambda _, duration, speech: speech_stretches(speech, duration, longest)
    if config.segments == TEXTGRID:
        return lambda utterance, _, __: textgrid_stretches(
            utterance.alignment or utterance.audio.with_suffix(".TextGrid"), config.tier
        )
    file = read_stretches(Path(config.segments))
    return lambda utterance, _, __: file.of(utterance.audio, utterance.id)


def over_time(
    models: Sequence[Model],
    utterance: Utterance,
    pick: Pick,
    *,
    detector: SpeechDetector | None = None,
    lengths: UtteranceSeconds | None = None,
    hears: Hears | None = None,
    max_seconds: float = PredictConfig.max_seconds,
    labels: Sequence[str] = (),
    strength: Strength | None = None,
    progress: Callable[[float], object] = lambda _: None,
) -> Timeline:
    """What models say about one recording over time.

    Args:
        models: see `finetune.predict.answering.predict`; all listen.
        utterance: a whole recording; its label and text play no part.
        pick: which stretches, of the recording, its length in seconds and the `[chunks]` of speech
            probability (empty without a detector).
        detector: of voice activity, where `pick` asks for it.
        lengths: of the utterances trained on.
        hears: fills in the texts of stretches that come without.
        max_seconds: longer stretches are refused.
        labels: only these; none: all.
        strength: of a single model's emotions; None: it is not said.
        progress: told which share of the recording was done since it was last told.

    Raises:
        AudioError: the recording or a stretch of it cannot be used.
        ConfigError: see `finetune.predict.answering.predict`.
    """
    audio, name = utterance.audio, utterance.id
    if utterance.start is not None or utterance.end is not None:
        raise AudioError(f"{name}: is a part of {audio}; over time, name whole recordings.")
    samples, speech = _measured(audio, detector)
    duration = samples / SAMPLE_RATE
    found = pick(utterance, duration, speech)
    if not found:
        raise AudioError(f"{name}: no speech found in {duration:.1f} s, so nothing is said.")
    stretches = checked(found, duration, name, fewest_samples(models) / SAMPLE_RATE)
    limit = longest_stretch(models, max_seconds)
    for one in stretches:
        if one.seconds > limit + 1e-6:
            raise AudioError(
                f"{name}: the segment {one.start:g} to {one.end:g} s is longer than the "
                f"{limit:g} s that are heard at once. Cut it, or see --max-seconds."
            )
    moments: list[Moment] = []
    cut = _Cut(audio)
    for lot in _lots(stretches):
        sounds = {(one.start, one.end): cut(one) for one in lot}
        for stretch, answer in zip(
            lot, _answers(models, utterance, lot, sounds, hears, labels, strength), strict=True
        ):
            since, until = stretch.span or (stretch.start, stretch.end)
            moments.append(
                Moment(
                    recording=name,
                    start=stretch.start,
                    end=stretch.end,
                    since=since,
                    until=until,
                    name=stretch.name,
                    label=answer.label,
                    probability=answer.probabilities.get(answer.label),
                    length=UNKNOWN if lengths is None else lengths.mark(stretch.seconds),
                    probabilities=answer.probabilities,
                    text=answer.text,
                    text_source=answer.text_source,
                    strengths=answer.strengths,
                    attributes=answer.attributes,
                )
            )
        progress(len(lot) / len(stretches))
    scales = models[0].head.config.attributes
    return Timeline(name, audio, duration, tuple(moments), scales)


def longest_stretch(models: Sequence[Model], max_seconds: float) -> float:
    """Seconds of the longest stretch that all models hear at once."""
    return min(max_seconds, encoded_at_once(models))


def _measured(audio: Path, detector: SpeechDetector | None) -> tuple[int, NDArray[np.float32]]:
    """Samples at 16 kHz, and `[chunks]` of speech probability where there is a detector."""
    samples = 0

    def counted() -> Iterator[Waveform]:
        nonlocal samples
        for block in stream_audio(audio):
            samples += len(block)
            yield block

    if detector is not None:
        speech = detector.stream(counted())
    else:
        speech = np.zeros(0, dtype=np.float32)
        deque(counted(), maxlen=0)
    return samples, speech


class _Cut:
    """Cuts stretches out of a recording that streams by; their starts must not go back."""

    def __init__(self, audio: Path) -> None:
        self._blocks = stream_audio(audio)
        self._held = np.zeros(0, dtype=np.float32)
        self._first = 0  # the sample that `held` begins with

    def __call__(self, stretch: Stretch) -> Waveform:
        """`[samples]` of the next stretch."""
        start = round(stretch.start * SAMPLE_RATE)
        end = start + round(stretch.seconds * SAMPLE_RATE)  # windows of one length stay so
        parts = [self._held]
        ahead = self._first + len(self._held)
        while ahead < end and (block := next(self._blocks, None)) is not None:
            parts.append(block)
            ahead += len(block)
            if ahead <= start:  # a gap
                parts, self._first = [], ahead
        held = np.concatenate(parts) if parts else self._held[:0]
        self._held = held[max(0, start - self._first) :]
        self._first = max(self._first, start)
        return self._held[: end - start].copy()


def _lots(stretches: Sequence[Stretch]) -> Iterator[list[Stretch]]:
    """Stretches that are cut out and answered together."""
    lot: list[Stretch] = []
    held = 0.0
    for one in stretches:
        if lot and (len(lot) == LOT or held + one.seconds > LOT_SECONDS):
            yield lot
            lot, held = [], 0.0
        lot.append(one)
        held += one.seconds
    yield lot


def _answers(
    models: Sequence[Model],
    utterance: Utterance,
    lot: Sequence[Stretch],
    sounds: Mapping[tuple[float, float], Waveform],
    hears: Hears | None,
    labels: Sequence[str],
    strength: Strength | None,
) -> Iterator[Prediction]:
    """An answer for each stretch of a lot."""
    rows = [replace(utterance, start=one.start, end=one.end, text=one.text) for one in lot]

    def load(one: Utterance) -> Waveform:
        assert one.start is not None
        assert one.end is not None
        return sounds[one.start, one.end]

    on_cpu = all(
        one.audio_encoder is None or one.audio_encoder.device.type == "cpu" for one in models
    )
    answers = predict(
        models,
        rows,
        top_frames=0,
        hears=hears,
        max_seconds=math.inf,
        labels=labels,
        strength=strength,
        frame_budget=CPU_FRAMES if on_cpu else FRAME_BUDGET,
        load=load,
    )
    for answer in answers:
        if isinstance(answer, Unusable):
            raise AudioError(answer.error)
        yield answer
