"""What the user asks of this floor's commands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cache.config import WHISPER, ExtractConfig, language_code
from corpora.base.command_options import (
    Config,
    device_setting,
    log_setting,
    names,
    plots_setting,
    precision_setting,
    setting,
)
from corpora.base.errors import ConfigError
from corpora.label_map import parse_labels

#: What embeddings are written as, by the end of the file's name.
EMBEDDINGS = (".npz", ".csv")


def parse_phases(text: str) -> tuple[int, ...]:
    """Read phases such as `2,3`.

    Raises:
        ValueError: something in it is not a number.
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise ValueError("expected numbers such as 2,3.") from error


@dataclass(frozen=True)
class FinetuneConfig(Config):
    """What the user asks of a fine-tuning."""

    phases: tuple[int, ...] = setting(
        help="Which, in order: 1 the head from scratch, 2 upper layers too, 3 everything.",
        typed="2,3",
        choices=(1, 2, 3),
        parse=parse_phases,
    )
    lr1: float | None = setting(None, "Of phase 1.  [default: that of the search]", above=0)
    lr2: float | None = setting(None, "Of phase 2.  [default: 3e-6; tiny: 1e-4]", above=0)
    lr3: float | None = setting(None, "Of phase 3.  [default: 1e-6; tiny: 3e-5]", above=0)
    layer_decay: float = setting(
        1.0, "Factor on the learning rate from a layer to the one below.", above=0, most=1
    )
    adapter: str = setting(
        "",
        "Leave the encoders as they are and train adapters in their layers: in phase 2 the upper "
        "ones', in phase 3 all (peft).  [default: train the encoders]",
        choices=("lora",),
    )
    lora_rank: int = setting(8, "Rank of the adapters' matrices.", least=1)
    lora_alpha: int | None = setting(
        None, "What they give counts alpha / rank.  [default: twice the rank]", least=1
    )
    lora_targets: tuple[str, ...] = setting(
        (),
        "Linear layers that get one, by name.  [default: query and value projections; of WavLM, "
        "which does not call these, the feed-forward ones]",
        metavar="A,B,…",
        parse=names,
    )
    merge: bool = setting(
        False, "Add the adapters to the encoders' weights in the model; else they lie beside."
    )
    epochs: int = setting(10, "Most passes of a phase.", least=1)
    # A phase often loses in its first epochs, when parts that never moved begin to, and gains
    # later. Seen on EMO-DB with tiny encoders, phase 3 of 8 epochs: .40, .31, .30, .37, .36, .43.
    patience: int = setting(5, "Passes without a better one that end phase 2 or 3.", least=1)
    head_patience: int = setting(
        0, "The same for phase 1; 0: it makes as many passes as the search did.", least=0
    )
    unfreeze_layers: int | None = setting(
        None,
        "Upper layers of each encoder trained in phase 2.  [default: a quarter of those read]",
    )
    spec_augment: float = setting(
        0.0,
        "Share of frames and mel bands masked while the speech encoder is trained.",
        least=0,
        below=1,
    )
    layerdrop: float = setting(
        0.0, "Probability that a layer that is trained is passed over.", least=0, below=1
    )
    seed: int = setting(0, "For batches and dropout.", least=0)
    frame_budget: int | None = setting(
        None,
        "Frames of 20 ms that are encoded together, padding included.  [default: 2400 on a CPU, "
        "up to 9600 on a GPU, as its memory takes]",
        least=1,
    )
    accumulate: int = setting(1, "Batches of a step, in each process.", least=1)
    gradient_checkpointing: bool = setting(
        False, "Compute activations again instead of keeping them: less memory, more time."
    )
    precision: str = precision_setting("Of the speech encoder; auto is bf16 on a GPU.")
    boundary_cache: bool = setting(
        True, "Train phase 2 from cached hidden states of the highest frozen layer."
    )
    boundary_dtype: str = setting(
        "float16", "As what these are stored.", choices=("float16", "float32")
    )
    # A checkpoint of the full encoders in phase 3 is 12 GB and takes a minute; so many steps take a
    # GPU several.
    checkpoint_every: int = setting(
        1_000, "Steps between two checkpoints; a killed run goes on from the last.", least=1
    )
    fresh: bool = setting(False, "Forget an unfinished run.")
    log: str = log_setting("WORK/finetune")
    tensorboard: bool = setting(False, "The same as --log tensorboard.")
    device: str = device_setting()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.phases or list(self.phases) != sorted(set(self.phases)):
            raise ConfigError(
                f"phases {', '.join(map(str, self.phases)) or 'none'}: expected some of 1, 2 and "
                "3, in this order."
            )
        own = ("lora_rank", "lora_alpha", "lora_targets", "merge")
        if not self.adapter and any(getattr(self, n) != getattr(FinetuneConfig, n) for n in own):
            raise ConfigError(
                "--lora-rank, --lora-alpha, --lora-targets and --merge go with --adapter lora."
            )
        if self.adapter and not set(self.phases) & {2, 3}:
            raise ConfigError("--adapter lora trains in phases 2 and 3: name one with --phases.")

    @property
    def tracker(self) -> str:
        """What follows it; "" for nothing."""
        return self.log or "tensorboard" * self.tensorboard

    @property
    def learning_rates(self) -> Mapping[int, float]:
        """Those given, by phase; what is not is in `finetune.phases`, of phase 1 the searched."""
        given = {1: self.lr1, 2: self.lr2, 3: self.lr3}
        return {phase: rate for phase, rate in given.items() if rate is not None}

    @property
    def boundary(self) -> str:
        """As what the hidden states below phase 2 are kept in the cache, or `off`."""
        return self.boundary_dtype if self.boundary_cache else "off"


