"""One study and several processes: nothing lost, nothing twice, N means N in all."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import optuna
import pytest
from optuna.trial import FrozenTrial, Trial, TrialState

from corpora.base.errors import CacheError, ConfigError, MissingExtraError
from heads.config import STUDY_NAME, SearchConfig, SharedStudy
from heads.records import load_head, trial_file
from heads.search.space import PROBES, Space, trial_configs
from heads.search.storage import close
from heads.search.study import HeadStudy
from tests.heads import shared_worker
from tests.heads.searches import BEGINNINGS, STARTED, finished, small_dataset, small_search, untimed
from tests.postgres import postgres

ROOT = Path(__file__).parents[2]


def start(
    url: str, folder: Path, trials: int, hang_after: int = 0, *more: str
) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.heads.shared_worker", url, str(folder)]
    return subprocess.Popen(
        [*command, str(trials), str(hang_after), *more],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )


def trials_at(url: str, name: str = STUDY_NAME) -> list[FrozenTrial]:
    storage = optuna.storages.RDBStorage(url)
    trials = optuna.load_study(study_name=name, storage=storage).get_trials()
    close(storage)
    return trials


def check_all_done(trials: list[FrozenTrial], count: int) -> None:
    done = finished(trials)
    assert len(done) == count
    assert {trial.state for trial in trials} <= {
        TrialState.COMPLETE,
        TrialState.PRUNED,
        TrialState.FAIL,
    }
    names = Counter(trial.user_attrs.get("start") for trial in done)
    assert {name: names[name] for name in BEGINNINGS} == dict.fromkeys(BEGINNINGS, 1)
    drawn = {tuple(sorted(trial.params.items())) for trial in done}
    assert len(drawn) == count
    # What was given up was run again.
    given_up = [trial for trial in trials if trial.state == TrialState.FAIL and trial.params]
    assert {tuple(sorted(trial.params.items())) for trial in given_up} <= drawn


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SearchConfig, "shared", property(shared_worker.quick))


def wait_for(sign: Path, process: subprocess.Popen[str]) -> None:
    """Wait until a process says that it hangs."""
    end = time.monotonic() + 300
    while not sign.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.1)
    assert sign.exists()


@pytest.mark.parametrize("same_folder", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_two_processes_make_n_trials_in_all(same_folder: bool, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    folders = [tmp_path / "one" / "search", tmp_path / ("one" if same_folder else "two") / "search"]
    processes = [start(url, folder, STARTED + 6) for folder in folders]
    said = [process.communicate(timeout=300)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    trials = trials_at(url)
    check_all_done(trials, STARTED + 6)
    assert sum(int(added) for added, _, _ in said) == STARTED + 6
    assert {total for _, total, _ in said} == {str(STARTED + 6)}
    # Both end with the same winner, whoever trained it, and have its weights.
    assert len({best for _, _, best in said}) == 1
    for folder in folders:
        assert load_head(folder)[1].trial == int(said[0][2])
        assert trial_file(folder, int(said[0][2])).is_file()


@pytest.mark.usefixtures("quick")
def test_trials_of_a_killed_process_are_run_by_another(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    process = start(url, tmp_path / "killed", STARTED + 2, hang_after=2)
    wait_for(tmp_path / "killed.hangs", process)
    running = [trial for trial in trials_at(url) if trial.state == TrialState.RUNNING]
    assert len(running) == len(PROBES)
    process.kill()
    process.communicate()
    report = small_search(tmp_path / "alive", STARTED + 2, storage=url, cohort=5, epochs=3)
    assert report.added == report.completed + report.halved == STARTED + 2
    trials = trials_at(url)
    check_all_done(trials, STARTED + 2)
    again = {tuple(sorted(trial.params.items())): trial for trial in finished(trials)}
    for trial in running:
        same = again[tuple(sorted(trial.params.items()))]
        assert untimed(same) == untimed(trial)


@pytest.mark.slow
def test_of_four_workers_of_a_postgresql_study_two_are_killed_and_nothing_is_lost(
    tmp_path: Path,
) -> None:
    """Four at once: two that hang with trials in hand until they are killed, and two that go on."""
    count = STARTED + 8
    with postgres() as url, ExitStack() as ends:

        def begin(name: str, hang_after: int) -> subprocess.Popen[str]:
            process = start(url, tmp_path / name, count, hang_after, "quick")
            ends.callback(process.communicate)
            ends.callback(process.kill)
            return process

        killed = [begin(f"killed{number}", 2 + number) for number in range(2)]
        for number, process in enumerate(killed):
            wait_for(tmp_path / f"killed{number}.hangs", process)
        held = [trial for trial in trials_at(url) if trial.state == TrialState.RUNNING]
        alive = [begin(f"alive{number}", 0) for number in range(2)]
        end = time.monotonic() + 300
        while not finished(trials_at(url)) and time.monotonic() < end:
            time.sleep(0.1)
        for process in killed:
            process.kill()
        said = [process.communicate(timeout=300)[0].split() for process in alive]
        assert [process.returncode for process in alive] == [0, 0]
        trials = trials_at(url)
    check_all_done(trials, count)
    again = {tuple(sorted(trial.params.items())): trial for trial in finished(trials)}
    assert held
    for trial in held:  # with the same values and seed
        same = again[tuple(sorted(trial.params.items()))]
        assert untimed(same) == untimed(trial)
    assert [total for _, total, _ in said] == [str(count)] * 2
    assert len({best for _, _, best in said}) == 1


def take(study: HeadStudy, count: int, total: int) -> list[int]:
    space = Space.of(small_dataset())

    def draw(trial: Trial, seed: int) -> int:
        trial_configs(trial, space, seed)
        return trial.number

    return study.ask(count, draw, total=total)


def test_a_process_that_was_taken_for_dead_changes_nothing(tmp_path: Path) -> None:
    shared = SharedStudy(f"sqlite:///{tmp_path / 'study.db'}", heartbeat=1, grace=1)
    with HeadStudy(tmp_path, {}, 0, shared=shared) as slow:
        space = Space.of(small_dataset())
        held = slow.ask(1, lambda t, seed: (trial_configs(t, space, seed), t)[1], total=9)
        slow._heart.stop()  # as when the machine sleeps: no heartbeats
        time.sleep(2.5)
        with HeadStudy(tmp_path, {}, 0, shared=shared) as other:
            other.wait()
            assert [t.state for t in other.trials] == [TrialState.FAIL, TrialState.WAITING]
            assert take(other, 1, total=9) == [1]
            slow.report(held[0], 0.5, 1)
            slow.complete(held[0], 0.9)
            assert other.finished == 0
    assert Counter(t.state for t in trials_at(shared.url)) == {
        TrialState.FAIL: 2,
        TrialState.WAITING: 1,
    }


def test_what_a_dead_process_left_comes_before_the_rest_of_the_queue(tmp_path: Path) -> None:
    shared = SharedStudy(f"sqlite:///{tmp_path / 'study.db'}", heartbeat=1, grace=1)
    starts = {str(number): {"rate": number} for number in range(5)}

    def rate(trial: Trial, seed: int) -> tuple[int, int, int]:
        return trial.number, trial.suggest_int("rate", 0, 9), seed

    with HeadStudy(tmp_path, {}, 0, starts, shared=shared) as dead:
        left = dead.ask(2, rate, total=9)
        dead._heart.stop()
        time.sleep(2.5)
        with HeadStudy(tmp_path, {}, 0, starts, shared=shared) as other:
            other.wait()
            again = other.ask(3, rate, total=9)
        assert [(value, seed) for _, value, seed in again[1:]] == [one[1:] for one in left]
        assert [number for number, _, _ in again] == [2, 5, 6]  # 2 is the next in the queue


def test_trials_taken_in_excess_are_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = SharedStudy(f"sqlite:///{tmp_path / 'study.db'}")
    with (
        HeadStudy(tmp_path, {}, 0, shared=shared) as one,
        HeadStudy(tmp_path, {}, 0, shared=shared) as two,
    ):
        assert take(one, 5, total=3) == [0, 1, 2]
        # As when both looked at the same moment: the second believes that there is room.
        monkeypatch.setattr(HeadStudy, "taken", property(lambda self: 0))
        assert take(two, 5, total=3) == []
        assert not two._heart.held
        monkeypatch.undo()
        assert one.taken == 3


def test_two_processes_draw_different_trials(tmp_path: Path) -> None:
    shared = SharedStudy(f"sqlite:///{tmp_path / 'study.db'}")
    with (
        HeadStudy(tmp_path, {}, 0, shared=shared) as one,
        HeadStudy(tmp_path, {}, 0, shared=shared) as two,
    ):
        take(one, 1, total=9)
        take(two, 1, total=9)
        first, second = one.trials
        assert first.params != second.params


def test_studies_of_one_database_have_names(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    small_search(tmp_path / "one", 1, storage=url, epochs=1)
    with pytest.raises(ConfigError, match="--study-name"):
        small_search(tmp_path / "two", 1, storage=url, epochs=2)
    small_search(tmp_path / "two", 1, storage=url, epochs=2, study_name="longer")
    assert len(finished(trials_at(url, "longer"))) == 1


def test_a_folder_with_the_heads_of_another_study_is_refused(tmp_path: Path) -> None:
    small_search(tmp_path / "search", 1, epochs=1)
    url = f"sqlite:///{tmp_path / 'study.db'}"
    with pytest.raises(ConfigError, match="another study"):
        small_search(tmp_path / "search", 1, epochs=1, storage=url)
    small_search(tmp_path / "search", 1, epochs=1, storage=url, fresh=True)


@pytest.mark.parametrize(
    ("url", "error", "message"),
    [
        ("study.db", ConfigError, "not a database URL"),
        ("postgresql+pg8000://user:secret@host/db", MissingExtraError, "driver"),
        ("sqlite:////no/such/folder/study.db", CacheError, "cannot be used"),
    ],
)
def test_a_storage_that_cannot_be_used_is_refused(
    url: str, error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message) as caught:
        small_search(tmp_path / "search", 1, storage=url)
    assert "secret" not in str(caught.value)


@pytest.mark.slow
def test_a_queued_trial_is_taken_by_one_process_only(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    taker = (
        "import sys; from pathlib import Path\n"
        "from heads.search.study import HeadStudy, SharedStudy\n"
        "url, folder = sys.argv[1:]\n"
        "with HeadStudy(Path(folder), {}, 0, shared=SharedStudy(url)) as study:\n"
        "    sys.stdin.readline()\n"
        "    print(*study.ask(60, lambda trial, seed: trial.number, total=60))\n"
        "    sys.stdout.flush(); sys.stdin.readline()\n"
    )
    published = {str(number): {"rate": number} for number in range(60)}
    with HeadStudy(tmp_path, {}, 0, published, shared=SharedStudy(url)):
        pass
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", taker, url, str(tmp_path)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    taken = []
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        assert process.stdout is not None
        taken += [int(number) for number in process.stdout.readline().split()]
    for process in processes:
        process.communicate("\n", timeout=60)
    assert sorted(taken) == list(range(60))
