"""An evaluation as pictures: the confusion matrix, and how sure against how right.

Needs matplotlib, which the extra `plots` installs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from corpora.base.files import atomic_path
from corpora.base.plots import DOTS_PER_INCH, SUFFIXES, require_matplotlib
from finetune.evaluating.calibration import Calibration
from finetune.evaluating.reliability import Reliability
from heads.metrics import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OTHERWISE = "evaluate without --plots"
CONFUSION, RELIABILITY = "confusion", "reliability"
# Inches: of a cell, and around all of them for labels, title and colour bar.
CELL, AROUND = 0.62, 2.6
# Counts are written into cells down to this size; more classes leave the colours alone.
MOST_CLASSES = 24
# From this share on a cell is dark, and what is written in it white.
DARK = 0.6


def check_drawable() -> None:
    """Check before anything is scored that pictures can be drawn (MissingExtraError)."""
    require_matplotlib(OTHERWISE)


def draw_confusion(folder: Path, report: Report, title: str) -> list[str]:
    """Draw the confusion matrix: share of each gold class by colour, counts in the cells.

    Args:
        folder: where to.
        report: the scores.
        title: above it.

    Returns:
        Names of the files.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    check_drawable()
    from matplotlib.figure import Figure

    labels = report.labels
    rows = [[n / max(1, sum(row)) for n in row] for row in report.confusion]
    size = CELL * len(labels)
    # Not pyplot: it keeps figures in a global list, and may look for a screen.
    figure = Figure(figsize=(size + AROUND + 0.8, size + AROUND), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(rows, cmap="Blues", vmin=0, vmax=1)
    for y, (shares, counts) in enumerate(zip(rows, report.confusion, strict=True)):
        for x, (share, count) in enumerate(zip(shares, counts, strict=True)):
            if len(labels) <= MOST_CLASSES and count:
                colour = "white" if share >= DARK else "black"
                text = f"{count:,}\n{100 * share:.0f} %"
                axes.text(x, y, text, ha="center", va="center", color=colour, fontsize=8)
    places = range(len(labels))
    axes.set_xticks(places, labels, rotation=40, ha="right", rotation_mode="anchor")
    supports = [sum(row) for row in report.confusion]
    axes.set_yticks(places, [f"{label} ({n:,})" for label, n in zip(labels, supports, strict=True)])
    axes.set(xlabel="predicted", ylabel="gold (utterances)")
    axes.set_title(
        f"{title}\nmacro-F1 {report.macro_f1:.3f}, UA {report.uar:.3f}, WA {report.accuracy:.3f}",
        fontsize="medium",
    )
    figure.colorbar(image, ax=axes, label="share of the gold class", shrink=0.8)
    return _save(figure, folder, CONFUSION)


def draw_reliability(folder: Path, calibration: Calibration, title: str) -> list[str]:
    """Draw accuracy over confidence before and after temperature scaling, with counts below.

    Arguments and results as `draw_confusion`.
    """
    check_drawable()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 5.0), layout="constrained")
    grid = figure.add_gridspec(2, 2, height_ratios=(3, 1))
    both = (
        (calibration.before, "as it is"),
        (calibration.after, f"at temperature {calibration.temperature:.2f}"),
    )
    for column, (found, name) in enumerate(both):
        upper = figure.add_subplot(grid[0, column])
        lower = figure.add_subplot(grid[1, column], sharex=upper)
        _draw_bins(upper, lower, found)
        perfect = f"a perfectly calibrated model: about {found.ece_if_perfect:.3f}"
        upper.set_title(f"{name}: ECE {found.ece:.3f}\n({perfect})", fontsize="small")
        if column == 0:
            upper.set_ylabel("accuracy")
            lower.set_ylabel("utterances")
            figure.legend(
                *upper.get_legend_handles_labels(),
                fontsize="small",
                loc="outside lower center",
                ncols=3,
            )
    figure.suptitle(title, fontsize="medium")
    return _save(figure, folder, RELIABILITY)


def _draw_bins(upper: Axes, lower: Axes, found: Reliability) -> None:
    width = 1 / len(found.bins)
    used = [one for one in found.bins if one.count]
    left = [one.low for one in used]
    style: dict[str, Any] = {"width": width, "align": "edge", "edgecolor": "white"}
    upper.bar(left, [one.accuracy for one in used], color="tab:blue", label="accuracy", **style)
    upper.plot([0, 1], [0, 1], "--", color="0.5", label="perfectly calibrated")
    upper.plot(
        [one.confidence for one in used],
        [one.accuracy for one in used],
        "o",
        color="tab:red",
        markersize=4,
        label="at the mean confidence of the bin",
    )
    upper.set(xlim=(0, 1), ylim=(0, 1.04))  # points at 1 are seen whole
    upper.tick_params(labelbottom=False)
    lower.bar(left, [one.count for one in used], color="0.6", **style)
    lower.set_xlabel("confidence (largest probability)")


def _save(figure: Figure, folder: Path, name: str) -> list[str]:
    names = []
    for suffix in SUFFIXES:
        with atomic_path(folder / f"{name}{suffix}") as path:
            # Without the date that SVG files carry, which would make each drawing another file.
            undated = {"Date": None} if suffix == ".svg" else {}
            figure.savefig(path, dpi=DOTS_PER_INCH, metadata=undated)
        names.append(f"{name}{suffix}")
    return names
