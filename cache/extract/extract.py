"""`extract` as one call: plan, work if there is any, and leave a record for later commands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cache.config import ExtractConfig
from cache.encoders.device import choose_device
from cache.encoders.files import encoder_fields
from cache.encoders.names import encoder_name, resolve_encoder
from cache.extract.plan import Plan, make_plan
from cache.extract.summary import ExtractReport, is_complete
from cache.keys import normalise_text, text_key
from cache.last_extraction import (
    SURPRISAL,
    VALUES,
    Extraction,
    Source,
    read_failures,
    write_extraction,
    write_failures,
)
from cache.lookup import FrameCache
from cache.recipe import Recipe
from cache.store.layout import (
    clear_stale_sites,
    ensure_stream,
    open_features,
    scratch_folder,
)
from cache.store.mirror import push
from cache.stream import FrameStream, PartWriter
from corpora.base.errors import AudioError
from corpora.base.terminal import progress_bar
from corpora.base.work import Work, current_rank
from corpora.manifest import Manifest
from corpora.utterance import Utterance


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
        words = _extract_surprisal(
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


# How a word's bits are counted, counted up when they change.
_COUNTING = 1
# Texts at once, so that a run that is stopped loses little.
_CHUNK = 64


def _extract_surprisal(
    cache: FrameCache,
    utterances: Sequence[Utterance],
    config: ExtractConfig,
    *,
    tell: Callable[[str], None] | None = None,
    show_progress: bool = False,
) -> Source:
    """Bring the stream of a language model up to these utterances' texts: bits of each word.

    It holds `[words, 1]` float32 under the key of an utterance's own text. The words are what white
    space separates (`cache.encoders.language_model`).

    Raises:
        ConfigError: it is no language model, or its head was not trained.
    """
    name = config.surprisal_model
    directory = resolve_encoder(name, "text", cache.root)
    fields = encoder_fields(directory, "text", cache.hashes)
    fields |= {"counting": _COUNTING, "compute_dtype": "fp32", "stored_dtype": "float32"}
    recipe = Recipe(SURPRISAL, fields)
    source = Source(recipe, encoder_name(name, directory))
    path = cache.features / source.stream()
    texts = {text_key(u.text): normalise_text(u.text) for u in utterances if u.text.strip()}
    held = FrameStream.open(path) if path.is_dir() else ()
    lacking = [key for key in texts if key not in held]
    if not lacking:
        return source
    from cache.encoders.language_model import load_language_model  # imports torch: seconds

    model = load_language_model(directory, device=choose_device(config.device))
    path = ensure_stream(open_features(cache.features), recipe, VALUES, 1, np.float32)
    with (
        PartWriter(path, 1, np.float32) as writer,
        progress_bar("surprisal", len(lacking), "texts", show=show_progress) as bar,
    ):
        for first in range(0, len(lacking), _CHUNK):
            chunk = lacking[first : first + _CHUNK]
            for key, bits in zip(chunk, model([texts[key] for key in chunk]), strict=True):
                if len(bits):  # not where the first word is too long already
                    writer.add(key, bits[:, None])
            bar.update(len(chunk))
    if tell is not None:
        how = "masked" if model.masked else "causal"
        tell(f"Surprisal of {len(lacking):,} texts by {name}, a {how} language model.")
    return source
