"""`explain` of heads that say arousal and valence."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from cache.audio import load_audio
from cache.encoders.grid import Grid
from cache.frames import Frames
from corpora.base.errors import ConfigError
from corpora.manifest import write_manifest
from corpora.utterance import Utterance
from explain.config import ExplainConfig
from explain.explain import explain_recordings, explain_split
from explain.faithfulness import faithfulness_section
from explain.load import LoadedRows, build_subject
from explain.subject import Subject
from heads.attributes import attribute_report
from heads.config import SearchConfig
from heads.dataset import Dataset
from heads.head import Head, HeadConfig, answers
from heads.search.search import run_search
from heads.training import Cohort, Schedule, TrainingConfig
from heads.vector_store import VectorStore
from tests.explain.conftest import Explained
from tests.finetune.scoring import evaluate_head
from tests.finetune.searched import copy_work

DIM = 48
SCALE = (1.0, 7.0)
PLAIN = ExplainConfig(figures=False)


def planted(seed: int, *, dealt: bool = False) -> tuple[LoadedRows, np.ndarray]:
    """Ratings that are linear in a marked tenth of the frames; dealt: in nothing. `[N]` which."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(2, DIM, generator=torch.Generator().manual_seed(7))
    marker, direction = directions / directions.norm(dim=1, keepdim=True)
    levels = torch.randn(120, generator=generator).clamp(-2, 2)
    rated = levels[torch.randperm(120, generator=generator)] if dealt else levels
    utterances, frames, carries = [], [], []
    for number, level in enumerate(levels.tolist()):
        length = int(torch.randint(40, 90, (1,), generator=generator))
        start = int(torch.randint(0, length - length // 10, (1,), generator=generator))
        there = np.zeros(length, dtype=np.bool_)
        there[start : start + length // 10] = True
        values = torch.randn(length, DIM, generator=generator)
        values[torch.from_numpy(there)] += 7 * marker + 6 * level * direction
        frames.append(values)
        carries.append(there)
        utterances.append(
            Utterance(
                id=f"u{number:03}",
                audio=Path(f"u{number:03}.wav"),
                label="",
                speaker=f"s{number % 12:02}",
                split="test",
                arousal=4 + 1.4 * float(rated[number]),
            )
        )
    audio = Frames.from_list(frames).with_speech(torch.ones(sum(map(len, frames))))
    material = LoadedRows(tuple(utterances), {"audio": audio}, Grid(320, 560))
    return material, np.concatenate(carries)


def trained(pooling: dict[str, object], *, dealt: bool = False) -> Head:
    """A head of arousal."""
    material, _ = planted(1, dealt=dealt)
    scales = {"arousal": SCALE}
    config = HeadConfig((), {"audio": DIM}, {"audio": pooling}, "none", 16, 0.0, attributes=scales)
    dataset = Dataset(material.utterances, (), dict(material.frames), attributes=scales)
    schedule = Schedule(epochs=25, batch_size=24)
    training = TrainingConfig(1e-2, scorer_rate=1.0, attribute_weight=1.0)
    head = Head(config, 3)
    rows = torch.arange(len(dataset))
    cohort = Cohort([head], [training], VectorStore(dataset), rows, schedule)
    for _ in range(schedule.epochs):
        cohort.run_epoch()
    return head


def subject_of(head: Head) -> tuple[Subject, np.ndarray]:
    material, carries = planted(2)
    return build_subject(head, material, split="test", attribute="arousal"), carries


def test_saliency_is_the_gradient_of_the_output_towards_its_side() -> None:
    config = HeadConfig(
        ("a", "b"),
        {"audio": DIM},
        {"audio": {"kind": "average"}},
        mlp_width=0,
        attributes={"valence": (-1.0, 1.0), "arousal": SCALE},
    )
    head, (material, _) = Head(config, 5), planted(2)
    subject = build_subject(head, material, attribute="arousal")
    weight = head.output.weight[3].detach().double().numpy()
    bias = float(head.output.bias[3].detach())
    at = 0
    for row, length in enumerate(material.frames["audio"].lengths.tolist()):
        x = material.frames["audio"].utterance(row).double().numpy()
        z = float(x.mean(axis=0) @ weight) + bias
        expected = np.sign(z) * ((x - x.mean(axis=0)) @ weight) / length
        found = subject.saliency["audio"][at : at + length].double().numpy()
        np.testing.assert_allclose(found, expected, atol=1e-6)
        assert subject.probabilities[row, int(z > 0)] == pytest.approx(
            1 / (1 + np.exp(-2 * abs(z))), abs=1e-6
        )
        at += length
    with torch.no_grad():
        said = answers(config, head(dict(material.frames)))[:, 3]
    assert subject.attribute is not None
    np.testing.assert_allclose(subject.attribute.said, said, atol=1e-5)
    labels = [u.label for u in subject.utterances]
    rated = [u.arousal or 0.0 for u in material.utterances]
    assert labels == [f"{'low' if own < 4 else 'high'} arousal" for own in rated]


def test_the_classes_of_a_head_of_both_are_explained_as_if_it_had_no_attributes() -> None:
    pooling = {"audio": {"kind": "average"}}
    config = HeadConfig(("a", "b"), {"audio": DIM}, pooling, attributes={"arousal": SCALE})
    head, (material, _) = Head(config, 5), planted(2)
    subject = build_subject(head, material)
    with torch.no_grad():
        said = answers(config, head(dict(material.frames)))[:, :2]
    np.testing.assert_allclose(subject.probabilities, said, atol=1e-6)
    assert subject.labels == ("a", "b")
    assert subject.attribute is None


@pytest.mark.parametrize("kind", ["as", "average"])
def test_the_tenth_that_the_rating_is_linear_in_is_found(kind: str) -> None:
    subject, carries = subject_of(trained({"kind": kind}))
    weights = subject.importance["audio"].numpy()
    assert weights[carries].sum() / weights.sum() > (0.9 if kind == "as" else 0.4)
    assert faithfulness_section(subject).data["audio"]["dropping_tells"]
    assert subject.attribute is not None
    [_, told] = subject.attribute.sentences(subject.speakers)
    x, y = subject.attribute.said, subject.attribute.rated
    apart = x.var() + y.var() + (x.mean() - y.mean()) ** 2
    ccc = 2 * np.mean((x - x.mean()) * (y - y.mean())) / apart
    assert f"CCC {ccc:.3f}" in told
    assert f"MAE {np.abs(x - y).mean():.3f}" in told
    assert ccc > 0.9


def test_ratings_dealt_out_anew_leave_nothing_to_find() -> None:
    subject, carries = subject_of(trained({"kind": "as"}, dealt=True))
    weights = subject.importance["audio"].numpy()
    assert weights[carries].sum() / weights.sum() < 0.15  # a tenth is chance
    own = subject.attribute
    assert own is not None
    scales = {own.name: own.scale}
    found = attribute_report(own.rated[:, None], own.said[:, None], scales, subject.speakers)
    interval = found.per_attribute[0].ccc_interval
    assert interval is not None
    assert interval.low < 0 < interval.high


@pytest.fixture(scope="module", params=["attributes", "both"])
def rated(
    request: pytest.FixtureRequest, explained: Explained, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Explained, str]:
    """A search for attributes on the utterances of another."""
    work = copy_work(explained.work, tmp_path_factory.mktemp(request.param) / "work")
    shutil.rmtree(work.search)
    labels = explained.manifest.labels
    rows = tuple(
        replace(u, arousal=6.5 - labels.index(u.label), valence=labels.index(u.label) - 1.0)
        for u in explained.manifest.utterances
        if u.label
    )
    scales = {"arousal": (1.0, 7.0), "valence": (-3.0, 3.0)}
    manifest = replace(explained.manifest, utterances=rows, scales=scales)
    write_manifest(manifest, work.manifest)
    run_search(
        work,
        manifest,
        SearchConfig(targets=request.param, trials=3, epochs=2, folds="off", batch_size=8),
    )
    return replace(explained, work=work, manifest=manifest), request.param


def test_a_searched_head_is_explained_by_an_attribute(rated: tuple[Explained, str]) -> None:
    explained, targets = rated
    work, manifest = explained.work, explained.manifest
    found = explain_split(work, manifest, replace(PLAIN, attribute="valence"))
    text = " ".join(found.to_text().split())
    assert "Explained is valence, on its scale of -3 to 3" in text
    evaluation = evaluate_head(work, manifest)
    assert evaluation.attributes is not None
    [_, valence] = evaluation.attributes.per_attribute
    assert f"CCC {valence.ccc:.3f}" in text
    summary = json.loads((work.explain / "summary.json").read_text())
    assert "Evidence" not in summary["sections"]
    assert "Not made of an attribute" in text
    whole = explain_split(work, manifest, PLAIN)
    if targets == "both":
        assert whole.subject.labels == manifest.labels
        assert "Explained is" not in whole.to_text()
    else:
        assert whole.subject.labels == ("low arousal", "high arousal")
    with pytest.raises(ConfigError, match=r"--attribute valense: .* Did you mean 'valence'"):
        explain_split(work, manifest, replace(PLAIN, attribute="valense"))


def test_single_utterances_and_recordings_say_value_and_rating(
    rated: tuple[Explained, str],
) -> None:
    explained, _ = rated
    own = explained.manifest.in_split("test")[0]
    config = replace(PLAIN, attribute="arousal", ids=(own.id,), figures=True)
    found = explain_split(explained.work, explained.manifest, config)
    text = " ".join(found.to_text().split())
    assert found.subject.attribute is not None
    [said] = found.subject.attribute.said
    assert f"{own.id}: arousal {said:.2f} on 1 to 7, rated {own.arousal:.2f}" in text
    alone = explain_recordings(
        explained.work, [own.audio], replace(PLAIN, attribute="arousal"), text=own.text
    )
    assert "arousal" in alone.to_text()
    assert "rated" not in alone.to_text().split("Answers")[1]


def test_a_head_of_classes_has_no_attribute(explained: Explained) -> None:
    with pytest.raises(ConfigError, match="classes alone"):
        explain_split(explained.work, explained.manifest, replace(PLAIN, attribute="arousal"))


def test_a_recording_longer_than_what_is_heard_at_once_has_a_curve(
    rated: tuple[Explained, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    explained, targets = rated
    sounds = [load_audio(u.audio) for u in explained.manifest.utterances]
    soundfile.write(tmp_path / "long.wav", np.concatenate(sounds), 16_000)
    monkeypatch.setattr("explain.explain.WHOLE_SECONDS", 4.0)
    config = replace(PLAIN, attribute="arousal")
    found = explain_recordings(explained.work, [tmp_path / "long.wav"], config)
    text = " ".join(found.to_text().split())
    assert "mean arousal" in text
    assert "trained on were is not known" not in text
    assert ("lowest and highest" in text) == (targets == "attributes")
    assert ("surest of each label" in text) == (targets == "both")
    with (explained.work.explain / "items" / "tables" / "over-time.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    assert 1 <= float(row["arousal"]) <= 7
