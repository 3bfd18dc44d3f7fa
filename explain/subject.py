"""What is explained: a trained head, utterances, their frames, and how much each frame counts.

Exchanged attention: an utterance with the attention of another one, at the same relative place.

It keeps how attention follows itself in time and where in an utterance it lies, and stays within
speech; it loses what it points to in this utterance. Moved in a circle instead, attention would
keep neither: what declines from the start of utterances to their end would seem to draw attention
that is merely early.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cache.encoders.grid import SAMPLE_RATE, Grid
from cache.frames import Frames
from cache.keys import normalise_text
from cache.mapped import MappedFrames
from cache.recipe import LayersRead
from corpora.base.errors import ConfigError
from corpora.utterance import Utterance, speaker_key
from explain.ragged import Bools, Floats, Ints, floats, ints, positions, segment_sum, segments
from heads.attributes import attribute_report
from heads.head import Head
from heads.strength import Strength

# Of the token kinds beside text frames (cache.encoders.text_encoder, which imports transformers).
SPECIAL, WORD_START = 0, 1


@dataclass(frozen=True)
class Word:
    """A word of a text and the attention its tokens get.

    Attributes:
        text: as written, punctuation included.
        mass: the sum over its tokens.
        tokens: the weight of each token.
    """

    text: str
    mass: float
    tokens: tuple[float, ...]


@dataclass(frozen=True)
class Reading:
    """How a head reads one text.

    Attributes:
        words: in order. A text truncated by the encoder ends earlier.
        special: mass on tokens that are no words, such as [CLS] and [SEP].
    """

    words: tuple[Word, ...]
    special: float


def read_texts(subject: Subject) -> list[Reading] | None:
    """Each utterance's words with their attention.

    None where the head does not read, or it is not known which tokens are words.
    """
    if "text" not in subject.frames or subject.token_kinds is None:
        return None
    weights = floats(frame_attention(subject, "text"))
    kinds = ints(subject.token_kinds)
    offsets = ints(subject.frames["text"].offsets)
    return [
        _reading(normalise_text(u.text).split(), weights[start:end], kinds[start:end])
        for u, start, end in zip(subject.utterances, offsets[:-1], offsets[1:], strict=True)
    ]


def _reading(words: list[str], weights: Floats, kinds: Ints) -> Reading:
    merged: list[list[float]] = []
    special = 0.0
    for weight, kind in zip(weights.tolist(), kinds.tolist(), strict=True):
        if kind == SPECIAL:
            special += weight
        elif kind == WORD_START or not merged:
            merged.append([weight])
        else:
            merged[-1].append(weight)
    # A tokenizer may drop a word of unknown signs; then words cannot be told by counting.
    names = words if len(merged) <= len(words) else [*words, *["?"] * len(merged)]
    return Reading(
        tuple(Word(name, sum(t), tuple(t)) for name, t in zip(names, merged, strict=False)),
        special,
    )


def special_mass(readings: list[Reading]) -> Floats:
    """`[n]`, the share of attention on tokens that are no words."""
    return np.array([reading.special for reading in readings])


_Value = TypeVar("_Value", bound=np.generic)


def exchanged(
    values: NDArray[_Value], offsets: Ints, usable: Bools, donors: Ints
) -> NDArray[_Value]:
    """`[N]`, the values of other utterances: usable frame j of S gets that at (j + ½) / S.

    Frames that are not usable keep their own value, and so does an utterance whose donor has no
    usable frame.

    Args:
        values: `[N]`.
        offsets: `[B+1]`.
        usable: `[N]`, frames that take part, such as those with speech.
        donors: `[B]`, from which utterance each one's values come.
    """
    held = np.flatnonzero(usable)
    counts = usable_counts(usable, offsets)
    starts = counts.cumsum() - counts
    own = segments(offsets)[held]
    donor = donors[own]
    place = positions(np.append(starts, len(held)))
    source = starts[donor] + same_place(place, counts[own], counts[donor])
    taken = counts[donor] > 0
    result = values.copy()
    result[held[taken]] = values[held[source[taken]]]
    return result


def same_place(place: Ints, count: Ints, other: Ints) -> Ints:
    """The frame of `other` that lies where frame `place` of `count` does, relative to its length.

    In whole numbers, which do not round. Arrays are broadcast.
    """
    found: Ints = (2 * place + 1) * other // (2 * count)
    return found


def usable_counts(usable: Bools, offsets: Ints) -> Ints:
    """`[B]`, usable frames of each utterance."""
    return segment_sum(usable, offsets).astype(np.int64)


def draw_donors(count: int, random: np.random.Generator) -> Ints:
    """`[B]`, another utterance for each of `count`, drawn at random; itself where it is alone."""
    if count < 2:
        return np.zeros(count, dtype=np.int64)
    drawn = random.integers(0, count - 1, count)
    # The numbers from its own on stand for those after it.
    return drawn + (drawn >= np.arange(count))


ATTENTION, GRADIENT = "attention", "gradient saliency"


@dataclass(frozen=True, eq=False)
class Attribute:
    """The attribute that is explained, of n utterances.

    Attributes:
        name: arousal, valence or dominance.
        scale: its lowest and highest value.
        said: `[n]`, in the units of the scale.
        rated: `[n]`, likewise; not a number where an utterance was not rated.
    """

    name: str
    scale: tuple[float, float]
    said: Floats
    rated: Floats

    def answer(self, row: int) -> str:
        """What is said of an utterance, and how it was rated."""
        low, high = self.scale
        rated = "" if np.isnan(self.rated[row]) else f", rated {self.rated[row]:.2f}"
        return f"{self.name} {self.said[row]:.2f} on {low:g} to {high:g}{rated}"

    def sentences(self, speakers: Sequence[str]) -> list[str]:
        """What it is that is explained, and how well it is told of utterances by these speakers."""
        low, high = self.scale
        lines = [
            f"Explained is {self.name}, on its scale of {low:g} to {high:g} (--attribute): its "
            f"sides, below and above {(low + high) / 2:g}, count as two classes, and the logistic "
            "function of twice the output as the probability: ½ in the middle, .88 at an end. A "
            "frame speaks for an answer where it moves it away from the middle (saliency: the "
            "gradient of the output). Evidence is not made of an attribute."
        ]
        if np.isfinite(self.rated).any():
            scales = {self.name: self.scale}
            report = attribute_report(self.rated[:, None], self.said[:, None], scales, speakers)
            [one] = report.per_attribute
            ends = one.ccc_interval
            interval = "" if ends is None else f" [{ends.low:.3f}, {ends.high:.3f}]"
            told = f"CCC {one.ccc:.3f}{interval}, MAE {one.mae:.3f}"
            lines.append(f"Of the {one.n:,} rated ones: {told}.")
        return lines


@dataclass(frozen=True, eq=False)
class Subject:
    """A head on the utterances of a split, with all that the analyses read.

    n utterances, C labels; N frames of a modality in all. Rows of everything are in the order of
    `utterances`. Tensors are on the CPU.

    Attributes:
        kind: `head` (searched, on cached frames) or `model` (fine-tuned, on its own encoders').
        head: in eval mode, what `answering_head` makes of the head; the fine-tuned model's for a
            model.
        labels: in the order of the probabilities; of an attribute, the sides of its scale.
        utterances: those that have frames; unlabelled ones have the label "". Of an attribute, the
            label is the side that they were rated on.
        frames: by modality that the head reads, audio first; audio has `.speech` where voice
            activity was extracted.
        probabilities: `[n, C]`.
        vectors: by modality `[n, P]`, what the head pools each utterance to.
        weights: by modality `[N, columns]`, the attention of each query and head; each column sums
            to 1 over an utterance. A modality whose pooling learns no weights is not in it.
        saliency: by modality `[N]`, signed, of those that are not in `weights`: above 0 a frame
            speaks for the answer, below 0 against it.
        importance: by modality `[N]`, what `frame_attention` returns.
        methods: by modality, what the importance is: `ATTENTION` or `GRADIENT`.
        grid: of the audio frames, in samples at 16 kHz; None for a head that reads none, or whose
            were imported.
        energy: `[N]`, level of each audio frame in dB; None where it was not extracted.
        clocks: by modality `[N]`, the seconds of imported frames that have some (see `times`).
        token_kinds: `[N]`, of each text frame: 0 special, 1 start of a word, 2 inside one; None
            where it is not known.
        encoders: by modality, as the user named them.
        layers: by modality, the hidden state read, or those weighed.
        split: train, dev or test; "" for recordings that are in no split.
        corpus: the manifest's name for it.
        synthetic: the recordings are not human speech.
        source: the head's or the model's path.
        skipped: reasons by id for utterances left out.
        strength: of the emotions of a searched head; None where it is not known.
        notes: sentences to say before any result.
        attribute: which one is explained; None for classes.
    """

    kind: str
    head: Head
    labels: tuple[str, ...]
    utterances: tuple[Utterance, ...]
    frames: Mapping[str, Frames | MappedFrames]
    probabilities: Tensor
    vectors: Mapping[str, Tensor]
    weights: Mapping[str, Tensor]
    saliency: Mapping[str, Tensor]
    importance: Mapping[str, Tensor]
    methods: Mapping[str, str]
    grid: Grid | None = None
    energy: Tensor | None = None
    clocks: Mapping[str, Floats] = field(default_factory=dict)
    token_kinds: Tensor | None = None
    encoders: Mapping[str, str] = field(default_factory=dict)
    layers: Mapping[str, LayersRead] = field(default_factory=dict)
    split: str = ""
    corpus: str = ""
    synthetic: bool = False
    source: Path = Path()
    skipped: Mapping[str, str] = field(default_factory=dict)
    strength: Strength | None = None
    notes: tuple[str, ...] = ()
    attribute: Attribute | None = None

    def __len__(self) -> int:
        return len(self.utterances)

    @property
    def weighing(self) -> str:
        """What frames are weighed by, for a reader; of audio first where modalities differ."""
        return " and ".join(dict.fromkeys(self.methods[name] for name in self.frames))

    @property
    def picked(self) -> str:
        """What frames with much weight are called: attended only where there is attention."""
        first = self.methods[self.timed or next(iter(self.frames))]
        return "attended" if first == ATTENTION else "salient"

    @property
    def predicted(self) -> Tensor:
        """`[n]` int64, the most probable class of each utterance."""
        return self.probabilities.argmax(dim=1)

    @property
    def targets(self) -> Tensor:
        """`[n]` int64, the class of each utterance's label; -1 where it has none that is known."""
        index = {label: number for number, label in enumerate(self.labels)}
        return torch.tensor([index.get(u.label, -1) for u in self.utterances], dtype=torch.int64)

    @cached_property
    def speakers(self) -> list[str]:
        """Who speaks in each utterance, told apart across corpora; "" where unknown."""
        keys = [speaker_key(u) for u in self.utterances]
        return ["" if key is None else "/".join(key) for key in keys]

    @cached_property
    def times(self) -> dict[str, Floats]:
        """By modality `[N]`, the middle of each frame, seconds from its utterance's start.

        Text has none, nor have frames that were imported without a clock.
        """
        found = dict(self.clocks)
        if self.grid is not None:
            place = positions(ints(self.frames["audio"].offsets)).astype(np.float64)
            found["audio"] = self.centre_seconds + self.hop_seconds * place
        return {name: found[name] for name in self.frames if name in found}

    @property
    def timed(self) -> str:
        """The modality that is shown over time: the first that has times; "" where none has."""
        return next(iter(self.times), "")

    def step(self, modality: str) -> float:
        """Seconds from one frame of a modality to the next; their median, where they differ."""
        if modality not in self.clocks:
            return self.hop_seconds
        times, owners = self.clocks[modality], segments(ints(self.frames[modality].offsets))
        steps = np.diff(times)[np.diff(owners) == 0]
        return float(np.median(steps)) if len(steps) else 2 * float(times[0])

    @property
    def hop_seconds(self) -> float:
        """From one audio frame to the next."""
        return self.audio_grid.hop / SAMPLE_RATE

    @property
    def centre_seconds(self) -> float:
        """The centre of the first audio frame's window; frame t's is t hops later."""
        return self.audio_grid.first_centre / SAMPLE_RATE

    @property
    def audio_grid(self) -> Grid:
        """`grid` of a head that listens.

        Raises:
            ConfigError: it does not.
        """
        if self.grid is None:
            raise ConfigError(f"this head {self.deaf}: it has no audio frames on a grid.")
        return self.grid

    @property
    def deaf(self) -> str:
        """What a head without `grid` reads, as the verb of a sentence."""
        alone = set(self.frames) == {"text"}
        return "reads text alone" if alone else "reads no frames extracted from audio"


def frame_attention(subject: Subject, modality: str) -> Tensor:
    """How much each frame counts: `[N]` float64, at least 0, summing to 1 over each utterance.

    The mean over queries and heads of the attention weights; for a pooling that learns none, the
    gradient saliency (`explain.pooled`) of the frames that speak for the answer, so that every
    head can be explained. `subject.methods[modality]` says which.
    """
    return subject.importance[modality]


def frame_order(subject: Subject, modality: str) -> Tensor:
    """`[N]`, by which frames are put in order: as `frame_attention`, but saliency has its sign.

    So what speaks against the answer comes last, the most contrary frame at the very end.
    """
    return subject.saliency.get(modality, subject.importance[modality])
