"""From what the engine said to a recording of the sample corpus and its word and phone times."""

from __future__ import annotations

import re

import numpy as np
import soxr
from numpy.typing import NDArray

from corpora.espeak import Speech
from corpora.sample_design import Prosody
from corpora.textgrid import Interval, fill_gaps

SAMPLE_RATE = 16_000

_NOISE = (-68.0, -58.0)
"""Bounds of the room noise, dB below full scale (RMS): no recording is digitally silent."""
_PEAK = 0.95
"""No sample goes above this part of full scale; a louder utterance is turned down as a whole."""


def record(
    speech: Speech,
    prosody: Prosody,
    before: float,
    after: float,
    chance: np.random.Generator,
) -> NDArray[np.int16]:
    """The recording of one utterance: `[samples]` int16 at 16 kHz, never clipped.

    Args:
        speech: what the engine said.
        prosody: level, loudness contour and vocal effort to give it.
        before: silence before it, seconds.
        after: silence after it, seconds.
        chance: draws the room noise and the phase of the tremor.
    """
    voice = soxr.resample(speech.samples / 32768.0, speech.sample_rate, SAMPLE_RATE)
    # Effort: a first difference mixed in (or out) tilts the spectrum by about half a dB a dB.
    tilt = float(np.clip(0.06 * prosody.effort, -0.6, 0.6))
    voice = voice - tilt * np.concatenate([[0.0], voice[:-1]])
    seconds = np.arange(len(voice)) / SAMPLE_RATE
    tremor = np.sin(2 * np.pi * (prosody.tremor_rate * seconds + chance.uniform()))
    contour = prosody.tremor * tremor - prosody.fall * (seconds / seconds[-1] - 0.5)
    voice = voice * 10 ** (contour / 20)
    voice *= 10 ** (prosody.level / 20) / np.sqrt(np.mean(voice**2))
    silence = [np.zeros(round(length * SAMPLE_RATE)) for length in (before, after)]
    samples = np.concatenate([silence[0], voice, silence[1]])
    noise = 10 ** (chance.uniform(*_NOISE) / 20)
    samples += noise * chance.standard_normal(len(samples))
    samples *= min(1.0, _PEAK / float(np.abs(samples).max()))
    return np.round(samples * 32767).astype(np.int16)


def align(text: str, speech: Speech, before: float, duration: float) -> dict[str, list[Interval]]:
    """The tiers `words` and `phones` of a recording whose speech starts at `before` seconds."""
    length = len(speech.samples) / speech.sample_rate
    starts = sorted({event.position for event in speech.events if event.kind == "word"})
    ends = dict(zip(starts, [*starts[1:], len(text)], strict=True))
    phones: list[Interval] = []
    words: list[Interval] = []
    word: Interval | None = None
    fresh, label = False, ""
    for index, event in enumerate(speech.events):
        if event.kind == "word":
            # A word reaches to the next one, because the engine says some pairs as one ("of the").
            label = re.sub(r"[^\w' ]", "", text[event.position : ends[event.position]]).strip()
            fresh = True
            continue
        later = (other.seconds for other in speech.events[index + 1 :] if other.kind == "phone")
        start, end = before + event.seconds, before + next(later, length)
        if not event.phone or end <= start:
            continue
        phones.append(Interval(start, end, event.phone))
        if fresh or word is None:
            word = Interval(start, end, label)
            words.append(word)
        else:
            word = Interval(word.start, end, label)
            words[-1] = word
        fresh = False
    return {
        "words": fill_gaps(words, duration, ""),
        "phones": fill_gaps(phones, duration, "sil"),
    }
