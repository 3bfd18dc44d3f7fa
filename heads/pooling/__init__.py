"""Poolings: from the frames of an utterance to one vector. One file a kind, and a registry."""

# Importing a kind registers it.
from heads.pooling import attentive, fixed
from heads.pooling.pooling import AttentionPooling, Pooling, PoolingConfig
from heads.pooling.registry import (
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
