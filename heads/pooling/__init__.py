"""Poolings: from the frames of an utterance to one vector. A file for each way to weigh frames."""

# Importing a kind registers it.
from heads.pooling import attentive, fixed
from heads.pooling.pooling import (
    AttentionPooling,
    Pooling,
    PoolingConfig,
    build_pooling,
    pooling_class,
    pooling_config,
    pooling_kinds,
    register,
    searched_kinds,
)

__all__ = [
    "AttentionPooling",
    "Pooling",
    "PoolingConfig",
    "attentive",
    "build_pooling",
    "fixed",
    "pooling_class",
    "pooling_config",
    "pooling_kinds",
    "register",
    "searched_kinds",
]
