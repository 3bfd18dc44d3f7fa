"""The browsable utterances of the page: JSON that its script reads, sound included up to a limit.

Sound is embedded as MP3, 16 kHz mono, some 6 kB a second: every browser plays and seeks it, and as
libsndfile writes it (with the encoder's delay) it starts at the very sample, so the attention curve
moves with what is heard. FLAC is four times as large, and Chromium cannot seek in it.
"""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import soundfile

from cache.clock import SAME_SECONDS
from cache.encoders.grid import SAMPLE_RATE
from corpora.base.errors import AudioError
from explain.item import Item
from explain.phones import SILENT
from finetune.batches import decode


def rows_json(
    items: Sequence[Item],
    folder: Path,
    *,
    embedded: Collection[int],
    pictures: Mapping[str, str],
) -> str:
    """The rows as JSON that is safe inside a `<script>` element.

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
    rows = [
        _row(item, pictures.get(item.utterance.id, "")) | sound
        for item, sound in zip(items, heard, strict=True)
    ]
    return safe_json(rows)


def safe_json(value: object) -> str:
    """JSON in which no character can end a script element or begin a comment."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


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
        row["spoken"] = [
            [round(i.start, 3), round(i.end, 3), i.label]
            for i in item.alignment.words
            if i.label.lower() not in SILENT
        ]
    return row


def _curve(item: Item) -> dict[str, Any]:
    """The attention in 256 steps up to its highest value, which is given relative to an even share.

    Speech likewise, 255 being certain.
    """
    assert item.attention is not None
    top = float(item.attention.max()) or 1.0
    curve: dict[str, Any] = {
        "curve": _bytes(item.attention / top),
        "top": round(top * len(item.attention), 3),
    }
    if item.speech is not None:
        curve["speech"] = _bytes(np.clip(item.speech, 0, 1))
    return curve


def _bytes(shares: Any) -> str:  # noqa: ANN401 - any float array
    return base64.b64encode(np.round(255 * shares).astype(np.uint8).tobytes()).decode("ascii")


def _sound(item: Item, folder: Path, embed: bool) -> dict[str, Any]:
    """Where the sound is: in the row, or a link with the second at which the utterance starts."""
    if embed:
        try:
            return {"audio": sound_uri(decode(item.utterance)), "at": 0}
        except AudioError as error:
            return {"audio": "", "at": 0, "problem": str(error)}
    link = quote(Path(os.path.relpath(item.utterance.audio, folder)).as_posix())
    return {"audio": link, "at": item.utterance.start or 0}


def sound_uri(waveform: Any) -> str:  # noqa: ANN401 - [samples] float32
    """`[samples]` at 16 kHz as a data URI: MP3, or WAV where libsndfile is too old for it."""
    buffer = io.BytesIO()
    clipped = np.clip(waveform, -1, 1)
    lossy = "MP3" in soundfile.available_formats()
    kind, subtype = ("MP3", "MPEG_LAYER_III") if lossy else ("WAV", "PCM_16")
    soundfile.write(buffer, clipped, SAMPLE_RATE, format=kind, subtype=subtype)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f"data:{'audio/mpeg' if lossy else 'audio/wav'};base64,{data}"
