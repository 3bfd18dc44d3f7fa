from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpora.textgrid import Interval, fill_gaps, write_textgrid

times = st.lists(st.floats(0, 5, allow_nan=False), max_size=12)


@given(times, st.floats(0.5, 4))
def test_filled_tiers_are_contiguous_over_the_duration(cuts: list[float], duration: float) -> None:
    cuts = sorted(cuts)
    pairs = zip(cuts[::2], cuts[1::2], strict=False)
    filled = fill_gaps([Interval(a, b, "x") for a, b in pairs], duration, "sil")
    edges = [edge for interval in filled for edge in (interval.start, interval.end)]
    assert edges[0] == 0.0
    assert edges[-1] == duration
    assert edges[1:-1:2] == edges[2::2]
    assert all(interval.end > interval.start for interval in filled)


def test_gaps_get_their_label_and_intervals_keep_theirs() -> None:
    filled = fill_gaps([Interval(1.0, 2.0, "a"), Interval(2.0, 3.0, "b")], 4.0, "sil")
    assert [(i.start, i.end, i.label) for i in filled] == [
        (0.0, 1.0, "sil"),
        (1.0, 2.0, "a"),
        (2.0, 3.0, "b"),
        (3.0, 4.0, "sil"),
    ]


def test_praatio_reads_what_is_written(tmp_path: Path) -> None:
    textgrid = pytest.importorskip("praatio.textgrid", reason="praatio is not installed")
    tiers = {
        "words": [Interval(0.0, 0.5, 'say "no"'), Interval(0.5, 1.25, "")],
        "phones": [Interval(0.0, 0.5, "ˈæ"), Interval(0.5, 1.25, "sil")],
    }
    write_textgrid(tmp_path / "a.TextGrid", tiers, 1.25)
    grid = textgrid.openTextgrid(str(tmp_path / "a.TextGrid"), includeEmptyIntervals=True)
    assert list(grid.tierNames) == ["words", "phones"]
    assert grid.maxTimestamp == 1.25
    for name, intervals in tiers.items():
        read = [(e.start, e.end, e.label) for e in grid.getTier(name).entries]
        assert [(s, e) for s, e, _ in read] == [(i.start, i.end) for i in intervals]
    assert [e.label for e in grid.getTier("phones").entries] == ["ˈæ", "sil"]
