"""`extract` with layers that the training data chooses: ranked once, then only the best are kept.

For a sample of the training utterances all layers are encoded in one pass; their means and
deviations rank the layers, and the frames of the best go on. Where the sample's frames of all
layers fit the disk, they stay until the choice is made, so that nothing is encoded twice.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from cache.config import Auto, ExtractConfig
from cache.extract.extract import Outcome
from cache.extract.extract import extract as extract_layers
from cache.extract.plan import Plan, make_plan
from cache.extract.summary import CheckReport, ExtractReport, is_complete, report_json, report_text
from cache.last_extraction import layer_name, moments_name
from cache.lookup import FrameCache
from cache.store.layout import scratch_folder, withdraw
from cache.store.mirror import refuse_if_claimed
from corpora.base.errors import CacheError, ManifestError, UnreadableLayersError
from corpora.base.work import Work, current_rank, exclusive_lock
from corpora.manifest import Manifest, Utterance, speaker_key
from heads.layer_choice import (
    LayerChoice,
    Vectors,
    draw_sample,
    rank_layers,
    read_choices,
    sample_digest,
    write_choices,
)

# Frames of all layers that a sample may take until the choice is made, in bytes, and as a part of
# what the disk has free: 2,000 utterances of a base-sized encoder, or 600 of W2V-BERT's 25 layers.
_MOST_BYTES = 8_000_000_000
_MOST_OF_FREE = 0.25
# Where they may take no more, the sample is encoded once again for the layers that were chosen: it
# is then at most this part of the corpus, but as many utterances as a ranking needs.
_PART_ENCODED_TWICE = 0.25
_FEWEST = 500
_NOTHING_TO_GO_BY = "no labelled training utterance can be read"


@dataclass(frozen=True)
class Extracted:
    """An extraction, and how its layers were chosen.

    Attributes:
        work: the work folder.
        manifest: whose utterances.
        foreign: whether that is another manifest than the work folder's own.
        outcome: what was done.
        choices: rankings by modality, where the data chose.
        notes: why it did not, where it could not.
        checked: some utterances against transformers' own pipeline, where it was asked for.
    """

    work: Work
    manifest: Manifest
    foreign: bool
    outcome: Outcome
    choices: Mapping[str, LayerChoice] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    checked: CheckReport | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            **report_json(self.outcome.plan, self.outcome.report, self.checked),
            "layer_choices": {name: one.to_json() for name, one in self.choices.items()},
        }

    def to_text(self, path: Path | None = None) -> str:
        """The rankings and the report to read.

        Args:
            path: where the manifest was read, if it is not the work folder's own.
        """
        plan, then = self.outcome.plan, "search --trials 100"
        if self.foreign:  # for what is there already, to be scored on it
            from heads.records import BEST  # imports torch

            if (self.work.search / BEST).is_file() or self.work.model.is_dir():
                then = "evaluate"
        report = report_text(
            self.work,
            self.manifest,
            plan,
            self.outcome.report,
            self.checked,
            path=path,
            then=then,
        )
        sources = plan.extraction.sources
        ranked = [one.to_text(sources[kind].layers) for kind, one in self.choices.items()]
        return "\n\n".join([*ranked, *self.notes, report])


def extract(
    work: Work,
    manifest: Manifest,
    config: ExtractConfig,
    *,
    foreign: bool = False,
    check: int = 0,
    tell: Callable[[str], None] | None = None,
    show_progress: bool = False,
) -> Extracted:
    """Bring the cache up to what a manifest and a configuration ask for.

    Args:
        work: the work folder.
        manifest: whose utterances.
        config: which streams; `Auto` layers are chosen here.
        foreign: whether the manifest is another than the work folder's own: layers that were
            chosen stay as they are then, for what was trained on them reads no others.
        check: so many random utterances are compared with transformers' own pipeline afterwards.
        tell: for lines to be read while it runs.
        show_progress: bars on standard error.

    Raises:
        AudioError, CacheError, ConfigError: as `cache.extract.extract.extract`.
        FormatVersionError: what an earlier choice left is of another version.
    """
    asked = {
        kind: layers
        for kind, encoder, layers in (
            ("audio", config.audio_encoder, config.audio_layers),
            ("text", config.text_encoder, config.text_layers),
        )
        if encoder and isinstance(layers, Auto)
    }
    choices: dict[str, LayerChoice] = {}
    notes: tuple[str, ...] = ()
    first: ExtractReport | None = None
    temporary: tuple[str, ...] = ()
    if asked:
        chooser = _Chooser(
            FrameCache(work), work.layers, manifest, config, tuple(asked), foreign=foreign
        )
        choices, notes = chooser.choose(tell, show_progress=show_progress)
        first, temporary = chooser.report, read_choices(work.layers).temporary
    chosen = {kind: choices[kind].best(asked[kind].keep) for kind in choices}
    final = replace(
        config,
        audio_layers=chosen.get("audio", ()) if "audio" in asked else config.audio_layers,
        text_layers=chosen.get("text", ()) if "text" in asked else config.text_layers,
        best={kind: layers[0] for kind, layers in chosen.items()},
    )
    outcome = extract_layers(work, manifest, final, tell=tell, show_progress=show_progress)
    if outcome.leads:
        unwanted = [path for path in temporary if path not in outcome.plan.streams]
        if not unwanted or _remove(work.features, unwanted, tell):
            write_choices(work.layers, replace(read_choices(work.layers), temporary=()))
    if first is not None:
        outcome = replace(outcome, report=_together(work.features, first, outcome.report))
    checked = None
    if check and outcome.leads:
        from cache.extract.compare_with_transformers import check as compare  # imports torch

        checked = compare(work, manifest, outcome.plan, check, show_progress=show_progress)
    return Extracted(work, manifest, foreign, outcome, choices, notes, checked)


class _Chooser:
    """Ranks the layers of some encoders.

    Attributes:
        report: of the pass over the sample; None where there was nothing to encode.
    """

    def __init__(
        self,
        cache: FrameCache,
        record: Path,
        manifest: Manifest,
        config: ExtractConfig,
        kinds: Sequence[str],
        *,
        foreign: bool,
    ) -> None:
        self.cache = cache
        self.record = record
        self.manifest = manifest
        self.config = config
        self.kinds = kinds
        self.keys = cache.keys(manifest.utterances, describe=config.describe)
        self.foreign = foreign
        self.report: ExtractReport | None = None

    def choose(
        self, tell: Callable[[str], None] | None, *, show_progress: bool
    ) -> tuple[dict[str, LayerChoice], tuple[str, ...]]:
        """The rankings by modality, and notes on those that there cannot be."""
        sample = draw_sample(self.manifest.utterances, self.keys)
        known = read_choices(self.record).rankings
        plan = self._plan(sample, self.kinds)
        recipes = {kind: plan.extraction.source(kind).recipe.folder for kind in self.kinds}
        digest = sample_digest(sample, self.keys)
        choices = {
            kind: known[folder]
            for kind, folder in recipes.items()
            if folder in known and (self.foreign or known[folder].sample == digest)
        }
        notes: list[str] = []
        for kind in self.kinds:
            if kind in choices:
                continue
            try:
                self._encode(sample, kind, tell, show_progress=show_progress)
                title = f"ranking {kind} layers" if show_progress else ""
                choices[kind] = self._rank(kind, sample, digest, title)
            except (ManifestError, UnreadableLayersError) as error:
                notes.append(
                    f"The data could not choose the {kind} layer ({str(error).rstrip('.')}): the "
                    f"last one is taken. --{kind}-layers names others."
                )
        if current_rank().leads and choices:
            found = {one.recipe: one for one in choices.values()}
            before = read_choices(self.record)
            write_choices(self.record, replace(before, rankings={**known, **found}))
        return {kind: choices[kind] for kind in self.kinds if kind in choices}, tuple(notes)

    def _plan(
        self, sample: Sequence[Utterance], kinds: Sequence[str], *, moments_only: bool = True
    ) -> Plan:
        """To encode all layers of the sample."""
        config = replace(
            self.config,
            audio_encoder=self.config.audio_encoder if "audio" in kinds else "",
            text_encoder=self.config.text_encoder if "text" in kinds else "",
            audio_layers="all",
            text_layers="all",
            moments_only=moments_only,
            # A sample's long recordings are left out; they are used as the user says later.
            best={},
        )
        return make_plan(self.cache, replace(self.manifest, utterances=tuple(sample)), config)

    def _encode(
        self,
        sample: list[Utterance],
        kind: str,
        tell: Callable[[str], None] | None,
        *,
        show_progress: bool,
    ) -> None:
        """Make the moments of all layers; shortens the sample where it is encoded twice."""
        if not sample:
            raise ManifestError(_NOTHING_TO_GO_BY)
        plan = self._plan(sample, [kind])
        if is_complete(plan):
            return
        from cache.extract.passes import audio_bytes, run_plan  # imports torch

        whole = self._plan(sample, [kind], moments_only=False)
        self.cache.root.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.cache.root).free
        if audio_bytes(whole) <= min(_MOST_BYTES, _MOST_OF_FREE * free):
            plan = whole
            source = plan.extraction.source(kind)
            made = [f"{source.recipe.folder}/{layer_name(layer)}" for layer in source.layers]
            self._note_temporary(path for path in made if not (self.cache.features / path).is_dir())
        else:
            most = max(_FEWEST, round(_PART_ENCODED_TWICE * len(self.manifest.utterances)))
            del sample[most:]
            plan = self._plan(sample, [kind])
        if tell is not None and current_rank().leads:
            tell(
                f"Choosing the {kind} layer: all layers of {len(sample):,} training utterances are "
                "encoded."
            )
        features = self.cache.features
        report = run_plan(features, plan, rank=current_rank(), show_progress=show_progress)
        self.report = report if self.report is None else _together(features, self.report, report)

    def _note_temporary(self, streams: Iterable[str]) -> None:
        """Write down what is to be removed, before it is there: a run may be killed."""
        if current_rank().leads:
            before = read_choices(self.record)
            together = tuple(sorted({*before.temporary, *streams}))
            write_choices(self.record, replace(before, temporary=together))

    def _rank(self, kind: str, sample: Sequence[Utterance], digest: str, title: str) -> LayerChoice:
        from cache.moments import moments_of_keys
        from cache.stream import FrameStream

        source = self._plan(sample, [kind]).extraction.source(kind)
        layers = source.moments
        first = self.cache.features / source.recipe.folder / moments_name(layers[0])
        if not first.is_dir():
            raise ManifestError(_NOTHING_TO_GO_BY)
        stream = FrameStream.open(first)
        held = {u.id: source.held_key(stream, self.keys[u.id].get(kind, "")) for u in sample}
        usable = [u for u in sample if held[u.id] in stream]
        own = [self.keys[u.id][kind] for u in usable]

        def vectors(layer: int) -> Vectors:
            mean, deviation = moments_of_keys(self.cache.features, source, layer, own)
            return np.concatenate([mean.numpy(), deviation.numpy()], axis=1)

        scores, folds, chance = rank_layers(layers, vectors, usable, title=title)
        speakers = {speaker_key(u) for u in usable} - {None}
        return LayerChoice(
            kind=kind,
            encoder=source.encoder,
            recipe=source.recipe.folder,
            sample=digest,
            utterances=len(usable),
            speakers=len(speakers),
            folds=folds,
            chance=chance,
            scores=scores,
        )


def _remove(features: Path, streams: Sequence[str], tell: Callable[[str], None] | None) -> bool:
    """Take frames out of the cache that were kept for the choice alone; whether that was done."""
    try:
        refuse_if_claimed(features.parent)
        with exclusive_lock(features):
            withdraw(
                [features / path for path in streams if (features / path).is_dir()],
                scratch_folder(features),
            )
    except CacheError:  # somebody is adding
        if tell is not None:
            tell(
                "The cache is in use, so frames of layers that were not chosen stay in it until "
                "the next extract."
            )
        return False
    return True


def _together(features: Path, first: ExtractReport, second: ExtractReport | None) -> ExtractReport:
    """Both passes as one, of the streams that are still there."""
    later = second or ExtractReport()
    added = dict(later.added)
    for path, count in first.added.items():
        if (features / path).is_dir():
            added[path] = added.get(path, 0) + count
    return replace(
        later,
        added=added,
        seconds=first.seconds + later.seconds,
        seconds_of_audio=first.seconds_of_audio + later.seconds_of_audio,
        failures=later.failures if second is not None else first.failures,
    )
