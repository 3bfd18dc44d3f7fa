"""The pooling equations in plain NumPy float64, one utterance at a time, and `KINDS` of them.

A new kind adds its equation and one entry to `KINDS`: every test of poolings reads these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def softmax(scores: Array) -> Array:
    exponentials = np.exp(scores - scores.max())
    result: Array = exponentials / exponentials.sum()
    return result


def attention_columns(
    frames: Array, options: Mapping[str, Any], parameters: Mapping[str, Array]
) -> Array:
    """[T, Q*H] weights, query-major, of one head; parameters without the stack axis."""
    heads, queries = options["heads"], options["queries"]
    width = frames.shape[1] // heads
    columns = []
    for q in range(queries):
        for h in range(heads):
            part = frames[:, h * width : (h + 1) * width]
            own = 0 if options.get("shared_scorer") else h
            if options["scorer_layers"] == 1:
                scores = part @ parameters["weight"][q, own]
            else:
                first = part @ parameters["hidden_weight"][q, own].T
                hidden = np.maximum(first + parameters["hidden_bias"][q, own], 0)
                scores = hidden @ parameters["weight"][q, own]
            columns.append(softmax(scores))
    return np.stack(columns, axis=1)


def attentive(frames: Array, options: Mapping[str, Any], parameters: Mapping[str, Array]) -> Array:
    """[2*Q*K]: for each query and head the weighted mean, then the weighted deviation."""
    heads = options["heads"]
    width = frames.shape[1] // heads
    weights = attention_columns(frames, options, parameters)
    parts = []
    for column in range(weights.shape[1]):
        h = column % heads
        part = frames[:, h * width : (h + 1) * width]
        mean = (weights[:, column, None] * part).sum(0)
        variance = (weights[:, column, None] * (part - mean) ** 2).sum(0)
        parts += [mean, np.sqrt(variance)]
    return np.concatenate(parts)


def fixed(kind: str, frames: Array, speech: Array, threshold: float = 0.5) -> Array:
    """The poolings without parameters."""
    spoken = frames[speech >= threshold]
    spoken_mean = spoken.mean(0) if len(spoken) else frames.mean(0)
    mean = frames.mean(0)
    pooled: dict[str, Array] = {
        "average": mean,
        "max": frames.max(0),
        "statistics": np.concatenate([mean, np.sqrt(((frames - mean) ** 2).mean(0))]),
        "vad_average": spoken_mean,
        "average+vad_average": np.concatenate([mean, spoken_mean]),
    }
    return pooled[kind]


def weighted_layers(frames: Array, weights: Array) -> Array:
    """[T, D] from the frames of L layers beside one another, [T, L*D]: SUPERB's weighted sum."""
    layers = np.split(frames, len(weights), axis=1)
    total: Array = sum(weight * layer for weight, layer in zip(weights, layers, strict=True))
    return total


@dataclass(frozen=True)
class Utterance:
    """What an equation is given: one utterance, and one head of a stack.

    Attributes:
        frames: [T, K].
        speech: [T], the probability of speech in each frame.
        words: [T, 2], the share of words from which on a frame is read, and of the control.
        options: every option of the kind by name, also those left at their defaults.
        parameters: by name, without the stack axis.
    """

    frames: Array
    speech: Array
    words: Array
    options: Mapping[str, Any]
    parameters: Mapping[str, Array]


Equation = Callable[[Utterance], Array]


@dataclass(frozen=True)
class Reference:
    """A kind as its tests know it.

    Attributes:
        options: of each description that is tested; the kind's name is added.
        vector: [out_dim], the pooled vector.
        attention: [T, Q*H], the weights of frames, query-major. Of kinds that learn weights, and
            of these alone: by it tests know which do.
        shares: whether frames have shares in what is pooled; `attention` of the module refuses
            (ConfigError) where they have none.
    """

    options: tuple[Mapping[str, Any], ...]
    vector: Equation
    attention: Equation | None = None
    shares: bool = True


def _attentive(*options: Mapping[str, Any]) -> Reference:
    return Reference(
        options,
        lambda one: attentive(one.frames, one.options, one.parameters),
        lambda one: attention_columns(one.frames, one.options, one.parameters),
    )


def _fixed(kind: str, *options: Mapping[str, Any], shares: bool = True) -> Reference:
    def vector(one: Utterance) -> Array:
        frames = one.frames
        if one.options.get("layers", 1) > 1:
            frames = weighted_layers(frames, softmax(one.parameters["layer_scores"]))
        return fixed(kind, frames, one.speech, one.options.get("threshold", 0.5))

    return Reference(options or ({},), vector, shares=shares)


def _informative(one: Utterance) -> Array:
    """Mean over the frames of the first share of the words; over all where none is known."""
    read = one.words[:, int(one.options["random"])] < one.options["share"]
    mean: Array = one.frames[read].mean(0) if read.any() else one.frames.mean(0)
    return mean


KINDS: dict[str, Reference] = {
    "as": _attentive({}),
    "sa": _attentive({"hidden": 8}),
    "mha": _attentive({}),
    "mqmha": _attentive(
        {"queries": 2, "heads": 2, "scorer_layers": 1, "hidden": 256},
        {"queries": 4, "heads": 4},
        {"queries": 2, "heads": 4, "scorer_layers": 2, "hidden": 8},
        {"queries": 2, "heads": 4, "shared_scorer": True},
        {"heads": 2, "scorer_layers": 2, "hidden": 5, "shared_scorer": True},
    ),
    "average": _fixed("average", {}, {"layers": 2}),
    "max": _fixed("max", shares=False),
    "statistics": _fixed("statistics", {}, {"layers": 4}),
    "vad_average": _fixed("vad_average", {}, {"threshold": 0.9}),
    "average+vad_average": _fixed("average+vad_average"),
    "informative_average": Reference(
        ({}, {"share": 0.25}, {"share": 0.25, "random": True}), _informative
    ),
}
"""Every registered kind; a new one adds its entry, and no other file of tests knows it."""


def descriptions(*, learnt: bool = False) -> list[dict[str, Any]]:
    """All that are tested, or those of kinds that learn weights."""
    return [
        {"kind": kind, **options}
        for kind, reference in KINDS.items()
        if reference.attention is not None or not learnt
        for options in reference.options
    ]


def learns_weights(kind: str) -> bool:
    """Whether parameters decide which frames count, as the table says."""
    return KINDS[kind].attention is not None


def has_shares(kind: str) -> bool:
    """Whether frames have shares in what is pooled; of a kind that is not here they have."""
    return kind not in KINDS or KINDS[kind].shares
