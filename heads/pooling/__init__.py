"""Poolings: from the frames of an utterance to one vector. One file a kind, and a registry."""

# Importing a kind registers it.
from heads.pooling import attentive, average, maximum, statistics, vad_average
from heads.pooling.registry import build_pooling, pooling_config, pooling_kinds

__all__ = [
    "attentive",
    "average",
    "build_pooling",
    "maximum",
    "pooling_config",
    "pooling_kinds",
    "statistics",
    "vad_average",
]
