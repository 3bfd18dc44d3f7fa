"""How long the utterances were that a head or a model learnt from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cache.encoders.grid import SAMPLE_RATE, Grid
from cache.lookup import FrameCache
from corpora.base.codec import Jsonable
from corpora.base.errors import EmopoolError
from corpora.base.work import Work
from corpora.manifest import read_manifest
from finetune.model import EmotionModel
from heads.dataset import Dataset
from heads.records import as_learnt, manifest_digest

#: Where a model's provenance holds them.
ENTRY = "utterance_seconds"
# In percent: one recording that was cut by mistake is not what a model was trained on.
SHORTEST, LONGEST = 1, 99
USUAL, SHORT, LONG, UNKNOWN = "usual", "short", "long", "unknown"


@dataclass(frozen=True)
class UtteranceSeconds(Jsonable):
    """Lengths of training utterances.

    Attributes:
        shortest: the first percentile, seconds.
        median: seconds.
        longest: the 99th percentile, seconds.
    """

    shortest: float
    median: float
    longest: float

    @classmethod
    def of_frames(cls, counts: Sequence[int], grid: Grid) -> UtteranceSeconds:
        """Those of utterances of so many frames, at least one; right to a frame."""
        seconds = [grid.samples(int(count)) / SAMPLE_RATE for count in counts]
        return cls(*(round(float(q), 3) for q in np.percentile(seconds, (SHORTEST, 50, LONGEST))))

    def mark(self, seconds: float) -> str:
        """`short` or `long` for what is beyond nearly all of them, else `usual`."""
        return SHORT if seconds < self.shortest else LONG if seconds > self.longest else USUAL


def seconds_trained_on(work: Work, models: Sequence[EmotionModel]) -> UtteranceSeconds | None:
    """What all models of an ensemble learnt from; None where it is not known of one of them.

    A fine-tuned model knows. Of a head it is known in the work folder that it was searched in, as
    long as the manifest is the same.
    """
    found = [_known(work, model) for model in models]
    known = [one for one in found if one is not None]
    if len(known) < len(found):
        return None
    return UtteranceSeconds(
        max(one.shortest for one in known), known[0].median, min(one.longest for one in known)
    )


def _known(work: Work, model: EmotionModel) -> UtteranceSeconds | None:
    made = model.provenance
    if ENTRY in made:
        return UtteranceSeconds.from_json(made[ENTRY])
    digest = made.get("manifest_sha256") or made.get("search_manifest_sha256")
    if model.audio_encoder is None or not digest or not work.manifest.is_file():
        return None
    try:
        manifest = read_manifest(work.manifest)
        attributes = model.head.config.attributes
        if manifest_digest(as_learnt(manifest, model.labels), attributes) != digest:
            return None
        splits = str(made.get("trained_on", "train")).split("+")
        learnt = Dataset((), model.labels, {}, attributes=attributes).is_annotated
        rows = tuple(u for u in manifest.utterances if u.split in splits and learnt(u))
        cache = FrameCache(work)
        found = cache.find(replace(manifest, utterances=rows), ("audio",), speech=False)
    except EmopoolError:  # frames were pruned, or recordings are not there any more
        return None
    counts = found.streams["audio"].lengths(found.keys["audio"])
    if not len(counts):
        return None
    return UtteranceSeconds.of_frames(counts.tolist(), model.audio_encoder.grid)
