"""How many frames utterances have: from the extracted streams, or from their lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cache.encoders.grid import SAMPLE_RATE, Grid, fbank_grid
from cache.extraction import Extraction, read_extraction
from cache.stream import FrameStream
from corpora.base.errors import EmopoolError, MissingStepError
from corpora.base.work import Work
from corpora.utterance import Utterance

# Of the default speech encoder, W2V-BERT 2.0: one frame every 20 ms.
USUAL_GRID = fbank_grid(2)


@dataclass(frozen=True)
class Lengths:
    """Frames of utterances.

    Attributes:
        audio: of each utterance whose length is known.
        audio_source: where those numbers come from.
        text: of each text that was extracted.
        seconds: by id, of utterances whose audio was extracted, to one frame.
        notes: what is not known, and what to do.
    """

    audio: tuple[int, ...]
    audio_source: str
    text: tuple[int, ...]
    seconds: Mapping[str, float]
    notes: tuple[str, ...]


def frame_lengths(
    work: Work,
    utterances: Sequence[Utterance],
    keys: Mapping[str, Mapping[str, str]],
    seconds: Mapping[str, float],
) -> Lengths:
    """Count frames.

    Args:
        work: with the streams of the last extraction, where there was one.
        utterances: of a manifest.
        keys: content keys of each by id.
        seconds: lengths by id, of those that are known from headers; a cut with both ends is known
            by itself.
    """
    notes = []
    try:
        extraction = read_extraction(work)
    except MissingStepError:
        extraction = Extraction({})
    grid = _grid(extraction)
    extracted = _of_stream(work, extraction, "energy", "audio", utterances, keys)
    text = _of_stream(work, extraction, "text", "text", utterances, keys)
    known = {u.id: u.end - (u.start or 0.0) for u in utterances if u.end is not None} | dict(
        seconds
    )
    lengths = {name: grid.frames(round(value * SAMPLE_RATE)) for name, value in known.items()}
    from_audio = lengths | extracted
    source = (
        "extracted" if extracted else f"from lengths, {1000 * grid.hop / SAMPLE_RATE:g} ms apart"
    )
    if extracted and len(from_audio) > len(extracted):
        source = "extracted where they are, else from lengths"
    unknown = len(utterances) - len(from_audio)
    if unknown:
        notes.append(f"The length of {unknown:,} utterances is not known, so they are not counted.")
    if not text:
        notes.append("No text was extracted, so its frames cannot be counted. Run extract first.")
    elif len(text) < len(utterances):
        notes.append(f"The texts of {len(utterances) - len(text):,} utterances are not extracted.")
    back = {name: grid.samples(count) / SAMPLE_RATE for name, count in extracted.items() if count}
    return Lengths(
        tuple(from_audio.values()), source, tuple(text.values()), back | known, tuple(notes)
    )


def _grid(extraction: Extraction) -> Grid:
    if "energy" not in extraction.sources:
        return USUAL_GRID
    fields = extraction.sources["energy"].recipe.fields["grid"]
    assert isinstance(fields, dict)
    return Grid(int(str(fields["hop"])), int(str(fields["window"])), str(fields["rule"]))


def _of_stream(
    work: Work,
    extraction: Extraction,
    kind: str,
    modality: str,
    utterances: Sequence[Utterance],
    keys: Mapping[str, Mapping[str, str]],
) -> dict[str, int]:
    """Frames by id of the utterances that a stream of the last extraction holds."""
    if kind not in extraction.sources:
        return {}
    try:
        stream = FrameStream.open(work.features / extraction.source(kind).stream())
    except EmopoolError:
        return {}  # only moments were kept, or the stream is damaged: `cache verify` says so
    own = {u.id: keys[u.id].get(modality, "") for u in utterances}
    held = {name: key for name, key in own.items() if key in stream}
    return dict(zip(held, stream.lengths(list(held.values())).tolist(), strict=True))
