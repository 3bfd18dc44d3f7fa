"""Evidence for single answers: what is attended, what is heard there, and what is lost without it.

The emotions of an answer are the smallest set whose probabilities reach .9 together. Stretches are
runs of the most attended frames; one attention serves all emotions, so all share them. They are
dropped as deletion curves drop frames (`explain.deletion`): gone, with nothing in their place. As
many other frames of speech, dropped a run at a time, tell what any loss of speech costs.

A pooling that learns no attention has none. Gradient saliency, which stands in for attention in
other analyses, is high where a frame speaks for the answer: without such frames an answer is less
sure by construction, even where the emotion lies in all frames alike, so the loss proves nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from corpora.alignments import Aligned, Alignment, frame_intervals
from corpora.base.terminal import progress_bar
from explain.cues.measure import present_means, speech_frames
from explain.cues.stream import CueFrames
from explain.deletion import (
    CHUNK_FRAMES,
    CHUNK_UTTERANCES,
    known_batch,
    probabilities_of_kept,
)
from explain.evidence_cues import CueLevel, Reference, cue_levels, own_reference
from explain.phones import SILENT
from explain.pooled import one_thread_each, runs
from explain.ragged import (
    Bools,
    Floats,
    Ints,
    cumulative,
    floats,
    ints,
    order_within,
    positions,
    segments,
)
from explain.subject import Subject, frame_attention, usable_counts
from heads.bootstrap import known_speakers

# What the emotions of an answer reach together, and the attention of its stretches.
REACH = 0.9
# Attention may be spread over all of an utterance: most of its speech that is called attended, so
# that there is other speech to compare with.
MOST_SPEECH = 0.25
# On each side of a frame: attention of single frames is ragged, and a tenth of a second is about as
# short as syllables are.
SMOOTH_SECONDS = 0.05
# Of sums of float64, and of float32 attention that is even.
_ROUNDING, _EVEN = 1e-12, 1e-5
# Choices of as many other frames of speech, evenly spread over them.
CHOICES = 8


@dataclass(frozen=True)
class Emotion:
    """One emotion of an answer.

    Attributes:
        label: its name.
        probability: of the whole utterance.
        without: without the attended stretches; None where there is none.
        without_others: without as many other frames of speech instead, the mean over `CHOICES`;
            None where there are not so many.
    """

    label: str
    probability: float
    without: float | None
    without_others: float | None

    @property
    def lost(self) -> float | None:
        """Probability lost without the stretches."""
        return None if self.without is None else self.probability - self.without

    @property
    def lost_elsewhere(self) -> float | None:
        """Probability lost without as many other frames."""
        return None if self.without_others is None else self.probability - self.without_others


@dataclass(frozen=True)
class Stretch:
    """A run of frames that are attended, in seconds from the start of the utterance.

    Attributes:
        start: half a hop before its first frame's centre.
        end: half a hop behind its last one's.
        words: that lie in it, or that it lies in, at least by half; None without an alignment.
    """

    start: float
    end: float
    words: tuple[str, ...] | None


@dataclass(frozen=True)
class Evidence:
    """What one answer rests on.

    Attributes:
        id: of the utterance.
        label: in the manifest; "" where it has none.
        emotions: the most probable first, as many as reach `REACH`.
        stretches: in order.
        seconds: of the stretches.
        share: of the utterance's frames that lie in them.
        attention: that they hold, of 1.
        cues: those whose level and neutral are known.
    """

    id: str
    label: str
    emotions: tuple[Emotion, ...]
    stretches: tuple[Stretch, ...]
    seconds: float
    share: float
    attention: float
    cues: tuple[CueLevel, ...]

    @property
    def together(self) -> float:
        """The probability of its emotions."""
        return sum(one.probability for one in self.emotions)


def smallest_set(probabilities: Floats, reach: float = REACH) -> Ints:
    """The fewest classes whose probabilities reach `reach` together, the most probable first."""
    order = (-probabilities).argsort(kind="stable")
    before = probabilities[order].cumsum() - probabilities[order]
    return order[before < reach - _ROUNDING].astype(np.int64)


def attended_stretches(attention: Floats, speech: Bools, offsets: Ints, smooth: int) -> Bools:
    """`[N]`, the frames of the stretches: where attention, averaged over neighbours, is highest.

    As many frames as hold `REACH` of the attention, but at most `MOST_SPEECH` of the speech (one at
    least), and none that is attended no more than even attention would; so there may be none.

    Args:
        attention: `[N]`, summing to 1 over each utterance.
        speech: `[N]`.
        offsets: `[B+1]`.
        smooth: frames on each side that a frame is averaged with.
    """
    owner, counts = segments(offsets), np.diff(offsets)
    frames = np.arange(len(attention))
    first = np.maximum(frames - smooth, offsets[owner])
    end = np.minimum(frames + smooth + 1, offsets[owner + 1])
    total = np.concatenate([[0.0], attention.cumsum()])
    smoothed = (total[end] - total[first]) / (end - first)
    order = order_within(smoothed, offsets)
    ranked = attention[order]
    before = cumulative(ranked, offsets) - ranked
    most = np.maximum(np.floor(MOST_SPEECH * usable_counts(speech, offsets)), 1)
    inside = np.zeros(len(attention), dtype=np.bool_)
    inside[order] = (before < REACH - _ROUNDING) & (positions(offsets) < most[owner])
    found: Bools = inside & (smoothed * counts[owner] > 1 + _EVEN)
    return found


def find_runs(inside: Bools) -> list[tuple[int, int]]:
    """Runs of frames, each from one to before another."""
    edges = np.flatnonzero(np.diff(inside.astype(np.int8), prepend=0, append=0))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def find_evidence(
    subject: Subject,
    aligned: Aligned,
    cues: CueFrames | None = None,
    reference: Reference | None = None,
    *,
    progress: bool = False,
) -> tuple[list[Evidence], Reference | None]:
    """The evidence of each utterance; none where the head reads text alone.

    Args:
        subject: what is explained.
        aligned: its alignments.
        cues: on its audio frames; None where nothing is to be said of them.
        reference: neutral speech of other utterances with these cues; by default what is neutral
            among the subject's own.
        progress: whether to show a bar.

    Returns:
        The evidence, and the neutral speech that it was compared with.
    """
    if "audio" not in subject.weights or subject.grid is None:
        return [], None
    offsets = ints(subject.frames["audio"].offsets)
    bounds = list(pairwise(offsets.tolist()))
    attention, speech = floats(frame_attention(subject, "audio")), speech_frames(subject, "audio")
    smooth = round(SMOOTH_SECONDS / subject.hop_seconds)
    inside = attended_stretches(attention, speech, offsets, smooth)
    without, others = _without(subject, inside, offsets, progress)
    names = known_speakers(subject.speakers)
    if cues is not None:
        levels = present_means(cues.values, inside & speech, offsets)
        reference = reference or own_reference(subject, levels, cues)
    probabilities = floats(subject.probabilities)
    result = []
    for row, utterance in enumerate(subject.utterances):
        start, end = bounds[row]
        emotions = tuple(
            Emotion(
                subject.labels[number],
                float(probabilities[row, number]),
                _known(without[row, number]),
                _known(others[row, number]),
            )
            for number in smallest_set(probabilities[row]).tolist()
        )
        here, labels = inside[start:end], [one.label for one in emotions]
        result.append(
            Evidence(
                id=utterance.id,
                label=utterance.label,
                emotions=emotions,
                stretches=_stretches(subject, here, aligned.alignments[row]),
                seconds=float(here.sum() * subject.hop_seconds),
                share=float(here.mean()),
                attention=float(attention[start:end][here].sum()),
                cues=cue_levels(cues, levels[row], reference, names[row], labels)
                if cues is not None and reference is not None
                else (),
            )
        )
    return result, reference


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _without(
    subject: Subject, inside: Bools, offsets: Ints, progress: bool
) -> tuple[Floats, Floats]:
    """`[n, C]` each: probabilities without the stretches, and without as much other speech."""
    others = [
        np.flatnonzero(own)
        for own in np.split(speech_frames(subject, "audio") & ~inside, offsets[1:-1].tolist())
    ]
    counts = np.add.reduceat(inside, offsets[:-1], dtype=np.int64)
    kept = np.ones((1 + CHOICES, len(inside)), dtype=np.bool_)
    kept[0] = ~inside
    some = counts > 0
    enough = some & (np.array([len(own) for own in others]) >= counts)
    for row, start in enumerate(offsets[:-1].tolist()):
        if enough[row]:
            for number in range(CHOICES):
                first = number * len(others[row]) // CHOICES
                taken = (first + np.arange(counts[row])) % len(others[row])
                kept[1 + number, start + others[row][taken]] = False
    choices = torch.from_numpy(kept)
    result = torch.empty(1 + CHOICES, len(subject), len(subject.labels), dtype=torch.float64)

    def drop(run: tuple[int, int]) -> None:
        start, end = offsets[list(run)].tolist()
        frames, known = known_batch(subject, "audio", range(*run), torch.arange(start, end))
        own = choices[:, start:end]
        found = probabilities_of_kept(subject.head, {"audio": frames}, "audio", own, known)
        result[:, slice(*run)] = found.double()
        bar.update(run[1] - run[0])

    with (
        progress_bar("Evidence", len(subject), "utterance", show=progress) as bar,
        one_thread_each() as threads,
    ):
        lengths = np.diff(offsets).tolist()
        list(threads.map(drop, runs(lengths, CHUNK_FRAMES, CHUNK_UTTERANCES)))
    every = floats(result)
    return (
        np.where(some[:, None], every[0], np.nan),
        np.where(enough[:, None], every[1:].mean(axis=0), np.nan),
    )


def _stretches(subject: Subject, inside: Bools, alignment: Alignment | None) -> tuple[Stretch, ...]:
    hop, centre = subject.hop_seconds, subject.centre_seconds
    said = () if alignment is None else alignment.words
    held = frame_intervals(said, centre + hop * np.arange(len(inside), dtype=np.float64))
    result = []
    for first, end in find_runs(inside):
        words: list[str] = []
        for number in np.unique(held[first:end]).tolist():
            shared = 2 * int((held[first:end] == number).sum())
            if (
                number >= 0
                and said[number].label.lower() not in SILENT
                and (shared >= (held == number).sum() or shared >= end - first)
            ):
                words.append(" ".join(said[number].label.split()))
        # A tenth of a millisecond: hops are some milliseconds, and their sums do not come out even.
        start = round(max(centre + (first - 0.5) * hop, 0.0), 4)
        heard = None if alignment is None else tuple(words)
        result.append(Stretch(start, round(centre + (end - 0.5) * hop, 4), heard))
    return tuple(result)
