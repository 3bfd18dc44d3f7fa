"""What the user asks of a search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from corpora.base.command_options import (
    Config,
    device_setting,
    names,
    plots_setting,
    precision_setting,
    setting,
)
from corpora.base.errors import ConfigError

# Heads whose weights are kept: enough for a look behind the winner and for an ensemble.
KEPT = 10
STUDY_NAME = "heads"
# A trial whose last heartbeat is `GRACE_SECONDS` ago belongs to a dead process.
HEARTBEAT_SECONDS = 30
GRACE_SECONDS = 120


@dataclass(frozen=True)
class SharedStudy:
    """A study that several processes work on.

    Attributes:
        url: of the database.
        name: of the study in it.
        heartbeat: seconds between two signs of life of a process.
        grace: seconds without one after which its trials are run by another.
    """

    url: str
    name: str = STUDY_NAME
    heartbeat: int = HEARTBEAT_SECONDS
    grace: int = GRACE_SECONDS


@dataclass(frozen=True)
class SearchConfig(Config):
    """What the user asks of a search.

    Attributes:
        fixed: what narrows the space where its file does not name the axis: a protocol's settings.
        fixed_by: who says so, for messages.
    """

    trials: int = setting(100, "Trials in all, resumed ones too.", least=1)
    seed: int = setting(0, "Of the study.", least=0)
    epochs: int | None = setting(
        None, "Of a full trial.  [default: 9, more on small corpora]", least=1
    )
    batch_size: int = setting(64, "Utterances a step.", least=1)
    # Of 100 trials, three quarters are drawn knowing what came before. Larger cohorts share more
    # of their work on frames.
    cohort: int = setting(25, "Trials trained side by side.", least=1)
    modalities: Sequence[str] | None = setting(
        None,
        "What heads may read.  [default: all that was extracted]",
        choices=("audio", "text"),
        metavar="[audio|text|audio,text]",
        parse=names,
    )
    tied: bool = setting(True, "Let audio and text be pooled in different ways.", flag="--untied")
    space: Path | None = setting(
        None,
        'TOML file that narrows or fixes axes, e.g. pooling = ["statistics", "attentive"].',
    )
    sampler: str = setting(
        "tpe",
        "How trials are drawn: learning from earlier ones, or by chance, as a control.",
        choices=("tpe", "random"),
    )
    folds: str = setting(
        "auto",
        "Compare heads by cross-validation over train and dev: one fold a speaker or session, or "
        "K groups of speakers. A trial then trains one head a fold, which takes so many times "
        "longer. auto: where dev has fewer than 20 speakers and the corpus fewer than 3,000 "
        "utterances.",
        metavar="auto|off|speaker|session|K",
    )
    test_folds: str = setting(
        "",
        "Repeat the whole search with every fold as the test set, and score all predictions "
        "together.",
        metavar="speaker|session|protocol|K",
    )
    refit: bool = setting(
        True,
        "Chosen by folds, train the head on train alone and not on train and dev.",
        flag="--no-refit",
    )
    ensemble: int = setting(
        0,
        f"Also score the averaged probabilities of the K best trials (2 to {KEPT}; 0: none).",
        metavar="K",
    )
    storage: str = setting(
        "",
        "Database of a study that several machines work on, such as postgresql://user@host/db or "
        "sqlite:////shared/study.db.  [default: WORK/search/study.db]",
        metavar="URL",
    )
    study_name: str = setting(STUDY_NAME, "Of the study in --storage.")
    precision: str = precision_setting(
        "Of frames and their products; statistics and weights are fp32. auto: bf16 for large "
        "batches on processors made for it."
    )
    device: str = device_setting()
    plots: bool = plots_setting(
        "Also draw the study, into WORK/search/plots (matplotlib).", default=False
    )
    fixed: Mapping[str, Any] = field(default_factory=dict)
    fixed_by: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ensemble != 0 and not 2 <= self.ensemble <= KEPT:
            raise ConfigError(
                f"An ensemble is made of 2 to {KEPT} heads (so many are kept), "
                f"got {self.ensemble}. 0 is none."
            )

    @property
    def shared(self) -> SharedStudy | None:
        """The study of several machines, where it is one."""
        return SharedStudy(self.storage, self.study_name) if self.storage else None
