"""Explaining a head that weighs layers: saliency over all of them, probes of their sum."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import torch

from cache.lookup import FrameCache
from corpora.base.work import Work
from explain.config import ExplainConfig
from explain.explain import Explanation, explain_recordings, explain_split
from explain.load import build_subject
from explain.probing import subject_vectors
from explain.subject import GRADIENT
from heads.config import SearchConfig
from heads.dataset import Dataset
from heads.head import Head, HeadConfig
from heads.records import layer_weights, load_head
from heads.search.search import run_search
from heads.training import Cohort, Schedule, TrainingConfig
from heads.vector_store import VectorStore
from tests.explain.conftest import Explained
from tests.explain.planted import DIM, LABELS, Planted, in_memory, plant

SPACE = """
layers = "weighted"
pooling = "statistics"
modalities = "audio+text"
input_norm = "none"
"""


@pytest.fixture(scope="module")
def work(explained: Explained, tmp_path_factory: pytest.TempPathFactory) -> Work:
    """The work folder with a search of heads that weigh layers."""
    root = tmp_path_factory.mktemp("weighed") / "work"
    shutil.copytree(explained.work.root, root, symlinks=True)
    space = root / "space.toml"
    space.write_text(SPACE)
    config = SearchConfig(trials=9, epochs=1, folds="off", space=space)
    run_search(Work(root), explained.manifest, config, fresh=True)
    return Work(root)


@pytest.fixture(scope="module")
def found(work: Work, explained: Explained) -> Explanation:
    return explain_split(work, explained.manifest, ExplainConfig(figures=False))


def test_every_analysis_reads_a_head_that_weighs_layers(found: Explanation) -> None:
    assert set(found.subject.methods.values()) == {GRADIENT}
    assert found.subject.layers == {"audio": (0, 1, 2, 3), "text": (0, 1, 2, 3)}
    assert any("layers 0, 1, 2 and 3" in line for line in found.intro)
    assert any(line.startswith("Layer weights: audio 0: 0.") for line in found.intro)
    for name, frames in found.subject.frames.items():
        shares = found.subject.importance[name].split(frames.lengths.tolist())
        assert torch.stack([part.sum() for part in shares]).tolist() == pytest.approx(
            [1.0] * len(found.subject)
        )


def test_recordings_give_what_cached_frames_give(
    work: Work, found: Explanation, explained: Explained
) -> None:
    audio = found.subject.utterances[0].audio
    config = ExplainConfig(figures=False)
    text = found.subject.utterances[0].text
    made = explain_recordings(work, [audio], config, text=text).subject
    expected = found.subject.probabilities[0].tolist()
    assert made.probabilities[0].tolist() == pytest.approx(expected, abs=2e-2)


def test_probed_vectors_are_of_the_weighted_sum(
    work: Work, found: Explanation, explained: Explained
) -> None:
    head = load_head(work.search)[0]
    attended = subject_vectors(found.subject, found.subject.layers, moments=False)[0]
    assert attended.layer is None
    layers = [
        FrameCache(work).find(explained.manifest, ["audio"], layers={"audio": n}) for n in range(4)
    ]
    row = [u.id for u in layers[0].utterances].index(found.subject.utterances[0].id)
    shares = layer_weights(head)["audio"]
    parts = [one.load("audio").utterance(row).double() for one in layers]
    summed = torch.stack([share * part for share, part in zip(shares, parts, strict=True)]).sum(0)
    weights = found.subject.importance["audio"][: len(summed)].double()
    assert attended.values[0].tolist() == pytest.approx((weights @ summed).tolist(), abs=1e-3)


def test_saliency_finds_planted_frames_of_a_lower_layer() -> None:
    generator = torch.Generator().manual_seed(0)

    def laid(seed: int) -> tuple[Planted, Dataset]:
        """The class is in the lower of two layers."""
        planted = plant(seed=seed)
        lower = in_memory(planted.material.frames)["audio"]
        top = replace(lower, values=torch.randn(lower.values.shape, generator=generator))
        frames, below = {"audio": top}, {"audio": {1: lower}}
        return planted, Dataset(planted.material.utterances, LABELS, frames, others=below)

    config = HeadConfig(
        LABELS, {"audio": 2 * DIM}, {"audio": {"kind": "average", "layers": 2}}, mlp_width=16
    )
    dataset, head = laid(1)[1], Head(config, 3)
    rows = torch.arange(len(dataset))
    cohort = Cohort([head], [TrainingConfig(1e-2)], VectorStore(dataset), rows, Schedule(12, 24))
    for _ in range(12):
        cohort.run_epoch()
    planted, unseen = laid(2)
    wide = unseen.select("audio", range(len(unseen)), 2)
    subject = build_subject(head, replace(planted.material, frames={"audio": wide}), split="test")
    assert float((subject.predicted == subject.targets).double().mean()) > 0.8
    importance = subject.importance["audio"].numpy()
    assert importance[planted.carries].mean() > 2 * importance[~planted.carries].mean()
