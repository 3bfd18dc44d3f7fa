"""What a step asks of a GPU: kernels, host waits, idle time, and the share of the roofline.

Kernels and waits are read from the profiler's trace, whose categories are CUPTI's. A wait is a call
in which the host stands still until the device has caught up.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from bench.encoders import save_audio_encoder, save_text_encoder
from bench.large_search import copy_bandwidth, peak_flops

ROOT = Path(__file__).parents[1]
Action = Callable[[], object]

_REGION = "counted steps"
_COPIES = ("gpu_memcpy", "gpu_memset")
_CALLS = ("cuda_runtime", "cuda_driver")
_WAITS = (
    *("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy"),
    *("cuStreamSynchronize", "cuCtxSynchronize", "cuEventSynchronize"),
)
WARM_UP, TIMED, PROFILED = 5, 20, 3


@dataclass(frozen=True)
class Finding:
    """One line of the results.

    Attributes:
        what: was measured.
        found: for a person, with units.
        figures: the same as numbers in base units.
    """

    what: str
    found: str
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Setup:
    """What the parts of `bench/gpu.sh` are told.

    Attributes:
        folder: for what they make and share: encoders, recordings.
        device: `cuda`, or `cpu` for a trial of the script.
        small: toy sizes.
        hours: of audio that extraction takes.
        seconds: the part's; a search that is not done by then is stopped and reckoned up.
    """

    folder: Path
    device: str
    small: bool
    hours: float
    seconds: float

    def encoders(self) -> dict[str, Path]:
        """Folders of W2V-BERT and DeBERTa with random weights, made by the first part that asks."""
        size = {"layers": 2, "dim": 64, "heads": 2} if self.small else {}
        made = {"audio": save_audio_encoder, "text": save_text_encoder}
        for name, save in made.items():
            if not (self.folder / name).is_dir():
                save(self.folder / f"{name}-half", **size).rename(self.folder / name)
        return {name: self.folder / name for name in made}


@dataclass(frozen=True)
class Counts:
    """Of one step, on average.

    Attributes:
        kernels: that ran.
        copies: memory copied or set by the device.
        launches: calls that started any of these; a CUDA graph is one.
        waits: calls in which the host waited.
        pageable: copies from or to memory that is not pinned; the host waits in these too.
        busy: seconds in which a kernel or copy ran.
    """

    kernels: float
    copies: float
    launches: float
    waits: float
    pageable: float
    busy: float


def counts(trace: Sequence[Mapping[str, Any]], steps: int) -> Counts:
    """Counts from the events of a Chrome trace (times in microseconds) of so many steps."""
    region = next(one for one in trace if one.get("name") == _REGION and "dur" in one)
    start, end = region["ts"], region["ts"] + region["dur"]

    def of(*categories: str) -> list[Mapping[str, Any]]:
        return [one for one in trace if one.get("cat") in categories and one.get("ph") == "X"]

    calls = [one for one in of(*_CALLS) if start <= one["ts"] < end]
    kernels, copies = of("kernel"), of(*_COPIES)
    busy, reached = 0.0, 0.0
    for one in sorted([*kernels, *copies], key=lambda one: float(one["ts"])):
        done = one["ts"] + one["dur"]
        busy += max(0.0, done - max(reached, one["ts"]))
        reached = max(reached, done)
    found = (
        len(kernels),
        len(copies),
        sum("Launch" in one["name"] or "Async" in one["name"] for one in calls),
        sum(one["name"].partition("_")[0] in _WAITS for one in calls),
        sum("Pageable" in one["name"] for one in copies),
        busy / 1e6,
    )
    return Counts(*(value / steps for value in found))


def counted(step: Action, device: str, steps: int = PROFILED) -> Counts:
    """Counts of a step, by the profiler; all 0 where there is no GPU."""
    activities = [ProfilerActivity.CPU]
    if device != "cpu":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as profiler:
        with record_function(_REGION):
            for _ in range(steps):
                step()
        finish(device)
    with tempfile.TemporaryDirectory(prefix="emopool-trace-") as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        return counts(json.loads(path.read_text())["traceEvents"], steps)


def finish(device: str) -> None:
    """Wait for the GPU, where there is one."""
    if device != "cpu":
        torch.cuda.synchronize()


def timed(step: Action, device: str, times: int = TIMED) -> tuple[float, float]:
    """Seconds of a step among many, and of the host alone, which then waits for the device."""
    finish(device)
    started = time.perf_counter()
    for _ in range(times):
        step()
    handed = time.perf_counter() - started
    finish(device)
    return (time.perf_counter() - started) / times, handed / times


@cache
def peaks(device: str) -> tuple[float, float]:
    """Measured operations a second of matrix products and bytes a second of copies."""
    return peak_flops(device), copy_bandwidth(device)


@dataclass(frozen=True)
class Roofline:
    """What a step has to do at least, counted from shapes.

    Attributes:
        flop: operations of its matrix products.
        nbytes: that have to be read from the device's memory or written there.
    """

    flop: float
    nbytes: float

    def seconds(self, device: str) -> float:
        """The roofline: whatever of the two takes longer at the device's measured peaks."""
        flops, bandwidth = peaks(device)
        return max(self.flop / flops, self.nbytes / bandwidth)


