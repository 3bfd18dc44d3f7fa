"""Which pooling kinds may weigh the cached layers of a corpus, as far as memory goes.

A head that weighs layers trains on vectors of every utterance: `average` on the means of all
layers, `statistics` on the covariances between them as well, L(L+1)/2 times as many values as
features. What a search holds of these is bounded, by the data alone: the space of a study must not
depend on what else happens to run on a machine.
"""

from __future__ import annotations

from collections.abc import Mapping

from cache.amounts import bytes_text
from cache.layers import LayersRead, layer_numbers, layers_text
from heads.dataset import Dataset
from heads.search.axes import Axis, choices

#: Values of the axis `layers`: the highest cached layer, or a learnt weighted sum of all of them.
TOP, WEIGHTED = "top", "weighted"
#: What a study's notes call `lower_layers`.
LOWER = "lower layers"
#: The pooling kinds that can weigh layers.
KINDS = ("average", "statistics")
# Of vectors, all modalities together: 10,000 utterances with 8 layers of 1,024 features, or 49,000
# with 3, and a search stays below 12 GB.
MOST_BYTES = 4_500_000_000
_FLOAT = 4


def lower_layers(dataset: Dataset) -> dict[str, list[int]]:
    """By modality the numbers of the cached layers below the highest one, where there are such."""
    return {name: sorted(lower) for name, lower in dataset.lower.items() if lower}


def layer_counts(dataset: Dataset) -> dict[str, int]:
    """By modality how many layers are cached, where they are several."""
    return {name: 1 + len(lower) for name, lower in lower_layers(dataset).items()}


def weighable_kinds(dataset: Dataset) -> tuple[str, ...]:
    """The pooling kinds that can weigh these layers in memory; none where there is one of each."""
    if not layer_counts(dataset):
        return ()
    return tuple(kind for kind in KINDS if _vector_bytes(dataset, kind) <= MOST_BYTES)


def weighing_notes(
    dataset: Dataset, top: Mapping[str, LayersRead], axes: Mapping[str, Axis]
) -> list[str]:
    """What is weighed, and what is not for its size.

    Args:
        dataset: with its lower layers.
        top: the highest layer of each modality.
        axes: of the space, as it was narrowed; nothing is said where it weighs nothing.
    """
    kinds = weighable_kinds(dataset)
    read = {
        name: (*lower, *layer_numbers(top[name])) for name, lower in lower_layers(dataset).items()
    }
    offered = {v for name, axis in axes.items() if name.endswith("layers") for v in choices(axis)}
    if not read or (kinds and WEIGHTED not in offered):
        return []
    layers = " and ".join(f"{name} {layers_text(numbers)}" for name, numbers in read.items())
    notes = []
    if kinds:
        notes.append(f"Heads of {' and '.join(kinds)} may weigh {layers} (axis `layers`).")
    for kind in KINDS:
        if kind not in kinds:
            size = bytes_text(_vector_bytes(dataset, kind))
            notes.append(
                f"{kind} does not weigh layers here: the vectors it would train on take {size}, "
                f"more than {bytes_text(MOST_BYTES)}. Cache fewer layers to have it."
            )
    return notes


def _vector_bytes(dataset: Dataset, kind: str) -> int:
    """Of the vectors that heads of a kind train on, for both views of the frames.

    With frames as they are also their deviations, for `standardise`.
    """
    values = 0
    for name, layers in layer_counts(dataset).items():
        pairs = layers * (layers + 1) // 2 if kind == "statistics" else 0
        values += (3 * layers + 2 * pairs) * dataset.frames[name].dim
    return values * len(dataset) * _FLOAT
