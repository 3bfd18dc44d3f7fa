"""The page: head, sections, utterances, style and script in one file."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from importlib.resources import files

from corpora.base.report import Cell, Section, Table
from explain.report.rows import safe_json

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


# Nothing may be fetched: what the page needs is in it, but for recordings beyond the limit, which
# are links to files.
POLICY = (
    "default-src 'none'; img-src data:; media-src data: file: 'self'; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
)
BROWSER = "Utterances"


def page_html(
    title: str,
    intro: Sequence[str],
    sections: Sequence[Section],
    pictures: Mapping[str, bytes],
    rows: str,
    labels: Sequence[str],
    browsing: Sequence[str],
) -> str:
    """The whole page.

    Args:
        title: of page and window.
        intro: sentences under it.
        sections: in order.
        pictures: SVG files by figure name.
        rows: from `rows_json`.
        labels: in the order of probabilities.
        browsing: sentences above the utterances.
    """
    style = files("explain.report").joinpath("page.css").read_text(encoding="utf-8")
    script = files("explain.report").joinpath("page.js").read_text(encoding="utf-8")
    names = [*(section.title for section in sections), BROWSER]
    links = "".join(f'<a href="#{escape(anchor(n))}">{escape(n)}</a>' for n in names)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>{escape(title)}</title>
<style>{style}</style>
</head>
<body>
<a class="skip" href="#{anchor(BROWSER)}">Skip to the utterances</a>
<header><h1>{escape(title)}</h1>
{"".join(f"<p>{escape(sentence)}</p>" for sentence in intro)}
<nav aria-label="Sections">{links}</nav></header>
<main>
{"".join(section_html(section, pictures) for section in sections)}
{_browser(browsing)}
</main>
<script type="application/json" id="labels">{safe_json(list(labels))}</script>
<script type="application/json" id="rows">{rows}</script>
<script>{script}</script>
</body>
</html>
"""


def _browser(sentences: Sequence[str]) -> str:
    """The table of utterances, which the script fills."""
    said = "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences)
    return f"""<section id="{anchor(BROWSER)}"><h2>{BROWSER}</h2>
{said}
<form id="filters" role="search" onsubmit="return false">
<label>Search <input id="search" type="search" placeholder="id, text, label, speaker"></label>
<label>Show <select id="which"><option value="all">all</option><option value="wrong">errors</option>
<option value="right">right ones</option></select></label>
<label>Label <select id="label"><option value="">any</option></select></label>
<label>Sort <select id="sort"><option value="given">as in the manifest</option>
<option value="high">most confident first</option><option value="low">least confident first</option>
<option value="long">longest first</option></select></label>
<output id="count" aria-live="polite"></output>
</form>
<div class="wide tall"><table id="utterances"><thead><tr><th scope="col">utterance</th>
<th scope="col">label</th><th scope="col">predicted</th><th scope="col">confidence</th>
<th scope="col">seconds</th><th scope="col">text</th></tr></thead><tbody></tbody></table></div>
<p><button id="more" type="button" hidden>Show more</button></p>
<noscript><p>The list of utterances needs JavaScript; all else does not.</p></noscript>
</section>"""
