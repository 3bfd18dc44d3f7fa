"""What a command found, in one form; rendered once each as text, Markdown and CSV.

As JSON a report is its `data` (`corpora.base.codec`); as HTML it is a section of a page
(`corpora.base.page`), where every text is escaped.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from corpora.base.errors import MissingExtraError
from corpora.base.files import write_bytes
from corpora.base.terminal import aligned, inert, wrapped

if TYPE_CHECKING:
    from jinja2 import Environment
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas


Cell = str | int | float | None


@dataclass(frozen=True)
class Table:
    """A table, shown in a report and written as CSV.

    Attributes:
        name: of the CSV file, lower case words joined by `-`; unique in the report; "" where none
            is written.
        columns: their headings, with units.
        rows: as many cells in each; None is "not known", shown as a dash and an empty CSV cell.
        title: what it shows, a phrase.
        digits: decimal places of numbers in the report; the CSV has all of them.
        right: numbers of the columns whose cells end under one another on a terminal.
        notes: sentences right under it.
        letters: that a heading has on a terminal, at most; 0: all.
    """

    name: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    title: str = ""
    digits: int = 3
    right: Sequence[int] = ()
    notes: Sequence[str] = ()
    letters: int = 0

    @property
    def shown(self) -> list[list[str]]:
        """Its rows as they are read."""
        return [[cell_text(cell, self.digits) for cell in row] for row in self.rows]


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


def legend_beside(axes: Axes) -> None:
    """A legend that covers no data: on the right of the axes."""
    axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)


Part: TypeAlias = "str | Table | Figure | Report"


@dataclass(frozen=True, eq=False)
class Report:
    """What there is to say, in order.

    Attributes:
        title: its heading; "" for none.
        parts: paragraphs (of several lines: as they are), tables, figures, and reports within it.
        files: what was written.
        next: commands that come next.
        data: the numbers behind it as JSON values.
    """

    title: str = ""
    parts: Sequence[Part] = ()
    files: Sequence[Path] = ()
    next: Sequence[str] = ()
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> tuple[str, ...]:
        """Its own paragraphs."""
        return tuple(part for part in self.parts if isinstance(part, str))

    @property
    def tables(self) -> tuple[Table, ...]:
        """Its own tables."""
        return tuple(part for part in self.parts if isinstance(part, Table))

    @property
    def figures(self) -> tuple[Figure, ...]:
        """Its own figures."""
        return tuple(part for part in self.parts if isinstance(part, Figure))

    def to_text(self, indent: str = "") -> str:
        """For a terminal: an empty line sets off tables, reports within it, and what follows.

        Args:
            indent: of its paragraphs.
        """
        lines = [self.title]
        for part in self.parts:
            if isinstance(part, str):
                lines += _lines(part, indent)
            elif isinstance(part, Table):
                lines += ["", *[f"{part.title}:"] * bool(part.title)]
                heads = [_cut(name, part.letters) for name in part.columns]
                lines += aligned([heads, *part.shown], part.right)
                lines += [*(line for note in part.notes for line in wrapped(note)), ""]
            elif isinstance(part, Report):
                lines += ["", part.to_text("  " * bool(part.title)), ""]
        if self.files:
            lines += ["", "Wrote:", *(f"  {path}" for path in self.files)]
        for number, step in enumerate(self.next):
            lines += [f"  or: {step}"] if number else ["", f"Next: {step}"]
        return re.sub("\n{3,}", "\n\n", "\n".join(lines)).strip("\n")

    def to_markdown(self, level: int = 1) -> str:
        """As Markdown, without what was written and what comes next."""
        blocks = [f"{'#' * level} {self.title}"] * bool(self.title)
        for part in self.parts:
            if isinstance(part, str):
                blocks.append(markdown_escaped(part))
            elif isinstance(part, Figure):
                blocks.append(f"![{part.title}]({part.name}.png)")
            elif isinstance(part, Table):
                blocks += [f"{'#' * (level + 1)} {part.title}"] * bool(part.title)
                blocks += [
                    markdown_table(part.columns, part.shown),
                    *map(markdown_escaped, part.notes),
                ]
            else:
                blocks.append(part.to_markdown(level + 1).rstrip())
        return "\n\n".join(blocks) + "\n"


def _cut(name: str, letters: int) -> str:
    return name if len(name) <= (letters or len(name)) else f"{name[: letters - 1]}…"


def _lines(paragraph: str, indent: str) -> list[str]:
    """A paragraph's lines; one with lines of its own keeps them."""
    if "\n" in paragraph:
        return [f"{indent}{line}".rstrip() for line in paragraph.split("\n")]
    text = f"{indent}{paragraph}"
    return wrapped(text, "  " + " " * (len(text) - len(text.lstrip()))) or [""]


