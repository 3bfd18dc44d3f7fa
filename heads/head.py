"""A head: pool each modality, concatenate, classify with a small MLP.

Many heads are evaluated at once by `stack_logits`: their frame-level work is shared, their
parameters are their own. One head is a stack of one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cache.encoders.device import to_device
from cache.frames import Frames
from cache.keys import MODALITIES
from corpora.base.codec import Jsonable
from corpora.base.errors import ConfigError
from heads.axes import INPUT_NORMS
from heads.pooling import AttentionPooling, Pooling, build_pooling, pooling_config
from heads.pooling.view import Affine, View
from heads.speakers import CONSTANT_DEVIATION, SPEAKER
from heads.step import Dropout, step_words

# Those that keep mean and deviation of the training frames.
_BY_STATISTICS = ("standardise", SPEAKER)

#: Which view of a modality: normalised how (see `view_name`), of how many layers, and of which
#: single one where it is not the data set's usual one.
ViewKey = tuple[str, int, int | None]


@dataclass(frozen=True)
class HeadConfig(Jsonable):
    """All that decides a head's shape; JSON both ways.

    Attributes:
        labels: class names; their order is the order of the logits.
        dims: features per frame of each modality the head reads.
        pooling: description of the pooling of each modality (see `build_pooling`). Of one that
            weighs L layers, `dims` is that of all of them beside one another.
        input_norm: `none`, `layernorm` (each frame, without parameters), `standardise` (by mean
            and deviation of the training frames, kept as buffers) or `speaker` (the same, of frames
            whose speaker's statistics were made those of the training frames: `heads.speakers`).
        mlp_width: hidden units of the classifier; 0 for a linear one.
        dropout: probability, on the hidden units (on the pooled vector of a linear classifier).
        layer: by modality the hidden state read, where several are cached and it matters which.
        attributes: further outputs, behind the logits or without any: the lowest and highest value
            of each. The output −1 is the lowest, 1 the highest.
    """

    json_optional = "attributes"

    labels: tuple[str, ...]
    dims: Mapping[str, int]
    pooling: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    input_norm: str = "none"
    mlp_width: int = 256
    dropout: float = 0.1
    layer: Mapping[str, int] = field(default_factory=dict)
    attributes: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.labels) < 2 and (self.labels or not self.attributes):
            raise ConfigError(
                f"a head needs at least two labels, got {list(self.labels)}. Prepare the corpus "
                "with more (`prepare CORPUS ROOT`; `--labels` narrows them)."
            )
        if not self.dims or set(self.dims) - set(MODALITIES) or set(self.dims) != set(self.pooling):
            raise ConfigError(
                f"a head reads some of {', '.join(MODALITIES)} with a pooling each; "
                f"got dims for {sorted(self.dims)} and poolings for {sorted(self.pooling)}"
            )
        if self.input_norm not in INPUT_NORMS:
            raise ConfigError(
                f"input_norm must be one of {', '.join(INPUT_NORMS)}; got {self.input_norm!r}"
            )
        if self.mlp_width < 0 or not 0 <= self.dropout < 1:
            raise ConfigError(
                f"mlp_width must be 0 or more and dropout in [0, 1); "
                f"got {self.mlp_width} and {self.dropout}"
            )

    @property
    def outputs(self) -> int:
        """How many numbers a head says of an utterance: a logit a label, one an attribute."""
        return len(self.labels) + len(self.attributes)

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities read, in the order of concatenation."""
        return tuple(name for name in MODALITIES if name in self.dims)

    def layers(self, modality: str) -> int:
        """How many layers of a modality lie beside one another in the frames that are read."""
        return int(self.pooling[modality].get("layers", 1))

    def view(self, modality: str) -> ViewKey:
        """Which view of a modality's frames the head reads."""
        layers = self.layers(modality)
        # One that weighs layers reads all there are.
        layer = self.layer.get(modality) if layers == 1 else None
        return view_name(self.input_norm), layers, layer

    @property
    def needs_speech(self) -> bool:
        """Whether a pooling reads the voice activity detector's output."""
        timed = (own for name, own in self.pooling.items() if name != "text")
        return any(pooling_config(own).needs_speech for own in timed)

    @property
    def needs_words(self) -> bool:
        """Whether the audio pooling reads when words are said, and how surprising they are."""
        return "audio" in self.pooling and pooling_config(self.pooling["audio"]).needs_words


class Inputs:
    """One modality of a batch, as frames or as ready utterance vectors.

    Args:
        views: what there is.
        frames: what all other views can be made of; those of several layers lie beside one another.
    """

    def __init__(self, views: Mapping[ViewKey, View], frames: View | None = None) -> None:
        self._views = dict(views)
        self._frames = frames

    @classmethod
    def from_frames(cls, frames: Frames) -> Inputs:
        """Frames as they come from an encoder or the cache."""
        return cls({}, View(frames))

    def part(self, rows: slice) -> Inputs:
        """Some neighbours of the batch (see `View.part`)."""
        return Inputs({key: view.part(rows) for key, view in self._views.items()})

    def view(self, input_norm: str, layers: int = 1, layer: int | None = None) -> View:
        """The frames as a head with this normalisation reads them; made once a batch.

        `standardise` reads the frames as they are: its affine is folded into the pooling. Frames
        that were given are those of the layer that is asked for, and nothing is known of who
        speaks: for `speaker` they stay as they are too.
        """
        key = view_name(input_norm), layers, layer
        if key not in self._views:
            given = self._frames
            if given is None or given.frames is None:
                raise ConfigError("this head needs frames; only the vectors of others were given")
            each = key[0] == "layernorm"
            self._views[key] = View(layer_normalised(given.frames, layers)) if each else given
        return self._views[key]


def view_name(input_norm: str) -> str:
    """Which view of the frames a normalisation reads."""
    return "none" if input_norm == "standardise" else input_norm


def layer_normalised(frames: Frames, layers: int = 1) -> Frames:
    """Each frame with mean 0 and variance 1 over its features (no parameters), in fp32.

    Several layers beside one another are normalised each by itself.
    """
    return replace(frames, values=layer_normalised_rows(frames.values, layers))


def layer_normalised_rows(values: Tensor, layers: int = 1) -> Tensor:
    """The same of rows `[N, L·D]`."""
    wide = values if values.dtype == torch.float64 else values.float()
    parts = wide.unflatten(1, (layers, -1))
    return F.layer_norm(parts, parts.shape[2:]).flatten(1)


class Head(nn.Module):
    """One head's parameters.

    Args:
        config: its shape.
        seed: from which its parameters are drawn, independently of any other head.
    """

    def __init__(self, config: HeadConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.poolings = nn.ModuleDict(
            {
                name: build_pooling(config.pooling[name], config.dims[name])
                for name in MODALITIES
                if name in config.dims
            }
        )
        pooled = sum(
            pooling_config(config.pooling[name]).out_dim(config.dims[name])
            for name in config.modalities
        )
        self.hidden = nn.Linear(pooled, config.mlp_width) if config.mlp_width else None
        self.output = nn.Linear(config.mlp_width or pooled, config.outputs)
        if config.input_norm in _BY_STATISTICS:
            for name in config.modalities:
                self.register_buffer(f"{name}_shift", torch.zeros(config.dims[name]))
                self.register_buffer(f"{name}_scale", torch.ones(config.dims[name]))
        self._draw(seed)

    @classmethod
    def from_state(cls, config: HeadConfig, state: Mapping[str, Tensor]) -> Head:
        """A head with parameters that were kept.

        Raises:
            ConfigError: they are not those of such a head. Shapes are compared before there is
                memory for any: a width of 10⁹ is a typing error, not a reason to run out of it.
        """
        try:
            with torch.device("meta"):
                bare = cls(config).state_dict()
        except (RuntimeError, TypeError) as error:  # more than a tensor can have
            raise ConfigError(f"no head can have this shape: {config}") from error
        expected = {name: tuple(value.shape) for name, value in bare.items()}
        found = {name: tuple(value.shape) for name, value in state.items()}
        if found != expected:
            names = sorted({n for n in {*found, *expected} if found.get(n) != expected.get(n)})
            raise ConfigError(
                "; ".join(f"{n} is {found.get(n)}, expected {expected.get(n)}" for n in names)
            )
        head = cls(config)
        head.load_state_dict(state)
        return head

    def _draw(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for name in self.config.modalities:
            self.pooling(name).reset(generator)
        with torch.no_grad():
            for layer in (self.hidden, self.output):
                if layer is not None:
                    bound = 1 / math.sqrt(layer.in_features)
                    layer.weight.uniform_(-bound, bound, generator=generator)
                    layer.bias.uniform_(-bound, bound, generator=generator)

    def pooling(self, modality: str) -> Pooling:
        """The pooling module of a modality."""
        return cast(Pooling, self.poolings[modality])

    def attention_pooling(self, modality: str) -> AttentionPooling | None:
        """The pooling module of a modality, where it learns weights over frames."""
        module = self.pooling(modality)
        return cast(AttentionPooling, module) if module.learns_weights else None

    def scorer_parameters(self) -> list[nn.Parameter]:
        """The parameters that decide which frames count, of all modalities."""
        return [
            parameter
            for name in self.config.modalities
            if (module := self.attention_pooling(name)) is not None
            for parameter in module.parameters()
        ]

    def affine(self, modality: str) -> Affine | None:
        """The input normalisation of a modality, where it is one by training statistics."""
        if self.config.input_norm not in _BY_STATISTICS:
            return None
        return Affine(self.get_buffer(f"{modality}_shift"), self.get_buffer(f"{modality}_scale"))

    def set_input_statistics(self, modality: str, mean: Tensor, deviation: Tensor) -> None:
        """Keep mean and deviation `[D]` of the training frames, for heads that read them.

        Heads that are given the same tensors share them, and what is computed with them; a
        deviation that has passed `scaling` before is kept as it is.
        """
        setattr(self, f"{modality}_shift", mean)
        setattr(self, f"{modality}_scale", scaling(deviation))

    def forward(self, frames: Mapping[str, Frames]) -> Tensor:
        """Logits `[B, C]` of a batch given as frames of each modality, without dropout."""
        return stack_logits([self], as_inputs(frames))[0]

    def attention(self, frames: Mapping[str, Frames], modality: str) -> Tensor:
        """`[N, columns]`, the weights of one modality's frames (ConfigError if it has none)."""
        view = Inputs.from_frames(frames[modality]).view(*self.config.view(modality))
        return self.pooling(modality).attention(view, self.affine(modality))[0]


def scaling(deviation: Tensor) -> Tensor:
    """What features are divided by: their deviation `[D]`; 1 where they are constant."""
    constant = deviation < CONSTANT_DEVIATION
    if not bool(constant.any()):
        return deviation
    return torch.where(constant, torch.ones_like(deviation), deviation)


def as_inputs(frames: Mapping[str, Frames]) -> dict[str, Inputs]:
    """A batch of frames by modality, ready for `stack_logits`."""
    return {name: Inputs.from_frames(values) for name, values in frames.items()}


def stack_logits(
    heads: Sequence[Head],
    batch: Mapping[str, Inputs],
    dropout_seeds: Sequence[int] | None = None,
) -> Tensor:
    """Logits of many heads on one batch.

    Args:
        heads: heads with the same labels, on one device.
        batch: for each modality that a head reads, its inputs.
        dropout_seeds: one a head, fresh at each step; None switches dropout off. A head's mask
            depends on its own seed alone, so that company does not change a trial.

    Returns:
        `[K, B, C]`; with A attributes `[K, B, C + A]`.
    """
    vectors = pooled_vectors(heads, batch)
    if dropout_seeds is None:
        return classify(heads, vectors)
    dropout = dropout_of(heads, dropout_seeds)
    words = to_device(step_words(0, len(vectors[0][0])), vectors[0][0].device)
    return classify(heads, vectors, dropout.masks(words))


def answers(config: HeadConfig, outputs: Tensor) -> Tensor:
    """What heads say: class probabilities, then attributes in the units of their scales.

    Attributes beyond the ends of a scale are its ends: nobody could have rated so.

    Args:
        config: of one of them.
        outputs: `[..., C + A]`, logits and attributes of `stack_logits`.
    """
    classes = len(config.labels)
    said = torch.softmax(outputs[..., :classes], dim=-1)
    if not config.attributes:
        return said
    middle, half = _scales(config.attributes, outputs)
    return torch.cat([said, middle + outputs[..., classes:].clamp(-1, 1) * half], dim=-1)


def as_outputs(attributes: Mapping[str, tuple[float, float]], ratings: Tensor) -> Tensor:
    """Ratings `[..., A]` as outputs of a head: −1 and 1 at the ends of their scales."""
    middle, half = _scales(attributes, ratings)
    return (ratings - middle) / half


def _scales(attributes: Mapping[str, tuple[float, float]], like: Tensor) -> tuple[Tensor, Tensor]:
    """`[A]` the middle of each scale, and half of its length."""
    ends = to_device(torch.tensor(list(attributes.values()), dtype=like.dtype), like.device)
    low, high = ends.reshape(-1, 2).unbind(1)
    return (low + high) / 2, (high - low) / 2


def dropout_of(heads: Sequence[Head], seeds: Sequence[int]) -> Dropout:
    """The dropout of heads with these seeds, before their output layers."""
    return Dropout(
        seeds,
        [head.output.in_features for head in heads],
        [head.config.dropout for head in heads],
        heads[0].output.weight.device,
    )


def classify(
    heads: Sequence[Head],
    vectors: Sequence[Sequence[Tensor]],
    masks: Sequence[Tensor] | None = None,
) -> Tensor:
    """Logits `[K, B, C]` of many heads, each of pooled vectors of its own.

    Heads differ in what they read: their first products are their own. From hidden units on those
    of one width are stacked.

    Args:
        heads: with the same labels.
        vectors: of each head those of its modalities, `[B, out]`.
        masks: of dropout, one a head (`Dropout.masks`); None: without.
    """
    found: dict[int, Tensor] = {}
    for width in sorted({head.config.mlp_width for head in heads}):
        members = [k for k, head in enumerate(heads) if head.config.mlp_width == width]
        members.sort(key=lambda k: (heads[k].hidden or heads[k].output).in_features)
        read, kept = [vectors[k] for k in members], None
        if masks is not None:
            kept = [masks[k] for k in members]
        first = [heads[k].hidden or heads[k].output for k in members]
        # [members, B, width], or already the logits of linear classifiers.
        units = _products(read, [own.weight for own in first], None if width else kept)
        units = units + torch.stack([own.bias for own in first])[:, None]
        if width:
            units = F.relu(units)
            if kept is not None:
                units = units * torch.stack(kept)
            weight = torch.stack([heads[k].output.weight for k in members])
            bias = torch.stack([heads[k].output.bias for k in members])
            units = torch.baddbmm(bias[:, :, None], weight, units.mT).mT
        found |= dict(zip(members, units.unbind(), strict=True))
    return torch.stack([found[k] for k in range(len(heads))])


def _products(
    read: Sequence[Sequence[Tensor]], weights: Sequence[Tensor], masks: Sequence[Tensor] | None
) -> Tensor:
    """`[K, B, out]`: each head's vectors, in a row, times its weights `[out, in]`; sorted by in.

    On a GPU those of one size are stacked: launching a product of each costs more than the copies.
    """
    if not weights[0].is_cuda:
        rows = [one[0] if len(one) == 1 else torch.cat(list(one), dim=1) for one in read]
        if masks is not None:
            rows = [one * mask for one, mask in zip(rows, masks, strict=True)]
        return torch.stack([F.linear(*one) for one in zip(rows, weights, strict=True)])
    beside = torch.cat([part for one in read for part in one], dim=1)
    if masks is not None:
        beside = beside * torch.cat(list(masks), dim=1)
    alike = [list(own) for _, own in groupby(weights, lambda weight: weight.shape[1])]
    columns = beside.split([len(own) * own[0].shape[1] for own in alike], dim=1)
    parts = []
    for own, block in zip(alike, columns, strict=True):
        if len(own) == 1:
            parts.append(F.linear(block, own[0])[None])
            continue
        each = block.unflatten(1, (len(own), -1)).permute(1, 2, 0)
        parts.append(torch.bmm(torch.stack(own), each).mT)
    return torch.cat(parts)


def pooled_vectors(heads: Sequence[Head], batch: Mapping[str, Inputs]) -> list[list[Tensor]]:
    """What each head's classifier reads: its modalities' pooled vectors, each `[B, out]`."""
    pooled: list[list[Tensor]] = [[] for _ in heads]
    for modality in MODALITIES:
        members = [k for k, head in enumerate(heads) if modality in head.config.dims]
        for k, vector in zip(members, _pool(heads, members, modality, batch), strict=True):
            pooled[k].append(vector)
    return pooled


def _pool(
    heads: Sequence[Head], members: Sequence[int], modality: str, batch: Mapping[str, Inputs]
) -> list[Tensor]:
    """`[B, out]` for each member, poolings of one class that read the same view in one pass."""
    results: dict[int, Tensor] = {}
    shared: dict[tuple[View, type[Pooling]], list[int]] = {}
    for k in members:
        view = batch[modality].view(*heads[k].config.view(modality))
        shared.setdefault((view, type(heads[k].pooling(modality))), []).append(k)
    for (view, kind), group in shared.items():
        requests = [(heads[k].pooling(modality), heads[k].affine(modality)) for k in group]
        for k, vectors in zip(group, kind.pool_together(view, requests), strict=True):
            results[k] = vectors.squeeze(0)
    return [results[k] for k in members]
