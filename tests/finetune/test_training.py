"""A phase moves what it should, never ends below its start, and can be repeated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers

from corpora.base.errors import ConfigError, TrainingError
from corpora.manifest import Manifest
from finetune import training
from finetune.batches import Examples, gather_examples
from finetune.curves import log_text
from finetune.launch import compute_activations_again
from finetune.model import EmotionModel
from finetune.objective import Score
from finetune.phases import PhaseConfig, StepConfig, trainable_parts, trainable_table, unfreeze
from finetune.steps import Trainer
from finetune.training import PhaseResult, run_phase
from heads.losses import LossConfig
from tests.finetune.corpus import make_model

STEPS = StepConfig(frame_budget=200)


def examples(model: EmotionModel, manifest: Manifest, split: str) -> Examples:
    return gather_examples(model, manifest.in_split(split), {})[0]


def run(model: EmotionModel, manifest: Manifest, **config: object) -> PhaseResult:
    settings = {"phase": 2, "learning_rate": 1e-3, "epochs": 2, "patience": 2, **config}
    return run_phase(
        model,
        PhaseConfig(**settings),  # type: ignore[arg-type]
        STEPS,
        examples(model, manifest, "train"),
        examples(model, manifest, "dev"),
    )


def state(model: EmotionModel) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def script_scores(
    monkeypatch: pytest.MonkeyPatch, scores: list[Score], crosswise: float = 1.0
) -> None:
    """Let the development scores be these, one an evaluation, and the crosswise one this."""
    remaining: Callable[[], Score] = iter(scores).__next__
    monkeypatch.setattr(training, "score", lambda *_: remaining())
    monkeypatch.setattr(training, "crosswise", lambda *_: crosswise)


@pytest.mark.parametrize("phase", [2, 3])
def test_exactly_what_the_phase_trains_moves(
    phase: int, encoders: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(encoders, {"kind": "mqmha", "queries": 2, "scorer_layers": 2, "hidden": 8})
    expected = {name for part in trainable_parts(model, phase) for name in part.parameters}
    before = state(model)
    script_scores(monkeypatch, [Score(0.1, 1.0), Score(0.2, 1.0)])
    run(model, manifest, phase=phase, epochs=1)
    moved = {name for name, value in state(model).items() if not torch.equal(value, before[name])}
    assert moved == expected


def test_a_phase_whose_epochs_do_not_hold_crosswise_gives_back_its_start(
    encoders: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best of its epochs is above the start; not so on speakers who did not choose it."""
    model = make_model(encoders)
    before = state(model)
    script_scores(monkeypatch, [Score(f1, 1.0) for f1 in (0.5, 0.4, 0.6, 0.2, 0.2)], 0.5)
    result = run(model, manifest, epochs=9)
    assert (result.best_epoch, result.epochs, result.best) == (0, 4, Score(0.5, 1.0))
    assert (result.crosswise, result.bar) == (0.5, 0.5)
    assert all(torch.equal(value, before[name]) for name, value in state(model).items())


