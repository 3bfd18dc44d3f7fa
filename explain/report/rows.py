"""The browsable utterances of the page: what its scripts read, sound included up to a limit.

Sound is embedded as MP3, 16 kHz mono, some 4 kB a second: every browser plays and seeks it, and as
libsndfile writes it (with the encoder's delay) it starts at the very sample, so the attention curve
moves with what is heard. FLAC is four times as large, and Chromium cannot seek in it.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import soundfile

from cache.encoders.grid import SAMPLE_RATE
from cache.found import SAME_SECONDS
from corpora.base.errors import AudioError
from explain.evidence import find_runs
from explain.item import Item
from explain.phones import SILENT
from explain.ragged import Floats
from finetune.batches import decode
from heads.pooling.view import DEFAULT_THRESHOLD

# Points of a waveform a second, and the most of a recording.
PEAKS, MOST_PEAKS = 200, 4000


def rows(
    items: Sequence[Item],
    folder: Path,
    *,
    embedded: Collection[int],
    pictures: Mapping[str, str],
) -> list[dict[str, Any]]:
    """A row of JSON values for each utterance.

    Args:
        items: all utterances.
        folder: of the page, from where files are linked.
        embedded: numbers of the utterances whose sound goes into the page.
        pictures: file by utterance id, seen from the page.
    """
    with ThreadPoolExecutor() as threads:  # decoding and encoding sound leave the interpreter free
        heard = list(
            threads.map(
                lambda numbered: _sound(numbered[1], folder, numbered[0] in embedded),
                enumerate(items),
            )
        )
    return [
        _row(item, pictures.get(item.utterance.id, "")) | sound
        for item, sound in zip(items, heard, strict=True)
    ]


def _row(item: Item, picture: str) -> dict[str, Any]:
    u = item.utterance
    row: dict[str, Any] = {
        "id": u.id,
        "label": u.label,
        "predicted": item.predicted,
        "p": [round(float(p), 4) for p in item.probabilities],
        "seconds": round(item.seconds, 3),
        "text": u.text,
        "speaker": u.speaker,
        "picture": picture,
        "evidence": item.evidence or item.answer,
    }
    if item.strengths:
        row["strengths"] = {name: round(own, 3) for name, own in item.strengths.items()}
    if item.attention is not None:
        first = float(item.times[0])
        row |= {"hop": item.hop, "centre": first, "method": item.method, **_curve(item)}
        regular = first + item.hop * np.arange(len(item.times))
        if np.abs(item.times - regular).max() > SAME_SECONDS:
            row["times"] = [round(float(middle), 4) for middle in item.times]
    if item.reading is not None:
        even = 1 / max(sum(len(w.tokens) for w in item.reading.words), 1)
        row["words"] = [
            [w.text, round(w.mass / (even * max(len(w.tokens), 1)), 3)] for w in item.reading.words
        ]
        row["special"] = round(item.reading.special, 4)
    if item.alignment is not None:
        for tier in ("words", "phones"):
            row[f"spoken_{tier}"] = [  # start and end in milliseconds, label, start, …
                part
                for i in getattr(item.alignment, tier)
                if i.label.lower() not in SILENT
                for part in (round(1000 * i.start), round(1000 * i.end), i.label)
            ]
    if item.stretches:
        row["stretches"] = [[round(start, 3), round(end, 3)] for start, end in item.stretches]
    if item.energy is not None:  # a waveform's outline, where the sound itself is not in the page
        row["wave"] = _bytes(10 ** ((item.energy - item.energy.max()) / 20))
    return row


def _curve(item: Item) -> dict[str, Any]:
    """The attention in 256 steps up to its highest value, which is given relative to an even share.

    Speech as start and end of each run of frames, in seconds.
    """
    assert item.attention is not None
    top = float(item.attention.max()) or 1.0
    curve: dict[str, Any] = {
        "curve": _bytes(item.attention / top),
        "top": round(top * len(item.attention), 3),
    }
    if item.speech is not None:
        middles, half = item.times, item.hop / 2
        curve["speech"] = [
            [round(float(middles[first]) - half, 3), round(float(middles[end - 1]) + half, 3)]
            for first, end in find_runs(item.speech >= DEFAULT_THRESHOLD)
        ]
    return curve


def _bytes(shares: Any) -> str:  # noqa: ANN401 - any float array
    return base64.b64encode(np.round(255 * shares).astype(np.uint8).tobytes()).decode("ascii")


def _sound(item: Item, folder: Path, embed: bool) -> dict[str, Any]:
    """Where the sound is: in the row, or a link with the second at which the utterance starts."""
    if embed:
        try:
            waveform = decode(item.utterance)
            seconds = round(len(waveform) / SAMPLE_RATE, 3)
            sound = {"audio": sound_uri(waveform), "at": 0, "seconds": seconds}
            return sound | {"wave": _bytes(_peaks(np.abs(waveform)))}
        except AudioError as error:
            return {"audio": "", "at": 0, "problem": str(error)}
    link = quote(Path(os.path.relpath(item.utterance.audio, folder)).as_posix())
    return {"audio": link, "at": item.utterance.start or 0}


def _peaks(loudness: Floats) -> Floats:
    """The highest of each piece of `[samples]`, up to 1."""
    pieces = min(max(len(loudness) * PEAKS // SAMPLE_RATE, 1), MOST_PEAKS, len(loudness))
    starts = np.arange(pieces) * len(loudness) // pieces
    peaks: Floats = np.maximum.reduceat(loudness, starts) / (float(loudness.max()) or 1.0)
    return peaks


def sound_uri(waveform: Any) -> str:  # noqa: ANN401 - [samples] float32
    """`[samples]` at 16 kHz as a data URI: MP3, or WAV where libsndfile is too old for it."""
    buffer = io.BytesIO()
    clipped = np.clip(waveform, -1, 1)
    lossy = "MP3" in soundfile.available_formats()
    kind, subtype = ("MP3", "MPEG_LAYER_III") if lossy else ("WAV", "PCM_16")
    # Some 33 kbit a second. A constant rate as low as that would shift the start.
    packed = {"bitrate_mode": "VARIABLE", "compression_level": 0.7} if lossy else {}
    soundfile.write(buffer, clipped, SAMPLE_RATE, format=kind, subtype=subtype, **packed)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f"data:{'audio/mpeg' if lossy else 'audio/wav'};base64,{data}"
