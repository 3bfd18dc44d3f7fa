"""When each word of a text is said, by where Whisper's decoder looks while it is told the text.

As OpenAI's own word times (`whisper/timing.py`, which transformers' `return_token_timestamps`
follows), with a text that is given: the weights of cross-attention heads known to follow the sound
(`alignment_heads` of generation_config.json; where there are none, all heads of the upper half of
the decoder), cut off behind the recording, each frame's normalised over the tokens, a median over
7 frames, the mean over heads; and through that matrix the best path that goes on by a token, a
frame or both (dynamic time warping). A token is said from the frame on at which the path comes to
it, and a word from its first token with a letter or digit to what follows its last one; silence
before the first speech and behind the last (silero-vad) belongs to none.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cache.audio import decode_ahead, load_audio, why_absent
from cache.config import TranscribeConfig
from cache.encoders.device import choose_device
from cache.encoders.files import CHUNK
from cache.encoders.grid import SAMPLE_RATE
from cache.encoders.signal import Signal
from cache.encoders.vad import load_detector
from cache.keys import KEY_DIGITS, normalise_text
from cache.lookup import FrameCache
from cache.recipe import JSON, canonical_json
from cache.transcribe.listening import pieces_at_once
from cache.transcribe.model_files import find_whisper
from cache.transcribe.texts import Plan, fill, heard_as
from cache.transcribe.transcription import WordTimes
from cache.transcribe.whisper import PIECE_SECONDS, Piece, load_whisper
from corpora.base.terminal import progress_bar
from corpora.base.work import Work
from corpora.manifest import read_manifest
from corpora.textgrid import Interval, fill_gaps, write_textgrid
from corpora.utterance import Utterance, where_of

#: How words are timed, counted up when times change by it.
VERSION = 1
#: Of the encoder's output.
FRAME_SECONDS = 0.02
_MEDIAN = 7
# As Silero's own decisions.
SPEECH = 0.5


def token_starts(weights: Tensor) -> NDArray[np.int64]:
    """`[tokens]`, the frame at which the path comes to each token.

    Args:
        weights: `[heads, tokens, frames]` of attention.
    """
    spread, centre = torch.std_mean(weights.double(), dim=1, keepdim=True, correction=0)
    scaled = (weights - centre) / spread.clamp_min(1e-12)
    if scaled.shape[2] > _MEDIAN // 2:
        ends = _MEDIAN // 2, _MEDIAN // 2
        padded = torch.nn.functional.pad(scaled, ends, mode="reflect")
        scaled = padded.unfold(2, _MEDIAN, 1).median(dim=3).values
    path = warping_path(-scaled.mean(dim=0).numpy())
    _, first = np.unique(path[:, 0], return_index=True)
    found: NDArray[np.int64] = path[first, 1]
    return found


def warping_path(cost: NDArray[np.float64]) -> NDArray[np.int64]:
    """`[steps, 2]` rows and columns from the first to the last cell of a matrix, at least cost.

    A step goes on by a row, a column, or both.
    """
    rows, columns = cost.shape
    total = np.full((rows + 1, columns + 1), np.inf)
    total[0, 0] = 0
    for row in range(rows):
        above = np.minimum(total[row, 1:], total[row, :-1]).tolist()
        left, own = np.inf, cost[row].tolist()
        for column in range(columns):
            left = own[column] + min(left, above[column])
            total[row + 1, column + 1] = left
    path = [(rows, columns)]
    while path[-1] != (1, 1):
        row, column = path[-1]
        steps = [(row - 1, column - 1), (row - 1, column), (row, column - 1)]
        path.append(min(steps, key=lambda step: float(total[step])))
    return np.array(path[::-1], dtype=np.int64) - 1


def timed_words(text: str, spans: NDArray[np.int64], starts: NDArray[np.int64]) -> list[Interval]:
    """The words of a text by their times; one without a letter or digit, or a frame, is left out.

    Args:
        text: normalised.
        spans: `[tokens, 2]` of characters.
        starts: `[tokens + 1]` frames, of each token and of the one that ends the text.
    """
    found = []
    for word in re.finditer(r"\S+", text):
        own = [
            number
            for number, (first, last) in enumerate(spans)
            if any(c.isalnum() for c in text[max(first, word.start()) : min(last, word.end())])
        ]
        if own and starts[own[-1] + 1] > starts[own[0]]:
            first, last = int(starts[own[0]]), int(starts[own[-1] + 1])
            found.append(Interval(first * FRAME_SECONDS, last * FRAME_SECONDS, word[0]))
    return found


def within_speech(words: Sequence[Interval], speech: NDArray[np.float32]) -> list[Interval]:
    """The same without the silence before the first speech and behind the last.

    Args:
        words: by their times.
        speech: `[chunks]`, its probability; where it never reaches .5 words stay as they are.
    """
    heard = np.flatnonzero(speech >= SPEECH)
    if not len(heard):
        return list(words)
    first, last = (float(n) * CHUNK / SAMPLE_RATE for n in (heard[0], heard[-1] + 1))
    cut = [Interval(max(one.start, first), min(one.end, last), one.label) for one in words]
    return [one for one in cut if one.end > one.start]


def write_word_times(
    work: Work,
    path: Path,
    config: TranscribeConfig,
    *,
    tell: Callable[[str], None],
    show_progress: bool = False,
) -> WordTimes:
    """Write a TextGrid of each utterance that has a text and none, and name it in the manifest.

    Args:
        work: the work folder, whose folder `words` keeps them, named by content: what is there is
            not computed again.
        path: of the manifest, which is replaced; the old one is kept beside it.
        config: which model, language, device and utterances.
        tell: for lines to be read while it runs.
        show_progress: a bar on standard error.

    Raises:
        ConfigError: the model cannot be used or does not know a language.
    """
    manifest, cache = read_manifest(path), FrameCache(work)
    rows = [
        u
        for u in manifest.in_split(config.split)
        if u.text and (u.alignment is None or u.alignment.parent == work.words)
    ][: config.limit]
    keys = cache.keys(rows)
    there = {u.id: keys[u.id]["audio"] for u in rows if "audio" in keys[u.id]}
    missing = why_absent(u for u in rows if u.id not in there)
    whisper = find_whisper(config.model, cache.hashes)
    plan = Plan(tuple(rows), (), keys=there)
    grids: dict[str, Path] = {}
    lacking: dict[Path, tuple[str, Utterance]] = {}
    for (key, language), item in heard_as(plan, config, whisper).items():
        for u in item.utterances:
            said: list[JSON] = [key, language, normalise_text(u.text), whisper.fingerprint, VERSION]
            name = hashlib.sha256(canonical_json(said).encode("ascii")).hexdigest()[:KEY_DIGITS]
            grids[u.id] = work.words / f"{name}.TextGrid"
            if not grids[u.id].is_file():
                lacking[grids[u.id]] = language, u
    failed = {}
    if lacking:
        failed = _align(lacking, whisper.directory, config, tell, show_progress=show_progress)
    made = {name: grid for name, grid in grids.items() if grid not in failed}
    missing |= {name: failed[grid] for name, grid in grids.items() if grid in failed}
    filled = fill(
        path, {u.id: u for u in rows}, {name: {"alignment": grid} for name, grid in made.items()}
    )
    return WordTimes(len(made), len(made) - len(lacking) + len(failed), filled.kept_as, missing)


def _align(
    lacking: Mapping[Path, tuple[str, Utterance]],
    directory: Path,
    config: TranscribeConfig,
    tell: Callable[[str], None],
    *,
    show_progress: bool,
) -> dict[Path, str]:
    """Write TextGrids; returns reasons of those that there cannot be."""
    device = choose_device(config.device)
    model = load_whisper(directory, device=device, attention=True)
    detector = load_detector(device)
    if not model.follows_sound:
        tell(
            f"{directory} names no alignment heads (generation_config.json): all heads of the "
            "upper half of its decoder are taken."
        )
    failed: dict[Path, str] = {}

    def decode(grid: Path) -> tuple[Path, NDArray[np.float32]]:
        one = lacking[grid][1]
        return grid, load_audio(one.audio, one.start, one.end, where=where_of(one))

    size = config.batch_size or pieces_at_once(model, device)
    grids = list(lacking)
    planned = [grids[first : first + size] for first in range(0, len(grids), size)]
    with (
        progress_bar("word times", len(lacking), "recordings", show=show_progress) as bar,
        closing(decode_ahead(planned, decode, failed.__setitem__)) as stream,
    ):
        for run, batch in stream:
            short = [(g, wave) for g, wave in batch if len(wave) <= PIECE_SECONDS * SAMPLE_RATE]
            for grid in {g for g, _ in batch} - {g for g, _ in short}:
                failed[grid] = (
                    f"{where_of(lacking[grid][1])}: longer than the {PIECE_SECONDS:g} s that "
                    "Whisper hears at once. Cut it (columns start and end)."
                )
            texts = [normalise_text(lacking[grid][1].text) for grid, _ in short]
            pieces = [Piece(wave, lacking[grid][0]) for grid, wave in short]
            looked = model.attention(pieces, texts) if short else []
            for (grid, wave), text, (spans, weights) in zip(short, texts, looked, strict=True):
                words = timed_words(text, spans, token_starts(weights))
                with torch.inference_mode():
                    (speech,) = detector(Signal.of([wave], detector.device))
                words = within_speech(words, speech.cpu().numpy())
                seconds = len(wave) / SAMPLE_RATE
                grid.parent.mkdir(parents=True, exist_ok=True)
                write_textgrid(grid, {"words": fill_gaps(words, seconds, "")}, seconds)
            bar.update(len(run))
    return failed