def test_the_best_epoch_is_restored(
    encoders: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorter, longer = make_model(encoders), make_model(encoders)
    script_scores(monkeypatch, [Score(f1, 1.0) for f1 in (0.1, 0.3)])
    # One epoch of a schedule of three, so that both models make the same steps.
    monkeypatch.setattr(training, "Trainer", one_epoch_of_three(Trainer))
    run(shorter, manifest, epochs=1)
    monkeypatch.undo()
    script_scores(monkeypatch, [Score(f1, 1.0) for f1 in (0.1, 0.3, 0.2, 0.2)])
    result = run(longer, manifest, epochs=3)
    assert result.best_epoch == 1
    found, expected = state(longer), state(shorter)
    assert all(torch.equal(value, expected[name]) for name, value in found.items())


def one_epoch_of_three(trainer: type) -> Callable[..., object]:
    """The trainer with the schedule of three epochs, whatever it is told."""

    def make(model: object, parameters: object, config: PhaseConfig, *more: object) -> object:
        return trainer(model, parameters, replace(config, epochs=3), *more)

    return make


def test_among_equal_scores_the_lower_loss_is_better() -> None:
    assert Score(0.5, 0.9).better_than(Score(0.5, 1.0))
    assert Score(0.6, 2.0).better_than(Score(0.5, 1.0))
    assert not Score(0.5, 1.0).better_than(Score(0.5, 1.0))


def test_a_phase_can_be_repeated_to_the_bit(encoders: Path, manifest: Manifest) -> None:
    first, second = make_model(encoders), make_model(encoders)
    log = run(first, manifest, phase=3).log
    torch.rand(7)  # another state of torch's own random numbers
    assert run(second, manifest, phase=3).log == log
    expected = state(first)
    assert all(torch.equal(value, expected[name]) for name, value in state(second).items())


@pytest.mark.skipif(
    tuple(map(int, transformers.__version__.split(".")[:2])) < (5, 23),
    reason="its W2V-BERT draws a number for each layer, and does not use it",
)
def test_training_leaves_torchs_random_state_alone(encoders: Path, manifest: Manifest) -> None:
    model = make_model(encoders)
    before = torch.get_rng_state()
    run(model, manifest, epochs=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_training_raises_the_development_score(encoders: Path, manifest: Manifest) -> None:
    model = make_model(encoders)
    result = run(model, manifest, learning_rate=3e-3, epochs=8, patience=8)
    assert result.best.better_than(result.start)
    assert result.best.value > result.start.value
    losses = [row.loss for row in result.log if row.loss is not None]
    assert losses[-1] < losses[0]


def test_the_rate_rises_and_falls_within_the_phase(encoders: Path, manifest: Manifest) -> None:
    rates = [
        row.learning_rate
        for row in run(make_model(encoders), manifest, epochs=8, patience=8).log[1:]
    ]
    assert max(rates) == pytest.approx(1e-3)
    assert rates[0] < rates[1]
    assert rates[-1] < 1e-4


def test_a_loss_that_is_not_finite_names_the_batch(encoders: Path, manifest: Manifest) -> None:
    model = make_model(encoders)
    with torch.no_grad():
        model.head.output.bias.fill_(float("nan"))
    with pytest.raises(TrainingError, match=r"phase 2, step 1: the loss is nan .* held u\d\d\d, "):
        run(model, manifest)


def test_nothing_to_train_on_is_refused(encoders: Path, manifest: Manifest) -> None:
    model = make_model(encoders)
    nobody = replace(manifest, utterances=tuple(manifest.in_split("dev")))
    with pytest.raises(ConfigError, match="0 training and 9 development"):
        run(model, nobody)


def test_the_log_has_a_row_a_step_and_scores_at_the_ends_of_epochs(
    encoders: Path, manifest: Manifest
) -> None:
    result = run(make_model(encoders), manifest)
    lines = log_text(result.log).splitlines()
    assert lines[0] == "phase,epoch,step,lr,loss,dev_macro_f1,dev_loss"
    assert len(lines) == 1 + len(result.log)
    scored = [line.split(",")[1:3] for line in lines[1:] if line.split(",")[5]]
    steps = [row.step for row in result.log if row.epoch == 1]
    assert scored[:2] == [["0", "0"], ["1", str(steps[-1])]]


def test_what_cannot_be_used_is_left_out_with_its_reason(
    encoders: Path, manifest: Manifest
) -> None:
    model = make_model(encoders)
    first, second, third, fourth, *rest = manifest.utterances
    odd = [
        replace(first, label=""),
        second,
        replace(third, audio=Path("nowhere.wav")),
        replace(fourth, end=0.01),
    ]
    found, failed = gather_examples(model, [*odd, *rest], {second.id: "corrupt"})
    assert [u.id for u in found.utterances] == [u.id for u in rest]
    assert failed[second.id] == "corrupt"
    assert "no such file" in failed[third.id]
    assert "shorter than one frame" in failed[fourth.id]


def test_layers_learn_at_a_rate_that_decays_downwards(encoders: Path) -> None:
    model = make_model(encoders)
    parts = trainable_parts(model, 3, layer_decay=0.5)
    rates = {(row.module, row.layers): row.learning_rate for row in trainable_table(parts, 1.0)}
    assert rates["head", "all"] == 1
    assert [rates["audio encoder", f"layer {n}"] for n in (3, 2, 1)] == [1, 0.5, 0.25]
    assert rates["text encoder", "below and beside the layers"] == 0.125
    names = {name for part in parts for name in part.parameters}
    assert names == {name for part in trainable_parts(model, 3) for name in part.parameters}


@pytest.mark.parametrize("phase", [2, 3])
def test_with_layer_decay_exactly_the_same_moves(
    phase: int, encoders: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(encoders)
    expected = {name for part in trainable_parts(model, phase) for name in part.parameters}
    before = state(model)
    script_scores(monkeypatch, [Score(0.1, 1.0), Score(0.2, 1.0)])
    run(model, manifest, phase=phase, epochs=1, layer_decay=0.9)
    after = state(model)
    assert {n for n in after if not torch.equal(after[n], before[n])} == expected


def test_accumulated_batches_are_one_large_batch(encoders: Path, manifest: Manifest) -> None:
    def first_loss(budget: int, accumulate: int) -> list[float]:
        model = make_model(encoders)
        model.head.config = replace(model.head.config, dropout=0.0)
        parts = trainable_parts(model, 2, 0)  # encoders without dropout, too
        unfreeze(model, parts)
        steps = StepConfig(budget, accumulate)
        trainer = Trainer(
            model, parts, PhaseConfig(2, 1e-3), steps, examples(model, manifest, "train")
        )
        return [row.loss for epoch in (1, 2) for row in trainer.run_epoch(epoch) if row.loss]

    small, large = first_loss(100, 99), first_loss(10_000, 1)
    assert len(small) == len(large) == 2
    assert small == pytest.approx(large, abs=1e-5)


def test_gradient_checkpointing_changes_no_loss(encoders: Path, manifest: Manifest) -> None:
    plain, again = make_model(encoders), make_model(encoders)
    compute_activations_again(again)
    expected = [row.loss for row in run(plain, manifest, phase=3, epochs=1).log[1:]]
    found = [row.loss for row in run(again, manifest, phase=3, epochs=1).log[1:]]
    assert found == pytest.approx(expected, abs=1e-6)


def test_memory_that_does_not_suffice_is_answered_with_a_budget_that_does(
    encoders: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(encoders)
    forward, seen = EmotionModel.forward, []

    def small(self: EmotionModel, *inputs: object, **named: object) -> torch.Tensor:
        if model.training:
            seen.append(len(inputs[1]))  # type: ignore[arg-type]
            if len(seen) == 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, *inputs, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(EmotionModel, "forward", small)
    with pytest.raises(TrainingError, match=r"step 2: a batch of .* --fresh --frame-budget \d+"):
        run(model, manifest)


def test_heads_that_learn_from_votes_are_fine_tuned_on_votes(
    encoders: Path, manifest: Manifest
) -> None:
    model = make_model(encoders)
    first, *rest = manifest.in_split("train")
    voted = replace(first, votes={"anger": 3.0, "sadness": 1.0, "other": 2.0})
    found = gather_examples(model, [voted, *rest], {})[0]
    loss = LossConfig("kl", class_weight=False)
    assert found.loss_targets(loss)[0].tolist() == [0.75, 0.0, 0.25]
    assert found.loss_targets(LossConfig()).tolist() == found.gold.classes.tolist()
    steps = replace(STEPS, loss=loss)
    dev = examples(model, manifest, "dev")
    result = run_phase(model, PhaseConfig(2, 1e-3, epochs=1), steps, found, dev)
    assert result.epochs == 1
