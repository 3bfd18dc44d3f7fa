"""Texts for recordings that come without: Whisper, as `transcribe` uses it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from cache.encoders.grid import SAMPLE_RATE
from cache.encoders.vad import load_detector
from cache.transcribing.listening import BATCH_SIZE, Listener
from cache.transcribing.model_files import find_whisper
from cache.transcribing.pieces import PIECE_SECONDS
from cache.transcribing.plan import AUTO, SPEECH_THRESHOLD
from cache.transcribing.whisper import load_whisper

Waveform = NDArray[np.float32]


class Transcriber:
    """Hears what is said.

    Args:
        name: hub id or directory of a Whisper.
        language: of all recordings, such as de; "" or auto lets it detect.
        device: `cpu` or `cuda`.
        tell: for lines to be read while it runs.

    Raises:
        ConfigError: the model cannot be used or does not know the language.
        EmopoolError: a hub id is not on this machine and could not be downloaded.
    """

    def __init__(
        self,
        name: str,
        *,
        language: str = "",
        device: str = "cpu",
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        files = find_whisper(name)
        self.source = files.source
        self._language = "" if language == AUTO else files.code(language, "--language")
        self._hear = Listener(
            load_whisper(files.directory, device=device),
            load_detector(device),
            batch_size=BATCH_SIZE["cuda" if device.startswith("cuda") else "cpu"],
            speech_threshold=SPEECH_THRESHOLD,
            tell=tell,
        )

    def __call__(self, waveforms: Sequence[Waveform]) -> list[str]:
        """The text of each recording; "" where nobody speaks, or that does not fit the memory."""
        texts = [""] * len(waveforms)
        long = {
            number for number, one in enumerate(waveforms) if len(one) > PIECE_SECONDS * SAMPLE_RATE
        }
        # Long ones are alone: their language is that of their first speech.
        groups = [[number] for number in sorted(long)]
        groups.append([number for number in range(len(waveforms)) if number not in long])
        for group in groups:
            heard = self._hear([(self._language, waveforms[number]) for number in group])
            for number, one in zip(group, heard, strict=True):
                texts[number] = "" if one is None else one.text
        return texts
