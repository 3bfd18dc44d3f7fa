"""The search space: every axis, its values, and the published configurations in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from heads.dataset import Dataset
from heads.head import INPUT_NORMS, MODALITIES, HeadConfig
from heads.losses import LossConfig
from heads.training import TrainingConfig

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

# `attentive` is mqmha with Q, H and n of its own: AS, SA and MHA are points of it.
KINDS = ("average", "max", "statistics", "attentive", "vad_average", "average+vad_average")
SPEECH_KINDS = ("vad_average", "average+vad_average")
QUERIES = (1, 2, 4)
HEADS = (1, 2, 4)
SCORER_LAYERS = (1, 2)
HIDDEN = (64, 128, 256)
MLP_WIDTHS = (0, 64, 128, 256, 512)
DROPOUT = (0.0, 0.5)
LEARNING_RATE = (1e-5, 3e-3)
WEIGHT_DECAY = (1e-4, 1e-1)
LOSSES = {
    "focal": LossConfig("focal", gamma=2.0, class_weight=True),
    "weighted_cross_entropy": LossConfig("cross_entropy", class_weight=True),
    "cross_entropy": LossConfig("cross_entropy", class_weight=False),
}

# Leygue et al., Interspeech 2025, Table 2, and Hyeon et al. 2024 (the last two). Keys are axes.
PUBLISHED: dict[str, dict[str, Any]] = {
    "average": {"pooling": "average"},
    "max": {"pooling": "max"},
    "statistics": {"pooling": "statistics"},
    "AS": {"pooling": "attentive", "queries": 1, "heads": 1, "scorer_layers": 2, "hidden": 256},
    "SA": {"pooling": "attentive", "queries": 2, "heads": 1, "scorer_layers": 2, "hidden": 256},
    "MHA": {"pooling": "attentive", "queries": 1, "heads": 2, "scorer_layers": 1},
    "MQMHA 2/2": {"pooling": "attentive", "queries": 2, "heads": 2, "scorer_layers": 1},
    "MQMHA 2/4": {"pooling": "attentive", "queries": 2, "heads": 4, "scorer_layers": 1},
    "MQMHA 4/4": {"pooling": "attentive", "queries": 4, "heads": 4, "scorer_layers": 1},
    "vad_average": {"pooling": "vad_average"},
    "average+vad_average": {"pooling": "average+vad_average"},
}
# What the published heads share: no input normalisation, focal loss and weight decay .01 are
# Leygue et al.'s. MLP and dropout are not stated: ours. Their rate of 1e-5 is for a head whose
# encoders are trained next, over many more steps: at the few hundred steps of a search it stays
# near its start. 1e-3, AdamW's usual rate, is ours.
PUBLISHED_REST: dict[str, Any] = {
    "input_norm": "none",
    "mlp_width": 256,
    "dropout": 0.1,
    "learning_rate": 1e-3,
    "weight_decay": 0.01,
    "loss": "focal",
}
# Keeps the seeds of trials apart from other numbers drawn from the study's seed.
_TRIAL_DOMAIN = 1


@dataclass(frozen=True)
class Space:
    """The axes as the data allows them.

    Attributes:
        labels: the label order.
        dims: features per frame of each modality there is.
        speech: whether audio frames have a voice activity detector's output.
        tied: both modalities are pooled in the same way; else each has its own axes,
            `audio_pooling`, `text_pooling` and so on.
    """

    labels: tuple[str, ...]
    dims: Mapping[str, int]
    speech: bool
    tied: bool = True

    @classmethod
    def of(cls, dataset: Dataset, *, tied: bool = True) -> Space:
        """The space for a data set."""
        audio = dataset.frames.get("audio")
        speech = audio is not None and audio.speech is not None
        return cls(dataset.labels, dataset.dims, speech, tied)

    @property
    def modalities(self) -> tuple[str, ...]:
        """The combinations to choose from, all modalities together first."""
        present = [name for name in MODALITIES if name in self.dims]
        return ("+".join(present), *present) if len(present) > 1 else tuple(present)

    @property
    def heads(self) -> tuple[int, ...]:
        """Numbers of heads that divide the features of every modality."""
        return tuple(h for h in HEADS if all(dim % h == 0 for dim in self.dims.values()))

    def kinds(self, prefix: str) -> tuple[str, ...]:
        """The pooling kinds of an axis; text alone has no silence to leave out."""
        usable = self.speech and prefix != "text_"
        return tuple(kind for kind in KINDS if usable or kind not in SPEECH_KINDS)

    def prefix(self, modality: str) -> str:
        """What the names of a modality's pooling axes begin with."""
        return "" if self.tied else f"{modality}_"


