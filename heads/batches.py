"""What training steps read: which frames of which utterances, planned for a whole epoch.

On a GPU the plan is sent once an epoch. Utterances are padded to one number of frames, and the last
batch to the size of the others, so that all steps have the same shapes: nothing of a step depends
on a number that the host would have to know, and its work can be recorded once and replayed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cache.encoders.device import to_device
from heads.step import step_words


@dataclass(frozen=True)
class Thinning:
    """Which frames of long utterances a training step reads: evenly spaced ones.

    Neighbouring frames say nearly the same. Of an utterance of T frames every s-th one is read,
    s = ceil(T / most), from a start that is drawn anew in each step.

    Attributes:
        most: frames of an utterance.
        seed: of the starts.
    """

    most: int
    seed: int

    def slices(self, lengths: Sequence[int]) -> list[slice]:
        """The frames of each utterance of a batch."""
        starts, strides, _ = self.numbers(np.asarray(lengths))
        each = zip(starts.tolist(), strides.tolist(), strict=True)
        return [slice(start, None, stride) for start, stride in each]

    def numbers(self, lengths: NDArray[np.int64]) -> NDArray[np.int64]:
        """`[3, B]`: of each utterance the first frame, the stride, and how many are read."""
        drawn = np.random.default_rng(self.seed).random(len(lengths))
        strides = -(-lengths // self.most)
        starts = (drawn * strides).astype(np.int64)
        return np.stack([starts, strides, -((starts - lengths) // strides)])


@dataclass(frozen=True, eq=False)
class PlannedStep:
    """What one step is of, on its device.

    Attributes:
        numbers: `[3 + 3·M, B]` int64: positions among the rows, rows, words that dropout masks are
            drawn by, and of each of M modalities the place of an utterance's first frame that is
            read among all frames, the stride, and how many are read, at most T.
        factor: of the learning rates, `[]`.
        widths: T of each modality that frames are read of, to which utterances are padded.
        host: the same numbers on the CPU, where they are known.
    """

    numbers: Tensor
    factor: Tensor
    widths: Mapping[str, int]
    host: NDArray[np.int64] | None = None

    @property
    def positions(self) -> Tensor:
        """`[B]` positions among the training rows; of what fills a batch, their number."""
        return self.numbers[0]

    @property
    def utterances(self) -> Tensor:
        """`[B]` utterance numbers."""
        return self.numbers[1]

    @property
    def words(self) -> Tensor:
        """`[B]`, see `step_words`."""
        return self.numbers[2]

    def places(self, modality: str) -> tuple[Tensor, Tensor]:
        """`[B·T]` places among all frames, and which of them are padding: the first frame again."""
        first, stride, count = self.numbers[self._fields(modality)]
        within = torch.arange(self.widths[modality], device=first.device)
        padding = within >= count[:, None]
        within = within.expand_as(padding).masked_fill(padding, 0)
        places = torch.addcmul(first[:, None], within, stride[:, None])
        return places.flatten(), padding.flatten()

    def slices(self, modality: str, offsets: Tensor) -> list[tuple[int, slice]]:
        """Of each utterance its number and its frames that are read.

        Args:
            modality: which.
            offsets: `[n + 1]`, where utterances begin and end among all frames.
        """
        assert self.host is not None, "only the device knows"
        rows = self.host[1]
        firsts, strides, _ = self.host[self._fields(modality)]
        starts = firsts - offsets.numpy()[rows]
        each = zip(rows.tolist(), starts.tolist(), strides.tolist(), strict=True)
        return [(row, slice(start, None, stride)) for row, start, stride in each]

    def _fields(self, modality: str) -> slice:
        at = 3 + 3 * list(self.widths).index(modality)
        return slice(at, at + 3)


def plan_steps(
    batches: Sequence[Tensor],
    size: int,
    rows: Tensor,
    offsets: Mapping[str, Tensor],
    widths: Mapping[str, int],
    thinnings: Sequence[Thinning | None],
    factors: Sequence[float],
    first_step: int,
    device: torch.device,
) -> list[PlannedStep]:
    """Some steps, sent to the device together.

    Args:
        batches: positions in `rows` of each step's utterances.
        size: B, to which every batch is filled.
        rows: `[n]` utterance numbers that are trained on.
        offsets: `[N + 1]` of each modality that frames are read of: where utterances begin and end.
        widths: T of each of these modalities.
        thinnings: of each step; None where frames of no modality are read.
        factors: of the learning rates, of each step.
        first_step: the number of the first one.
        device: where to.
    """
    table = []
    for number, (positions, thinning) in enumerate(zip(batches, thinnings, strict=True)):
        own = rows[positions]
        fields = [positions.numpy(), own.numpy(), step_words(first_step + number, len(own)).numpy()]
        for name in widths:
            assert thinning is not None, "frames are read"
            first, last = offsets[name][own].numpy(), offsets[name][own + 1].numpy()
            # Drawn for the utterances of the batch alone, as on a CPU.
            starts, strides, counts = thinning.numbers(last - first)
            fields += [first + starts, strides, counts]
        # What fills a batch is the last utterance again, at a position that no row has.
        filled = np.stack([np.pad(one, (0, size - len(own)), "edge") for one in fields])
        filled[0, len(own) :] = len(rows)
        table.append(filled)
    numbers = to_device(torch.from_numpy(np.stack(table)), device)
    rates = to_device(torch.tensor(factors), device)
    each = zip(numbers, rates, table, strict=True)
    return [PlannedStep(own, factor, widths, host) for own, factor, host in each]
