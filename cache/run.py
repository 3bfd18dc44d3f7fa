"""`extract` as one call: plan, work if there is any, and leave a record for later commands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cache.extraction import write_extraction
from cache.failures import write_failures
from cache.plan import ExtractConfig, Plan, make_plan
from cache.summary import is_complete
from corpora.errors import AudioError
from corpora.manifest import Manifest
from corpora.work import Work

if TYPE_CHECKING:
    from cache.extract import ExtractReport


@dataclass(frozen=True)
class Outcome:
    """A plan and what came of it; `report` is None where there was nothing to do."""

    plan: Plan
    report: ExtractReport | None


def extract(
    work: Work, manifest: Manifest, config: ExtractConfig, *, show_progress: bool = False
) -> Outcome:
    """Bring the cache up to what a manifest and a configuration ask for.

    Raises:
        AudioError: not one recording could be used; `failures.csv` has the reasons.
    """
    plan = make_plan(work, manifest, config)
    report = None
    if not is_complete(plan):
        from cache.extract import run_plan  # imports torch and transformers: seconds

        report = run_plan(work, plan, max_seconds=config.max_seconds, show_progress=show_progress)
    failures = dict(plan.absent if report is None else report.failures)
    write_failures(work.failures, failures)
    if "audio" in plan.directories and len(failures) == len(manifest.utterances):
        raise AudioError(
            f"none of the {len(manifest.utterances)} recordings could be used. "
            f"The first: {next(iter(failures.values()))} All reasons are in {work.failures}."
        )
    write_extraction(work, plan.extraction)
    return Outcome(plan, report)
