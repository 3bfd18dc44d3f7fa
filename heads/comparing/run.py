"""`compare` as one call: the published rows on the cached frames, into `WORK/compare`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cache.encoders.device import choose_device
from cache.inputs import utterance_keys
from corpora.base.work import Work
from corpora.manifest import Manifest
from heads.comparing.config import CompareConfig
from heads.comparing.division import refuse_torn_speakers
from heads.comparing.grid import comparison_plan
from heads.comparing.passes import Job
from heads.comparing.procedure import Comparison, carry_out
from heads.comparing.report import CompareReport
from heads.comparing.units import Kept
from heads.dataset import Dataset, VectorStore, speaker_notes
from heads.leakage import refuse_shared_recordings
from heads.load import load_dataset, read_origin
from heads.origin import Origin
from heads.precision import choose_precision
from heads.search.space import Space

#: Where the runs are kept, below the folder of the comparison.
ROWS = "rows"


def run_compare(
    work: Work,
    manifest: Manifest,
    config: CompareConfig | None = None,
    *,
    fresh: bool = False,
    show_progress: bool = False,
) -> CompareReport:
    """Compare the published heads on the frames of the last extraction, into `WORK/compare`.

    Args:
        work: the work folder that `extract` filled.
        manifest: the utterances, with their splits or folds.
        config: how to compare.
        fresh: remove an earlier comparison first.
        show_progress: whether to draw a progress bar.

    Raises:
        MissingStepError: nothing was extracted, or not these utterances.
        ManifestError: no labelled utterance in train or dev, or leakage between splits or folds.
        ConfigError: an option out of range, or the folder holds runs over something else.
        CacheError: another comparison is running in this folder, or a file is damaged.
        MissingExtraError: a picture was asked for and matplotlib is missing.
    """
    refuse_leakage(work, manifest)
    config = config or CompareConfig()
    dataset = load_dataset(work, manifest, device=choose_device(config.device))
    missing = len(manifest.utterances) - len(dataset)
    notes = [dataset.residence]
    notes += [f"Left out, without frames: {missing} (see {work.failures})."] if missing else []
    if manifest.shared_speakers:
        notes.append("The splits share speakers, by the manifest's declaration.")
    return compare_heads(
        dataset,
        work.compare,
        read_origin(work, manifest, dataset.frames),
        config,
        fresh=fresh,
        notes=notes,
        show_progress=show_progress,
    )


def compare_heads(
    dataset: Dataset,
    folder: Path,
    origin: Origin,
    config: CompareConfig,
    *,
    fresh: bool = False,
    notes: Sequence[str] = (),
    show_progress: bool = False,
) -> CompareReport:
    """Compare heads on a data set in memory: `run_compare` without the cache.

    Args:
        dataset: the frames.
        folder: where results go.
        origin: where the data set comes from, for the records.
        config: how to compare.
        fresh: remove an earlier comparison first.
        notes: for the report.
        show_progress: whether to draw a progress bar.
    """
    plan = comparison_plan(Space.of(dataset), config)
    device = choose_device(config.device)
    precision = choose_precision(config.precision, dataset, config.batch_size, device)
    store = VectorStore(dataset, precision, device)
    comparison = Comparison(
        name="compare",
        folder=folder,
        kept=Kept(folder / ROWS),
        dataset=dataset,
        jobs=(Job(plan.rows, lambda: store, plan.references),),
        plan=plan,
        origin=origin,
        config=config,
        identity={
            "streams": origin.streams,
            "dims": dataset.dims,
            "frames": origin.frames,
            "precision": precision,
        },
        keep_heads=True,
        notes=(*notes, *plan.notes, *speaker_notes(dataset, config.input_norms)),
    )
    return carry_out(comparison, fresh=fresh, show_progress=show_progress)


def refuse_leakage(work: Work, manifest: Manifest) -> None:
    """Refuse a recording in two splits or folds, and a speaker in two folds unless declared."""
    keys = utterance_keys(work, manifest.utterances)
    refuse_shared_recordings(manifest.utterances, keys)
    folded = [replace(u, split=u.fold) for u in manifest.utterances]
    refuse_shared_recordings(folded, keys)
    if not manifest.shared_speakers:
        refuse_torn_speakers(Dataset(manifest.utterances, manifest.labels, {}))