@dataclass(frozen=True)
class EvaluateConfig(Config):
    """What the user asks of an evaluation."""

    subject: str = setting(
        "",
        "The searched head or the fine-tuned model.  [default: the model where there is one]",
        choices=("head", "model"),
    )
    models: tuple[str | Path, ...] = setting(
        (),
        "Another model (directory or hub id) or head (JSON file, folder of a search); given "
        "several times, their mean probabilities: an ensemble.",
        flag="--model",
        metavar="DIR|ID",
    )
    against: tuple[str | Path, ...] = setting(
        (),
        "Compare with this model or head on the same utterances; repeatable.",
        metavar="DIR|ID",
    )
    labels: tuple[str, ...] = setting(
        (),
        "Only these labels: probabilities are renormalised over them, and utterances of others "
        "left out.",
        metavar="A,B,…",
        parse=parse_labels,
    )
    votes: bool = setting(
        False,
        "Score against the shares of the raters' votes too, beside a uniform and a majority "
        "answer.",
    )
    calibration: bool = setting(
        False,
        "Measure it, before and after a temperature fitted on the development set, which is "
        "scored for it.",
        flag="--calibration/--no-calibration",
        typed=True,
    )
    plots: bool = plots_setting(
        "Draw confusion matrix and reliability (matplotlib).", default=False
    )
    device: str = device_setting()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.subject and self.models:
            raise ConfigError(
                "--subject chooses between the work folder's own head and model, --model names "
                "others: give one of them."
            )


