"""What the headers of recordings say: how long they are, and which of them look broken."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from corpora.base.errors import AudioError
from corpora.base.terminal import progress_bar
from corpora.counted_bytes import plain_wav
from corpora.sound_file import HIGHEST_RATE, LOWEST_RATE, open_sound
from corpora.utterance import Utterance

HEADER_THREADS = 8  # reading a header is waiting for the disk
LATE = 0.05  # seconds by which a cut may pass the end: tables round their times
# Files handed to a thread at once: handing over costs as much as reading a header does.
BATCH = 64


@dataclass(frozen=True, slots=True)
class Header:
    """What a recording says about itself.

    Attributes:
        seconds: its length.
        rate: samples a second, Hz.
        channels: how many.
        problem: why it cannot be used; "" where it can. Length, rate and channels are 0 where not.
    """

    seconds: float
    rate: int = 0
    channels: int = 0
    problem: str = ""


def read_headers(paths: Iterable[Path], *, show_progress: bool = False) -> dict[Path, Header]:
    """Read the header of each file once.

    Args:
        paths: of recordings; repetitions count once.
        show_progress: show a bar on standard error while it takes longer than two seconds.
    """
    different = list(dict.fromkeys(paths))
    batches = [different[at : at + BATCH] for at in range(0, len(different), BATCH)]
    headers: dict[Path, Header] = {}
    with (
        ThreadPoolExecutor(HEADER_THREADS) as pool,
        progress_bar("recordings", len(different), "file", show=show_progress) as bar,
    ):
        for batch, found in zip(
            batches, pool.map(lambda batch: [read_header(p) for p in batch], batches), strict=True
        ):
            headers.update(zip(batch, found, strict=True))
            bar.update(len(batch))
    return headers


def read_header(path: Path) -> Header:
    """Read one header; what is wrong with it is in `problem`."""
    try:
        plain = plain_wav(path)
        if plain is not None and LOWEST_RATE <= plain[1] <= HIGHEST_RATE:
            frames, rate, channels = plain
            return Header(frames / rate, rate, channels)
    except OSError:
        pass  # opening it says why
    try:
        with open_sound(path) as file:
            return Header(file.seconds, file.rate, file.channels)
    except AudioError as error:
        return Header(0.0, problem=str(error))


def cut_seconds(
    utterances: Sequence[Utterance], headers: Mapping[Path, Header]
) -> tuple[dict[str, float], dict[str, str]]:
    """The seconds of each utterance by id, and what is wrong with cuts, by id.

    Args:
        utterances: whose recordings may be absent from `headers`; they then have no length.
        headers: by path.
    """
    seconds: dict[str, float] = {}
    wrong: dict[str, str] = {}
    for utterance in utterances:
        header = headers.get(utterance.audio)
        if header is None or not header.rate:
            continue
        length = header.seconds
        start, end = utterance.start or 0.0, utterance.end or length
        if start >= length or end > length + LATE:
            wrong[utterance.id] = (
                f"cut {start:g} to {end:g} s passes the recording's end at {length:g} s"
            )
        seconds[utterance.id] = max(min(end, length) - start, 0.0)
    return seconds, wrong
