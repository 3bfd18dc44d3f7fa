"""The page: head, sections, utterances, style and script in one file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files

from corpora.base.report import Section
from explain.report.markup import anchor, escape, section_html
from explain.report.rows import safe_json

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
