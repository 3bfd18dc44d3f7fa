"""Progress: a bar says what is done, however much that is, in units that fit."""

import pytest

from corpora.base.terminal import AUDIO, progress_bar, time_text


@pytest.mark.parametrize(("unit", "said"), [(AUDIO, "5.0/5.0 s of audio"), ("step", "5/5 step")])
@pytest.mark.parametrize("total", [0, 2, 4.2])
def test_more_than_was_foreseen_is_no_error(
    capsys: pytest.CaptureFixture[str], unit: str, said: str, total: float
) -> None:
    """As where a search takes up trials of a cohort that was killed."""
    with progress_bar("doing", total, unit) as bar:
        bar.update(1)
        bar.update(4)
        bar.set_postfix_str("the best so far")
    assert "doing: 100%" in (err := capsys.readouterr().err)
    assert said in err


@pytest.mark.parametrize(
    ("total", "done", "said"),
    [
        (119, 60, "60.0/119.0 s of audio"),
        (942, 471, "7.8/15.7 min of audio"),
        (280_800, 3600, "1.0/78.0 h of audio"),
    ],
)
def test_audio_is_counted_in_a_unit_that_fits(
    capsys: pytest.CaptureFixture[str], total: float, done: float, said: str
) -> None:
    with progress_bar("doing", total, AUDIO) as bar:
        bar.update(done)
        bar.set_postfix_str("20× real time")
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0.0 s"), (119.9, "119.9 s"), (120, "2.0 min"), (7200, "2.0 h"), (3.6e7, "10,000.0 h")],
)
def test_times_have_a_unit_that_fits(seconds: float, said: str) -> None:
    assert time_text(seconds) == said
