"""Which cached layers heads of a search read, and which poolings weigh them all.

A head that weighs layers trains on vectors of every utterance: `average` on the means of all
layers, `statistics` on the covariances between them as well, L(L+1)/2 times as many values as
features. What a search holds of these is bounded, by the data alone: the space of a study must not
depend on what else happens to run on a machine.
"""

from __future__ import annotations

from collections.abc import Mapping

from cache.recipe import LayersRead, layer_numbers, layers_text
from corpora.base.terminal import bytes_text
from heads.axes import Axis, choices
from heads.dataset import Dataset

#: Values of the axis `layers`: one cached layer, or a learnt weighted sum of all of them. (`top` is
#: what it was called when the one was always the highest.)
TOP, WEIGHTED = "top", "weighted"
#: What a study's notes call `other_layers`; the words are those of earlier versions.
OTHERS = "lower layers"
#: The pooling kinds that can weigh layers.
KINDS = ("average", "statistics")
# Of vectors, all modalities together: 10,000 utterances with 8 layers of 1,024 features, or 49,000
# with 3, and a search stays below 12 GB.
MOST_BYTES = 4_500_000_000
_FLOAT = 4


def other_layers(dataset: Dataset) -> dict[str, list[int]]:
    """By modality the numbers of cached layers besides the usual one, where there are such."""
    return {name: sorted(others) for name, others in dataset.others.items() if others}


def layer_counts(dataset: Dataset) -> dict[str, int]:
    """By modality how many layers are cached, where they are several."""
    return {name: 1 + len(others) for name, others in other_layers(dataset).items()}


def weighable_kinds(dataset: Dataset) -> tuple[str, ...]:
    """The pooling kinds that can weigh these layers in memory; none where there is one of each."""
    if not layer_counts(dataset):
        return ()
    return tuple(kind for kind in KINDS if _vector_bytes(dataset, kind) <= MOST_BYTES)


def weighing_notes(
    dataset: Dataset, usual: Mapping[str, LayersRead], axes: Mapping[str, Axis]
) -> list[str]:
    """What is weighed, and what is not for its size.

    Args:
        dataset: with its further layers.
        usual: the layer of each modality that heads read unless they draw another.
        axes: of the space, as it was narrowed; nothing is said where it weighs nothing.
    """
    kinds = weighable_kinds(dataset)
    read = {
        name: tuple(sorted({*others, *layer_numbers(usual[name])}))
        for name, others in other_layers(dataset).items()
    }
    offered = {v for name, axis in axes.items() if name.endswith("layers") for v in choices(axis)}
    layers = " and ".join(f"{name} {layers_text(numbers)}" for name, numbers in read.items())
    drawn = [axis for name in read if len(choices(axes[axis := layer_axis(name)])) > 1]
    notes = []
    if drawn:
        notes.append(f"Heads read one of {layers} ({' and '.join(f'axis `{a}`' for a in drawn)}).")
    if not read or (kinds and WEIGHTED not in offered):
        return notes
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


def layer_axis(modality: str) -> str:
    """The axis that says which cached layer of a modality a head reads."""
    return f"{modality}_layer"


def _vector_bytes(dataset: Dataset, kind: str) -> int:
    """Of the vectors that heads of a kind train on, for both views of the frames.

    With frames as they are also their deviations, for `standardise`.
    """
    values = 0
    for name, layers in layer_counts(dataset).items():
        pairs = layers * (layers + 1) // 2 if kind == "statistics" else 0
        values += (3 * layers + 2 * pairs) * dataset.frames[name].dim
    return values * len(dataset) * _FLOAT
