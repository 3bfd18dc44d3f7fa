"""The sweep over layers: which hidden state of each encoder carries emotion.

Each cached layer, those of which only means and deviations were kept included, is read by a
`statistics` head and by the logistic regression. Neither needs frames.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch

from cache.encoders.device import choose_device
from cache.frames import Frames
from cache.last_extraction import Source, layer_name, moments_name
from cache.lookup import FrameCache
from cache.stream import FrameStream
from corpora.base.errors import ConfigError
from corpora.base.work import Work
from corpora.manifest import Manifest, Utterance
from heads.compare.compare import Comparison, carry_out, refuse_leakage
from heads.compare.comparison import CompareReport
from heads.compare.passes import KeptRuns, RowGroup
from heads.compare.rows import Plan, Row, TableEntry, TablePlan, make_row, shared_values
from heads.config import CompareConfig
from heads.dataset import Dataset
from heads.losses import vote_shares
from heads.records import Origin, manifest_digest
from heads.search.space import Space
from heads.vector_store import VectorStore

#: Where the runs are kept, below the folder of the comparison.
LAYERS = "layers"


def run_layers(
    work: Work,
    manifest: Manifest,
    config: CompareConfig | None = None,
    *,
    fresh: bool = False,
    show_progress: bool = False,
) -> CompareReport:
    """Sweep over the layers of the last extraction, into `WORK/compare`.

    Args:
        work: the work folder that `extract` filled.
        manifest: the utterances, with their splits or folds.
        config: seeds, epochs, what is tuned; its tables and poolings do not count.
        fresh: remove an earlier sweep first.
        show_progress: whether to draw a progress bar.

    Raises:
        MissingStepError: nothing was extracted, or not these utterances.
        ConfigError: as in `run_compare`; or layer normalisation, which needs frames.
        ManifestError, CacheError, MissingExtraError: as in `run_compare`.
    """
    config = config or CompareConfig()
    if other := set(config.input_norms) - {"none", "standardise"}:
        raise ConfigError(
            f"The sweep over layers reads means and deviations, and "
            f"{' or '.join(sorted(other))} needs frames. Use --input-norms none,standardise."
        )
    if config.targets != "emotion":
        raise ConfigError(
            f"The sweep over layers reads classes alone. Leave out --targets {config.targets}."
        )
    device = choose_device(config.device)
    cache = FrameCache(work)
    refuse_leakage(cache, manifest)
    failed = cache.failed
    utterances = tuple(u for u in manifest.utterances if u.id not in failed)
    extraction, modalities = cache.extraction, cache.modalities
    jobs: list[RowGroup] = []
    rows: dict[str, Row] = {}
    references: dict[str, tuple[str, ...]] = {}
    tables = []
    for modality in modalities:
        source = extraction.source(modality)
        entries = []
        for layer in sorted({*source.layers, *source.moments}):
            row, reference = _row(cache.features, manifest, source, modality, layer, config)
            load = partial(_load, cache, manifest.labels, utterances, modality, layer, device)
            jobs.append(RowGroup({row.key: row}, load, {reference: (modality,)}))
            rows[row.key], references[reference] = row, (modality,)
            entries.append(TableEntry(f"{modality} {layer}", row.key, layer=layer))
            title = f"{modality} {layer}, logistic regression"
            entries.append(TableEntry(title, reference, layer=layer))
        title = f"Layers of the {modality} encoder {source.encoder}, statistics pooling"
        tables.append(TablePlan(f"{LAYERS}-{modality}", title, tuple(entries)))
    origin = Origin(
        corpus=manifest.corpus,
        synthetic=manifest.synthetic,
        labels=manifest.labels,
        encoders={name: extraction.source(name).encoder for name in modalities},
        manifest_sha256=manifest_digest(manifest),
    )
    comparison = Comparison(
        name="layers",
        folder=work.compare,
        kept=KeptRuns(work.compare / LAYERS),
        dataset=Dataset(utterances, manifest.labels, {}),
        jobs=tuple(jobs),
        plan=Plan(rows, references, tuple(tables)),
        origin=origin,
        config=config,
        identity={
            "recipes": {name: extraction.source(name).recipe.folder for name in modalities},
            "failed": sorted(failed),
        },
        keep_heads=False,
    )
    return carry_out(comparison, fresh=fresh, show_progress=show_progress)


def _row(
    features: Path,
    manifest: Manifest,
    source: Source,
    modality: str,
    layer: int,
    config: CompareConfig,
) -> tuple[Row, str]:
    """The head of a layer, and the key of its reference."""
    folder = features / source.recipe.folder
    name = layer_name(layer) if layer in source.layers else moments_name(layer)
    dim = FrameStream.open(folder / name).dim
    voted = any(vote_shares(u, manifest.labels) for u in manifest.utterances)
    space = Space(manifest.labels, {modality: dim}, speech=False, votes=voted)
    prefix = f"layer{layer}-"
    own = {"modalities": modality, "pooling": "statistics"}
    row = make_row(space, {**shared_values(config), **own}, prefix)
    return row, f"{prefix}reference-{modality}"


def _load(
    cache: FrameCache,
    labels: tuple[str, ...],
    utterances: tuple[Utterance, ...],
    modality: str,
    layer: int,
    device: str,
) -> VectorStore:
    """Means and deviations of one layer; each utterance's mean stands for its frames.

    So `standardise` takes the statistics of the means and deviations with every utterance counting
    the same, and not by its length: moments alone do not know it.
    """
    mean, deviation = cache.moments(utterances, modality, layer)
    frames = Frames(mean, torch.arange(len(mean) + 1))
    dataset = Dataset(utterances, labels, {modality: frames}, {modality: (mean, deviation)})
    return VectorStore(dataset, device=device)
