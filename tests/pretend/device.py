"""A CUDA device that is none: tensors say `cuda:0` and hold the CPU's numbers.

So the product's CUDA branches run, with real numbers, and every operation passes through
`Device.call`, which

- refuses operands on two devices, as CUDA does (0-dimensional CPU scalars and index tensors pass);
- counts kernels (operations that are no views) and names each line where the host waits: `.item()`,
  boolean masks, `nonzero`, pageable copies, `torch.tensor(..., device="cuda")`, ...;
- delivers a copy into pinned memory only when an event or a synchronisation says that it arrived
  (until then the memory holds NaN), and raises where pinned memory is written to while a copy from
  it may be under way.

What it cannot see: cuBLAS, cuDNN, cuFFT and their limits, memory, speed, NCCL, numerics of real
kernels, and what C++ moves by itself.
"""

from __future__ import annotations

import collections
import contextlib
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_flatten, tree_map

# What the host waits for, besides copies and masks (`Device._count`).
WAITS = {
    *("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "_unique2"),
    *("unique_dim", "unique_consecutive", "bincount", "_linalg_check_errors", "allclose"),
    "multinomial",
}
# What launches nothing, besides views.
FREE = {
    *("detach", "alias", "lift_fresh", "is_pinned", "_unsafe_view", "_fused_sdp_choice"),
    *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"),
    *("sym_size", "set_"),
}
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}


OURS = {Path(__file__), Path(__file__).with_name("cuda.py")}


class MixedDevicesError(RuntimeError):
    """Operands of one operation lie on two devices."""


class RaceError(RuntimeError):
    """Pinned memory was written to while it was being sent."""


class CudaTensor(torch.Tensor):
    """Says `cuda:N`, and holds a tensor of the CPU."""

    held: torch.Tensor

    @staticmethod
    def __new__(
        cls: type[CudaTensor],
        real: torch.Tensor,
        index: int | None = None,
        requires_grad: bool = False,
    ) -> CudaTensor:
        made: CudaTensor = torch.Tensor._make_wrapper_subclass(
            cls,
            real.size(),
            strides=real.stride(),
            storage_offset=real.storage_offset(),
            dtype=real.dtype,
            device=torch.device("cuda", DEVICE.current if index is None else index),
            requires_grad=requires_grad,
        )
        made.held = real
        return made

    __torch_function__: Any = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return DEVICE.call(func, args, kwargs or {})

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"CudaTensor({self.held})"

    def __reduce_ex__(self, protocol: Any) -> Any:
        return (CudaTensor, (self.held, self.device.index, self.requires_grad))

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        made: Any = CudaTensor(self.held.clone(), self.device.index)
        if isinstance(self, torch.nn.Parameter):
            made = torch.nn.Parameter(made)
        memo[id(self)] = made.requires_grad_(self.requires_grad)
        return made


def where() -> str:
    """The innermost line that is the product's."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        foreign = any(part in name for part in ("site-packages", "/lib/python", "importlib"))
        if not foreign and not name.startswith("<") and Path(name) not in OURS:
            return f"{'/'.join(Path(name).parts[-3:])}:{frame.f_lineno}"
        frame = frame.f_back
    return "autograd or library"


@contextlib.contextmanager
def plain() -> Iterator[None]:
    """Below the modes: what runs here is the CPU's."""
    with _disable_current_modes():
        yield


def bare(value: Any) -> Any:
    """What a tensor of the device holds; anything else as it is."""
    return value.held if isinstance(value, CudaTensor) else value


@dataclass(frozen=True, eq=False)
class Copy:
    """One that may be under way: what was sent or will be delivered, and the line that asked."""

    number: int
    arrives_at_host: bool
    host: torch.Tensor
    data: torch.Tensor
    place: str


