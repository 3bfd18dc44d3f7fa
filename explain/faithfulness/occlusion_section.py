"""Occlusion of the audio in the report."""

from __future__ import annotations

import numpy as np

from corpora.base.report import Cell, Table
from explain.faithfulness.occlusion import Occlusion
from explain.intervals import speaker_means
from explain.subject import Subject


def occlusion_text(subject: Subject, found: Occlusion) -> list[str]:
    """What was done, and what could not be."""
    lines = [
        f"Audio occlusion on {len(found.rows):,} utterances: windows of sound are replaced before "
        "the encoder, and the fall of the predicted class's probability is compared with "
        f"{subject.methods['audio']} by rank, frame by frame (1: it lies where sound matters; "
        "0: no relation)."
    ]
    missing = {
        kind: int(np.isnan(values).sum()) - len(found.failed)
        for kind, values in found.agreement.items()
    }
    short = [f"{fill} of {s:g} s: {count:,}" for (s, fill), count in missing.items() if count]
    if short:
        lines.append(
            "Utterances no longer than the window, or where nothing varies, have no correlation: "
            f"{', '.join(short)}."
        )
    if found.failed:
        name, reason = next(iter(found.failed.items()))
        lines.append(
            f"{len(found.failed):,} recordings cannot be read. The first: {name}: {reason}"
        )
    return lines


def occlusion_table(subject: Subject, found: Occlusion) -> Table:
    """Rank correlations by window and fill."""
    speakers, method = [subject.speakers[row] for row in found.rows], subject.methods["audio"]
    rows: list[list[Cell]] = []
    for (seconds, fill), values in found.agreement.items():
        mean = speaker_means(values[:, None], speakers)[0]
        value = mean.value if mean.count else None
        rows.append([seconds, fill, mean.count, value, mean.low, mean.high])
    return Table(
        "faithfulness-occlusion",
        ("window (s)", "fill", "utterances", f"rank correlation with {method}", "low", "high"),
        rows,
        f"Audio occlusion against {method}",
    )
