"""What every analysis returns: sentences, tables and figures, which the report puts in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas


Cell = str | int | float | None


@dataclass(frozen=True)
class Table:
    """A table, shown in the report and written as CSV.

    Attributes:
        name: of the CSV file, lower case words joined by `-`; unique in the report.
        columns: their headings, with units.
        rows: as many cells in each; None is "not known", shown as a dash and an empty CSV cell.
        title: what it shows, a phrase.
        digits: decimal places of numbers in the report; the CSV has all of them.
    """

    name: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[Cell]]
    title: str = ""
    digits: int = 3


@dataclass(frozen=True, eq=False)
class Figure:
    """A picture, shown in the report and written as PNG and SVG.

    Attributes:
        name: of the files, lower case words joined by `-`; unique in the report.
        draw: puts the picture on an empty matplotlib figure; called once the report is written.
        title: what it shows, a phrase; also its text for those who cannot see it.
        size: width and height in inches.
    """

    name: str
    draw: Callable[[Canvas], None]
    title: str = ""
    size: tuple[float, float] = (7.0, 4.0)


@dataclass(frozen=True, eq=False)
class Section:
    """One analysis in the report.

    Attributes:
        title: its heading.
        text: plain sentences, one paragraph each: what was found, and what could not be.
        tables: in order.
        figures: in order.
        summary: the numbers behind it as JSON values, for `--json`.
    """

    title: str
    text: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
    summary: dict[str, Any] = field(default_factory=dict)
