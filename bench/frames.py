"""Made-up frames in which a part of each utterance carries its class."""

from __future__ import annotations

from pathlib import Path

import torch

from cache.frames import Frames
from corpora.utterance import Utterance
from heads.dataset import Dataset

LABELS = ("anger", "happiness", "neutral", "sadness")
SPEAKERS = 40
# Standard deviation of a class's direction in each feature; frames have 1.
SIGNAL = 0.25
CHUNK = 256  # utterances drawn at once


def generated(
    utterances: int,
    dim: int = 1024,
    shortest: int = 50,
    longest: int = 450,
    seed: int = 0,
    device: str = "cpu",
    dev_speakers: int = SPEAKERS // 4,
) -> Dataset:
    """Audio frames in float16 with speech probabilities; so many of 40 speakers are dev's.

    A fifth of an utterance's frames lie in the direction of its class; every utterance has an
    offset of its own, as channels and voices do. They are drawn and kept on the device.
    """
    drawing = torch.Generator(device).manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(shortest, longest + 1, (utterances,), generator=generator)
    targets = torch.randint(0, len(LABELS), (utterances,), generator=generator)
    directions = SIGNAL * torch.randn(len(LABELS), dim, generator=drawing, device=device)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    values = torch.empty(int(offsets[-1]), dim, dtype=torch.float16, device=device)
    for start in range(0, utterances, CHUNK):
        end = min(start + CHUNK, utterances)
        first = int(offsets[start])
        drawn = torch.randn(int(offsets[end]) - first, dim, generator=drawing, device=device)
        shift = 0.5 * torch.randn(end - start, dim, generator=drawing, device=device)
        for number in range(start, end):
            length = int(lengths[number])
            begin = int(offsets[number]) - first
            own = drawn[begin : begin + length]
            own += shift[number - start]
            at = int(torch.randint(0, length - length // 5, (1,), generator=generator))
            own[at : at + length // 5] += directions[int(targets[number])]
        values[first : first + len(drawn)] = drawn.half()
    speech = torch.rand(len(values), generator=drawing, device=device)
    return Dataset(
        tuple(
            Utterance(
                id=f"{number:06}",
                audio=Path(f"/made-up/{number:06}.wav"),
                label=LABELS[int(targets[number])],
                speaker=f"{number % SPEAKERS:02}",
                split="dev" if number % SPEAKERS < dev_speakers else "train",
            )
            for number in range(utterances)
        ),
        LABELS,
        {"audio": Frames(values, offsets, speech)},
    )
