"""Every pooling kind through all that uses poolings, and one that is registered here.

The kind's own contract is in tests/heads/test_pooling_contract.py. Nothing outside `heads.pooling`
knows a kind: what a search draws, `compare` lists, `predict` shows, `explain` says and fine-tuning
trains follows from what the kind says of itself.
"""

from __future__ import annotations

import ast
import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch

from cache.encoders.names import resolve_encoder
from cache.frames import Frames
from corpora.base.errors import ConfigError
from explain.deletion import probabilities_of_kept
from explain.explain import introduction
from explain.load import build_subject
from finetune.predict.answering import most_attended
from heads.axes import INPUT_NORMS
from heads.compare.rows import comparison_plan
from heads.config import CompareConfig
from heads.head import Head, HeadConfig, as_inputs, pooled_vectors
from heads.pooling import pooling, pooling_class, pooling_config, pooling_kinds, searched_kinds
from heads.pooling.pooling import AttentionPooling
from heads.records import layer_weights
from heads.runs import head_cost
from heads.search.space import Space, option_axis, start_params, trial_configs
from heads.training import TrainingConfig, parameter_groups
from tests.explain.planted import in_memory, plant
from tests.finetune.corpus import make_model
from tests.heads.references import has_shares
from tests.heads.searches import small_search, stored_trials

