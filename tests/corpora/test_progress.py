"""Progress: a bar says what is done, however much that is."""

import pytest

from corpora.base.terminal import progress_bar


@pytest.mark.parametrize(("unit", "said"), [("h", "5.00/5.00 h of audio"), ("step", "5/5 step")])
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
