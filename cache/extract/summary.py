"""What an extraction is going to do and has done, in words. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cache.extract.plan import Plan
from cache.extract.targets import Item
from cache.keys import text_read
from cache.last_extraction import SURPRISAL, Source
from corpora.base.codec import Jsonable
from corpora.base.errors import CacheError
from corpora.base.report import Report, Table
from corpora.base.terminal import shortened, time_text
from corpora.base.work import Work, command_line
from corpora.manifest import Manifest


@dataclass
class ExtractReport:
    """What an extraction did; filled while it runs.

    Attributes:
        added: new utterances by stream path.
        failures: reasons by utterance id.
        failed: content keys of inputs that were tried and could not be used.
        seconds_of_audio: encoded in this run.
        seconds: it took.
        truncated: texts that were longer than their encoder reads.
        estimated: bytes that were expected to be added, by stream path.
    """

    added: dict[str, int] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)
    seconds_of_audio: float = 0.0
    seconds: float = 0.0
    truncated: int = 0
    estimated: dict[str, int] = field(default_factory=dict)

    def add(self, stream: str, utterances: int = 1) -> None:
        """Note what is new in a stream."""
        self.added[stream] = self.added.get(stream, 0) + utterances

    def fail(self, item: Item, reason: str) -> None:
        """Note why an input has no frames, for every utterance that has it."""
        self.failed.add(item.key)
        for utterance in item.utterances:
            self.failures[utterance.id] = reason


@dataclass(frozen=True)
class StreamCheck:
    """One stream.

    Attributes:
        stream: its path inside the cache.
        utterances: how many were compared.
        largest: largest difference of a value.
        of_tolerance: largest difference as a fraction of what is allowed at that value.
        worst: the utterance with that one.
    """

    stream: str
    utterances: int
    largest: float
    of_tolerance: float
    worst: str


@dataclass(frozen=True)
class CheckReport(Jsonable):
    """All streams of encoders.

    Attributes:
        streams: what was compared.
        windowed: utterances passed over, because they were encoded in windows.
        tolerance: what is allowed, in words.
    """

    streams: tuple[StreamCheck, ...]
    windowed: int
    tolerance: str

    def to_text(self) -> str:
        """The same to read."""
        rows = [
            (one.stream, str(one.utterances), f"{one.largest:.2e}", f"{one.of_tolerance:.2f}")
            for one in self.streams
        ]
        windowed = f"{self.windowed} of them encoded in windows, which has no counterpart there."
        notes = [f"Tolerance: {self.tolerance}.", *[windowed] * bool(self.windowed)]
        columns = ("stream", "utterances", "largest difference", "of tolerance")
        title = "Compared with transformers' pipeline, one by one"
        return Report("", [Table("", columns, rows, title, right=(1, 2, 3), notes=notes)]).to_text()

    def raise_if_beyond(self) -> None:
        """Fail where a value is beyond the tolerance.

        Raises:
            CacheError: names the worst stream and utterance.
        """
        worst = max(self.streams, key=lambda one: one.of_tolerance, default=None)
        if worst is not None and not worst.of_tolerance <= 1:
            raise CacheError(
                f"{worst.stream} differs from transformers' pipeline by up to {worst.largest:.3g} "
                f"(utterance {worst.worst}), {worst.of_tolerance:.1f} times what is allowed. "
                "Run `cache verify`; if it finds nothing wrong, please report this."
            )


SHOWN_FAILURES = 5


def plan_text(plan: Plan) -> str:
    """The streams asked for, and what each modality still lacks."""
    lines = []
    width = max(7, *(len(kind) + 1 for kind in plan.extraction.sources))
    for kind, source in plan.extraction.sources.items():
        if kind == SURPRISAL:
            what = f"{source.encoder}, bits a word"
        elif source.encoder:
            what = f"{source.encoder}, {_layers_text(source)}"
            what += f", --describe {source.recipe.describe}" if source.recipe.describe else ""
        else:
            what = {"energy": "RMS in dB", "speech": "silero-vad probability"}[kind]
        lines.append(f"  {kind:<{width}}{what:<40} {source.recipe.folder}")
    return "\n".join(["Streams:", *lines])


def _layers_text(source: Source) -> str:
    """`layers 12, 24; moments of layers 0 to 24`."""
    named = []
    for words, layers in (("layer", source.layers), ("moments of layer", source.moments)):
        if layers:
            whole = len(layers) > 2 and layers == tuple(range(layers[0], layers[-1] + 1))
            listed = f"{layers[0]} to {layers[-1]}" if whole else ", ".join(map(str, layers))
            named.append(f"{words}{'s' * (len(layers) > 1)} {listed}")
    return "; ".join(named)


def changes_lines(plan: Plan) -> list[str]:
    """Why features are made again although some of their kind are in the cache."""
    lines = []
    for kind, changes in plan.changes.items():
        lines.append(f"The {kind} features in the cache were made otherwise. What changed:")
        lines += [f"  {line}" for line in changes]
    return lines


def is_complete(plan: Plan) -> bool:
    """Whether there is nothing to extract."""
    return not plan.audio and not plan.text


def report_text(
    work: Work,
    manifest: Manifest,
    plan: Plan,
    report: ExtractReport | None,
    check: CheckReport | None = None,
    *,
    path: Path | None = None,
    then: str = "search --trials 100",
) -> str:
    """What an extraction did.

    Args:
        work: the work folder.
        manifest: whose utterances were extracted.
        plan: what was lacking.
        report: None where there was nothing to do.
        check: against transformers' own pipeline, where it was asked for.
        path: where the manifest was read, if it is not the work folder's own.
        then: what comes next.
    """
    parts = [plan_text(plan), "", *changes_lines(plan)]
    counts = " and ".join(
        f"{plan.inputs[kind]:,} {name}"
        for kind, name in (("audio", "recordings"), ("text", "different texts"))
        if kind in plan.inputs
    )
    done = report or ExtractReport(failures=dict(plan.absent))
    if report is None:
        parts.append(f"Everything is there ({counts}): nothing to do.")
    else:
        parts.append(_what_was_done(plan, report))
        parts += [f"  {path}: {count:,} added" for path, count in sorted(report.added.items())]
        if report.truncated:
            parts.append(f"{report.truncated} texts were longer than the encoder reads; cut.")
    empty = sum(not text_read(u, plan.config.describe) for u in manifest.utterances)
    if empty and "text" in plan.inputs:
        parts.append(
            f"{empty:,} utterances have no text; they are encoded as special tokens only. "
            "`transcribe` fills texts in."
        )
    if done.failures:
        parts += ["", f"{len(done.failures):,} utterances could not be used ({work.failures}):"]
        parts += shortened(list(done.failures.values()), SHOWN_FAILURES)
        parts.append("They are tried again at the next extract.")
    if check is not None:
        parts += ["", check.to_text()]
    return Report("", parts, next=(command_line(then, work.root, path),)).to_text()


def _what_was_done(plan: Plan, report: ExtractReport) -> str:
    speed = report.seconds_of_audio / report.seconds if report.seconds else 0.0
    rate = f", {speed:.0f}× real time" if report.seconds_of_audio else ""
    return (
        f"Extracted {time_text(report.seconds_of_audio)} of audio in {time_text(report.seconds)} "
        f"on {plan.device}{rate}."
    )


def report_json(
    plan: Plan, report: ExtractReport | None, check: CheckReport | None = None
) -> Mapping[str, Any]:
    """The same for programs."""
    done = report or ExtractReport(failures=dict(plan.absent))
    return {
        "check": None if check is None else check.to_json(),
        "streams": {
            kind: {
                "encoder": source.encoder,
                "layers": list(source.layers),
                "moments": list(source.moments),
                "folder": source.recipe.folder,
            }
            for kind, source in plan.extraction.sources.items()
        },
        "inputs": dict(plan.inputs),
        "changes": {kind: list(lines) for kind, lines in plan.changes.items()},
        "estimated_bytes": done.estimated,
        "added": done.added,
        "failures": done.failures,
        "seconds_of_audio": done.seconds_of_audio,
        "seconds": done.seconds,
    }
