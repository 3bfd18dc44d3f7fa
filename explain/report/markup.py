"""HTML from sections. Every text is escaped: a transcript `<script>` is shown, never run."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence

from corpora.base.report import Cell, Section, Table

# Longer tables are cut in the page, not in their CSV.
MOST_ROWS = 60
# Longer ones are folded.
OPEN_ROWS = 15


def escape(text: str) -> str:
    """Text for any place in HTML."""
    return html.escape(text, quote=True)


def anchor(title: str) -> str:
    """The id of a section."""
    return "".join(c if c.isalnum() else "-" for c in title.lower())


def section_html(section: Section, pictures: Mapping[str, bytes]) -> str:
    """A section.

    Args:
        section: what it says.
        pictures: SVG files by figure name; a figure without one is left out.
    """
    parts = [f'<section id="{escape(anchor(section.title))}"><h2>{escape(section.title)}</h2>']
    parts += [f"<p>{escape(sentence)}</p>" for sentence in section.text]
    for figure in section.figures:
        if figure.name in pictures:
            parts.append(figure_html(figure.title, pictures[figure.name], figure.name))
    parts += [table_html(table) for table in section.tables]
    parts.append("</section>")
    return "\n".join(parts)


def figure_html(title: str, picture: bytes, name: str) -> str:
    """A figure as an image of its own: its ids and styles cannot meet the page's."""
    data = base64.b64encode(picture).decode("ascii")
    return (
        f'<figure><img alt="{escape(title)}" src="data:image/svg+xml;base64,{data}">'
        f"<figcaption>{escape(title)} <small>(figures/{escape(name)}.png, .svg)</small>"
        "</figcaption></figure>"
    )


def table_html(table: Table) -> str:
    """A table; columns of numbers end under one another."""
    rows = list(table.rows)
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in table.columns)
    body = "\n".join(_row(row, table.digits) for row in rows[:MOST_ROWS])
    caption = table.title or table.name
    more = ""
    if len(rows) > MOST_ROWS:
        more = f"<p><small>{len(rows) - MOST_ROWS:,} more rows in the CSV.</small></p>"
    title = f"{escape(caption)} <small>(tables/{escape(table.name)}.csv)</small>"
    folded = len(rows) > OPEN_ROWS
    shown = "" if folded else f"<caption>{title}</caption>"
    markup = (
        f'<div class="wide"><table>{shown}<thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>{more}"
    )
    return f"<details><summary>{title}</summary>{markup}</details>" if folded else markup


def _row(cells: Sequence[Cell], digits: int) -> str:
    return f"<tr>{''.join(_cell(cell, digits) for cell in cells)}</tr>"


def _cell(cell: Cell, digits: int) -> str:
    if cell is None:
        return '<td class="n">–</td>'
    if isinstance(cell, float):
        return f'<td class="n">{cell:,.{digits}f}</td>'
    if isinstance(cell, int):
        return f'<td class="n">{cell:,}</td>'
    return f"<td>{escape(cell)}</td>"
