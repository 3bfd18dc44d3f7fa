"""The model as one module from a batch to logits: what the processes of a training wrap."""

from __future__ import annotations

from torch import Tensor, nn

from cache.frames import Frames
from corpora.base.errors import ConfigError
from finetune.batches import Batch
from finetune.engine.augment import Augment
from finetune.engine.boundary import Boundary
from finetune.model import EmotionModel
from heads.head import as_inputs, stack_logits


class Trainee(nn.Module):
    """A model that takes batches of recordings and texts, or of cached hidden states.

    Args:
        model: the model.
        boundary: which modalities come from the cache, and the layers that are run from there.
        augment: what is done to the encoders in training.
    """

    def __init__(
        self, model: EmotionModel, boundary: Boundary | None = None, augment: Augment | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self._boundary = boundary
        self._augment = augment or Augment()

    def forward(self, batch: Batch, dropout_seed: int | None = None) -> Tensor:
        """Logits `[B, C]`.

        Args:
            batch: with hidden states for each modality of the boundary.
            dropout_seed: for the head's dropout and the augmentation; None switches both off.
        """
        if dropout_seed is None:
            return self._logits(batch, None)
        with self._augment.applied(self.model, dropout_seed):
            return self._logits(batch, dropout_seed)

    def _logits(self, batch: Batch, dropout_seed: int | None) -> Tensor:
        if not batch.states:
            logits: Tensor = self.model(batch.waveforms, batch.texts, dropout_seed=dropout_seed)
            return logits
        frames = {name: self._frames(name, batch) for name in self.model.head.config.modalities}
        seeds = None if dropout_seed is None else [dropout_seed]
        return stack_logits([self.model.head], as_inputs(frames), seeds)[0]

    def _frames(self, modality: str, batch: Batch) -> Frames:
        if modality not in batch.states:
            return (
                self.model.listen(batch.waveforms)
                if modality == "audio"
                else self.model.read(batch.texts)
            )
        if self._boundary is None:
            raise ConfigError("a batch of cached hidden states needs the layers to run from them.")
        upper = self._boundary.uppers[modality]
        return upper(batch.states[modality], batch.lengths.get(modality))
