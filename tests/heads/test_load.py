"""From the cache to a search: the right frames, failures left out, origins named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cache.last_extraction import Extraction, Source, write_extraction, write_failures
from cache.lookup import FrameCache
from cache.recipe import Recipe
from cache.stream import PartWriter, ensure_stream, open_features
from corpora.base.errors import ConfigError, MissingStepError
from corpora.base.work import Work
from corpora.manifest import Manifest
from heads.config import SearchConfig
from heads.dataset import Dataset
from heads.load import load_dataset, read_origin
from heads.records import Origin, load_head, manifest_digest
from heads.search.search import run_search
from tests.heads.searches import small_dataset
from tests.heads.synthetic import in_memory

SOURCES = {
    "audio": Source(Recipe("audio", {"weights": "a"}), "tiny", (2, 4)),
    "text": Source(Recipe("text", {"weights": "t"}), "tiny", (2,)),
    "speech": Source(Recipe("speech", {"detector": "s"})),
}
FAILED = "u007"


def write_frames(work: Work, kind: str, values: dict[str, np.ndarray]) -> None:
    source = SOURCES[kind]
    folder, name = source.stream().split("/")
    assert folder == source.recipe.folder
    dim = next(iter(values.values())).shape[1]
    stream = ensure_stream(open_features(work.features), source.recipe, name, dim, "float32")
    with PartWriter(stream, dim, "float32") as writer:
        for key, frames in values.items():
            writer.add(key, frames)


@pytest.fixture
def extracted(tmp_path: Path) -> tuple[Work, Manifest, Dataset]:
    """A work folder as `extract` leaves it, with one utterance that failed."""
    dataset = small_dataset()
    utterances = []
    for u in dataset.utterances:
        audio = tmp_path / "wav" / f"{u.id}.wav"
        audio.parent.mkdir(exist_ok=True)
        audio.write_bytes(u.id.encode())
        utterances.append(replace(u, audio=audio, text=f"sentence of {u.id}"))
    manifest = Manifest(tuple(utterances), dataset.labels, corpus="toy")
    work = Work(tmp_path / "work")
    work.root.mkdir()
    keys = FrameCache(work).keys(manifest.utterances)
    frames: dict[str, dict[str, np.ndarray]] = {"audio": {}, "text": {}, "speech": {}}
    speech = dataset.frames["audio"].speech
    assert speech is not None
    parts = speech[:, None].split(dataset.frames["audio"].lengths.tolist())
    for number, u in enumerate(manifest.utterances):
        frames["text"][keys[u.id]["text"]] = dataset.frames["text"].utterance(number).numpy()
        if u.id != FAILED:
            key = keys[u.id]["audio"]
            frames["audio"][key] = dataset.frames["audio"].utterance(number).numpy()
            frames["speech"][key] = parts[number].numpy()
    for kind, values in frames.items():
        write_frames(work, kind, values)
    write_extraction(work.extraction, Extraction(SOURCES))
    write_failures(work.failures, {FAILED: "corrupt"})
    return work, manifest, dataset


def test_frames_come_in_the_order_of_the_manifest_without_failures(
    extracted: tuple[Work, Manifest, Dataset],
) -> None:
    work, manifest, dataset = extracted
    loaded = load_dataset(FrameCache(work), manifest)
    kept = [i for i, u in enumerate(dataset.utterances) if u.id != FAILED]
    assert loaded.utterances == tuple(manifest.utterances[i] for i in kept)
    for modality in ("audio", "text"):
        expected = dataset.frames[modality].select(kept)
        assert torch.equal(in_memory(loaded)[modality].values, expected.values)
        assert torch.equal(loaded.frames[modality].offsets, expected.offsets)
    speech = dataset.frames["audio"].select(kept).speech
    assert speech is not None
    assert loaded.frames["audio"].speech is not None
    assert torch.equal(loaded.frames["audio"].speech, speech)


def test_the_origin_names_encoders_layers_and_streams(
    extracted: tuple[Work, Manifest, Dataset],
) -> None:
    work, manifest, _ = extracted
    frames = load_dataset(FrameCache(work), manifest).frames
    origin = read_origin(FrameCache(work), manifest, frames)
    assert origin.encoders == {"audio": "tiny", "text": "tiny"}
    assert origin.layers == {"audio": 4, "text": 2}
    assert origin.streams == {kind: source.stream() for kind, source in SOURCES.items()}
    assert origin.frames == {name: batch.total for name, batch in frames.items()}
    assert Origin.from_json(origin.to_json()) == origin


def test_a_search_on_the_cache_leaves_a_head_that_names_its_origin(
    extracted: tuple[Work, Manifest, Dataset],
) -> None:
    work, manifest, _ = extracted
    config = SearchConfig(trials=2, epochs=1, modalities=["audio"], folds="off")
    report = run_search(work, manifest, config)
    record = load_head(work.search)[1]
    assert record == report.best
    assert record.head.modalities == ("audio",)
    assert record.origin.manifest_sha256 == manifest_digest(manifest)
    assert any(note.startswith("Left out, without frames: 1") for note in report.notes)


def test_an_unknown_modality_is_refused(extracted: tuple[Work, Manifest, Dataset]) -> None:
    work, manifest, _ = extracted
    with pytest.raises(ConfigError, match="smell"):
        load_dataset(FrameCache(work), manifest, ["smell"])
    with pytest.raises(MissingStepError, match="cache import FOLDER --kind video"):
        load_dataset(FrameCache(work), manifest, ["video"])


def test_a_search_before_an_extraction_is_refused(tmp_path: Path) -> None:
    manifest = Manifest(small_dataset().utterances, small_dataset().labels, corpus="")
    with pytest.raises(MissingStepError, match="extract"):
        run_search(Work(tmp_path), manifest)


def test_the_digest_sees_labels_splits_and_texts_but_not_where_recordings_lie() -> None:
    dataset = small_dataset()
    manifest = Manifest(dataset.utterances, dataset.labels, corpus="")
    digest = manifest_digest(manifest)
    first, *others = manifest.utterances

    def digest_with(**changes: str | Path) -> str:
        return manifest_digest(replace(manifest, utterances=(replace(first, **changes), *others)))  # type: ignore[arg-type]

    assert digest_with(audio=Path("elsewhere") / first.audio.name) == digest
    for change in ({"label": "anger2"}, {"split": "test"}, {"text": "other"}, {"speaker": "x"}):
        assert digest_with(**change) != digest
    assert manifest_digest(replace(manifest, labels=manifest.labels[::-1])) != digest
