"""Where frames are kept follows from the sizes, and is said with the figures."""

from pathlib import Path

import pytest

import cache.mapped
from cache.mapped import choose_residence, free_bytes

GB = 10**9


@pytest.mark.parametrize(
    ("nbytes", "gpu", "memory", "place"),
    [
        (29 * GB, 140 * GB, 16 * GB, "gpu"),
        (29 * GB, 40 * GB, 128 * GB, "memory"),
        (29 * GB, None, 128 * GB, "memory"),
        (29 * GB, 40 * GB, 32 * GB, "disk"),
        (29 * GB, None, 32 * GB, "disk"),
        (0, None, 0, "memory"),
    ],
)
def test_the_fastest_place_that_has_room_is_chosen(
    nbytes: int, gpu: int | None, memory: int, place: str
) -> None:
    device = "cpu" if gpu is None else "cuda"
    free = {"cpu": memory, "cuda": gpu or 0}
    chosen = choose_residence(nbytes, device, free=lambda name: free[name])
    assert chosen.place == place


def test_the_sentence_has_the_figures() -> None:
    free = {"cpu": 32 * GB, "cuda": 40 * GB}
    assert str(choose_residence(120 * GB, "cuda", free=free.__getitem__)) == (
        "Frames are read from disk as they are needed: 120 GB do not fit into 32.0 GB of free "
        "memory and 40.0 GB of GPU memory."
    )
    assert str(choose_residence(2 * GB, "cuda", free=free.__getitem__)) == (
        "Frames are kept on the GPU: 2.00 GB, with 40.0 GB of GPU memory free."
    )
    assert str(choose_residence(2 * GB, "cpu", free=free.__getitem__)) == (
        "Frames are kept in memory: 2.00 GB, with 32.0 GB free."
    )


def test_a_container_has_no_more_than_its_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert free_bytes("cpu") > 0
    monkeypatch.setattr(cache.mapped, "_CGROUP", tmp_path)
    monkeypatch.setattr(cache.mapped, "_MEMINFO", tmp_path / "meminfo")
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:   8000000 kB\n")
    assert free_bytes("cpu") == 8_192_000_000
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000000000\n")
    assert free_bytes("cpu") == 8_192_000_000
    (tmp_path / "memory.max").write_text("3000000000\n")
    (tmp_path / "memory.stat").write_text("anon 5\ninactive_file 500000000\n")
    assert free_bytes("cpu") == 2_500_000_000
