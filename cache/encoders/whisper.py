"""Whisper's encoder as a speech encoder of frames: any length up to 30 s, without its decoder."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional as F
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.whisper.modeling_whisper import WhisperEncoder

#: Where the encoder's weights stand in a checkpoint: of the whole model, of the model with its
#: language head, or (as `finetune` writes them) of the encoder alone.
KEY_MAPPING = {r"^model\.encoder\.": "", r"^encoder\.": ""}


class ShortWhisperEncoder(WhisperEncoder):  # type: ignore[misc]  # untyped library
    """transformers' Whisper encoder, which insists on 30 s of input, for shorter input too.

    Positions are absolute, so a shorter input has the first of them. On 30 s the two agree to the
    bit. Dropout and layerdrop are left out: Whisper's configurations have none, and layers are
    dropped by `finetune.engine.augment`.
    """

    def forward(self, input_features: Tensor, **_: Any) -> BaseModelOutput:  # noqa: ANN401
        """Last hidden state `[B, T, d]` of log-mels `[B, mels, 2 T]`."""
        states = F.gelu(self.conv1(input_features))
        states = F.gelu(self.conv2(states)).transpose(1, 2)
        # Sinusoids, which are not trained: detached, so that no phase of fine-tuning counts them.
        states = states + self.embed_positions.weight[: states.shape[1]].detach()
        for layer in self.layers:
            states = layer(states, None)
        return BaseModelOutput(last_hidden_state=self.layer_norm(states))
