"""The utterances that a model can be trained and scored on, with their lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cache.audio import audio_seconds
from cache.encoders.grid import SAMPLE_RATE
from cache.keys import normalise_text
from corpora.base.errors import AudioError, ManifestError
from corpora.manifest import Utterance
from finetune.model import EmotionModel
from heads.losses import LossConfig
from heads.targets import utterance_shares


@dataclass(frozen=True, eq=False)
class Examples:
    """Utterances, ready to be planned into batches.

    Attributes:
        utterances: in the manifest's order.
        lengths: frames of each, of audio where the model listens, else of text.
        labels: the model's label order.
    """

    utterances: tuple[Utterance, ...]
    lengths: tuple[int, ...]
    labels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.utterances)

    @property
    def targets(self) -> Tensor:
        """`[N]` int64 class indices."""
        index = {label: position for position, label in enumerate(self.labels)}
        return torch.tensor([index[utterance.label] for utterance in self.utterances])

    def loss_targets(self, loss: LossConfig) -> Tensor:
        """What a loss learns of them: `[N]` class indices, or `[N, C]` shares of the votes."""
        if not loss.from_votes:
            return self.targets
        return utterance_shares(self.utterances, self.labels, loss.smoothing)


def gather_examples(
    model: EmotionModel, utterances: Sequence[Utterance], known: Mapping[str, str]
) -> tuple[Examples, dict[str, str]]:
    """Measure labelled utterances; those that cannot be used are left out.

    Lengths come from headers and transcripts: nothing is decoded.

    Args:
        model: which decides what a frame is.
        utterances: unlabelled ones are left out silently.
        known: reasons by id of those that failed at extraction.

    Returns:
        The examples, and reasons by id for what was left out.

    Raises:
        ManifestError: a label that the model does not know.
    """
    kept: list[Utterance] = []
    lengths: list[int] = []
    failed: dict[str, str] = {}
    for utterance in utterances:
        if not utterance.label:
            continue
        if utterance.label not in model.labels:
            raise ManifestError(
                f"line {utterance.line}, utterance {utterance.id}: label {utterance.label!r} is "
                f"not one of the model's: {', '.join(model.labels)}."
            )
        if utterance.id in known:
            failed[utterance.id] = known[utterance.id]
            continue
        try:
            frames = _frames(model, utterance)
        except AudioError as error:
            failed[utterance.id] = str(error)
            continue
        kept.append(utterance)
        lengths.append(frames)
    return Examples(tuple(kept), tuple(lengths), model.labels), failed


def _frames(model: EmotionModel, utterance: Utterance) -> int:
    """Frames of one utterance (AudioError where there is not one)."""
    if model.audio_encoder is None:
        assert model.text_encoder is not None, "a model listens, reads, or both"
        return len(model.text_encoder.tokenise([normalise_text(utterance.text)])[0].ids)
    end = utterance.end
    if end is None:
        end = audio_seconds(utterance.audio, where=f"utterance {utterance.id}")
    seconds = end - (utterance.start or 0.0)
    frames = model.audio_encoder.grid.frames(round(seconds * SAMPLE_RATE))
    if frames < 1:
        raise AudioError(
            f"utterance {utterance.id}: {utterance.audio}: {seconds:.3f} s is shorter than one "
            "frame. Remove the utterance or widen its segment."
        )
    return frames