def trial_configs(trial: BaseTrial, space: Space, seed: int) -> tuple[HeadConfig, TrainingConfig]:
    """Draw a head and its training (or read them back, from a finished trial).

    Args:
        trial: an Optuna trial.
        space: the axes.
        seed: of the trial (see `trial_seed`).
    """
    combinations = space.modalities
    # With one combination there is nothing to choose, but tables still name it.
    modalities = trial.suggest_categorical("modalities", combinations).split("+")
    descriptions: dict[str, dict[str, Any]] = {}
    for modality in modalities:
        prefix = space.prefix(modality)
        if prefix not in descriptions:
            descriptions[prefix] = _draw_pooling(trial, space, prefix)
    head = HeadConfig(
        labels=space.labels,
        dims={name: space.dims[name] for name in modalities},
        pooling={name: _fitting(name, descriptions[space.prefix(name)]) for name in modalities},
        input_norm=trial.suggest_categorical("input_norm", INPUT_NORMS),
        mlp_width=trial.suggest_categorical("mlp_width", MLP_WIDTHS),
        dropout=trial.suggest_float("dropout", *DROPOUT),
    )
    training = TrainingConfig(
        learning_rate=trial.suggest_float("learning_rate", *LEARNING_RATE, log=True),
        weight_decay=trial.suggest_float("weight_decay", *WEIGHT_DECAY, log=True),
        loss=LOSSES[trial.suggest_categorical("loss", tuple(LOSSES))],
        seed=seed,
    )
    return head, training


def _draw_pooling(trial: BaseTrial, space: Space, prefix: str) -> dict[str, Any]:
    kind = trial.suggest_categorical(f"{prefix}pooling", space.kinds(prefix))
    if kind != "attentive":
        return {"kind": kind}
    description = {
        "kind": "mqmha",
        "queries": trial.suggest_categorical(f"{prefix}queries", QUERIES),
        "heads": trial.suggest_categorical(f"{prefix}heads", space.heads),
        "scorer_layers": trial.suggest_categorical(f"{prefix}scorer_layers", SCORER_LAYERS),
    }
    if description["scorer_layers"] == 2:
        description["hidden"] = trial.suggest_categorical(f"{prefix}hidden", HIDDEN)
    return description


def _fitting(modality: str, description: Mapping[str, Any]) -> Mapping[str, Any]:
    """The description for a modality: text has no silence, so all its frames are averaged."""
    if modality == "text" and description["kind"] in SPEECH_KINDS:
        return {"kind": "average"}
    return description


def published_params(space: Space) -> tuple[dict[str, dict[str, Any]], tuple[str, ...]]:
    """The published configurations as values of the axes, by name, and notes on those left out.

    All read every modality there is.
    """
    chosen: dict[str, dict[str, Any]] = {}
    notes = []
    for name, pooling in PUBLISHED.items():
        if pooling.get("heads", 1) not in space.heads:
            dims = " and ".join(str(dim) for dim in space.dims.values())
            notes.append(f"{name} is left out: {pooling['heads']} heads do not divide {dims}.")
            continue
        if pooling["pooling"] in SPEECH_KINDS and not space.speech:
            notes.append(f"{name} is left out: it needs audio with the detector's output.")
            continue
        params = {"modalities": space.modalities[0], **PUBLISHED_REST}
        for modality in space.modalities[0].split("+"):
            prefix = space.prefix(modality)
            kind = pooling["pooling"]
            own = pooling if kind in space.kinds(prefix) else {"pooling": "average"}
            params |= {f"{prefix}{axis}": value for axis, value in own.items()}
        chosen[name] = params
    return chosen, tuple(notes)


def trial_seed(study_seed: int, number: int) -> int:
    """The seed of a trial's first parameters and dropout: from its study's seed and its number."""
    return seed_from(study_seed, _TRIAL_DOMAIN, number)


def seed_from(*numbers: int) -> int:
    """A 32-bit seed that changes unpredictably with each of the numbers (at least 0)."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
