"""A report as text, Markdown and CSV."""

from pathlib import Path
from typing import Any

import pytest
from jinja2 import UndefinedError

from corpora.base import report
from corpora.base.report import Figure, Report, Table, csv_text

TABLE = Table(
    "t", ("name", "value"), [["a|b", 0.5], ["c", None], ["d", 1200]], "Values", right=(1,)
)
WHOLE = Report(
    "Title",
    (
        "First.",
        "word " * 30,
        TABLE,
        "Last.",
        Report("Inner", ("* one", "as\n   it is")),
        Figure("f", lambda canvas: None, "A picture"),
    ),
    (Path("x/y"),),
    ("search", "evaluate"),
)


def test_text_sets_tables_and_inner_reports_off_and_wraps_paragraphs() -> None:
    lines = WHOLE.to_text().splitlines()
    assert lines[:2] == ["Title", "First."]
    assert lines[2:4] == [("word " * 20)[:-1], "  " + ("word " * 10)[:-1]]
    assert lines[4:] == [
        "",
        "Values:",
        "name  value",
        "a|b   0.500",
        "c         –",
        "d     1,200",
        "",
        "Last.",
        "",
        "Inner",
        "  * one",
        "  as",
        "     it is",
        "",
        "Wrote:",
        "  x/y",
        "",
        "Next: search",
        "  or: evaluate",
    ]


def test_markdown_has_headings_and_no_cell_ends_early() -> None:
    text = WHOLE.to_markdown()
    assert text.startswith("# Title\n\nFirst.\n\n")
    assert "## Values\n\n| name | value |\n| --- | --- |\n| a\\|b | 0.500 |\n" in text
    assert "## Inner\n\n\\* one\n\n" in text
    assert text.endswith("![A picture](f.png)\n")


def test_csv_has_numbers_in_full_and_nothing_that_a_spreadsheet_computes() -> None:
    rows: list[Any] = [["=1+1", 1 / 3], {"b": None, "a": "x"}]
    assert csv_text(("a", "b"), rows) == f"a,b\n'=1+1,{1 / 3!r}\nx,\n"


def test_a_template_escapes_texts_and_misses_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    class Folder:
        def joinpath(self, name: str) -> "Folder":
            return self

        def read_text(self, encoding: str) -> str:
            return "<p>{{ said }}</p>"

    monkeypatch.setattr(report, "files", lambda package: Folder())
    assert report.fill_template("p", "n", said="<b>") == "<p>&lt;b&gt;</p>"
    with pytest.raises(UndefinedError):
        report.fill_template("p", "n")
