"""`extract` as one call: plan, work if there is any, and leave a record for later commands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from cache.config import ExtractConfig
from cache.extract.plan import Plan, make_plan
from cache.extract.summary import ExtractReport, is_complete
from cache.extract.surprisal import extract_surprisal
from cache.last_extraction import (
    SURPRISAL,
    Extraction,
    read_failures,
    write_extraction,
    write_failures,
)
from cache.lookup import FrameCache
from cache.store.layout import clear_stale_sites, scratch_folder
from cache.store.mirror import push
from corpora.base.errors import AudioError
from corpora.base.work import Work, current_rank
from corpora.manifest import Manifest


@dataclass(frozen=True)
class Outcome:
    """A plan and what came of it.

    Attributes:
        plan: what was to be done.
        report: what was done; None where there was nothing to do.
        leads: whether this process is the one that speaks for all of a job.
    """

    plan: Plan
    report: ExtractReport | None
    leads: bool = True


def extract(
    work: Work,
    manifest: Manifest,
    config: ExtractConfig,
    *,
    tell: Callable[[str], None] | None = None,
    show_progress: bool = False,
) -> Outcome:
    """Bring the cache up to what a manifest and a configuration ask for.

    Several processes may do this at once: ranks of torchrun, or started one by one. Each returns
    when nobody has anything left to do, and knows every failure, because it tried what others
    could not use; of the ranks of a job the first writes the record.

    Args:
        work: the work folder.
        manifest: whose utterances.
        config: which streams.
        tell: for lines to be read while it runs.
        show_progress: bars on standard error.

    Raises:
        AudioError: not one recording could be used; `failures.csv` has the reasons.
        CacheError: the disk cannot hold it.
        ConfigError: what cannot be used, such as a language model whose head was not trained.
    """
    rank = current_rank()
    # Here too, where nothing may be left to do: a killed run may have taken layers out.
    clear_stale_sites(scratch_folder(work.features))
    cache = FrameCache(work)
    if rank.leads:
        push(work.root)  # what a killed run had stored here and not sent
    plan = make_plan(cache, manifest, config)
    if config.surprisal_model and rank.leads:
        words = extract_surprisal(
            cache, manifest.utterances, config, tell=tell, show_progress=show_progress
        )
        plan = replace(plan, extraction=Extraction({**plan.extraction.sources, SURPRISAL: words}))
    report = None
    if not is_complete(plan):
        from cache.extract.passes import run_plan  # imports torch and transformers: seconds

        report = run_plan(
            work.features,
            plan,
            rank=rank,
            tell=tell if rank.leads else None,
            show_progress=show_progress and rank.leads,
        )
    failures = dict(plan.absent if report is None else report.failures)
    # What has not changed is not written: a folder that only can be read serves as it is.
    if rank.leads and failures != read_failures(work.failures):
        write_failures(work.failures, failures)
    if "audio" in plan.directories and len(failures) == len(manifest.utterances):
        raise AudioError(
            f"none of the {len(manifest.utterances)} recordings could be used. "
            f"The first: {next(iter(failures.values()))} All reasons are in {work.failures}."
        )
    if rank.leads:
        write_extraction(work.extraction, plan.extraction)
    return Outcome(plan, report, rank.leads)
