"""Occlusion of the audio itself: what the answer loses when a stretch of sound is taken away.

Frames are contextual: an encoder spreads what it hears over its neighbours, so attention over
frames need not lie where the sound mattered. Here sound is replaced before the encoder, one window
after another, and the fall of the predicted class's probability is compared with attention.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from cache.audio import load_audio
from cache.encoders.grid import SAMPLE_RATE, Grid
from cache.frames import Frames
from corpora.base.errors import AudioError
from corpora.base.report import Cell, Table
from corpora.base.terminal import progress_bar
from corpora.utterance import where_of
from explain.ragged import Floats, correlations, floats, ints, ranks_within, speaker_means
from explain.subject import Subject, frame_order
from finetune.batches import counted
from finetune.model import EmotionModel

SILENCE, NOISE = "silence", "noise"
# Seconds of sound encoded at once.
BATCH_SECONDS = 60.0


@dataclass(frozen=True)
class OcclusionConfig:
    """How audio is occluded.

    Attributes:
        windows: lengths in seconds: a phone, a syllable, a word.
        fills: `silence` (zeros) or `noise` (white, as loud as what it replaces).
        limit: utterances, drawn at random; each takes hundreds of passes through the encoder.
        seed: of the draw and of the noise.
        progress: whether to show a bar.
    """

    windows: tuple[float, ...] = (0.1, 0.2, 0.3)
    fills: tuple[str, ...] = (SILENCE, NOISE)
    limit: int = 20
    seed: int = 0
    progress: bool = False


@dataclass(frozen=True, eq=False)
class Occlusion:
    """What occlusion found.

    Attributes:
        rows: `[m]`, the utterances' numbers in the subject.
        agreement: by (seconds, fill) `[m]`, rank correlation over an utterance's frames of the
            loss of probability with attention; NaN where the utterance is no longer than the
            window, or one of the two does not vary.
        failed: reasons by id.
    """

    rows: NDArray[np.int64]
    agreement: Mapping[tuple[float, str], Floats]
    failed: Mapping[str, str] = field(default_factory=dict)


def occlude(subject: Subject, model: EmotionModel, config: OcclusionConfig) -> Occlusion:
    """Occlude the recordings of some utterances of a subject.

    Args:
        subject: with audio frames.
        model: the subject's, or its head on the encoders its frames came from.
        config: see `OcclusionConfig`.
    """
    random = np.random.default_rng(config.seed)
    rows = np.sort(random.permutation(len(subject))[: config.limit]).astype(np.int64)
    kinds = [(seconds, fill) for seconds in config.windows for fill in config.fills]
    agreement = {kind: np.full(len(rows), np.nan) for kind in kinds}
    failed: dict[str, str] = {}
    with progress_bar("Occlusion", len(rows), "utterance", show=config.progress) as bar:
        for place, row in enumerate(rows.tolist()):
            utterance = subject.utterances[row]
            bar.update(1)
            try:
                waveform = load_audio(
                    utterance.audio, utterance.start, utterance.end, where=where_of(utterance)
                )
            except AudioError as error:
                failed[utterance.id] = str(error)
                continue
            for kind in kinds:
                lost = frame_losses(
                    model, waveform, utterance.text, int(subject.predicted[row]), kind, random
                )
                agreement[kind][place] = _agreement(subject, row, lost)
    return Occlusion(rows, agreement, failed)


def frame_losses(
    model: EmotionModel,
    waveform: NDArray[np.float32],
    text: str,
    target: int,
    kind: tuple[float, str],
    random: np.random.Generator,
) -> Floats:
    """`[T]`, how much a class's probability falls when the sound around each frame is replaced.

    The mean over the windows that cover the frame's centre; windows overlap by half. NaN where the
    recording is no longer than a window.

    Args:
        model: listens, and may read.
        waveform: `[samples]` at 16 kHz.
        text: of the utterance.
        target: the class.
        kind: length of a window in seconds, and what it is filled with.
        random: for noise.
    """
    assert model.audio_encoder is not None
    grid: Grid = model.audio_encoder.grid
    seconds, fill = kind
    centres = grid.centres(len(waveform))
    size = round(seconds * SAMPLE_RATE)
    if len(waveform) <= size:
        return np.full(len(centres), np.nan)
    starts = np.append(np.arange(0, len(waveform) - size, max(1, size // 2)), len(waveform) - size)
    variants = [waveform, *(_filled(waveform, start, size, fill, random) for start in starts)]
    probabilities = _probabilities(model, variants, text)[:, target]
    lost = probabilities[0] - probabilities[1:]
    covers = (centres >= starts[:, None]) & (centres < starts[:, None] + size)
    result: Floats = (lost[:, None] * covers).sum(axis=0) / np.maximum(covers.sum(axis=0), 1)
    return np.where(covers.any(axis=0), result, np.nan)


def _filled(
    waveform: NDArray[np.float32], start: int, size: int, fill: str, random: np.random.Generator
) -> NDArray[np.float32]:
    changed = waveform.copy()
    if fill == SILENCE:
        changed[start : start + size] = 0
    else:
        level = float(np.sqrt(np.square(waveform[start : start + size]).mean()))
        changed[start : start + size] = level * random.standard_normal(size)
    return changed


def _probabilities(
    model: EmotionModel, waveforms: Sequence[NDArray[np.float32]], text: str
) -> Floats:
    """`[V, C]` of variants of one recording; its text is read once."""
    assert model.audio_encoder is not None
    grid = model.audio_encoder.grid
    budget = int(BATCH_SECONDS * SAMPLE_RATE / grid.hop)
    fitting = budget // counted(model, [grid.frames(len(waveforms[0]))], budget)[0]
    step = max(1, min(fitting, int(BATCH_SECONDS * SAMPLE_RATE / len(waveforms[0]))))
    parts = []
    with torch.no_grad():
        read = None if model.text_encoder is None else model.read([text])
        for at in range(0, len(waveforms), step):
            several = waveforms[at : at + step]
            frames: dict[str, Frames] = {"audio": model.listen(several)}
            if read is not None:
                frames["text"] = read.select([0] * len(several))
            parts.append(torch.softmax(model.head(frames).float(), dim=1))
    return floats(torch.cat(parts))


def _agreement(subject: Subject, row: int, lost: Floats) -> float:
    """Rank correlation with attention over the frames of one utterance."""
    start, end = ints(subject.frames["audio"].offsets)[[row, row + 1]]
    attention = floats(frame_order(subject, "audio")[start:end])
    if len(lost) != len(attention) or np.isnan(lost).any():
        return float("nan")
    bounds = np.array([0, len(lost)])
    ranks = ranks_within(lost, bounds), ranks_within(attention, bounds)
    return float(correlations(*ranks, bounds)[0])


def occlusion_text(subject: Subject, found: Occlusion) -> list[str]:
    """What was done, and what could not be."""
    lines = [
        f"Audio occlusion on {len(found.rows):,} utterances: windows of sound are replaced before "
        "the encoder, and the fall of the predicted class's probability is compared with "
        f"{subject.methods['audio']} by rank, frame by frame (1: it lies where sound matters; "
        "0: no relation)."
    ]
    missing = {
        kind: int(np.isnan(values).sum()) - len(found.failed)
        for kind, values in found.agreement.items()
    }
    short = [f"{fill} of {s:g} s: {count:,}" for (s, fill), count in missing.items() if count]
    if short:
        lines.append(
            "Utterances no longer than the window, or where nothing varies, have no correlation: "
            f"{', '.join(short)}."
        )
    if found.failed:
        name, reason = next(iter(found.failed.items()))
        lines.append(
            f"{len(found.failed):,} recordings cannot be read. The first: {name}: {reason}"
        )
    return lines


def occlusion_table(subject: Subject, found: Occlusion) -> Table:
    """Rank correlations by window and fill."""
    speakers, method = [subject.speakers[row] for row in found.rows], subject.methods["audio"]
    rows: list[list[Cell]] = []
    for (seconds, fill), values in found.agreement.items():
        mean = speaker_means(values[:, None], speakers)[0]
        value = mean.value if mean.count else None
        rows.append([seconds, fill, mean.count, value, mean.low, mean.high])
    return Table(
        "faithfulness-occlusion",
        ("window (s)", "fill", "utterances", f"rank correlation with {method}", "low", "high"),
        rows,
        f"Audio occlusion against {method}",
    )
