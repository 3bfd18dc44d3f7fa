"""What the user asks of `explain`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from corpora.base.command_options import Config, device_setting, plots_setting, setting
from corpora.utterance import ALL, SPLITS

# A model's frames stay in memory: 200 utterances of 6 s with 1024 features are 0.25 GB.
MODEL_LIMIT = 200


def parse_attended(text: str) -> float | None:
    """Read `top` or a share such as `0.5`.

    Raises:
        ValueError: it is neither.
    """
    if text.strip().lower() == "top":
        return None
    try:
        return float(text)
    except ValueError as error:
        raise ValueError("expected `top` or a share of the attention such as 0.5.") from error


@dataclass(frozen=True)
class ExplainConfig(Config):
    """What the user asks of an explanation.

    Attributes:
        attended: None is the top frame.
        head: a head's JSON file; the search's best by default.
    """

    ids: tuple[str, ...] = setting((), "Explain this utterance; repeatable.", flag="--utterance")
    split: str = setting("test", "Whose utterances.", choices=(*SPLITS, ALL))
    limit: int | None = setting(
        None,
        f"Most utterances, drawn at random.  [default: all; of a fine-tuned model {MODEL_LIMIT}]",
        least=1,
    )
    subject: str = setting(
        "",
        "The searched head, on cached frames, or the fine-tuned model, on recordings.  "
        "[default: the head where there is one]",
        choices=("head", "model"),
    )
    attribute: str = setting(
        "",
        "Explain what is said of this attribute.  [default: the classes; of a head without, its "
        "first attribute]",
        metavar="NAME",
    )
    attended: float | None = setting(
        help="Attended is the smallest set of frames with this share of the attention, or of "
        "what stands for it, or the top frame of each utterance.",
        typed="0.5",
        above=0,
        most=1,
        metavar="SHARE|top",
        parse=parse_attended,
    )
    # Some 17 kB each for three seconds.
    embedded: int = setting(
        200,
        "Utterances whose sound goes into the page; the others are linked.",
        flag="--sounds",
        least=0,
    )
    cues: str = setting(
        "default",
        "Acoustic cues: five of Emopool's own, or openSMILE's eGeMAPS (extra cues; free for "
        "research).",
        choices=("default", "egemaps"),
    )
    occlusion: int = setting(
        0,
        "Also occlude the audio of N utterances piece by piece: hundreds of passes through the "
        "encoders each.",
        least=0,
        metavar="N",
    )
    evidence: Path | None = setting(
        None,
        "Also write what each answer rests on as JSON lines: its emotions, attended stretches, "
        "their words and cues, and the probability lost without them.",
    )
    reference: str = setting(
        "neutral",
        "The label that stands for no emotion: strength is ranked above it.",
        metavar="LABEL",
    )
    figures: bool = plots_setting("Draw pictures (matplotlib).", default=True)
    seed: int = setting(0, "Wherever chance decides.", least=0)
    device: str = device_setting()
    head: Path | None = None
