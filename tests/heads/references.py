"""The pooling equations in plain NumPy float64, one utterance at a time."""

from __future__ import annotations

from collections.abc import Mapping
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
