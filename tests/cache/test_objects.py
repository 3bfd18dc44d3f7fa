"""A cache in an object store: what is there and here, who sees it, and who is killed."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cache.extract.claims
from cache.extract.claims import Claimed, open_claims
from cache.store import remote as remotes
from cache.store.copies import copied_bytes, is_uploaded, open_matrix
from cache.store.mirror import connect, pull, push, refuse_if_claimed
from cache.store.remote import Remote, remote_of
from cache.stream import FrameStream
from cache.upkeep.compact import compact
from cache.upkeep.prune import apply, plan_for_keys
from cache.upkeep.verify import verify
from corpora.base.errors import (
    CacheError,
    ConfigError,
    FormatVersionError,
    MissingExtraError,
    ObjectStoreError,
)
from corpora.base.work import Rank, Work
from corpora.manifest import Manifest, write_manifest
from tests.cache.extractors import Extractors, extractors, wait_until
from tests.cache.object_server import BUCKET, needs_server, object_server
from tests.cache.streams import RECIPE, Array, add, make_stream, utterances
from tests.cache.test_crash import arguments, assert_equal, whole

__all__ = ["whole"]  # a fixture


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, str]]:
    with object_server() as found:
        yield found


@pytest.fixture
def url(
    server: dict[str, str], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> str:
    """Of a store with nothing in it."""
    for name, value in server.items():
        monkeypatch.setenv(name, value)
    remotes._store_of.cache_clear()
    return f"s3://{BUCKET}/{request.node.name}"


def filled(work: Path, parts: int = 3) -> dict[str, Array]:
    """A stream of some parts of 10 utterances."""
    stream = make_stream(work)
    values: dict[str, Array] = {}
    for number in range(parts):
        some = utterances(10, seed=number + 1)
        add(stream, some)
        values |= some
    return values


def layer(work: Path) -> Path:
    return work / "features.zarr" / RECIPE.folder / "layer_24"


def parts_of(work: Path) -> list[Path]:
    return sorted(layer(work).glob("part-*"))


def assert_holds(work: Path, values: dict[str, Array]) -> None:
    stream = FrameStream.open(layer(work))
    assert set(stream.keys) == set(values)
    for key, frames in values.items():
        np.testing.assert_array_equal(stream.read(key), frames)


def test_what_is_no_object_store_is_refused(tmp_path: Path) -> None:
    for wrong in ("bucket/prefix", "http://host/bucket", "s3://", "s3:/bucket"):
        with pytest.raises(ConfigError, match="no object store; expected one of s3://"):
            connect(Work(tmp_path / "work"), wrong, None)
    with pytest.raises(CacheError, match="connected to no object store"):
        connect(Work(tmp_path / "work"), None, None)
    assert not (tmp_path / "work").exists()


def test_without_the_package_it_is_said_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(MissingExtraError, match=r"'\.\[objects\]'"):
        connect(Work(tmp_path / "work"), "s3://bucket/prefix", None)


@needs_server
def test_what_one_machine_makes_another_reads(url: str, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    values = filled(one, 2)
    there = connect(Work(one), url, None)  # what was there before
    assert (there.parts, there.sent) == (2, there.nbytes)
    more = utterances(10, seed=9)
    add(layer(one), more)  # what is added then
    assert all(is_uploaded(part) for part in parts_of(one))
    assert connect(Work(two), url, None).copied == 0
    assert copied_bytes(two) == 0  # frames come when they are read
    assert set(FrameStream.open(layer(two)).keys) == {*values, *more}
    assert copied_bytes(two) == 0
    assert_holds(two, values | more)
    assert verify(Work(two)).ok
    assert copied_bytes(two) == copied_bytes(one) > 0


@needs_server
def test_any_zarr_reader_opens_it_there(url: str, tmp_path: Path) -> None:
    import zarr
    from obstore.store import from_url
    from zarr.storage import ObjectStore

    values = filled(tmp_path, 1)
    connect(Work(tmp_path), url, None)
    (part,) = parts_of(tmp_path)
    group = zarr.open_group(ObjectStore(from_url(f"{url}/features.zarr")), mode="r")
    assert group.attrs["format"] == "emopool-features"
    array: Any = group[part.relative_to(tmp_path / "features.zarr").as_posix()]
    np.testing.assert_array_equal(array[:], np.concatenate(list(values.values())))


@needs_server
def test_what_has_no_commit_is_not_there_and_is_sent_the_next_time(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    before = filled(one, 1)
    connect(Work(one), url, None)
    put = Remote.put

    def killed(self: Remote, name: str, *given: object, **more: object) -> bool:
        if "/part-" in name and name.endswith("zarr.json"):
            raise KeyboardInterrupt
        return put(self, name, *given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Remote, "put", killed)
    after = utterances(10, seed=9)
    with pytest.raises(KeyboardInterrupt):
        add(layer(one), after)
    monkeypatch.setattr(Remote, "put", put)
    assert_holds(one, before | after)  # here it is stored
    connect(Work(two), url, None)
    assert_holds(two, before)  # there its matrix is, and nobody sees it
    assert push(one) > 0
    pull(two)
    assert_holds(two, before | after)


@needs_server
def test_copies_take_no_more_than_the_limit(url: str, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    values = filled(one, 6)
    nbytes = connect(Work(one), url, None).nbytes
    largest = max((part / "c/0/0").stat().st_size for part in parts_of(one))
    connect(Work(two), url, 2 * largest)
    for key in values:  # each stream keeps one map open
        np.testing.assert_array_equal(FrameStream.open(layer(two)).read(key), values[key])
        assert copied_bytes(two) <= 2 * largest < nbytes
    # What was used longest ago goes, and never what is open.
    first = parts_of(two)[0]
    with open_matrix(str(first)) as file:
        for part in parts_of(two)[1:]:
            open_matrix(str(part)).close()
            assert (first / "c/0/0").is_file()
            assert copied_bytes(two) <= 2 * largest
        assert len(file.read()) == (first / "c/0/0").stat().st_size
    connect(Work(one), None, largest)
    add(layer(one), utterances(10, seed=9))  # what was sent may go where it was made
    assert copied_bytes(one) <= largest


@needs_server
def test_what_is_removed_or_merged_there_is_so_everywhere(url: str, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    values = filled(one, 3)
    connect(Work(one), url, None)
    connect(Work(two), url, None)
    stream = FrameStream.open(layer(two))
    assert len(compact(Work(one)).streams) == 1
    for key in values:  # the parts that it knows are gone
        np.testing.assert_array_equal(stream.read(key), values[key])
    assert [part.name for part in parts_of(two)] == [part.name for part in parts_of(one)]
    assert len(parts_of(one)) == 1
    kept = add(layer(two), utterances(10, seed=9))
    pull(one)
    plan = plan_for_keys(Work(one), frozenset(utterances(10, seed=9)))
    assert apply(Work(one), plan).parts == 1
    pull(two)
    assert parts_of(two) == [kept]
    remote = remote_of(one)
    assert remote is not None
    assert len([name for name in remote.list("features.zarr") if "/part-" in name]) == 2


@needs_server
def test_damage_is_mended_from_there_and_found_there(url: str, tmp_path: Path) -> None:
    one, two = Work(tmp_path / "one"), Work(tmp_path / "two")
    values = filled(one.root, 2)
    connect(one, url, None)
    connect(two, url, None)
    assert verify(two).ok
    chunk = parts_of(two.root)[0] / "c/0/0"
    right = chunk.read_bytes()
    chunk.write_bytes(bytes([right[0] ^ 1]) + right[1:])
    (problem,) = verify(two).problems
    assert "CRC-32C" in problem.reason
    assert verify(two, fix=True).ok
    assert_holds(two.root, values)
    remote = remote_of(one.root)
    assert remote is not None
    remote.put(remote.name(parts_of(one.root)[0] / "c/0/0"), b"short", new=False)
    (parts_of(two.root)[0] / "c/0/0").unlink()
    assert "ended early" in verify(two).problems[0].reason
    assert verify(two, fix=True).problems[0].remedy == "dropped"
    assert len(parts_of(two.root)) == 1
    pull(one.root)
    assert len(parts_of(one.root)) == 1  # what has to be extracted again


@needs_server
def test_another_url_is_sent_what_is_here(url: str, tmp_path: Path) -> None:
    one, two = Work(tmp_path / "one"), Work(tmp_path / "two")
    values = filled(one.root, 3)
    connect(one, url, None)
    connect(two, url, None)
    first = next(iter(values))
    FrameStream.open(layer(two.root)).read(first)
    assert connect(two, f"{url}-other", None).parts == 1  # two were not here
    assert first in FrameStream.open(layer(two.root))
    assert len(parts_of(one.root)) == 3
    (two.root / "remote.json").unlink()
    assert connect(two, f"{url}-third", None).parts == 1
    assert connect(two, url, None).parts == 3
    (two.root / "remote.json").unlink()
    with pytest.raises(ObjectStoreError, match="not connected to it any more"):
        FrameStream.open(layer(two.root)).load()


@needs_server
def test_what_is_wrong_there_is_said(url: str, tmp_path: Path) -> None:
    work = Work(tmp_path / "work")
    with pytest.raises(ObjectStoreError, match="NoSuchBucket"):
        connect(work, "s3://nobody/prefix", None)
    assert not work.root.exists()
    filled(work.root, 1)
    connect(work, url, None)
    remote = remote_of(work.root)
    assert remote is not None
    group = {"zarr_format": 3, "node_type": "group", "attributes": {"format": "x", "version": 7}}
    remote.put("features.zarr/zarr.json", json.dumps(group).encode(), new=False)
    with pytest.raises(FormatVersionError, match="'version': 7"):
        pull(work.root)
    remote.delete(list(remote.list("")))
    with pytest.raises(ObjectStoreError, match="holds no cache any more"):
        pull(work.root)
    assert len(parts_of(work.root)) == 1


@needs_server
def test_claims_are_held_by_one_and_end_with_the_dead(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = Remote(url, 1, tmp_path)
    connect(Work(tmp_path), url, None)
    every = range(8)
    with open_claims(remote, "x", Rank()) as one, open_claims(remote, "x", Rank()) as two:
        assert one.take(every) == list(every)
        assert two.take(every) == []
        assert not one.is_anyone_waiting()
        two.wait()
        monkeypatch.setattr(one, "_asked", -100.0)
        assert one.is_anyone_waiting()
        one.give([1, 3])
        assert two.take(every) == [1, 3]
        with pytest.raises(CacheError, match="in use by an extraction"):
            refuse_if_claimed(tmp_path)
    refuse_if_claimed(tmp_path)
    ranks = [Claimed(remote, "y", Rank(number, 2)) for number in range(2)]
    assert [rank.take(every) for rank in ranks] == [[0, 2, 4, 6], [1, 3, 5, 7]]
    assert ranks[1].take([0, 2, 4, 6]) == []
    monkeypatch.setattr(cache.extract.claims, "DEAD_S", 0.2)
    time.sleep(0.3)
    assert ranks[1].take([0, 2, 4, 6]) == [0, 2, 4, 6]  # the first gave no sign of life


@needs_server
def test_of_many_that_claim_at_once_each_share_is_held_by_one(url: str, tmp_path: Path) -> None:
    remote = Remote(url, 1, tmp_path)
    held: list[int] = []

    def claim(number: int) -> None:
        one = Claimed(remote, "z", Rank())
        one._begun = True
        for start in range(8):
            held.extend(one.take([(start + number) % 8]))

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(held) == list(range(8))


@pytest.fixture(scope="module")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Extractors]:
    with extractors(tmp_path_factory.mktemp("extractors") / "log") as found:
        yield found


@needs_server
@pytest.mark.slow
def test_two_machines_that_are_killed_end_with_each_utterance_once(
    url: str,
    tmp_path: Path,
    server: dict[str, str],
    launcher: Extractors,
    whole: tuple[Work, Manifest],
) -> None:
    machines = []
    for name in ("one", "two"):
        work = Work(tmp_path / name)
        shutil.copytree(whole[0].encoders, work.encoders)
        write_manifest(whole[1], work.manifest)
        connect(work, url, None)
        machines.append(work)
    remote = Remote(url, 1, tmp_path)

    def committed() -> int:
        names = remote.list("features.zarr")
        return sum("/layer_" in name and name.endswith("c/0/0") for name in names)

    for kill in range(3):
        pids = [launcher.start(arguments(work), PAUSE="0.05", **server) for work in machines]
        least = committed() + 2
        wait_until(lambda least=least: committed() >= least, "parts")  # type: ignore[misc]
        assert launcher.kill(pids[kill % 2]) == -signal.SIGKILL
        assert (
            launcher.wait(pids[1 - kill % 2]) == 0
            if kill == 2
            else launcher.kill(pids[1 - kill % 2])
        )
    for work in machines:
        launcher.run(arguments(work), **server)
        assert_equal(work, *whole)
    third = Work(tmp_path / "three")
    connect(third, url, None)
    assert verify(third).ok
    # What a killed one had stored and not sent, the other may have made too: copies nobody reads.
    compact(third)
    for stream in third.features.glob("*/*/"):
        keys = [key for part in FrameStream.open(stream)._index.parts for key in part.keys]
        assert len(keys) == len(set(keys)), stream
    assert push(machines[0].root) == push(machines[1].root) == 0
