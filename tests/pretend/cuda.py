"""What `torch.cuda` offers, of the pretend device."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import torch
import torch.cuda.amp.common as amp
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from tests.pretend.device import DEVICE, CudaTensor, Device, Dispatch, Recording, bare, plain
from tests.pretend.guard import DEVICES


class Functions(TorchFunctionMode):
    """What is done below every dispatch mode: `torch.tensor(..., device="cuda")`, lists."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if args and isinstance(args[0], CudaTensor):
            if func is torch.Tensor.tolist:
                DEVICE.wait("tolist")
                return args[0].held.tolist()
            if func in (torch.Tensor.numpy, torch.Tensor.__array__):
                raise TypeError("can't convert cuda:0 device type tensor to numpy")
            if func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__):
                # A list becomes a tensor, and is then sent.
                index = args[1] if isinstance(args[1], tuple) else (args[1],)
                listed = tuple(torch.tensor(i) if isinstance(i, list) else i for i in index)
                args = (args[0], listed if isinstance(args[1], tuple) else listed[0], *args[2:])
            if func is torch.stft:
                # Its Python decomposition changes shapes in place; on a GPU it is a pad and an FFT.
                DEVICE.launch("stft", 3)
                with plain():
                    given = {name: bare(value) for name, value in kwargs.items()}
                    return CudaTensor(func(*map(bare, args), **given), args[0].device.index)
            if getattr(func, "__name__", "") == "lstm":
                # Taken apart it is ten kernels a time step; on a GPU it is one call of cuDNN.
                DEVICE.launch("lstm")
                index = args[0].device.index
                with plain():
                    out = func(*tree_map(bare, args), **tree_map(bare, kwargs))
                return tree_map(lambda x: CudaTensor(x, index), out)
        if func in (torch.tensor, torch.as_tensor, torch.asarray):
            asked = torch.device(kwargs.pop("device", None) or torch.get_default_device())
            with plain():
                made = func(*args, **kwargs)
            return made if made.device == asked else made.to(asked)
        return func(*args, **kwargs)


class PretendEvent:
    """Of the copies that were asked for before it was recorded."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self._number = 0

    def record(self, stream: Any = None) -> None:
        self._number = DEVICE.mark()

    def synchronize(self) -> None:
        DEVICE.arrive(self._number)

    def query(self) -> bool:
        return False

    def wait(self, stream: Any = None) -> None:
        pass

    def elapsed_time(self, other: Any) -> float:
        return 0.0


class PretendStream:
    """The one stream of a device."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.device = torch.device("cuda", DEVICE.current)

    def synchronize(self) -> None:
        DEVICE.wait("stream.synchronize")

    def wait_stream(self, other: Any) -> None:
        pass

    def wait_event(self, event: Any) -> None:
        pass

    def record_event(self, event: Any = None) -> Any:
        event = event or PretendEvent()
        event.record()
        return event


class PretendGraph:
    """Recorded once, replayed as one launch."""

    def __init__(self) -> None:
        self.recording = Recording()

    def replay(self) -> None:
        DEVICE.launch("graph")
        self.recording.replay()


@contextlib.contextmanager
def _record(graph: PretendGraph) -> Iterator[None]:
    DEVICE.recording = graph.recording
    try:
        yield
    finally:
        DEVICE.recording = None
    graph.recording.finish()


MEMORY = (("memory", "allocated"), ("memory", "reserved"), ("max_memory", "allocated"))


def _set_device(device: Any) -> None:
    DEVICE.current = device if isinstance(device, int) else torch.device(device).index or 0


@contextlib.contextmanager
def pretend_cuda() -> Iterator[Device]:
    """Inside, `cuda` is there; what is counted starts at 0."""
    DEVICE.reset()
    DEVICE.current = 0
    state = torch.Generator().get_state()
    nothing = {"_lazy_init", "empty_cache", "manual_seed", "manual_seed_all", "set_rng_state"}
    replaced: dict[str, Callable[..., Any]] = {
        **{name: lambda *_, **__: None for name in nothing | {"reset_peak_memory_stats"}},
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "is_current_stream_capturing": lambda: False,
        "device_count": lambda: DEVICES,
        "current_device": lambda: DEVICE.current,
        "set_device": _set_device,
        "synchronize": lambda *_: DEVICE.wait("torch.cuda.synchronize"),
        "current_stream": PretendStream,
        "default_stream": PretendStream,
        "Stream": PretendStream,
        "Event": PretendEvent,
        "stream": lambda _: contextlib.nullcontext(),
        "CUDAGraph": PretendGraph,
        "graph": _record,
        "mem_get_info": lambda *_: (120_000_000_000, 141_000_000_000),
        **{f"{name}_{kind}": lambda *_: 0 for name, kind in MEMORY},
        "get_device_capability": lambda *_: DEVICE.capability,
        "get_device_name": lambda *_: "pretend H200",
        "is_bf16_supported": lambda including_emulation=True: (
            including_emulation or DEVICE.capability >= (8, 0)
        ),
        "get_rng_state": lambda *_: state,
    }
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    # A parameter that says `cuda:0` cannot be put into one of the CPU in place.
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    with contextlib.ExitStack() as stack:
        for name, value in replaced.items():
            stack.enter_context(patch.object(torch.cuda, name, value))
        stack.enter_context(patch.object(amp, "amp_definitely_not_available", lambda: False))
        # The product looks for the driver's file before it imports torch.
        stack.enter_context(patch("cache.encoders.device._cuda_is_usable", lambda: True))
        stack.enter_context(Functions())
        stack.enter_context(Dispatch())  # type: ignore[no-untyped-call]
        try:
            yield DEVICE
            DEVICE.check_pending()
        finally:
            torch.__future__.set_overwrite_module_params_on_conversion(before)
