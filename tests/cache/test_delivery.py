"""Delivery: pieces arrive where they belong, converted as torch converts, sums checked."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import cache.store.delivery
from cache.store.delivery import Piece, deliver, new_tensor
from cache.stream import FrameStream
from corpora.base.errors import CacheError
from tests.cache.streams import add, make_stream, utterances

DTYPES = [torch.float16, torch.float32, torch.bfloat16]


@settings(max_examples=60)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=12),
    dtype=st.sampled_from(DTYPES),
    pinned_rows=st.integers(1, 50),
    block_rows=st.integers(1, 50),
    threads=st.booleans(),
    upload=st.booleans(),
    seed=st.integers(0, 99),
)
def test_pieces_arrive_where_they_belong(
    lengths: list[int],
    dtype: torch.dtype,
    pinned_rows: int,
    block_rows: int,
    threads: bool,
    upload: bool,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    source = rng.uniform(-99, 99, (sum(lengths), 4)).astype(np.float16)
    source.setflags(write=False)  # as maps are
    offsets = np.cumsum([0, *lengths])
    pieces = [
        Piece(source[offsets[i] : offsets[i + 1]], int(offsets[i]))
        for i in rng.permutation(len(lengths))
    ]
    out = new_tensor(sum(lengths), 4, dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache.store.delivery, "_PINNED_BYTES", pinned_rows * 8)
        patch.setattr(cache.store.delivery, "_BLOCK_BYTES", block_rows * 8)
        patch.setattr(cache.store.delivery, "_SERIAL_ELEMENTS", 7)
        patch.setattr(cache.store.delivery, "_THREADED_BYTES", 0 if threads else 10**9)
        # The path to a GPU, into memory: all but the pinning and the events.
        (cache.store.delivery._upload if upload else deliver)(iter(pieces), out)
    assert torch.equal(out, torch.from_numpy(source.copy()).to(dtype))


def test_extreme_values_convert_as_torch_converts_them() -> None:
    bits = np.arange(65_536, dtype=np.uint16).view(np.float16)[:, None]
    for dtype in DTYPES:
        out = new_tensor(len(bits), 1, dtype)
        deliver([Piece(bits, 0)], out)
        expected = torch.from_numpy(bits).to(dtype)
        assert torch.equal(out.nan_to_num(), expected.nan_to_num())
        assert torch.equal(out.isnan(), expected.isnan())


@pytest.mark.parametrize("threaded", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_damage_is_found_while_converting(
    tmp_path: Path, dtype: torch.dtype, threaded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache.store.delivery, "_THREADED_BYTES", 0 if threaded else 10**9)
    stream = make_stream(tmp_path)
    add(stream, utterances(9, seed=1))
    part = add(stream, utterances(9, seed=2))
    data = bytearray((part / "c/0/0").read_bytes())
    data[-9] ^= 4
    (part / "c/0/0").write_bytes(data)
    opened = FrameStream.open(stream)
    with pytest.raises(CacheError, match=part.name):
        opened.load(dtype=dtype)
    assert len(opened.load(opened.keys[:9], dtype=dtype)) == 9


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
def test_frames_arrive_on_a_gpu(tmp_path: Path, dtype: torch.dtype) -> None:
    stream = make_stream(tmp_path, dim=64)
    values = utterances(500, dim=64)
    add(stream, values)
    for keys in (list(values), list(values)[400:7:-3]):
        on_gpu = FrameStream.open(stream).load(keys, device="cuda", dtype=dtype)
        expected = FrameStream.open(stream).load(keys, dtype=dtype)
        assert torch.equal(on_gpu.values.cpu(), expected.values)
