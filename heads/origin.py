"""Where a study's numbers come from: corpus, rows, labels, encoders, streams."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from cache.layers import LayersRead, layers_from_json, layers_to_json
from corpora.manifest import Manifest


@dataclass(frozen=True)
class Origin:
    """What a head was trained on, in names and digests; JSON both ways.

    Attributes:
        corpus: the manifest's name for it.
        synthetic: not human speech, which every result says.
        labels: the label order.
        encoders: by modality, as the user named them.
        layers: by modality, the hidden state read, or those that are weighed.
        streams: by kind (audio, text, speech), `<recipe's folder>/<stream>` in `features.zarr`; of
            several layers the highest one's.
        frames: by modality, how many were read: differs when utterances or recordings do.
        manifest_sha256: digest of the rows (see `manifest_digest`).
    """

    corpus: str
    synthetic: bool
    labels: tuple[str, ...]
    encoders: Mapping[str, str] = field(default_factory=dict)
    layers: Mapping[str, LayersRead] = field(default_factory=dict)
    streams: Mapping[str, str] = field(default_factory=dict)
    frames: Mapping[str, int] = field(default_factory=dict)
    manifest_sha256: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        layers = {name: layers_to_json(read) for name, read in self.layers.items()}
        return {**asdict(self), "labels": list(self.labels), "layers": layers}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Origin:
        """The inverse of `to_json`; entries of other names are left alone."""
        known = {name: value[name] for name in cls.__dataclass_fields__}
        layers = {name: layers_from_json(read) for name, read in value["layers"].items()}
        return cls(**{**known, "labels": tuple(value["labels"]), "layers": layers})


def manifest_digest(manifest: Manifest) -> str:
    """SHA-256 (hex) of the rows and labels, wherever the recordings lie.

    Of each utterance: id, name of the recording, bounds, text, label, speaker and split.
    """
    digest = hashlib.sha256(json.dumps(manifest.labels).encode())
    for u in manifest.utterances:
        row = (u.id, u.audio.name, u.start, u.end, u.text, u.label, u.speaker, u.split)
        digest.update(json.dumps(row).encode() + b"\n")
    return digest.hexdigest()