@dataclass(frozen=True)
class PredictConfig(Config):
    """What the user asks of a prediction."""

    transcribe: bool = setting(False, "Let Whisper write down what comes without text.")
    whisper: str = setting(
        "", f"Which Whisper; implies --transcribe.  [default: {WHISPER}]", metavar="ID|DIR"
    )
    language: str = setting(
        "",
        "Of all recordings, such as de, for Whisper.  [default: detected]",
        metavar="CODE",
        parse=language_code,
    )
    models: tuple[str | Path, ...] = setting(
        (),
        "Model (directory or hub id), or head of a search in --work; several are an ensemble.  "
        "[default: WORK/model, else the search's best head]",
        flag="--model",
        metavar="DIR|ID",
    )
    labels: tuple[str, ...] = setting(
        (),
        "Only these labels: probabilities are renormalised over them.",
        metavar="A,B,…",
        parse=parse_labels,
    )
    top_frames: int = setting(
        5,
        "How many of the frames attended most are named, where the head has attention.",
        least=0,
    )
    max_seconds: float = setting(
        ExtractConfig.max_seconds,
        "Longer recordings are refused: attention costs memory by the square of the length.",
        above=0,
    )
    submission: Path | None = setting(
        None,
        "Write the file that MSP-Podcast's challenges take (FileName,EmoClass; of attributes "
        "FileName,EmoAct,EmoVal,EmoDom).",
    )
    task: int | None = setting(
        None,
        "Of the challenge: 1, classes, or 2, attributes.  [default: 1 where the model knows "
        "classes]",
        least=1,
        most=2,
    )
    every: float | None = setting(
        None,
        "Emotion over time: an answer every so many seconds of recordings of any length.",
        above=0,
        metavar="SECONDS",
    )
    window: float | None = setting(
        None,
        "With --every: how much each answer hears.  [default: the median utterance trained on; "
        "3 where that is not known]",
        above=0,
        metavar="SECONDS",
    )
    segments: str = setting(
        "",
        "Emotion over time: an answer for each stretch of speech (vad), labelled interval of "
        "--tier in the TextGrid of the recording's name beside it, or row of a table (start, end, "
        "path, name, text) or RTTM file.",
        metavar="vad|textgrid|FILE",
    )
    tier: str = setting("", "With --segments textgrid: its tier.", metavar="NAME")
    outs: tuple[str | Path, ...] = setting(
        (),
        "Write what is said over time, in the format of the suffix: .csv, .jsonl, .TextGrid, "
        ".rttm, .png or .svg (matplotlib); repeatable.",
        flag="--out",
        metavar="FILE",
    )
    strength: bool = setting(
        False,
        "Say how strong each emotion is, 0 to 1 (.5: as half of the utterances trained on). For a "
        "searched head.",
    )
    reference: str = setting(
        "neutral", "With --strength: the label that stands for no emotion.", metavar="LABEL"
    )
    embeddings: Path | None = setting(
        None,
        "Write what the classifier reads, the pooled vectors of all modalities, with ids: a .npz "
        "or a .csv.",
    )
    device: str = device_setting()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.every is not None and self.segments:
            raise ConfigError("--every and --segments exclude one another.")
        if self.window is not None and self.every is None:
            raise ConfigError("--window goes with --every.")
        if (self.segments == "textgrid") != bool(self.tier):
            raise ConfigError("--segments textgrid and --tier NAME go together.")
        if self.outs and not self.over_time:
            raise ConfigError("--out writes emotion over time: give --every or --segments.")
        if self.submission is not None and self.over_time:
            raise ConfigError("--submission takes whole recordings, not --every or --segments.")
        if self.embeddings is not None and self.over_time:
            raise ConfigError("--embeddings takes whole recordings, not --every or --segments.")
        if self.embeddings is not None and self.embeddings.suffix not in EMBEDDINGS:
            raise ConfigError(
                f"--embeddings {self.embeddings}: expected a name that ends in "
                f"{' or '.join(EMBEDDINGS)}."
            )

    @property
    def over_time(self) -> bool:
        """Whether recordings are answered stretch by stretch."""
        return self.every is not None or bool(self.segments)

    @property
    def transcriber(self) -> str:
        """The Whisper that fills in missing texts; "" for none."""
        return self.whisper or (WHISPER if self.transcribe else "")


@dataclass(frozen=True)
class ExportConfig(Config):
    """What the user asks of an export."""

    model: str | None = setting(
        None,
        "Model (directory or hub id), or head of a search in --work.  [default: WORK/model, else "
        "the search's best head]",
        metavar="DIR|ID",
    )
    frames: bool = setting(
        False,
        "The head alone: frames of each modality go in, not recordings.",
    )
    int8: bool = setting(
        False,
        "Weights of 8 bits instead of 32: less than half of the size. What that costs is measured.",
    )
    out: Path | None = setting(
        None,
        "File to write.  [default: WORK/model.onnx; with --frames WORK/head.onnx]",
    )
    check: int = setting(
        50,
        "How many recordings of --split, spread over it, the file is compared on before it is "
        "written.",
        least=1,
    )
