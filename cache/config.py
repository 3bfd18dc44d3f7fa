"""What the user asks of an extraction and of a transcription."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from cache.keys import DESCRIBE, WHOLE_SECONDS
from cache.recipe import PADDINGS, PaddingName
from corpora.base.command_options import Config, device_setting, setting
from corpora.base.errors import ConfigError
from corpora.utterance import ALL, SPLITS


@dataclass(frozen=True)
class Auto:
    """The training data chooses (`heads.extraction`).

    Attributes:
        keep: of how many of the best layers frames are kept.
    """

    keep: int = 1


#: Hidden-state numbers, `all` of them, what the data chooses, or none named: the last.
Layers = tuple[int, ...] | Literal["all"] | Auto


def parse_layers(text: str) -> Layers:
    """Layers from a list such as `12,18,24`, or `last`, `all`, `auto`, or `auto:3`.

    Raises:
        ValueError: it is none of these.
    """
    word = text.strip()
    if word == "last":
        return ()
    if word == "all":
        return "all"
    name, colon, count = word.partition(":")
    try:
        if name == "auto":
            keep = int(count) if colon else 1
            if keep < 1:
                raise ValueError
            return Auto(keep)
        return tuple(int(part) for part in word.split(","))
    except ValueError as error:
        raise ValueError(
            "expected whole numbers separated by commas, such as 12,18,24, or last, all, auto, or "
            "auto:N for the N best."
        ) from error


@dataclass(frozen=True)
class ExtractConfig(Config):
    """What the user asks of an extraction.

    Attributes:
        whole: with the frames of that silence, which upper layers need to be run from these.
        best: by modality the layer that heads read unless they are told otherwise; the highest
            where none is named.
    """

    audio_encoder: str = setting(
        "facebook/w2v-bert-2.0",
        "Speech encoder: hub id, directory, `whisper-tiny.en`, `whisper-base`, or `tiny` (random "
        "weights); '' leaves audio out.",
        metavar="ID|DIR|NAME",
    )
    text_encoder: str = setting(
        "microsoft/deberta-v3-base",
        "Text encoder: hub id, directory, `minilm`, or `tiny` (random weights); '' leaves text "
        "out.",
        metavar="ID|DIR|NAME",
    )
    audio_layers: Layers = setting(
        (),
        "Layers whose frames are kept. auto: the best one (auto:3: three), as a regression on "
        "training utterances ranks them.",
        typed="auto",
        metavar="auto[:N]|last|all|L,L,…",
        parse=parse_layers,
    )
    text_layers: Layers = setting(
        (),
        "The same for text.",
        typed="auto",
        metavar="auto[:N]|last|all|L,L,…",
        parse=parse_layers,
    )
    describe: str = setting(
        "",
        "What the text encoder reads of the column `description` (see `prepare describe`): append "
        "it to the text, or read it only.  [default: the text alone]",
        choices=DESCRIBE,
    )
    surprisal_model: str = setting(
        "",
        "Masked or causal language model that says how surprising each word is, for the pooling "
        "`informative_average`: hub id or directory, such as the text encoder's where its head is "
        "trained.",
        metavar="ID|DIR",
    )
    moments_only: bool = setting(
        False, "Of these layers keep each utterance's mean and deviation, not its frames."
    )
    stored_dtype: str = setting(
        "float16", "Precision on disk.", flag="--store", choices=("float16", "float32")
    )
    device: str = device_setting()
    max_seconds: float = setting(
        WHOLE_SECONDS, "Longest recording that is encoded whole, in seconds.", above=0
    )
    long: str = setting(
        "refuse",
        "Longer ones: refuse them by name, or encode them in overlapping windows.",
        choices=("refuse", "window"),
    )
    batch_seconds: float | None = setting(
        None,
        "Seconds of audio encoded at once.  [default: 40 on a CPU, 1200 on a GPU]",
        above=0,
    )
    padding: PaddingName = setting(
        "short",
        "Of Whisper: the silence behind a recording. short: a second or a little more; full: up "
        "to the 30 s it was trained on, several times slower.",
        choices=PADDINGS,
    )
    compile: bool = setting(
        False,
        "Compile the speech encoder's layers first (torch.compile; half a minute): on a GPU worth "
        "it from 100 to 300 hours of audio. Other frames by rounding, so a recipe of its own.",
    )
    whole: bool = False
    best: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.audio_encoder and not self.text_encoder:
            raise ConfigError("neither an audio nor a text encoder: there is nothing to extract")
        if self.describe and not self.text_encoder:
            raise ConfigError("--describe is what a text encoder reads, and there is none")


WHISPER = "openai/whisper-large-v3"
AUTO = "auto"
TRANSFORMERS, FASTER = "transformers", "faster-whisper"
#: Which run a Whisper. The last has weights of 8 bits.
ENGINES = (TRANSFORMERS, FASTER, f"{FASTER}-int8")


def language_code(text: str) -> str:
    """Read a language as it is typed."""
    return text.strip().lower()


@dataclass(frozen=True)
class TranscribeConfig(Config):
    """What the user asks of a transcription."""

    model: str = setting(
        WHISPER, "Which Whisper: hub id or directory.", flag="--whisper", metavar="ID|DIR"
    )
    engine: str = setting(
        TRANSFORMERS,
        "What runs it. faster-whisper (an extra) takes a Whisper converted for CTranslate2, or "
        "converts another once; the same texts. faster-whisper-int8 rounds weights to 8 bits: "
        "less memory, and some words are others.",
        choices=ENGINES,
    )
    language: str = setting(
        "",
        "Of all recordings, such as de; auto detects it.  "
        "[default: the manifest's language where it gives one, else detected]",
        metavar="CODE",
        parse=language_code,
    )
    device: str = device_setting()
    batch_size: int | None = setting(
        None,
        "Pieces of up to 30 s decoded at once.  [default: 4 on a CPU, 16 on a GPU]",
        least=1,
    )
    # Of 621 recordings of EMO-DB and RAVDESS the least certain reaches .32; digital silence, hum
    # and noise stay below .05. Low, because a whisper lost is worse than a sigh that is decoded.
    speech_threshold: float = setting(
        0.1,
        "Recordings in which the probability of speech stays below this get no text; 0: off.",
        least=0,
        below=1,
    )
    overwrite: bool = setting(False, "Replace human texts, too.")
    reference: bool = setting(
        False,
        "Transcribe what has a human text, too, and print the word error rate; texts are kept.",
    )
    word_times: bool = setting(
        False,
        "Then write when each word is said into TextGrids (column `alignment`) of utterances that "
        "have a text and none, by Whisper's cross-attention.",
    )
    split: str = setting(ALL, "Only its utterances.", choices=(*SPLITS, ALL))
    limit: int | None = setting(None, "Hear the first N of them only.", least=1, metavar="N")
