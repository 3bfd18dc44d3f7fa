"""The frames, targets and split of every utterance that heads are trained and scored on."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from cache.frames import Frames
from cache.mapped import MappedFrames
from corpora.base.errors import ConfigError
from corpora.manifest import Utterance, speaker_key
from heads.speakers import SPEAKER, declared


@dataclass(frozen=True, eq=False)
class Dataset:
    """Utterances with their frames, in memory, on a GPU, or mapped from disk.

    Attributes:
        utterances: the manifest's rows, in its order.
        labels: the label order.
        frames: for each modality the frames of all utterances, in the same order.
        moments: for each modality mean and deviation `[n, D]` of all utterances' frames, where the
            cache keeps them; they are computed from the frames otherwise.
        residence: where the frames are kept and why, as a sentence; and of how many utterances
            informative words are known, where they are asked for.
        others: by modality and layer the frames of further cached layers, for heads that read
            another one or weigh several: read only where such a head needs them.
        layers: by modality the number of the layer of `frames`; the highest where none is given.
        attributes: what is learnt beside the label, or in its place where there are no labels: the
            lowest and highest value of each.
    """

    utterances: tuple[Utterance, ...]
    labels: tuple[str, ...]
    frames: Mapping[str, Frames | MappedFrames]
    moments: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    residence: str = ""
    others: Mapping[str, Mapping[int, Frames | MappedFrames]] = field(default_factory=dict)
    layers: Mapping[str, int] = field(default_factory=dict)
    attributes: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.utterances)

    @property
    def dims(self) -> dict[str, int]:
        """Features per frame of each modality."""
        return {name: frames.dim for name, frames in self.frames.items()}

    def reading(self, others: Mapping[str, Sequence[int]]) -> Dataset:
        """The same with these further layers of each modality, and no others.

        Raises:
            ConfigError: one of them is not there.
        """
        chosen = {}
        for name, numbers in others.items():
            known = self.others.get(name, {})
            layers = [layer for layer in numbers if layer != self.layers.get(name)]
            missing = [layer for layer in layers if layer not in known]
            if missing:
                raise ConfigError(
                    f"layer {missing[0]} of the {name} encoder is needed, and the last extraction "
                    "did not make it. Extract it again, or search again."
                )
            chosen[name] = {layer: known[layer] for layer in layers}
        return replace(self, others=chosen)

    def with_layers(self, layers: Mapping[str, int]) -> Dataset:
        """The same where these are the usual layers, and there are no others.

        Raises:
            ConfigError: one of them is not there.
        """
        frames = dict(self.frames)
        for name, layer in layers.items():
            one = self.one_layer(name, layer)
            usual = self.frames[name]
            speech = one.speech if one.speech is not None else usual.speech
            frames[name] = replace(one, speech=speech, words=usual.words)
        kept = {n: own for n, own in self.moments.items() if layers.get(n) == self.layers.get(n)}
        return replace(
            self, frames=frames, moments=kept, others={}, layers={**self.layers, **layers}
        )

    def one_layer(self, modality: str, layer: int | None) -> Frames | MappedFrames:
        """The frames of a single layer of all utterances; of the usual one for None.

        Raises:
            ConfigError: that layer is not there.
        """
        others = self.others.get(modality, {})
        if layer is None or layer == self.layers.get(modality):
            return self.frames[modality]
        if layer in others:
            return others[layer]
        if modality not in self.layers and not others:
            return self.frames[modality]  # frames of one layer whose number nobody gave
        raise ConfigError(
            f"a head reads {modality} layer {layer}, and there are "
            f"{', '.join(map(str, sorted({*others, *self.numbers(modality)})))}. Extract it again, "
            "or search again."
        )

    def numbers(self, modality: str) -> tuple[int, ...]:
        """The numbers of a modality's cached layers, as far as they are known; ascending."""
        own = [self.layers[modality]] if modality in self.layers else []
        return tuple(sorted([*self.others.get(modality, {}), *own]))

    def select(
        self, modality: str, rows: Sequence[int], layers: int = 1, layer: int | None = None
    ) -> Frames:
        """Frames of some utterances: of one layer, or of all cached ones.

        Args:
            modality: which.
            rows: utterance numbers.
            layers: 1, or as many as are cached: they lie beside one another, lowest layer first.
            layer: of one, which; the usual one for None.

        Raises:
            ConfigError: another number of layers than there are, or no such layer.
        """
        usual = self.frames[modality]
        if layers == 1:
            one = self.one_layer(modality, layer)
            found = one.select(rows).to(usual.device)
            lacks_words = found.words is None and usual.words is not None
            if not lacks_words and (found.speech is not None or usual.speech is None):
                return found
            beside = usual.select(rows)
            return replace(found, speech=beside.speech, words=beside.words)
        others = self.others.get(modality, {})
        if layers != len(others) + 1:
            raise ConfigError(
                f"a head weighs {layers} {modality} layers, and there are {len(others) + 1}."
            )
        highest = 1 + max(others)
        parts = {number: one.select(rows).to(usual.device) for number, one in others.items()}
        parts[self.layers.get(modality, highest)] = usual.select(rows)
        return Frames.beside([parts[number] for number in sorted(parts)])

    def is_annotated(self, utterance: Utterance) -> bool:
        """Whether there is something to learn of it: its label, or one of the attributes."""
        return bool(self.labels and utterance.label) or any(
            getattr(utterance, name) is not None for name in self.attributes
        )

    def rows(self, split: str) -> Tensor:
        """`[n]` int64, the annotated utterances of a split: the labelled ones, or rated ones."""
        chosen = [
            i for i, u in enumerate(self.utterances) if u.split == split and self.is_annotated(u)
        ]
        return torch.tensor(chosen, dtype=torch.int64)

    def targets(self, rows: Tensor) -> Tensor:
        """`[n]` int64 class indices; −1 where only attributes are learnt of a row."""
        index = {label: position for position, label in enumerate(self.labels)}
        if self.attributes:
            index[""] = -1
        names = [self.utterances[i].label if self.labels else "" for i in rows.tolist()]
        return torch.tensor([index[name] for name in names], dtype=torch.int64)

    def ratings(self, rows: Tensor) -> Tensor:
        """`[n, A]` fp64, what each row was rated; not a number where it was not."""
        found = [
            [getattr(self.utterances[i], name) for name in self.attributes] for i in rows.tolist()
        ]
        values = [[math.nan if value is None else value for value in own] for own in found]
        return torch.tensor(values, dtype=torch.float64).reshape(len(rows), len(self.attributes))

    def speakers(self, rows: Tensor) -> list[str]:
        """Who speaks in each row, told apart across corpora too; "" where unknown."""
        keys = [speaker_key(self.utterances[i]) for i in rows.tolist()]
        return ["" if key is None else "/".join(key) for key in keys]


def speaker_notes(dataset: Dataset, norms: Collection[str]) -> list[str]:
    """What has to be declared where heads with `input_norm speaker` are among those reported."""
    if SPEAKER not in norms:
        return []
    return [declared(dataset.speakers(torch.arange(len(dataset))))]
