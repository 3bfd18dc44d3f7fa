"""Noise for encoders that are trained: masked stretches of the input, layers passed over.

SpecAugment (Park et al. 2019) hides stretches of time and a band of the spectrogram behind its
mean, which is 0 after the front end's normalisation. Layerdrop (Fan et al. 2020) is ours: the
library's asks for the mode of the whole encoder, and would drop frozen layers too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from cache.encoders.grid import FBANK_MODELS
from finetune.boundary import PassOn, standing_in
from finetune.model import EmotionModel
from heads.runs import seed_from

# Frames of a masked stretch, .2 s: as in wav2vec 2.0, which takes ten at the same 20 ms.
SPAN = 10
# Two frames of 10 ms are stacked to one of 20 ms: a band is masked in both.
STACKED = 2
# Keeps the draws apart from those of dropout.
_DOMAIN = 5


@dataclass(frozen=True, eq=False)
class Augment:
    """What is done to the encoders in training.

    Attributes:
        spec: share of frames and of mel bands that are masked; 0 for none.
        drop: probability that a layer is passed over.
        layers: by modality, the positions of layers that are trained.
        outputs: by modality, see `PassOn`.
    """

    spec: float = 0.0
    drop: float = 0.0
    layers: dict[str, tuple[int, ...]] = field(default_factory=dict)
    outputs: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def applied(self, model: EmotionModel, seed: int) -> Iterator[None]:
        """During one forward pass; all draws follow from the seed."""
        generator = torch.Generator().manual_seed(seed_from(seed, _DOMAIN))
        with ExitStack() as stack:
            for modality, positions in self.layers.items():
                drawn = torch.rand(len(positions), generator=generator) < self.drop
                passed: dict[int, nn.Module] = {
                    position: PassOn(self.outputs[modality])
                    for position, out in zip(positions, drawn.tolist(), strict=True)
                    if out
                }
                layers = model.get_submodule(f"{modality}_encoder").stack
                if isinstance(layers, nn.ModuleList):
                    stack.enter_context(standing_in(layers, passed))
            if self.spec and model.audio_encoder is not None:
                stack.enter_context(_masked_input(model.audio_encoder.model, self.spec, generator))
            yield


def takes_spectrograms(model: EmotionModel) -> bool:
    """Whether the speech encoder's input has mel bands to mask."""
    if model.audio_encoder is None:
        return False
    config: Any = model.audio_encoder.model.config
    return config.model_type in FBANK_MODELS


def masked(features: Tensor, mask: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Features `[B, T, F]` with stretches of time and one band of mels set to 0.

    Args:
        features: of spectrograms, two frames stacked; with zeros behind each utterance.
        mask: `[B, T]`, 1 where a frame is valid.
        share: of each utterance's frames and of its mel bands, at most.
        generator: for the draws.
    """
    hidden = torch.zeros(features.shape, dtype=torch.bool)
    bands = features.shape[2] // STACKED
    for row, frames in enumerate(mask.sum(dim=1).tolist()):
        wanted = share * frames / SPAN
        # One more stretch by chance, so that short utterances get their share on average.
        count = int(wanted) + int(float(torch.rand(1, generator=generator)) < wanted % 1)
        for start in torch.randint(max(1, frames - SPAN + 1), (count,), generator=generator):
            hidden[row, int(start) : int(start) + SPAN] = True
        width = int(torch.randint(int(share * bands) + 1, (1,), generator=generator))
        low = int(torch.randint(bands - width + 1, (1,), generator=generator))
        for stacked in range(STACKED):
            hidden[row, :, stacked * bands + low : stacked * bands + low + width] = True
    return features.masked_fill(hidden.to(features.device), 0.0)


@contextmanager
def _masked_input(model: nn.Module, share: float, generator: torch.Generator) -> Iterator[None]:
    def hook(_: nn.Module, inputs: Any, named: dict[str, Any]) -> Any:  # noqa: ANN401
        features, mask = named["input_features"], named["attention_mask"]
        return inputs, {**named, "input_features": masked(features, mask, share, generator)}

    handle = model.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
