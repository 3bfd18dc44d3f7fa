"""Who counts as one in a bootstrap: a known speaker, or an utterance of an unknown one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from corpora.names import is_unknown
from heads.statistics.bootstrap import MIN_CLUSTERS


def known_speakers(speakers: Sequence[str]) -> list[str]:
    """The names, "" where a speaker is not known."""
    names = [speaker.strip() for speaker in speakers]
    return ["" if is_unknown(name) else name for name in names]


def judge_clusters(known: Sequence[str]) -> tuple[str, bool]:
    """What there is to say about a bootstrap over these speakers, and whether to run it."""
    speakers = len(set(known) - {""})
    unknown = sum(speaker == "" for speaker in known)
    strangers = f"the speaker of {unknown} of {len(known)} utterances is unknown"
    # A few speakers with most of the utterances stay a few speakers, whatever is added to them.
    few = speakers < MIN_CLUSTERS and 2 * unknown < len(known)
    if few or speakers + unknown < MIN_CLUSTERS:
        found = f"{speakers} speaker{'' if speakers == 1 else 's'}"
        extra = f" ({strangers})" if unknown else ""
        return f"{found}{extra}: a bootstrap over fewer than {MIN_CLUSTERS} says nothing", False
    if unknown:
        return f"{strangers}; each counts as one speaker, so intervals may be too narrow", True
    return "", True


def cluster_numbers(known: Sequence[str]) -> NDArray[np.int64]:
    """`[N]`: one number a known speaker, and one an utterance of unknown speakers."""
    numbers: dict[str | int, int] = {}
    return np.array(
        [numbers.setdefault(name or row, len(numbers)) for row, name in enumerate(known)],
        dtype=np.int64,
    )


def confusion_by_cluster(
    gold: NDArray[np.int64], predicted: NDArray[np.int64], clusters: NDArray[np.int64], classes: int
) -> NDArray[np.int64]:
    """One confusion matrix a cluster, `[S, C, C]`; of many systems `[..., N]`: `[S, ..., C, C]`."""
    count = int(clusters.max()) + 1
    cells = (clusters * classes + gold) * classes + predicted
    systems = cells.reshape(-1, cells.shape[-1])
    size = count * classes * classes
    counted = np.stack([np.bincount(row, minlength=size) for row in systems], axis=1)
    shape = (count, classes, classes, *predicted.shape[:-1])
    return np.moveaxis(counted.reshape(shape), (1, 2), (-2, -1))
