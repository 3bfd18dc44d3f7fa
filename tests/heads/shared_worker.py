"""A process of a shared study, for tests: `python -m tests.heads.shared_worker URL FOLDER …`."""

from __future__ import annotations

import sys
import time
import warnings
from pathlib import Path

from heads.config import SearchConfig, SharedStudy
from heads.training import Cohort
from tests.heads.searches import small_search


def quick(config: SearchConfig) -> SharedStudy | None:
    """Heartbeats of a second, and death after a few."""
    return SharedStudy(config.storage, config.study_name, 1, 4) if config.storage else None


def main(url: str, folder: str, trials: str, hang_after: str, speed: str = "") -> None:
    """Search; after some epochs of training say so, and hang until killed."""
    warnings.simplefilter("error")
    if speed:
        SearchConfig.shared = property(quick)  # type: ignore[method-assign,assignment]
    left = int(hang_after)
    train = Cohort.run_epoch

    def run_epoch(cohort: Cohort) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            Path(folder).with_suffix(".hangs").touch()
            time.sleep(600)
        train(cohort)

    if left:
        Cohort.run_epoch = run_epoch  # type: ignore[method-assign,assignment]
    report = small_search(Path(folder), int(trials), storage=url, cohort=5, epochs=3)
    sys.stdout.write(f"{report.added} {report.completed + report.halved} {report.best.trial}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
