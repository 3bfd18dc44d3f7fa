"""Pre-training on clusters: its loss, what it reads, and planted clusters that help or do not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from cache.frames import Frames
from corpora.base.errors import ConfigError
from corpora.utterance import Utterance
from heads.confusion import confusion_matrix, macro_f1
from heads.dataset import Dataset
from heads.head import Head, HeadConfig
from heads.predict import predict
from heads.pretraining import Clustered, contrastive_loss, pretrain
from heads.runs import Run, Runs
from heads.search.space import PROBES
from heads.training import Schedule, TrainingConfig
from heads.vector_store import VectorStore
from tests.heads.searches import finished, small_search, stored_trials
from tests.heads.synthetic import make_configs, make_dataset

LABELS = ("anger", "joy", "neutral", "sadness")
Floats = NDArray[np.float64]


def plain_loss(u: Floats, speakers: list[int], clusters: list[int], temperature: float) -> float:
    """The equation, pair by pair."""
    z = np.empty_like(u)
    for i, own in enumerate(speakers):
        z[i] = u[i] - np.mean([u[j] for j, other in enumerate(speakers) if other == own], axis=0)
        z[i] /= np.linalg.norm(z[i]) or 1
    found = []
    for i in range(len(u)):
        others = [j for j in range(len(u)) if j != i and speakers[j] == speakers[i]]
        positive = [j for j in others if clusters[j] == clusters[i]]
        if not positive or len(positive) == len(others):
            continue
        whole = sum(np.exp(z[i] @ z[a] / temperature) for a in others)
        said = [np.log(np.exp(z[i] @ z[p] / temperature) / whole) for p in positive]
        found.append(-np.mean(said))
    return float(np.mean(found))


def pairs(speakers: list[int], clusters: list[int]) -> tuple[Tensor, Tensor]:
    rows = torch.arange(len(speakers))
    return Clustered(rows, torch.tensor(speakers), torch.tensor(clusters)).pairs(rows)


@pytest.mark.parametrize("temperature", [0.1, 0.7])
def test_the_loss_is_the_equation(temperature: float) -> None:
    random = np.random.default_rng(0)
    # The third speaker has one cluster alone, the fourth one utterance: neither is contrasted.
    speakers = [0] * 9 + [1] * 6 + [2] * 3 + [3]
    clusters = [*(number % 3 for number in range(15)), 0, 0, 0, 1]
    u = random.standard_normal((len(speakers), 5)) + 10 * np.array(speakers)[:, None]
    found = contrastive_loss(torch.from_numpy(u), *pairs(speakers, clusters), temperature)
    expected = plain_loss(u, speakers, clusters, temperature)
    assert float(found) == pytest.approx(expected, rel=1e-10)


def test_its_gradient_is_finite_where_nothing_differs() -> None:
    same = torch.ones(4, 3, dtype=torch.float64, requires_grad=True)
    for clusters in ([0, 0, 1, 1], [0, 0, 0, 0], [0, 1, 2, 3]):
        loss = contrastive_loss(same, *pairs([0] * 4, clusters))
        (gradient,) = torch.autograd.grad(loss, same)
        assert gradient.isfinite().all()


DIM, CARRIERS = 24, 12


def planted(seed: int, *, count: int = 60, known: int = 2, strength: float = 1.5) -> Dataset:
    """Emotions along some features, voices along the others; noise along all.

    Of the six training speakers `known` utterances a label have one; those of six others are test.
    """
    generator = torch.Generator().manual_seed(seed)
    emotions = torch.zeros(len(LABELS), DIM)
    emotions[:, :CARRIERS] = strength * torch.randn(len(LABELS), CARRIERS, generator=generator)
    utterances, frames = [], []
    left = dict.fromkeys(LABELS, known)
    for speaker in range(12):
        voice = 3.0 * torch.randn(DIM, generator=generator)
        voice[:CARRIERS] = 0
        for number in range(count):
            label = LABELS[number % 4]
            test = speaker >= 6
            own = torch.randn(DIM, generator=generator) + voice + emotions[number % 4]
            frames.append(own + torch.randn(6, DIM, generator=generator))
            shown = test or left[label] > 0
            left[label] -= not test
            name = f"{speaker}-{number}"
            utterances.append(
                Utterance(
                    id=name,
                    audio=Path(f"{name}.wav"),
                    label=label if shown else "",
                    speaker=f"s{speaker}",
                    split="test" if test else "train",
                )
            )
    return Dataset(tuple(utterances), LABELS, {"audio": Frames.from_list(frames)})


def score(dataset: Dataset, kind: str, seed: int = 0) -> float:
    """Macro-F1 on test speakers of a head with hidden units, pre-trained by a kind of clusters."""
    pooling = {"kind": "mqmha", "queries": 1, "heads": 1}
    config = HeadConfig(LABELS, {"audio": DIM}, {"audio": pooling}, mlp_width=32, dropout=0.0)
    training = TrainingConfig(3e-3, seed=seed)
    schedule, store = Schedule(60, 16), VectorStore(dataset)
    runs = Runs([Run(config, training)], store, schedule, dataset.rows("train"))
    if kind != "none":
        clustered = Clustered.of(store, dataset.rows("train"))
        if kind == "dealt anew":
            order = torch.randperm(len(clustered.rows), generator=torch.Generator().manual_seed(7))
            clustered = replace(clustered, clusters=clustered.clusters[order])
        pretrain(runs.heads, [training], store, clustered, Schedule(60, 64), [-1])
    rows = dataset.rows("test")
    said = predict(runs.train(), store, rows)[0].argmax(dim=1)
    return float(macro_f1(confusion_matrix(dataset.targets(rows), said, len(LABELS))))


@pytest.mark.slow
def test_clusters_that_are_emotions_help_where_labels_are_few() -> None:
    found = {
        kind: np.array([score(planted(seed), kind, seed) for seed in range(4)])
        for kind in ("none", "clusters", "dealt anew")
    }
    gain, control = found["clusters"] - found["none"], found["dealt anew"] - found["none"]
    assert gain.mean() > 0.03
    assert (gain > 0).all()
    assert control.mean() < 0
    assert (gain > control).all()


def rows_of(dataset: Dataset, chosen: Clustered) -> set[tuple[str, str, bool]]:
    utterances = [dataset.utterances[row] for row in chosen.rows.tolist()]
    return {(u.speaker, u.split, bool(u.label)) for u in utterances}


def test_rows_of_dev_and_test_have_no_part() -> None:
    dataset = planted(0)
    utterances = [
        # Without label and split: one of a training speaker, of a test speaker, of nobody known.
        replace(u, label="", split="", speaker={0: "s0", 1: "s7"}.get(row, ""))
        if row < 3
        else replace(u, split="dev")
        if u.speaker in ("s5", "s6")
        else u
        for row, u in enumerate(dataset.utterances)
    ]
    dataset = replace(dataset, utterances=tuple(utterances))
    found = Clustered.of(VectorStore(dataset), dataset.rows("train"))
    assert {split for _, split, _ in rows_of(dataset, found)} == {"train", ""}
    assert {speaker for speaker, _, _ in rows_of(dataset, found)} == {"s0", "s1", "s2", "s3", "s4"}
    assert 0 in found.rows
    assert found.unlabelled == len(found.rows) - len(dataset.rows("train"))
    assert int(found.clusters.max()) == 3


def trained(dataset: Dataset, configs: list[HeadConfig], held_out: int = -1) -> list[Head]:
    rows = dataset.rows("train")
    folds = torch.tensor([int(name[-1]) % 2 for name in dataset.speakers(rows)])
    runs = [Run(one, TrainingConfig(1e-2, seed=3), held_out) for one in configs]
    schedule = Schedule(3, 16, pretrain="clusters")
    return Runs(runs, VectorStore(dataset), schedule, rows, folds).train()


def same(one: Head, other: Head) -> bool:
    values = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(*pair) for pair in values)


def test_a_held_out_speaker_changes_nothing() -> None:
    dataset = planted(1, count=16, known=30)
    config = HeadConfig(LABELS, {"audio": DIM}, {"audio": {"kind": "average"}}, mlp_width=8)
    (head,) = trained(dataset, [config], held_out=1)
    generator = torch.Generator().manual_seed(5)
    frames = [
        torch.randn(6, DIM, generator=generator)
        if u.speaker in ("s1", "s3", "s5")
        else dataset.frames["audio"].utterance(row)
        for row, u in enumerate(dataset.utterances)
    ]
    other = replace(dataset, frames={"audio": Frames.from_list(frames)})
    (again,) = trained(other, [config], held_out=1)
    assert same(head, again)
    assert not same(head, trained(other, [config])[0])


def test_company_changes_nothing_and_what_has_nothing_stays() -> None:
    dataset, configs = make_dataset(), make_configs()
    linear = replace(configs[0], mlp_width=0)  # nothing but its scorers is pre-trained
    configs.append(linear)
    together = trained(dataset, configs)
    for config, head in zip(configs, together, strict=True):
        (alone,) = trained(dataset, [config])
        expected, found = (one.state_dict() for one in (alone, head))
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=2e-3, atol=2e-5)
    rows = dataset.rows("train")
    bare = [one for one in configs if not one.mlp_width and one is not linear]
    runs = [Run(one, TrainingConfig(1e-2, seed=3)) for one in bare]
    plain = Runs(runs, VectorStore(dataset), Schedule(3, 16), rows).train()
    assert len(bare) == 1
    assert same(plain[0], trained(dataset, bare)[0])
    plain = Runs(
        [replace(runs[0], head=linear)], VectorStore(dataset), Schedule(3, 16), rows
    ).train()
    assert not same(plain[0], together[-1])


def test_a_search_says_it_keeps_it_and_is_not_resumed_without(tmp_path: Path) -> None:
    dataset = make_dataset(90, dim=8, signal=0.5)
    report = small_search(tmp_path, 14, pretrain="clusters", dataset=dataset, cohort=4)
    assert any("nothing to pre-train" in note for note in report.notes)
    assert json.loads((tmp_path / "best.json").read_text())["schedule"]["pretrain"] == "clusters"
    with pytest.raises(ConfigError, match="pretrain"):
        small_search(tmp_path, 16, dataset=dataset, cohort=4)
    plain = small_search(tmp_path / "plain", 14, dataset=dataset, cohort=4)
    assert "pretrain" not in json.loads((tmp_path / "plain/best.json").read_text())["schedule"]
    assert not any("pre-train" in note for note in plain.notes)
    with pytest.raises(ConfigError, match="pretrain"):
        small_search(tmp_path / "plain", 16, pretrain="clusters", dataset=dataset, cohort=4)
    values = [
        [trial.value for trial in finished(stored_trials(path))]
        for path in (tmp_path, tmp_path / "plain")
    ]
    assert values[0][: len(PROBES)] == values[1][: len(PROBES)]
    assert values[0] != values[1]


def test_without_speakers_it_is_refused(tmp_path: Path) -> None:
    dataset = make_dataset()
    nobody = tuple(replace(u, speaker="") for u in dataset.utterances)
    with pytest.raises(ConfigError, match="Fill the column speaker"):
        small_search(tmp_path, pretrain="clusters", dataset=replace(dataset, utterances=nobody))
