"""What the user asks of `explain`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from corpora.base.errors import ConfigError
from explain.phones_section import SHARE

# Utterances whose sound goes into the page: some 25 kB each for three seconds.
EMBEDDED = 200
# A model's frames stay in memory: 200 utterances of 6 s with 1024 features are 0.25 GB.
MODEL_LIMIT = 200


@dataclass(frozen=True)
class ExplainConfig:
    """Options.

    Attributes:
        subject: `head`, `model` or "" (the searched head where there is one).
        head: a head's JSON file; the search's best by default.
        split: whose utterances.
        limit: most utterances, drawn at random; None is all (of a model `MODEL_LIMIT`).
        ids: utterances to explain one by one, instead of a split.
        attended: share of the mass that attended frames hold; None is the top frame.
        embedded: utterances whose sound goes into the page; others are linked.
        figures: whether to draw.
        seed: wherever chance decides.
        cues: `default`, or `egemaps` (openSMILE, in the extra `cues`).
        occlusion: utterances whose audio is occluded piece by piece; 0 leaves that out.
        device: of a model's encoders, `auto`, `cpu` or `cuda`.
    """

    subject: str = ""
    head: Path | None = None
    split: str = "test"
    limit: int | None = None
    ids: tuple[str, ...] = ()
    attended: float | None = SHARE
    embedded: int = EMBEDDED
    figures: bool = True
    seed: int = 0
    cues: str = "default"
    occlusion: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.attended is not None and not 0 < self.attended <= 1:
            raise ConfigError(
                f"attended frames hold a share of the attention above 0 and up to 1, got "
                f"{self.attended}; or `top`, the top frame of each utterance."
            )
        if min(self.embedded, self.seed, self.occlusion) < 0 or (
            self.limit is not None and self.limit < 1
        ):
            raise ConfigError(
                f"limit {self.limit}, recordings in the page {self.embedded}, occluded "
                f"{self.occlusion}, seed {self.seed}: expected a limit of 1 or more, and no "
                "negative number."
            )


def parse_attended(text: str) -> float | None:
    """Read `top` or a share such as `0.5`.

    Raises:
        ConfigError: it is neither.
    """
    if text.strip().lower() == "top":
        return None
    try:
        return float(text)
    except ValueError as error:
        raise ConfigError(
            f"--attended {text}: expected `top` or a share of the attention such as 0.5."
        ) from error
