"""`input_norm speaker`: each speaker's frames get the training frames' mean and deviation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cache.frames import Frames
from heads.dataset import Dataset
from heads.head import Head, HeadConfig
from heads.predict import predict
from heads.speakers import FEWEST_RECORDINGS, declared
from heads.training import Cohort, Schedule, TrainingConfig
from heads.vector_store import VectorStore
from tests.heads.searches import small_search
from tests.heads.synthetic import LABELS, in_memory, make_dataset, with_lower
from tests.rounding import summed
from tests.scorers import draw_scorers

POOLINGS = [
    {"kind": "average"},
    {"kind": "statistics"},
    {"kind": "max"},
    {"kind": "vad_average"},
    {"kind": "mqmha", "queries": 2, "heads": 2},
]


def audio_head(pooling: dict[str, object], norm: str = "speaker", dim: int = 16) -> Head:
    config = HeadConfig(LABELS, {"audio": dim}, {"audio": pooling}, norm, 8, 0.0)
    return draw_scorers(Head(config, 2))


def voices(dataset: Dataset) -> Dataset:
    """Every speaker with a mean and a deviation of their own."""
    frames = in_memory(dataset)["audio"]
    generator = torch.Generator().manual_seed(5)
    own = torch.randn(2, 9, frames.dim, generator=generator)
    of = torch.arange(len(dataset)) % 9
    of = of.repeat_interleave(frames.lengths)
    values = 3 * own[0, of] + own[1, of].exp() * frames.values
    audio = Frames(values, frames.offsets, frames.speech)
    return replace(dataset, frames={"audio": audio})


def expected(dataset: Dataset, train: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frames by the equations in float64: seen as `speaker`; and the target of all speakers."""
    frames = in_memory(dataset)["audio"]
    values, bounds = frames.values.double().numpy(), frames.offsets.tolist()
    whose = np.repeat([u.speaker for u in dataset.utterances], frames.lengths.numpy())
    rows = np.concatenate([np.arange(bounds[r], bounds[r + 1]) for r in train])
    target = values[rows].mean(0), values[rows].std(0)
    seen = values.copy()
    names, counts = np.unique([u.speaker for u in dataset.utterances], return_counts=True)
    for name, count in zip(names, counts, strict=True):
        if name and count >= FEWEST_RECORDINGS:
            own = values[whose == name]
            seen[whose == name] = target[0] + (own - own.mean(0)) / own.std(0) * target[1]
    return seen, *target


@pytest.mark.parametrize("pooling", POOLINGS, ids=lambda pooling: str(pooling["kind"]))
def test_logits_are_those_of_frames_normalised_by_speaker(pooling: dict[str, object]) -> None:
    dataset = voices(make_dataset(90))
    # One speaker too few recordings, another unknown.
    utterances = tuple(
        replace(u, speaker="" if number % 9 == 3 else "few" if number in (8, 17) else u.speaker)
        for number, u in enumerate(dataset.utterances)
    )
    dataset = replace(dataset, utterances=utterances)
    rows = dataset.rows("train")
    seen, mean, deviation = expected(dataset, rows.tolist())
    store = VectorStore(dataset)
    head, plain = audio_head(pooling), audio_head(pooling, "standardise")
    head.set_input_statistics("audio", *store.speakers_target("audio"))
    plain.set_input_statistics("audio", torch.tensor(mean).float(), torch.tensor(deviation).float())
    found = predict([head], store, torch.arange(90))[0]
    frames = in_memory(dataset)["audio"]
    changed = Frames(torch.tensor(seen).float(), frames.offsets, frames.speech)
    with torch.no_grad():
        wanted = torch.softmax(plain({"audio": changed}), dim=-1)
    torch.testing.assert_close(found, wanted, atol=summed(wanted, 2000), rtol=0)


def test_a_head_alone_takes_frames_of_a_stranger_by_the_training_statistics() -> None:
    dataset = voices(make_dataset(30))
    store = VectorStore(dataset)
    heads = [audio_head({"kind": "statistics"}, norm) for norm in ("speaker", "standardise")]
    for head in heads:
        head.set_input_statistics("audio", *store.speakers_target("audio"))
    frames = in_memory(dataset)
    assert torch.equal(heads[0](frames), heads[1](frames))


def test_training_reads_the_same_frames_as_scoring() -> None:
    """Thinned and kept frames too: a head on frames normalised beforehand is the same head."""
    dataset = voices(make_dataset(45))
    rows = dataset.rows("train")
    seen, _, _ = expected(dataset, rows.tolist())
    frames = in_memory(dataset)["audio"]
    changed = replace(
        dataset,
        frames={"audio": Frames(torch.tensor(seen).float(), frames.offsets, frames.speech)},
    )
    said = []
    for data, norm in ((dataset, "speaker"), (changed, "standardise")):
        head = audio_head({"kind": "mqmha", "queries": 2, "heads": 2}, norm)
        store = VectorStore(data)
        schedule = Schedule(epochs=3, batch_size=8, frames=5)
        cohort = Cohort([head], [TrainingConfig(1e-3)], store, rows, schedule)
        for _ in range(3):
            cohort.run_epoch()
        said.append(predict([head], store, torch.arange(45))[0])
    torch.testing.assert_close(said[0], said[1], atol=1e-3, rtol=0)


def test_each_layer_has_statistics_of_its_own() -> None:
    dataset = with_lower(make_dataset(45), (1,))
    store = VectorStore(dataset)
    usual = store.vectors("audio", "speaker", "mean")
    assert torch.equal(usual, store.vectors("audio", "speaker", "mean", layer=2))
    lower = store.vectors("audio", "speaker", "mean", layer=1)
    lengths = dataset.frames["audio"].lengths.double()[:, None]
    target, _ = store.frame_statistics("audio", dataset.rows("train"), layer=1)
    for speaker in range(9):
        own = torch.arange(len(dataset)) % 9 == speaker
        mean = (lengths[own] * lower[own]).sum(0) / lengths[own].sum()
        torch.testing.assert_close(mean.float(), target, atol=1e-5, rtol=1e-5)


def test_a_search_draws_it_on_request_alone_and_declares_it(tmp_path: Path) -> None:
    space = tmp_path / "space.toml"
    space.write_text('input_norm = "speaker"\n', encoding="utf-8")
    report = small_search(tmp_path / "search", 6, space=space)
    assert report.best.head.input_norm == "speaker"
    said = "test speakers too (not their labels): 0 speakers; 60 utterances"
    assert said in " ".join(report.to_text().split())
    plain = small_search(tmp_path / "plain")
    assert "own mean and deviation" not in plain.to_text()
    assert "speaker" not in (tmp_path / "plain" / "trials.csv").read_text(encoding="utf-8")


def test_who_is_not_known_is_counted() -> None:
    speakers = ["a"] * FEWEST_RECORDINGS + ["b"] * (FEWEST_RECORDINGS - 1) + [""]
    assert f"1 speaker; {FEWEST_RECORDINGS} utterances" in declared(speakers)