ROOT = Path(__file__).parents[1]
DIM = 16
SPACE = Space(("anger", "joy"), {"audio": DIM, "text": DIM}, speech=True, words=True)
KINDS = [*pooling_kinds(), "gated"]
every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(autouse=True)
def gated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gated attention as a user registers it, for one test."""
    monkeypatch.setattr(pooling, "_KINDS", dict(pooling._KINDS))
    runpy.run_path(str(ROOT / "examples" / "own_pooling.py"))


def make_head(kind: str, input_norm: str = "none", seed: int = 1) -> Head:
    """A head on audio with attention that is not even."""
    config = HeadConfig(
        ("anger", "joy"), {"audio": DIM}, {"audio": {"kind": kind}}, input_norm, mlp_width=8
    )
    head = Head(config, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in head.scorer_parameters():
            parameter.uniform_(-1, 1, generator=generator)
    if head.affine("audio") is not None:
        head.set_input_statistics("audio", torch.arange(DIM) / 4, 0.5 + torch.arange(DIM) / 8)
    return head.eval().requires_grad_(False)


def make_frames(lengths: tuple[int, ...] = (7, 1, 30), seed: int = 0) -> dict[str, Frames]:
    generator = torch.Generator().manual_seed(seed)
    values = [2 + torch.randn(n, DIM, generator=generator) for n in lengths]
    speech = [torch.rand(n, generator=generator) for n in lengths]
    words = torch.rand(sum(lengths), 2, generator=generator)
    return {"audio": replace(Frames.from_list(values, speech), words=words)}


@every_kind
@pytest.mark.parametrize("input_norm", INPUT_NORMS)
def test_attention_is_the_weights_that_are_used(kind: str, input_norm: str) -> None:
    head, frames = make_head(kind, input_norm), make_frames()
    if not has_shares(kind):
        with pytest.raises(ConfigError, match="no attention weights"):
            head.attention(frames, "audio")
        return
    weights = head.attention(frames, "audio").double().numpy()
    pooled = pooled_vectors([head], as_inputs(frames))[0][0].double().numpy()
    module = head.pooling("audio")
    slices = module.slices if isinstance(module, AttentionPooling) else 1
    affine = head.affine("audio")
    for b, own in enumerate(np.split(weights, frames["audio"].offsets[1:-1].numpy())):
        x = frames["audio"].utterance(b).double().numpy()
        if input_norm == "layernorm":
            x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
        if affine is not None:
            x = (x - affine.shift.double().numpy()) / affine.scale.double().numpy()
        np.testing.assert_allclose(own.sum(axis=0), 1, atol=1e-5)
        # A mean under each column of weights, of the slice of features that it is for.
        means = [own[:, c] @ np.split(x, slices, axis=1)[c % slices] for c in range(own.shape[1])]
        blocks = means
        if module.config.deviations:
            step = DIM // slices
            blocks = [pooled[b][2 * c * step : (2 * c + 1) * step] for c in range(len(means))]
            np.testing.assert_allclose(np.concatenate(blocks), np.concatenate(means), atol=1e-4)
        else:
            np.testing.assert_allclose(pooled[b], np.concatenate(blocks), atol=1e-4)


@pytest.mark.parametrize("name", [*searched_kinds(), "gated"])
def test_a_search_draws_it_with_its_own_options(name: str) -> None:
    options = pooling_class(searched_kinds()[name]).axes
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen: dict[str, set[Any]] = {option: set() for option in options}
    for _ in range(40 * len(searched_kinds())):
        trial = study.ask()
        head, _ = trial_configs(trial, SPACE, seed=0)
        if trial.params["pooling"] != name:
            continue
        Head(head)
        for option in options:
            axis = option_axis(name, option)
            assert (axis in trial.params) == (option in head.pooling[head.modalities[0]])
            seen[option] |= {trial.params[axis]} if axis in trial.params else set()
        learns = pooling_class(searched_kinds()[name]).learns_weights
        assert ("scorer_rate" in trial.params) == learns
        assert (head_cost(head) > 1) == learns
    assert all(len(values) > 1 for values in seen.values()), seen
    assert name in {params["pooling"] for params in start_params(SPACE)[0].values()}


def test_a_whole_search_trains_it_beside_others(tmp_path: Path) -> None:
    small_search(tmp_path / "search")
    kinds = {trial.params["pooling"] for trial in stored_trials(tmp_path / "search")}
    assert {"gated", "statistics", "attentive"} <= kinds


def test_a_study_from_before_there_was_the_kind_goes_on_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as before:
        before.setattr(pooling, "_KINDS", {k: v for k, v in pooling._KINDS.items() if k != "gated"})
        small_search(tmp_path / "search")
    with pytest.raises(ConfigError, match="If gated came since: with --space FILE") as refused:
        small_search(tmp_path / "search", trials=26)
    line = str(refused.value).partition("the line ")[2].partition(" the study")[0]
    (tmp_path / "space.toml").write_text(line)
    report = small_search(tmp_path / "search", trials=26, space=tmp_path / "space.toml")
    assert len(stored_trials(tmp_path / "search")) == 26
    assert report.best is not None


def test_compare_has_a_row_for_it() -> None:
    plan = comparison_plan(SPACE, CompareConfig(tables=("poolings",)))
    titles = {entry.title: entry.key for entry in plan.tables[0].entries}
    kinds = {row.params["pooling"] for row in plan.rows.values()}
    assert kinds == set(searched_kinds())
    assert titles["gated"] == "audio+text-gated-hidden128"
    only = comparison_plan(SPACE, CompareConfig(tables=("poolings",), poolings=("Gated",)))
    assert list(only.rows) == [titles["gated"]]


@every_kind
def test_the_frames_it_attends_to_are_shown_and_explained(kind: str) -> None:
    learns = pooling_config({"kind": kind}).learns_weights
    material = plant(count=6).material
    audio = in_memory(material.frames)["audio"]
    words = torch.rand(audio.total, 2, generator=torch.Generator().manual_seed(1))
    material = replace(material, frames={"audio": replace(audio, words=words)})
    dim = audio.dim
    config = HeadConfig(("anger", "joy"), {"audio": dim}, {"audio": {"kind": kind}}, mlp_width=4)
    head = Head(config, 3)
    subject = build_subject(head, material)
    said = " ".join(introduction(subject, []))
    assert ("learns no attention" in said) != learns
    assert ("audio" in subject.weights) == learns
    if learns:
        weights = head.attention(in_memory(subject.frames), "audio").mean(dim=1)
        torch.testing.assert_close(subject.importance["audio"].float(), weights)
    # Without some frames: the same as of utterances that never had them.
    frames = in_memory(subject.frames)["audio"]
    kept = torch.rand(1, frames.total, generator=torch.Generator().manual_seed(0)) < 0.6
    kept[0, frames.offsets[:-1]] = True
    left = [
        values[own]
        for values, own in zip(
            frames.values.split(frames.lengths.tolist()),
            kept[0].split(frames.lengths.tolist()),
            strict=True,
        )
    ]
    assert frames.speech is not None
    shorter = Frames.from_list(left).with_speech(frames.speech[kept[0]])
    shorter = replace(shorter, words=words[kept[0]])
    found = probabilities_of_kept(head, {"audio": frames}, "audio", kept)[0]
    torch.testing.assert_close(
        found, torch.softmax(head({"audio": shorter}), dim=1), atol=1e-5, rtol=1e-4
    )


@every_kind
def test_it_is_fine_tuned_with_its_encoder(kind: str, tmp_path: Path) -> None:
    for name in ("audio", "text"):
        resolve_encoder("tiny", name, tmp_path)
    model = make_model(tmp_path / "encoders", {"kind": kind}, modalities=("audio",))
    model.requires_grad_(True)
    assert model.audio_encoder is not None
    learns = pooling_config({"kind": kind}).learns_weights
    groups = parameter_groups(model.head, TrainingConfig(1e-3, scorer_rate=0.1))
    assert [round(group["peak"], 9) for group in groups] == [1e-3, 1e-4][: 1 + learns]
    waves = [np.sin(np.arange(n) / 9).astype(np.float32) for n in (8000, 5000)]
    frames = model.encode(waves, None)
    if pooling_config({"kind": kind}).needs_words:
        with pytest.raises(ConfigError, match="which is not known of these frames"):
            model.head(frames)
        return
    logits = model.head(frames)
    logits.sum().backward()
    moved = [p for p in model.audio_encoder.parameters() if p.grad is not None and p.grad.any()]
    assert moved
    assert not layer_weights(model.head)
    with torch.no_grad():
        shown = most_attended(model, model.encode(waves, None), 3)
    assert [len(own) for own in shown] == ([3, 3] if learns else [0, 0])


def test_nothing_outside_the_poolings_knows_a_kind() -> None:
    concrete = {pooling_class(kind).__module__ for kind in KINDS if kind != "gated"}
    assert {"heads.pooling.attentive", "heads.pooling.fixed"} <= concrete
    for floor in ("cache", "corpora", "heads", "finetune", "explain", "bench"):
        for path in sorted((ROOT / floor).rglob("*.py")):
            if path.is_relative_to(ROOT / "heads" / "pooling"):
                continue
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = []
                if isinstance(node, ast.ImportFrom):
                    names = [f"{node.module}", *(f"{node.module}.{own.name}" for own in node.names)]
                elif isinstance(node, ast.Import):
                    names = [own.name for own in node.names]
                assert not concrete & set(names), path
