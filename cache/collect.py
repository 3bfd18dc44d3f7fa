"""From a manifest to the frames of its utterances, read from the cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cache.extraction import Extraction, read_extraction
from cache.failures import read_failures
from cache.frames import Frames
from cache.inputs import utterance_keys
from cache.stream import FrameStream
from corpora.errors import MissingStepError
from corpora.manifest import Manifest, Utterance
from corpora.work import Work


@dataclass(frozen=True, eq=False)
class Collection:
    """The utterances that have frames, and those frames.

    Attributes:
        utterances: in the manifest's order, without those that failed at extraction.
        frames: for each modality a batch of all of them, in that order.
        failed: reasons by id, for the utterances left out.
        extraction: where the frames come from.
    """

    utterances: tuple[Utterance, ...]
    frames: Mapping[str, Frames]
    failed: Mapping[str, str]
    extraction: Extraction


def collect_frames(
    work: Work,
    manifest: Manifest,
    modalities: Sequence[str],
    *,
    layers: Mapping[str, int] | None = None,
    speech: bool = True,
) -> Collection:
    """Load the frames of a manifest's utterances.

    Args:
        work: the work folder that `extract` filled.
        manifest: whose utterances.
        modalities: `audio` and/or `text`.
        layers: for a modality another layer than its highest extracted one.
        speech: whether audio frames get the voice activity detector's probabilities.

    Raises:
        MissingStepError: nothing was extracted, or utterances are neither cached nor listed as
            failed.
    """
    extraction = read_extraction(work)
    keys = utterance_keys(work, manifest.utterances)
    wanted = {
        name: FrameStream.open(
            work.features / extraction.source(name).stream((layers or {}).get(name))
        )
        for name in modalities
    }
    if speech and "audio" in modalities:
        wanted["speech"] = FrameStream.open(work.features / extraction.source("speech").stream())
    kept: list[Utterance] = []
    missing: list[Utterance] = []
    for utterance in manifest.utterances:
        own = keys[utterance.id]
        complete = all(own.get(_key_kind(name)) in stream for name, stream in wanted.items())
        (kept if complete else missing).append(utterance)
    known = read_failures(work.failures)
    unknown = [utterance.id for utterance in missing if utterance.id not in known]
    if unknown:
        raise MissingStepError(
            f"{len(unknown)} of {len(manifest.utterances)} utterances are not in the cache "
            f"(the first: {unknown[0]}). Run `python cli.py extract --work {work.root}` again."
        )
    frames: dict[str, Frames] = {}
    for name in modalities:
        frames[name] = wanted[name].load([keys[u.id][_key_kind(name)] for u in kept])
    if "speech" in wanted:
        probabilities = wanted["speech"].load([keys[u.id]["audio"] for u in kept])
        frames["audio"] = frames["audio"].with_speech(probabilities.values[:, 0].float())
    return Collection(tuple(kept), frames, {u.id: known[u.id] for u in missing}, extraction)


def _key_kind(stream: str) -> str:
    return "text" if stream == "text" else "audio"
