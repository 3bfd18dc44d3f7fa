"""Which layers a head reads, and what weight it gives to each of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from cache.extraction import layer_name
from cache.layers import LayersRead, layer_numbers
from heads.dataset import Dataset
from heads.head import Head, HeadConfig
from heads.origin import Origin

#: By modality the weights of a head's layers, lowest layer first, where it weighs several.
LayerWeights = Mapping[str, tuple[float, ...]]


def origin_of_head(origin: Origin, dataset: Dataset, head: HeadConfig) -> Origin:
    """Where a head's frames come from: of all that a study reads, the layers that are its own.

    Args:
        origin: with the usual layer of each modality.
        dataset: with the cached layers.
        head: which may read another one, or weigh them.
    """
    layers, streams = dict(origin.layers), dict(origin.streams)
    for name in head.modalities:
        if head.layers(name) > 1:
            others = dataset.others[name]
            layers[name] = tuple(sorted({*others, *layer_numbers(origin.layers[name])}))
        elif name in head.layer:
            layers[name] = head.layer[name]
        if name in layers and name in streams:
            folder, _, _ = streams[name].rpartition("/")
            streams[name] = f"{folder}/{layer_name(layer_numbers(layers[name])[-1])}"
    return replace(origin, layers=layers, streams=streams)


def layer_weights(head: Head) -> dict[str, tuple[float, ...]]:
    """What a head learnt about its layers; empty for one that reads a single one of each."""
    return {
        name: tuple(shares[0].tolist())
        for name in head.config.modalities
        if (shares := head.pooling(name).layer_shares) is not None
    }


def layer_weights_text(
    weights: Mapping[str, Sequence[float]], layers: Mapping[str, LayersRead]
) -> str:
    """Such as `audio 8: 0.312, 16: 0.266, 24: 0.422`; "" where nothing is weighed, or not known."""
    parts = []
    for name, shares in weights.items():
        if name not in layers:
            continue
        pairs = zip(layer_numbers(layers[name]), shares, strict=True)
        own = ", ".join(f"{layer}: {share:.3f}" for layer, share in pairs)
        parts.append(f"{name} {own}")
    return "; ".join(parts)
