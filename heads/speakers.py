"""Frames normalised by who speaks: `input_norm speaker`.

Each speaker's frames get the mean and the deviation that the training frames have, from all
recordings of the speaker that are at hand, in every split. That uses the test speakers' recordings
(never their labels), which a model that is given one utterance cannot: reports declare it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from cache.encoders.device import to_device
from cache.frames import Frames

SPEAKER = "speaker"
# With fewer, a speaker's mean is what was felt as much as whose voice it is.
FEWEST_RECORDINGS = 5
# A feature that varies less than this over the training frames is constant: it is not scaled. Twice
# the floor that is put under every utterance's deviation.
CONSTANT_DEVIATION = 2e-5


@dataclass(frozen=True, eq=False)
class SpeakerMaps:
    """For each utterance the map x → gain · x + offset of its speaker.

    Attributes:
        gain: `[S + 1, D]`; the last one is the identity, of speakers who are not known.
        offset: `[S + 1, D]`.
        of: `[n]` which one is each utterance's.
    """

    gain: Tensor
    offset: Tensor
    of: Tensor

    @classmethod
    def to(
        cls,
        target: tuple[Tensor, Tensor],
        moments: tuple[Tensor, Tensor],
        lengths: Tensor,
        speakers: Sequence[str],
    ) -> SpeakerMaps:
        """Maps that give every speaker the target's mean and deviation.

        Args:
            target: mean and deviation `[D]`.
            moments: mean and deviation `[n, D]` of each utterance's frames.
            lengths: `[n]` frames of each.
            speakers: of each; "" where unknown. One with less than `FEWEST_RECORDINGS` counts as
                unknown.
        """
        known = known_speakers(speakers)
        of = torch.tensor([known.get(name, len(known)) for name in speakers])
        gains, offsets = [], []
        for number in range(len(known)):
            own = (of == number).nonzero()[:, 0].to(lengths.device)
            mean, deviation = overall(moments[0][own], moments[1][own], lengths[own])
            varies = torch.minimum(deviation, target[1]) >= CONSTANT_DEVIATION
            gain = torch.where(varies, target[1] / deviation, torch.ones_like(deviation))
            gains.append(gain)
            offsets.append(target[0] - gain * mean)
        same = torch.ones_like(target[0])
        return cls(torch.stack([*gains, same]), torch.stack([*offsets, 0 * same]), of)

    def mapped(self, frames: Frames, rows: Sequence[int]) -> Frames:
        """The frames of these utterances, in fp32."""
        of = to_device(self.of[list(rows)].repeat_interleave(frames.lengths), self.gain.device)
        values = frames.values.to(self.gain.dtype)
        return replace(frames, values=values * self.gain[of] + self.offset[of])

    def mapped_rows(self, values: Tensor, rows: Tensor) -> Tensor:
        """Frames `[B, T, D]` of utterances `[B]`, given on the device, in fp32."""
        of = self._of_there.index_select(0, rows)
        gain, offset = (one.index_select(0, of)[:, None] for one in (self.gain, self.offset))
        return torch.addcmul(offset, values.to(gain.dtype), gain)

    @cached_property
    def _of_there(self) -> Tensor:
        return to_device(self.of, self.gain.device)


def known_speakers(speakers: Sequence[str]) -> dict[str, int]:
    """Speakers with enough recordings, numbered in the order of their names."""
    counts: dict[str, int] = {}
    for name in speakers:
        counts[name] = counts.get(name, 0) + 1
    enough = sorted(name for name, n in counts.items() if name and n >= FEWEST_RECORDINGS)
    return {name: number for number, name in enumerate(enough)}


def overall(mean: Tensor, deviation: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation `[D]` over all frames of utterances with these `[n, D]`.

    The variance is that within utterances plus that between them.
    """
    share = (lengths.double() / lengths.sum())[:, None]
    mean, deviation = mean.double(), deviation.double()
    middle = (share * mean).sum(0)
    variance = (share * (deviation.square() + (mean - middle).square())).sum(0)
    return middle.float(), variance.sqrt().float()


def declared(speakers: Sequence[str]) -> str:
    """What a report of heads with `input_norm speaker` says of it.

    Args:
        speakers: of each utterance that the statistics are from; "" where unknown.
    """
    known = known_speakers(speakers)
    rest = sum(name not in known for name in speakers)
    others = (
        f"; {rest:,} utterances of speakers who are unknown or have fewer than "
        f"{FEWEST_RECORDINGS} recordings go by the training statistics"
    )
    return (
        "Frames are normalised by each speaker's own mean and deviation over all recordings of the "
        "speaker here, those of test speakers too (not their labels): "
        f"{len(known)} speaker{'' if len(known) == 1 else 's'}{others if rest else ''}. "
        "A model that hears one recording of a stranger cannot do so."
    )