def step_finding(
    what: str,
    step: Action,
    work: Roofline,
    device: str,
    times: int = TIMED,
    *,
    warm_up: int = WARM_UP,
    epoch: tuple[Action, int] | None = None,
) -> Finding:
    """Time, counts, idle share, share of the roofline and first wait of a step.

    Args:
        what: it is.
        step: makes one.
        work: what it has to do at least.
        device: where.
        times: it is made to be timed.
        warm_up: times it is made before.
        epoch: what makes many steps as the stage does, prepared together, and how many: it is
            timed in the place of `step`.
    """
    for _ in range(warm_up):
        step()
    if epoch is None:
        seconds, host = timed(step, device, times)
    else:
        many, number = epoch
        many()
        seconds, host = (one / number for one in timed(many, device, 1))
    found, floor, wait = counted(step, device), work.seconds(device), first_wait(step, device)
    idle = max(0.0, 1 - found.busy / seconds)
    counted_text = (
        f"{found.kernels:.0f} kernels and {found.copies:.0f} copies in {found.launches:.0f} "
        f"launches, {found.waits:.3g} host waits and {found.pageable:.3g} pageable copies, device "
        f"busy {1e3 * found.busy:.3g} ms and idle {idle:.0%}; "
        if device != "cpu"
        else ""
    )
    text = (
        f"{1e3 * seconds:.3g} ms, of which the host hands over in {1e3 * host:.3g}; {counted_text}"
        f"roofline {1e3 * floor:.3g} ms ({work.flop / 1e9:.3g} GFLOP, {work.nbytes / 1e6:.3g} MB): "
        f"{floor / seconds:.1%}; under set_sync_debug_mode: {wait}"
    )
    figures = {
        **found.__dict__,
        **{"seconds": seconds, "host": host, "idle": idle, "floor": floor, "wait": wait},
        **work.__dict__,
    }
    return Finding(what, text, figures)


def first_wait(step: Action, device: str) -> str:
    """`no wait`, or the lines in which the host waits in a step, with how often.

    The first is where the mode `error` raises; all are those that the mode `warn` names. Copies
    from pageable memory are waits that the modes do not know.
    """
    if device == "cpu":
        return "not asked (no GPU)"
    finish(device)
    try:
        with _sync_debug_mode("error"):
            step()
    except RuntimeError as error:
        if "synchroniz" not in str(error):
            raise
        ours = [one for one in traceback.extract_tb(error.__traceback__) if _ours(one.filename)]
        found = waiting_lines(step)
        return f"raises at {_line(ours[-1].filename, ours[-1].lineno)}; " + ", ".join(
            f"{number} × {line}" for line, number in found.most_common(8)
        )
    return "no wait"


def waiting_lines(step: Action) -> Counter[str]:
    """The project's lines in which the host waits in a step, and how often."""
    found: Counter[str] = Counter()

    def note(message: object, *_: object, **__: object) -> None:
        if "synchroniz" not in str(message):
            return
        frame: Any = sys._getframe(1)
        while frame is not None and not _ours(frame.f_code.co_filename):
            frame = frame.f_back
        found["autograd" if frame is None else _line(frame.f_code.co_filename, frame.f_lineno)] += 1

    with warnings.catch_warnings(), patch("warnings.showwarning", note):
        warnings.simplefilter("always")
        with _sync_debug_mode("warn"):
            step()
    return found


@contextmanager
def _sync_debug_mode(mode: str) -> Iterator[None]:
    torch.cuda.set_sync_debug_mode(mode)
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def _ours(name: str) -> bool:
    path = Path(name)
    return (
        path.is_relative_to(ROOT) and "site-packages" not in path.parts and path != Path(__file__)
    )


def _line(name: str, number: int | None) -> str:
    return f"{Path(name).relative_to(ROOT)}:{number}"
