"""A page of HTML that needs nothing else: the frame of every page, and what stands on it.

`page.html` is extended by a template of another floor; `parts.html` has the macros for cards and
reports. Every text is escaped; nothing is fetched.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files

from corpora.base.report import cell_text, fill_template

BASE = "corpora.base"
# Longer tables are cut in the page, not in their CSV; those with more than the second are folded.
MOST_ROWS, OPEN_ROWS = 60, 15


@dataclass(frozen=True)
class Line:
    """A sentence on a card.

    Attributes:
        text: the sentence.
        table: the name of the table it stands in, which it links to; "" for none.
        section: the title of the section that says more, likewise.
    """

    text: str
    table: str = ""
    section: str = ""


@dataclass(frozen=True)
class Scale:
    """A value between 0 and 1 with its interval, drawn beside others.

    Attributes:
        value: the value.
        low: of its interval; None without one.
        high: likewise.
        marks: other values by name, such as what guessing gives.
    """

    value: float
    low: float | None = None
    high: float | None = None
    marks: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Card:
    """A question, its answer in a few words, and what there is to say about it.

    Attributes:
        question: as a reader asks it.
        answer: "" where the sentences are the answer.
        beside: in small letters beside it, such as the interval.
        lines: sentences.
        scale: the answer as a picture.
        tone: `yes`, `no` or `open` colours the answer; "" leaves it.
    """

    question: str
    answer: str = ""
    beside: str = ""
    lines: Sequence[Line] = ()
    scale: Scale | None = None
    tone: str = ""


def fill_page(
    package: str,
    template: str,
    *,
    title: str,
    pictures: Mapping[str, bytes],
    files_of: Sequence[str] = (),
    stored: bool = True,
    data: Mapping[str, object] | None = None,
    **values: object,
) -> str:
    """Fill a template that extends `corpora.base/page.html`.

    Args:
        package: where it lies.
        template: its name.
        title: of the page.
        pictures: SVG or PNG files by figure name; a figure without one is left out.
        files_of: names of style sheets (`.css`) and scripts (`.js`) of the package, in order; those
            of the base come first.
        stored: tables and figures are files beside the page, too, which it names.
        data: JSON by element id, for the scripts.
        values: what else the template names.
    """
    sources = [(BASE, "page.css"), (BASE, "page.js"), *((package, name) for name in files_of)]
    texts = {
        name: files(place).joinpath(name).read_text(encoding="utf-8") for place, name in sources
    }
    return fill_template(
        package,
        template,
        title=title,
        pictures={name: _data_address(picture) for name, picture in pictures.items()},
        stored=stored,
        styles=[text for name, text in texts.items() if name.endswith(".css")],
        scripts=[text for name, text in texts.items() if name.endswith(".js")],
        data={name: safe_json(value) for name, value in (data or {}).items()},
        cell_text=cell_text,
        most_rows=MOST_ROWS,
        open_rows=OPEN_ROWS,
        **values,
    )


def _data_address(picture: bytes) -> str:
    kind = "png" if picture.startswith(b"\x89PNG") else "svg+xml"
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode('ascii')}"


def safe_json(value: object) -> str:
    """JSON in which no character can end a script element or begin a comment."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
