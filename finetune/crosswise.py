"""What a phase is worth on speakers who did not choose its epoch.

The best of a phase's epochs on dev is also the luckiest one. So the speakers of dev are dealt into
two halves, each half chooses its epoch, and the other half scores it: what is said of all
utterances, each by an epoch that it had no part in choosing, gives one macro-F1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from heads.statistics.confusion import confusion_matrix, macro_f1


def speaker_halves(speakers: Sequence[str]) -> Tensor:
    """`[n]` bool, the half of each utterance; both have about as many utterances.

    Args:
        speakers: of each utterance. One without a name, or the only one there is, cannot be kept
            together: such utterances are dealt one by one.
    """
    single = len(set(speakers)) == 1
    groups: dict[str, list[int]] = {}
    for row, name in enumerate(speakers):
        groups.setdefault(f"\n{row}" if single or not name else name, []).append(row)
    half = torch.zeros(len(speakers), dtype=torch.bool)
    sizes = [0, 0]
    # The largest first: what comes last evens out.
    for _, rows in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0])):
        side = int(sizes[1] < sizes[0])
        half[rows] = bool(side)
        sizes[side] += len(rows)
    return half


def crosswise(predicted: Tensor, gold: Tensor, half: Tensor, classes: int) -> float:
    """Macro-F1 of utterances whose epoch was chosen by the other half.

    Args:
        predicted: `[epochs, n]` class indices after each epoch, at least one.
        gold: `[n]` class indices.
        half: `[n]` from `speaker_halves`.
        classes: how many there are.
    """
    said = torch.empty_like(gold)
    for side in (half, ~half):
        chooses = side if side.any() else ~side  # of one utterance there is no other half
        scores = macro_f1(
            confusion_matrix(gold[chooses].numpy(), predicted[:, chooses].numpy(), classes)
        )
        said[~side] = predicted[int(np.argmax(scores)), ~side]
    return float(macro_f1(confusion_matrix(gold.numpy(), said.numpy(), classes)))
