"""Losses, scores and learning rates by step: a CSV file, a tracker, a picture."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from corpora.base.files import write_text
from corpora.base.report import Figure, csv_text, legend_beside, write_figure
from finetune.steps import LogRow
from heads.tracking import Tracker

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

CSV, PICTURE = "curves.csv", "curves.png"
# Between two writings of the CSV file.
SECONDS = 10.0


class Curves:
    """The curves of one fine-tuning, as they grow.

    Args:
        folder: where they go.
        earlier: rows of phases that are finished.
        tracker: gets them too; it has begun behind the earlier ones.
    """

    def __init__(
        self, folder: Path, earlier: Sequence[LogRow] = (), tracker: Tracker | None = None
    ) -> None:
        self._folder = folder
        self._earlier = list(earlier)
        if not earlier:
            (folder / PICTURE).unlink(missing_ok=True)  # of another run
        self._written = time.monotonic()
        self._sent = len(self._earlier)
        self._tracker = tracker

    def follow(self, log: Sequence[LogRow]) -> None:
        """Take the rows of the phase under way; called after every step."""
        if time.monotonic() - self._written > SECONDS:
            self.write(log)

    def write(self, log: Sequence[LogRow]) -> None:
        """Write them out."""
        rows = [*self._earlier, *log]
        write_text(self._folder / CSV, log_text(rows))
        if self._tracker is not None:
            self._send(rows, self._tracker)
        self._written = time.monotonic()

    def end_phase(self, log: Sequence[LogRow]) -> None:
        """Write them out, and begin behind them."""
        self.write(log)
        self._earlier += log

    def close(self) -> None:
        """Finish the picture and let go of the files."""
        if find_spec("matplotlib") is not None and self._earlier:
            write_figure(self._folder, curves_figure(self._earlier), [".png"])

    def _send(self, rows: Sequence[LogRow], tracker: Tracker) -> None:
        # The last row of an epoch gets its score only after it was made: it waits for it.
        ready = rows if rows and rows[-1].dev is not None else rows[:-1]
        numbers = global_steps(ready)
        for row, number in list(zip(ready, numbers, strict=True))[self._sent :]:
            found: dict[str, float] = {}
            if row.loss is not None:
                found = {"train/loss": row.loss, "train/learning_rate": row.learning_rate}
            dev = {} if row.dev is None else row.dev.to_json()
            tracker.log({**found, **{f"dev/{name}": v for name, v in dev.items()}}, number)
        self._sent = len(ready)


def global_steps(rows: Sequence[LogRow]) -> list[int]:
    """The number of each row's step, counted through all phases."""
    numbers: list[int] = []
    before = 0
    for row in rows:
        if row.step == 0 and numbers:
            before = numbers[-1]
        numbers.append(before + row.step)
    return numbers


def log_text(rows: Sequence[LogRow]) -> str:
    """The steps as CSV."""
    columns = ("phase", "epoch", "step", "lr", "loss")
    scores = [{} if r.dev is None else r.dev.to_json() for r in rows]
    known = dict.fromkeys(name for one in scores for name in one) or ("macro_f1", "loss")
    return csv_text(
        (*columns, *(f"dev_{name}" for name in known)),
        [
            (r.phase, r.epoch, r.step, r.learning_rate, r.loss, *(one.get(n) for n in known))
            for r, one in zip(rows, scores, strict=True)
        ],
    )


def curves_figure(rows: Sequence[LogRow]) -> Figure:
    """Losses, development scores and learning rates of all phases over the steps."""
    return Figure("curves", partial(_draw, rows), size=(7.0, 7.0))


def _draw(rows: Sequence[LogRow], canvas: Canvas) -> None:
    numbers = global_steps(rows)
    losses = [(n, row.loss) for n, row in zip(numbers, rows, strict=True) if row.loss is not None]
    scored = [(n, row.dev) for n, row in zip(numbers, rows, strict=True) if row.dev is not None]
    loss, score, rate = canvas.subplots(3, 1, sharex=True)
    loss.plot(
        [n for n, _ in losses],
        [v for _, v in losses],
        color="0.7",
        lw=0.8,
        label="train, each step",
    )
    loss.plot(
        [n for n, _ in scored], [dev.loss for _, dev in scored], "o-", ms=3, label="development"
    )
    kinds = {"macro-F1": "macro_f1", "mean CCC": "mean_ccc"}
    told = [name for name, kind in kinds.items() if scored and kind in scored[0][1].to_json()]
    for name in told:
        values = [getattr(dev, kinds[name]) for _, dev in scored]
        score.plot([n for n, _ in scored], values, "o-", ms=3, label=name)
    if len(told) > 1:
        legend_beside(score)
    trained = [(n, row) for n, row in zip(numbers, rows, strict=True) if row.step]
    for phase in dict.fromkeys(row.phase for row in rows):
        own = [(n, row.learning_rate) for n, row in trained if row.phase == phase]
        if own:
            rate.plot([n for n, _ in own], [v for _, v in own], label=f"phase {phase}")
            for axes in (loss, score):
                axes.axvline(own[0][0] - 1, color="0.5", linewidth=0.8, linestyle=":")
    loss.set(ylabel="loss", title="Fine-tuning by step")
    legend_beside(loss)
    score.set(ylabel=f"{', '.join(told) or 'macro-F1'} (development)")
    rate.set(ylabel="learning rate", xlabel="step", yscale="log")
    legend_beside(rate)
