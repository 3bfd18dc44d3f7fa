"""Whisper run by faster-whisper (CTranslate2): the same pieces, decoding and guards as `whisper`.

Its defaults hear something else: a beam of 5, time stamps, the text before as a prompt, and behind
a short recording features of zero, which no silence has. So each piece is filled up to 30 s with
silence, as Whisper was trained, and decoded greedily by itself without time stamps. Then its texts
are those of transformers in float32, up to its limit of 224 tokens for a piece. Where a text is a
loop both draw others; here the draws cannot be seeded, so another run may give another text, and of
draws that all are loops the most probable one is taken, not the least repetitive.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoFeatureExtractor, AutoTokenizer

from cache.config import FASTER
from cache.encoders.budget import Need
from cache.encoders.device import is_out_of_memory
from cache.encoders.grid import SAMPLE_RATE, read_config
from cache.encoders.hidden_states import first_line, loading
from cache.transcribe.journal import Transcript
from cache.transcribe.model_files import CONVERTED, WhisperFiles
from cache.transcribe.whisper import (
    COMPRESSION,
    LEAST_LOG_PROBABILITY,
    NO_SPEECH,
    PIECE_SECONDS,
    TEMPERATURES,
    Piece,
)
from corpora.base.errors import ConfigError
from corpora.base.files import check_folder, new_folder

_SAMPLES = round(PIECE_SECONDS * SAMPLE_RATE)


class FasterWhisper:
    """A Whisper of faster-whisper; `load_faster_whisper` makes one."""

    #: It hears one piece after the other, so any number fits.
    need = Need(0, 1)

    def __init__(self, model: Any, directory: Path) -> None:  # noqa: ANN401 (untyped library)
        self._model = model
        self._directory = directory
        tokens = model.hf_tokenizer
        first_stamp = tokens.token_to_id("<|notimestamps|>") + 1
        self._silenced = [
            *(read_config(directory, "config.json").get("suppress_ids") or ()),
            *range(first_stamp, tokens.get_vocab_size()),
        ]

    def __call__(self, pieces: Sequence[Piece]) -> list[Transcript]:
        """The text of each piece.

        Raises:
            ConfigError: the model cannot be run.
        """
        try:
            return [self._hear(piece) for piece in pieces]
        except (RuntimeError, ValueError, TypeError) as error:
            if is_out_of_memory(error):
                raise
            raise ConfigError(
                f"{self._directory} cannot be used as a Whisper model ({first_line(error)}). "
                "Convert it again, or leave --engine out."
            ) from error

    def _hear(self, piece: Piece) -> Transcript:
        segments, about = self._model.transcribe(
            np.pad(piece.waveform, (0, _SAMPLES - len(piece.waveform))),
            language=piece.language or None,
            beam_size=1,
            best_of=1,
            temperature=[0.0, *TEMPERATURES],
            compression_ratio_threshold=COMPRESSION,
            # The two of silence are looked at below: here a low probability would be a reason to
            # draw another text.
            log_prob_threshold=None,
            no_speech_threshold=None,
            condition_on_previous_text=False,
            suppress_tokens=self._silenced,
            without_timestamps=True,
        )
        found = list(segments)
        silent = any(
            one.no_speech_prob > NO_SPEECH and one.avg_logprob < LEAST_LOG_PROBABILITY
            for one in found
        )
        text = " ".join(" ".join(one.text for one in found).split())
        return Transcript("" if silent else text, about.language, silent)


def load_faster_whisper(directory: Path, engine: str, device: str) -> FasterWhisper:
    """Load a converted Whisper.

    Args:
        directory: that `converted` gave.
        engine: a name of `ENGINES`; all but 8 bits is float32 on a CPU and float16 on a GPU.
        device: `cpu`, or a GPU such as `cuda:0`.

    Raises:
        ConfigError: it cannot be loaded.
    """
    from faster_whisper import WhisperModel

    place = torch.device(device)
    precision = "float16" if place.type == "cuda" else "float32"
    with loading(f"{directory} cannot be loaded by faster-whisper", "Convert or copy it again."):
        model = WhisperModel(
            str(directory),
            device=place.type,
            device_index=place.index or 0,
            compute_type=precision if engine == FASTER else "int8",
            cpu_threads=torch.get_num_threads(),
            local_files_only=True,
        )
        return FasterWhisper(model, directory)


def converted(whisper: WhisperFiles, work: Path) -> Path:
    """The directory of a Whisper in the format of CTranslate2, which is made once.

    Args:
        whisper: as `find_whisper` gave it.
        work: the work folder, whose folder `encoders` keeps what is made, named by content.

    Raises:
        ConfigError: it cannot be converted.
    """
    if (whisper.directory / CONVERTED).is_file():
        return whisper.directory
    target = work / "encoders" / f"ctranslate2-{whisper.fingerprint}"
    if target.is_dir():
        check_folder(target)
        return target
    from ctranslate2.converters import TransformersConverter

    with (
        loading(
            f"{whisper.directory} cannot be converted for CTranslate2",
            "Leave --engine out, or name a converted model.",
        ),
        new_folder(target) as folder,
    ):
        TransformersConverter(str(whisper.directory)).convert(str(folder))
        AutoTokenizer.from_pretrained(whisper.directory, local_files_only=True).save_pretrained(
            folder
        )
        front_end = AutoFeatureExtractor.from_pretrained(whisper.directory, local_files_only=True)
        front_end.save_pretrained(folder)
    return target
