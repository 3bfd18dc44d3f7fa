"""Which audio frames lie in the most informative words, and which in random words instead.

An utterance's words are ranked by surprisal, the highest first (of equal ones the earlier); the
frames of word k of W (from 0) are read from the share k/W on. As a control its words are ranked at
random, and their frames, as many at every share, take the places of those: the last word read may
be cut.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import SequenceMatcher

import numpy as np
import torch
from numpy.typing import NDArray

from cache.encoders.grid import SAMPLE_RATE
from cache.frames import Frames
from cache.keys import normalise_text, text_key
from cache.last_extraction import SURPRISAL
from cache.lookup import FrameCache
from cache.mapped import MappedFrames
from corpora.alignments import frame_intervals, plain, read_alignments
from corpora.textgrid import Interval
from corpora.utterance import Utterance

#: Of frames in no word that is known: beyond every share.
NEVER = 2.0


def word_surprisal(
    said: Sequence[Interval], text: str, bits: NDArray[np.float32]
) -> NDArray[np.float64]:
    """`[W]` bits of the words of an alignment; NaN of those that the text has not.

    Args:
        said: the words by their times.
        text: whose words are matched with them in their order, without case and punctuation.
        bits: of the text's words, as far as they were read.
    """
    found = np.full(len(said), np.nan)
    written = [plain(word) for word in normalise_text(text).split()[: len(bits)]]
    kept = [number for number, word in enumerate(written) if word]
    matcher = SequenceMatcher(
        None, [plain(one.label) for one in said], [written[n] for n in kept], autojunk=False
    )
    for ours, theirs, size in matcher.get_matching_blocks():
        found[ours : ours + size] = bits[kept[theirs : theirs + size]]
    return found


def word_shares(
    said: Sequence[Interval],
    bits: NDArray[np.float64],
    times: NDArray[np.float64],
    seed: int,
) -> NDArray[np.float32]:
    """`[frames, 2]`, the share of words from which on each frame is read (`Frames.words`).

    Args:
        said: the words.
        bits: of each; NaN where it is not known, and the word is not read.
        times: `[frames]` seconds of their middles.
        seed: of the random ranks.
    """
    shares = np.full((len(times), 2), NEVER, dtype=np.float32)
    held = frame_intervals(said, times)
    own = [np.flatnonzero(held == number) for number in range(len(said))]
    known = [n for n in range(len(said)) if not np.isnan(bits[n]) and len(own[n])]
    if not known:
        return shares
    ranked = sorted(known, key=lambda n: (-bits[n], n))
    informative = np.concatenate([own[n] for n in ranked])
    starts = np.repeat(np.arange(len(known)) / len(known), [len(own[n]) for n in ranked])
    shares[informative, 0] = starts
    mixed = np.random.default_rng(seed).permutation(known)
    shares[np.concatenate([own[n] for n in mixed]), 1] = starts
    return shares


def with_words(
    cache: FrameCache,
    utterances: Sequence[Utterance],
    frames: Mapping[str, Frames | MappedFrames],
) -> tuple[dict[str, Frames | MappedFrames], str]:
    """The same frames, audio with `words` where anything is known of them; and a note.

    Args:
        cache: with the surprisal of the last extraction, if it had a language model.
        utterances: whose frames these are.
        frames: by modality.
    """
    if SURPRISAL not in cache.sources or "audio" not in frames:
        return dict(frames), ""
    aligned = read_alignments(utterances)
    problems = " ".join(aligned.problems)
    if not aligned.count:
        return dict(frames), f"Which words are informative is not known: {problems}"
    grid, audio = cache.extraction.grid, frames["audio"]
    if grid is None:
        return dict(frames), "Which words are informative is not known: the audio was imported."
    rows, unknown = [], 0
    each = zip(
        utterances,
        aligned.alignments,
        cache.surprisal(utterances),
        audio.lengths.tolist(),
        strict=True,
    )
    for utterance, alignment, bits, length in each:
        said = () if alignment is None else alignment.words
        own = np.zeros(0, np.float32) if bits is None else bits
        shares = word_shares(
            said,
            word_surprisal(said, utterance.text, own),
            (grid.first_centre + grid.hop * np.arange(length)) / SAMPLE_RATE,
            int(text_key(utterance.id)[:8], 16),
        )
        unknown += bool((shares == NEVER).all())
        rows.append(torch.from_numpy(shares))
    note = (
        f"Informative words are known in {len(utterances) - unknown:,} of {len(utterances):,} "
        "utterances"
    )
    note += f"; the others are averaged as a whole. {problems}".rstrip() if unknown else "."
    words = torch.cat(rows).to(audio.device)
    return {**frames, "audio": replace(audio, words=words)}, note
