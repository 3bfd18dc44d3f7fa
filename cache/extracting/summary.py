"""What an extraction is going to do and has done, in words. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cache.extracting.check_report import CheckReport
from cache.extracting.plan import Plan
from cache.extracting.report import ExtractReport
from cache.extraction import Source
from cache.keys import normalise_text
from corpora.base.work import Work, command_line
from corpora.manifest import Manifest

SHOWN_FAILURES = 5


def plan_text(plan: Plan) -> str:
    """The streams asked for, and what each modality still lacks."""
    lines = []
    for kind, source in plan.extraction.sources.items():
        if source.encoder:
            what = f"{source.encoder}, {_layers_text(source)}"
        else:
            what = {"energy": "RMS in dB", "speech": "silero-vad probability"}[kind]
        lines.append(f"  {kind:<7}{what:<40} {source.recipe.folder}")
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
    lines = [plan_text(plan), "", *changes_lines(plan)]
    counts = " and ".join(
        f"{plan.inputs[kind]:,} {name}"
        for kind, name in (("audio", "recordings"), ("text", "different texts"))
        if kind in plan.inputs
    )
    if report is None:
        lines.append(f"Everything is there ({counts}): nothing to do.")
    else:
        lines.append(_what_was_done(plan, report))
        lines += [f"  {path}: {count:,} added" for path, count in sorted(report.added.items())]
        if report.truncated:
            lines.append(f"{report.truncated} texts were longer than the encoder reads; cut.")
    empty = sum(not normalise_text(utterance.text) for utterance in manifest.utterances)
    if empty and "text" in plan.inputs:
        lines.append(
            f"{empty:,} utterances have no text; they are encoded as special tokens only. "
            "`transcribe` fills texts in."
        )
    failures = plan.absent if report is None else report.failures
    if failures:
        lines += ["", f"{len(failures):,} utterances could not be used ({work.failures}):"]
        lines += [f"  {reason}" for reason in list(failures.values())[:SHOWN_FAILURES]]
        if len(failures) > SHOWN_FAILURES:
            lines.append(f"  and {len(failures) - SHOWN_FAILURES:,} more")
        lines.append("They are tried again at the next extract.")
    if check is not None:
        lines += ["", check.to_text()]
    return "\n".join([*lines, "", f"Next: {command_line(then, work.root, path)}"])


def _what_was_done(plan: Plan, report: ExtractReport) -> str:
    speed = report.seconds_of_audio / report.seconds if report.seconds else 0.0
    rate = f", {speed:.0f}× real time" if report.seconds_of_audio else ""
    return (
        f"Extracted {report.seconds_of_audio / 60:.1f} minutes of audio in {report.seconds:.1f} s "
        f"on {plan.device}{rate}."
    )


def report_json(
    plan: Plan, report: ExtractReport | None, check: CheckReport | None = None
) -> Mapping[str, Any]:
    """The same for programs."""
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
        "estimated_bytes": {} if report is None else report.estimated,
        "added": {} if report is None else report.added,
        "failures": dict(plan.absent if report is None else report.failures),
        "seconds_of_audio": 0.0 if report is None else report.seconds_of_audio,
        "seconds": 0.0 if report is None else report.seconds,
    }
