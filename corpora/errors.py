"""The errors a user can cause, under the name by which programs outside import them."""

from corpora.base.errors import (
    AudioError,
    CacheError,
    ConfigError,
    CorpusError,
    EmopoolError,
    FormatVersionError,
    ManifestError,
    MissingExtraError,
    MissingStepError,
    ObjectStoreError,
    TrainingError,
    UnreadableLayersError,
)

__all__ = [
    "AudioError",
    "CacheError",
    "ConfigError",
    "CorpusError",
    "EmopoolError",
    "FormatVersionError",
    "ManifestError",
    "MissingExtraError",
    "MissingStepError",
    "ObjectStoreError",
    "TrainingError",
    "UnreadableLayersError",
]
