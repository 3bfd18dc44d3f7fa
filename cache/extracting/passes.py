"""Extraction: decode, encode and write what the cache lacks.

Recordings are decoded in threads and stored by a thread while the encoder works, the longest first.
One bad recording is a reported failure; it does not stop the others and is tried again next time.
Any number of processes work together, each on the shares of the keys that it holds.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Sequence

import torch

from cache.extracting.audio_pass import AudioPass
from cache.extracting.estimate import Estimate, check_space
from cache.extracting.plan import Plan
from cache.extracting.report import ExtractReport
from cache.extracting.shares import Shares, open_shares, share_of
from cache.extracting.stream_writer import StreamWriter
from cache.extracting.summary import changes_lines
from cache.extracting.targets import Item, Target, still_lacking
from cache.extracting.text_pass import TextPass
from cache.extraction import Source
from cache.moments import derive_moments
from cache.store.layout import open_features
from corpora.base.errors import CacheError
from corpora.base.ranks import Rank
from corpora.base.terminal import bytes_text
from corpora.base.work import Work

_FULL = (errno.ENOSPC, errno.EDQUOT)


def run_plan(
    work: Work,
    plan: Plan,
    *,
    rank: Rank | None = None,
    tell: Callable[[str], None] | None = None,
    show_progress: bool = False,
) -> ExtractReport:
    """Fill the streams of a plan; returns when nobody has anything left to do.

    Leaving early (an interrupt, a full disk) keeps every utterance that was encoded.

    Args:
        work: the work folder.
        plan: from `make_plan`.
        rank: which of several processes this is.
        tell: for lines to be read while it runs.
        show_progress: bars on standard error.

    Returns:
        The report; `failures` names what could not be used.

    Raises:
        CacheError: the disk is too small or full.
    """
    rank = rank or Rank()
    tell = tell or (lambda _: None)
    report = ExtractReport(failures=dict(plan.absent))
    started = time.monotonic()
    open_features(work.features)
    # TF32 would change digits that the recipe promises.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    device = _device(plan, rank)
    passes: list[TextPass | AudioPass] = []
    if plan.text:
        passes.append(TextPass(plan, device, report, tell))
    if plan.audio:
        passes.append(AudioPass(plan, device, report, tell))
    if rank.leads:
        _announce(work, plan, [one.estimate() for one in passes], report, tell)
    try:
        for one in passes:
            with open_shares(work.root, [type(one).__name__, *plan.streams], rank) as shares:
                _fill(work, plan, one, shares, report, show_progress)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise CacheError(
            f"the disk of {work.root} is full. What was stored is kept and can be read "
            f"({_added(report)}). Make room and run the same command again: it goes on from there."
        ) from error
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"Interrupted. What was encoded is stored ({_added(report)}). Run the same command "
            "again: it goes on from there."
        ) from None
    finally:
        report.seconds = time.monotonic() - started
    return report


def audio_bytes(plan: Plan) -> int:
    """Bytes of the audio streams that a plan would add, by the headers of the recordings."""
    if not plan.audio:
        return 0
    return AudioPass(plan, plan.device, ExtractReport(), lambda _: None).estimate().nbytes


def _fill(
    work: Work,
    plan: Plan,
    one: TextPass | AudioPass,
    shares: Shares,
    report: ExtractReport,
    show_progress: bool,
) -> None:
    """Work on shares until every one was looked at while it was held, and nothing was missing."""
    by_share: dict[int, list[Item]] = {}
    for item in one.items:
        by_share.setdefault(share_of(item.key), []).append(item)
    left = set(by_share)
    while left:
        taken = shares.take(left)
        if not taken:
            shares.wait()
            continue
        shares.busy()
        found = [
            item for share in taken for item in by_share[share] if item.key not in report.failed
        ]
        missing = still_lacking(work, found, windowed=plan.windowed)
        given: set[int] = set()
        if missing:
            writer = StreamWriter(work)
            try:
                _derive(work, plan, missing, report)
                with writer:
                    needing = [item for item in missing if item.targets]
                    given = _work(one, needing, writer, shares, show_progress)
            finally:
                for path, count in writer.stored.added.items():
                    report.added[path] = report.added.get(path, 0) + count
                for item, reason in writer.stored.failed:
                    report.fail(item, reason)
        done = set(taken) - given
        shares.release(done)
        left -= done


def _derive(work: Work, plan: Plan, items: Sequence[Item], report: ExtractReport) -> None:
    """Moments whose frames are there, from those."""
    keys: dict[Target, list[str]] = {}
    for item in items:
        for target in item.derived:
            keys.setdefault(target, []).append(item.key)
    for target, found in keys.items():
        assert target.layer is not None
        source = Source(target.recipe, layers=(target.layer,), windowed=plan.windowed)
        count = derive_moments(work, source, target.layer, found)
        report.added[target.path] = report.added.get(target.path, 0) + count


def _work(
    one: TextPass | AudioPass,
    items: Sequence[Item],
    writer: StreamWriter,
    shares: Shares,
    show_progress: bool,
) -> set[int]:
    """Encode and store inputs; returns the shares that were given to others on the way."""
    given: set[int] = set()

    def give() -> set[int]:
        """Every second share that still has something to be done, if others wait for it."""
        if not shares.is_anyone_waiting():
            return given
        # What is done in them has to be in the cache when somebody else looks.
        writer.commit()
        now = set(sorted({share_of(item.key) for item in one.remaining()} - given)[1::2])
        shares.give(now)
        given.update(now)
        return given

    one.run(items, writer.put, give, show_progress)
    return given


def _announce(
    work: Work,
    plan: Plan,
    estimates: Sequence[Estimate],
    report: ExtractReport,
    tell: Callable[[str], None],
) -> None:
    """Say why anything is extracted anew and how much, and refuse what the disk cannot hold."""
    for line in changes_lines(plan):
        tell(line)
    streams = {path: n for one in estimates for path, n in one.streams.items()}
    needed = Estimate(streams, sum(one.hours for one in estimates))
    report.estimated.update(needed.streams)
    config = plan.config
    if "all" in (config.audio_layers, config.text_layers) and not config.moments_only:
        tell(
            f"Warning: the frames of all layers take {bytes_text(needed.nbytes)} "
            f"({needed.nbytes:,} bytes). --moments-only keeps each utterance's mean and deviation "
            "alone."
        )
    free = check_space(work.root, needed)
    audio = f"{needed.hours:,.2f} hours of audio: " if needed.hours else ""
    tell(f"To do: {audio}{bytes_text(needed.nbytes)} to be written, {bytes_text(free)} free.")


def _device(plan: Plan, rank: Rank) -> str:
    """`cpu`, or the GPU of this rank."""
    if plan.device != "cuda":
        return plan.device
    index = rank.local % torch.cuda.device_count()
    torch.cuda.set_device(index)
    return f"cuda:{index}"


def _added(report: ExtractReport) -> str:
    count = max(report.added.values(), default=0)
    return f"{count:,} utterances in this run"