class Device:
    """Counts, copies under way and pinned memory, of all devices together."""

    def __init__(self) -> None:
        self.current = 0
        self.capability = (9, 0)
        self._lock = threading.RLock()
        # By the address of their storage, which is kept so that it stays unique.
        self._pinned: dict[int, Any] = {}
        self._composite: dict[Any, bool] = {}
        #: What a graph is made of while it is recorded.
        self.recording: Recording | None = None
        self.reset()

    def reset(self) -> None:
        """Count from 0."""
        self.kernels = 0
        self.sent_bytes = 0
        self.by_kernel: collections.Counter[str] = collections.Counter()
        self.by_place: collections.Counter[str] = collections.Counter()
        self.by_wait: collections.Counter[str] = collections.Counter()
        self.faults: collections.Counter[str] = collections.Counter()
        self.pending: list[Copy] = []
        self._number = 0

    @property
    def waits(self) -> int:
        """How often the host waited."""
        return sum(self.by_wait.values())

    def report(self, title: str, most: int = 12) -> str:
        """What was counted, for a person."""
        lines = [f"== {title}: {self.kernels} kernels, {self.waits} host waits"]
        for label, found in (("wait", self.by_wait), ("fault", self.faults)):
            lines += [f"   {label} {n:5} × {what}" for what, n in found.most_common(most)]
        lines += [f"   line {n:5} × {what}" for what, n in self.by_place.most_common(most)]
        return "\n".join(lines)

    def launch(self, name: str, kernels: int = 1) -> None:
        """Count a kernel; what is recorded is not launched."""
        if self.recording is not None:
            return
        self.kernels += kernels
        self.by_kernel[name] += kernels
        self.by_place[where()] += kernels

    def wait(self, why: str) -> None:
        """The host waits, for all copies too."""
        if self.recording is not None:
            raise RuntimeError(f"operation not permitted when stream is capturing: {why}")
        self.by_wait[f"{why} @ {where()}"] += 1
        self.arrive(self._number)

    # Copies

    def is_pinned(self, tensor: torch.Tensor) -> bool:
        return type(tensor) is torch.Tensor and tensor.untyped_storage().data_ptr() in self._pinned

    def pin(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        self._pinned[storage.data_ptr()] = storage
        return tensor

    def mark(self) -> int:
        """The number of the last copy: an event's."""
        return self._number

    def arrive(self, number: int) -> None:
        """All copies up to this one are done."""
        with self._lock:
            done = [copy for copy in self.pending if copy.number <= number]
            self.pending = [copy for copy in self.pending if copy.number > number]
            for copy in done:
                self._check(copy)
                if copy.arrives_at_host:
                    with plain(), torch.inference_mode():
                        copy.host.copy_(copy.data)

    def check_pending(self) -> None:
        """Raise if what is being sent was written to."""
        for copy in self.pending:
            self._check(copy)

    def _check(self, copy: Copy) -> None:
        if copy.arrives_at_host:
            return
        with plain():
            here, sent = (t.contiguous().view(torch.uint8) for t in (copy.host, copy.data))
            if not torch.equal(here, sent):
                raise RaceError(
                    f"pinned memory was written to while it was being sent: {copy.place}"
                )

    def _send(self, host: torch.Tensor, non_blocking: bool) -> None:
        assert self.recording is None, "a copy from the host would send the same at every replay"
        self._number += 1
        self.sent_bytes += host.nbytes
        self.launch("upload")
        if self.is_pinned(host) and non_blocking:
            with plain():
                self.pending.append(Copy(self._number, False, host, host.clone(), where()))
        else:
            self.wait("upload" + (" (pageable, non_blocking)" if non_blocking else ""))

    def _fetch(self, host: torch.Tensor, data: torch.Tensor, non_blocking: bool) -> None:
        self._number += 1
        self.launch("download")
        with plain():
            if non_blocking and self.is_pinned(host):
                self.pending.append(Copy(self._number, True, host, data.clone(), where()))
                whole = -1 if host.dtype not in (torch.uint8, torch.bool) else 1
                host.fill_(float("nan") if host.is_floating_point() else whole)
                return
            host.copy_(data)
        if non_blocking:
            self.faults[f"pageable memory may be read before it arrived @ {where()}"] += 1
        self.wait("download")

    # Operations

    def call(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Run an operation, wherever its operands lie."""
        if torch.is_inference_mode_enabled() and self._is_composite(func):
            # Inference mode hands composite operations over whole; their parts are wanted.
            with Dispatch():  # type: ignore[no-untyped-call]
                found = func.decompose(*args, **kwargs)
            if found is not NotImplemented:
                return found
        name = func._schema.name.removeprefix("aten::")
        flat = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, torch.Tensor)]
        on_gpu = [x for x in flat if isinstance(x, CudaTensor)]
        asked = kwargs.get("device")
        asked = None if asked is None else torch.device(asked)
        if name == "copy_":
            return self._copy(args, kwargs)
        if name in ("_to_copy", "to"):
            return self._to(func, args, kwargs, asked)
        if name == "is_pinned":
            return self.is_pinned(args[0])
        if name in ("_pin_memory", "pin_memory"):
            with plain():
                return self.pin(args[0].clone(memory_format=torch.contiguous_format))
        if name == "record_stream":
            return None
        if not on_gpu and (asked is None or asked.type != "cuda"):
            pin = kwargs.get("pin_memory")
            with plain():
                made = func(*args, **{k: v for k, v in kwargs.items() if k != "pin_memory"})
            return self.pin(made) if pin else made
        self._refuse_mixed(name, args, flat)
        return self._run(func, name, args, kwargs, flat, asked)

    def _run(
        self,
        func: Any,
        name: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        flat: Sequence[torch.Tensor],
        asked: torch.device | None,
    ) -> Any:
        """An operation of the device, or one that makes a tensor there."""
        index = next((x.device.index for x in flat if isinstance(x, CudaTensor)), self.current)
        there = asked is None or asked.type == "cuda"
        if asked is not None and asked.index is not None:
            index = asked.index
        if there and isinstance(kwargs.get("generator"), torch.Generator):
            self.faults[f"a CPU generator for a CUDA tensor: {name} @ {where()}"] += 1
        self._count(func, name, args, kwargs)
        if name == "_fused_sdp_choice":
            return 0

        def on_cpu(value: Any) -> Any:
            cuda = isinstance(value, torch.device) and value.type == "cuda"
            return torch.device("cpu") if cuda else bare(value)

        given = {k: v for k, v in tree_map(on_cpu, kwargs).items() if k != "pin_memory"}
        out = self._execute(func, tree_map(on_cpu, args), given)
        if not there:
            return out
        if func._schema.is_mutable:
            return self._written(func, args, kwargs)
        # A view of a tensor that is none of inference mode's is none either.
        view = any(argument.alias_info is not None for argument in func._schema.arguments)
        normal = view and torch.is_inference_mode_enabled()
        normal = normal and not any(x.is_inference() for x in flat)

        def wrap(value: Any) -> Any:
            foreign = isinstance(value, torch.Tensor) and not isinstance(value, CudaTensor)
            return CudaTensor(value, index) if foreign else value

        with torch.inference_mode(False) if normal else contextlib.nullcontext():
            return tree_map(wrap, out)

    def _execute(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """An operation on what is held."""
        if self.recording is not None:
            return self.recording.record(func, args, kwargs)
        with plain():
            return func(*args, **kwargs)

    @staticmethod
    def _written(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """In place and `out=`: what was given comes back."""
        found = []
        for position, argument in enumerate(func._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                named = argument.kwarg_only or position >= len(args)
                found.append(kwargs.get(argument.name) if named else args[position])
        for x in tree_flatten(found)[0]:
            if isinstance(x, CudaTensor) and x.held.shape != x.shape:
                raise NotImplementedError(f"{func} changes a shape in place")
        returns = len(func._schema.returns)
        if returns == 0:
            return None
        return found[0] if returns == 1 else tuple(found[:returns])

    def _is_composite(self, func: Any) -> bool:
        if func not in self._composite:
            self._composite[func] = torch._C._dispatch_has_kernel_for_dispatch_key(
                func.name(), "CompositeImplicitAutograd"
            )
        return self._composite[func]

    def _count(self, func: Any, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """The operation's kernels, and whether the host waits for it."""
        view = any(
            argument.alias_info is not None and not argument.alias_info.is_write
            for argument in func._schema.arguments
        )
        if name in FREE or (view and not func._schema.is_mutable):
            return
        self.launch(name)
        if name in WAITS:
            self.wait(name)
        if name in INDEXING:
            value = args[2] if len(args) > 2 else None
            for one in args[1]:
                if one is None:
                    continue
                if one.dtype in (torch.bool, torch.uint8):
                    # One value to all that a mask chooses is a `where`.
                    if name == "index" or value is None or value.numel() != 1:
                        self.wait("boolean mask as index (nonzero)")
                elif not isinstance(one, CudaTensor):
                    self.wait("index on the CPU (upload)")
        sized = kwargs.get("output_size") is not None or (len(args) > 1 and type(args[-1]) is int)
        if name == "repeat_interleave" and not sized:
            self.wait("repeat_interleave without output_size")

    def _refuse_mixed(self, name: str, args: Sequence[Any], flat: Sequence[torch.Tensor]) -> None:
        """As CUDA does; an index may lie on the CPU, and so may a number."""
        indices = [id(one) for one in args[1]] if name in INDEXING else []
        placed = [x for x in flat if id(x) not in indices and (x.dim() or x.is_cuda)]
        devices = {x.device for x in placed}
        if len(devices) > 1 and any(x.is_cuda for x in placed):
            found = ", ".join(f"{x.device} {tuple(x.shape)}" for x in placed)
            place = where()
            self.faults[f"{name}: {found} @ {place}"] += 1
            raise MixedDevicesError(
                f"{name}: Expected all tensors to be on the same device, found {found} at {place}"
            )

    def _copy(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        target, source = args[0], args[1]
        non_blocking = bool(args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
        if isinstance(source, CudaTensor) and not isinstance(target, CudaTensor):
            self._fetch(target, source.held, non_blocking)
            return target
        if isinstance(source, CudaTensor):
            self._execute(torch.ops.aten.copy_.default, (target.held, source.held), {})
            self.launch("copy_")
            return target
        with plain():
            bare(target).copy_(bare(source))
        if isinstance(target, CudaTensor):
            self._send(source, non_blocking)
        return target

    def _to(
        self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], asked: torch.device | None
    ) -> Any:
        x = args[0]
        non_blocking = bool(kwargs.get("non_blocking", False))
        from_gpu = isinstance(x, CudaTensor)
        to_gpu = from_gpu if asked is None else asked.type == "cuda"
        given = {k: v for k, v in kwargs.items() if k not in ("non_blocking", "pin_memory")}
        if to_gpu or from_gpu:
            given.pop("device", None)
        out = self._execute(func, (bare(x), *args[1:]), given)
        index = self.current if asked is None or asked.index is None else asked.index
        if from_gpu and to_gpu:
            self.launch("_to_copy")
            index = x.device.index if asked is None or asked.index is None else index
        elif to_gpu:
            self._send(x, non_blocking)
        elif from_gpu:
            self._fetch(out, out, non_blocking)
        return CudaTensor(out, index) if to_gpu else out


class Recording:
    """Operations as a CUDA graph keeps them: with the memory that they read and write.

    While it is made nothing happens: what was there before keeps its values, and what is made
    has none.
    """

    def __init__(self) -> None:
        self._operations: list[tuple[Any, Sequence[Any], Mapping[str, Any], Any]] = []
        # By the address of its storage what was there before, and its values.
        self._before: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._made: set[int] = set()

    def record(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Add an operation; it is done once, for the shapes of what it makes."""
        written = [
            value
            for value, argument in self._values(func, args, kwargs)
            if argument.alias_info is not None and argument.alias_info.is_write
        ]
        with plain():
            for one in tree_flatten(written)[0]:
                if isinstance(one, torch.Tensor) and self._address(one) not in self._made:
                    self._before.setdefault(self._address(one), (one, one.clone()))
            made = func(*args, **kwargs)
        aliases = any(argument.alias_info is not None for argument in func._schema.arguments)
        if not aliases:
            tensors = [x for x in tree_flatten(made)[0] if isinstance(x, torch.Tensor)]
            self._made.update(map(self._address, tensors))
        if not aliases or func._schema.is_mutable:
            result = None if func._schema.is_mutable else made
            self._operations.append((func, args, kwargs, result))
        return made

    def finish(self) -> None:
        """Nothing of it has happened yet."""
        with plain(), torch.no_grad():
            for tensor, values in self._before.values():
                tensor.copy_(values)
            for *_, made in self._operations:
                for one in tree_flatten(made)[0]:
                    if isinstance(one, torch.Tensor) and one.is_floating_point():
                        one.fill_(float("nan"))

    def replay(self) -> None:
        """Do it all."""
        with plain(), torch.no_grad():
            for func, args, kwargs, made in self._operations:
                found = tree_flatten(func(*args, **kwargs))[0]
                for one, other in zip(tree_flatten(made)[0], found, strict=False):
                    if isinstance(one, torch.Tensor):
                        one.copy_(other)

    @staticmethod
    def _values(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[Any]:
        for position, argument in enumerate(func._schema.arguments):
            named = argument.kwarg_only or position >= len(args)
            yield (kwargs.get(argument.name) if named else args[position]), argument

    @staticmethod
    def _address(tensor: torch.Tensor) -> int:
        return tensor.untyped_storage().data_ptr()


DEVICE = Device()


class Dispatch(TorchDispatchMode):
    """Sends all operations through the device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return DEVICE.call(func, args, dict(kwargs or {}))
