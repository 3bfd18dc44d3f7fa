"""Long recordings in pieces that Whisper hears at once, cut where nobody speaks.

Whisper hears 30 s. Its own way through longer recordings (Radford et al. 2023, section 3.8) goes
from one predicted time stamp to the next: one after the other, and a wrong stamp drops or repeats
words. Cutting at pauses that a voice activity detector finds lets the pieces run side by side and
gives fewer words that nobody said (Bain et al. 2023, "WhisperX").
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cache.encoders.grid import SAMPLE_RATE
from cache.encoders.vad_weights import CHUNK

PIECE_SECONDS = 30.0
# A cut is looked for in the last third of what Whisper can hear.
_EARLIEST_SECONDS = 20.0
# A pause is where speech is least likely over so many chunks of 32 ms: .3 s, longer than the
# silence before a plosive.
_PAUSE_CHUNKS = 9


def cut_at_pauses(speech: NDArray[np.float32], samples: int) -> list[tuple[int, int]]:
    """Bounds of pieces that follow one another without gap.

    Args:
        speech: `[ceil(samples / 512)]`, the probability of speech in each chunk.
        samples: of the recording, at 16 kHz.

    Returns:
        First and one-past-last sample of each piece, at most 30 s apart.
    """
    longest, earliest = (
        round(seconds * SAMPLE_RATE / CHUNK) for seconds in (PIECE_SECONDS, _EARLIEST_SECONDS)
    )
    longest -= round(longest * CHUNK > PIECE_SECONDS * SAMPLE_RATE)
    around = np.convolve(speech, np.ones(_PAUSE_CHUNKS), mode="same")
    bounds = [0]
    while samples - bounds[-1] > PIECE_SECONDS * SAMPLE_RATE:
        first = bounds[-1] // CHUNK
        window = around[first + earliest : first + longest]
        # The middle of the chunk in the middle of the pause; of equal pauses the last.
        chunk = first + earliest + len(window) - 1 - int(np.argmin(window[::-1]))
        bounds.append(chunk * CHUNK)
    return list(zip(bounds, [*bounds[1:], samples], strict=True))