def cell_text(cell: Cell, digits: int = 3) -> str:
    """A cell as it is read."""
    if cell is None:
        return "–"
    if isinstance(cell, str):
        return cell
    return f"{cell:,.{digits}f}" if isinstance(cell, float) else f"{cell:,}"


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown."""
    lines = [f"| {' | '.join(map(markdown_escaped, row))} |" for row in (columns, *rows)]
    return "\n".join([lines[0], "|" + " --- |" * len(columns), *lines[1:]])


def markdown_escaped(text: str) -> str:
    """Text in which no bar ends a cell, and no star makes it bold."""
    return text.replace("|", "\\|").replace("*", "\\*")


def csv_text(columns: Sequence[str], rows: Sequence[Sequence[Any] | Mapping[str, Any]]) -> str:
    """A table as CSV that is made to be looked at: no cell is one that a spreadsheet would compute.

    Args:
        columns: their headings.
        rows: cells in that order or by column; None is an empty cell, numbers stand in full.
    """
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([inert(name) for name in columns])
    for row in rows:
        cells = [row.get(name) for name in columns] if isinstance(row, Mapping) else row
        writer.writerow([inert(cell) for cell in cells])
    return out.getvalue()


def fill_template(package: str, name: str, **values: object) -> str:
    """Fill a Jinja template that lies in a package; every text in `values` is escaped for HTML.

    Templates name one another as `package/name`.
    """
    return _templates().get_template(f"{package}/{name}").render(values)


@cache
def _templates() -> Environment:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    def read(name: str) -> str:
        package, _, file = name.partition("/")
        return files(package).joinpath(file).read_text(encoding="utf-8")

    return Environment(
        loader=FunctionLoader(read),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


SUFFIXES = (".png", ".svg")
DOTS_PER_INCH, FONT = 150, 9


def require_matplotlib(otherwise: str = "search without --plots") -> None:
    """Check before any training that its plots can be drawn after it.

    Args:
        otherwise: what to do without it, in words.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise MissingExtraError(
            "Plots need matplotlib, which is not installed: pip install 'emopool[plots]', "
            f"or {otherwise}."
        )


def render(figure: Figure, suffixes: Sequence[str] = SUFFIXES) -> dict[str, bytes]:
    """Draw a figure; by suffix the bytes of its file, the same each time."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure as Canvas

    drawn = {}
    with rc_context({"svg.hashsalt": figure.name, "font.size": FONT}):
        # Not pyplot: it keeps figures in a global list, and may look for a screen.
        canvas = Canvas(figsize=figure.size, layout="constrained", facecolor="white")
        figure.draw(canvas)
        for suffix in suffixes:
            buffer = io.BytesIO()
            undated = {"Date": None} if suffix == ".svg" else {}
            canvas.savefig(buffer, format=suffix[1:], dpi=DOTS_PER_INCH, metadata=undated)
            drawn[suffix] = buffer.getvalue()
    return drawn


def write_figure(
    folder: Path, figure: Figure, suffixes: Sequence[str] = SUFFIXES
) -> dict[str, bytes]:
    """Draw a figure and write it into a folder; by file name what was written."""
    drawn = {f"{figure.name}{end}": data for end, data in render(figure, suffixes).items()}
    for name, data in drawn.items():
        write_bytes(folder / name, data)
    return drawn
