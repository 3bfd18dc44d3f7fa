"""Gradient checkpointing: the layers that are trained keep their inputs and nothing inside."""

from __future__ import annotations

from typing import Any

from corpora.base.errors import ConfigError
from finetune.model import EmotionModel


def compute_activations_again(model: EmotionModel) -> None:
    """Let the backward pass compute again what happens inside layers in training mode.

    Raises:
        ConfigError: an encoder's architecture cannot.
    """
    for encoder in (model.audio_encoder, model.text_encoder):
        if encoder is None:
            continue
        library: Any = encoder.model
        if not library.supports_gradient_checkpointing:
            raise ConfigError(
                f"{type(library).__name__} has no gradient checkpointing. Leave "
                "--gradient-checkpointing out, and lower --frame-budget instead."
            )
        # Its older name warns in transformers 5.23, and this one is not in earlier versions.
        newer = getattr(library, "activation_checkpointing_enable", None)
        (newer or library.gradient_checkpointing_enable)({"use_reentrant": False})
