"""The phases of a fine-tuning, one after the other, and the model that comes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from cache.lookup import FrameCache
from corpora.base.errors import ConfigError, MissingStepError
from corpora.base.files import file_sha256
from corpora.base.work import Work
from corpora.manifest import Manifest
from finetune.adapters import add_adapters
from finetune.assembly import build_model, failed_at_extraction
from finetune.batches import Examples, gather_examples
from finetune.boundary import open_boundary
from finetune.checkpoints import CheckpointManager, Checkpoints
from finetune.config import FinetuneConfig
from finetune.curves import Curves, global_steps, log_text
from finetune.launch import (
    Engine,
    compute_activations_again,
    compute_dtype,
    predict_logits,
    start_engine,
)
from finetune.model import EmotionModel
from finetune.phases import ENCODER_PHASES, LEARNING_RATES, PhaseConfig, StepConfig, step_frames
from finetune.starting_head import run_head_phase, scores_of_seeds
from finetune.steps import Trainer
from finetune.training import PhaseContext, PhaseResult, Progress, Tell, run_phase
from finetune.upper import Boundary
from finetune.utterance_seconds import ENTRY, UtteranceSeconds
from heads.dataset import Dataset
from heads.gold import objective_name
from heads.head import answers
from heads.predict import predict
from heads.records import HeadRecord, load_head, manifest_digest
from heads.speakers import SPEAKER
from heads.step import MASKS
from heads.tracking import Tracker
from heads.vector_store import VectorStore


def agreement(
    cache: FrameCache,
    manifest: Manifest,
    model: EmotionModel,
    record: HeadRecord,
    examples: Examples,
    frame_budget: int,
) -> tuple[int, float, int]:
    """How far both say the same: of how many utterances the same class, and of how many in all.

    Between them, by how much an attribute differs at most, as a share of its scale. In float32 both
    do but for ties and rounding. In bf16 a batch's company changes the last of eight bits.

    Args:
        cache: with the frames of the head.
        manifest: the utterances.
        model: as assembled, on no step yet.
        record: its head.
        examples: of one split, all of them in the cache.
        frame_budget: see `finetune.batches.plan_batches`.
    """
    wanted = {utterance.id for utterance in examples.utterances}
    rows = tuple(u for u in manifest.utterances if u.id in wanted)
    found = cache.find(
        Manifest(rows, manifest.labels, corpus=manifest.corpus),
        record.head.modalities,
        layers={name: record.origin.layers[name] for name in record.head.modalities},
        speech=record.head.needs_speech,
    )
    frames, _ = found.read()
    shape = model.head.config
    dataset = Dataset(
        found.utterances, model.labels, frames, others=found.others, layers=found.layers
    )
    store = VectorStore(dataset, device=model.device)
    cached = predict([model.head], store, torch.arange(len(dataset)))[0]
    heard = answers(shape, predict_logits(model, examples, frame_budget))
    row = {u.id: number for number, u in enumerate(examples.utterances)}
    heard = heard[[row[u.id] for u in found.utterances]]
    classes, same = len(shape.labels), len(cached)
    if classes:
        same = int((cached[:, :classes].argmax(1) == heard[:, :classes].argmax(1)).sum())
    lengths = torch.tensor([high - low for low, high in shape.attributes.values()])
    apart = ((cached - heard)[:, classes:].abs() / lengths).flatten().tolist()
    return same, max(apart, default=0.0), len(cached)


@dataclass(frozen=True, eq=False)
class Trained:
    """What a session did.

    Attributes:
        results: of its phases.
        notes: what the user should know.
        checkpoints: which are needed until the model was scored.
    """

    results: Sequence[PhaseResult]
    notes: Sequence[str]
    checkpoints: Checkpoints


@dataclass(frozen=True, eq=False)
class _Session:
    """What the phases have in common."""

    cache: FrameCache
    folder: Path
    manifest: Manifest
    config: FinetuneConfig
    engine: Engine
    model: EmotionModel
    record: HeadRecord
    steps: StepConfig
    train: Examples
    dev: Examples
    tell: Tell
    show_progress: bool
    tracker: Tracker | None


def train_model(
    work: Work,
    manifest: Manifest,
    config: FinetuneConfig,
    source: Path,
    device: str,
    *,
    searched: Path | None = None,
    tracker: Tracker | None = None,
    tell: Tell | None = None,
    show_progress: bool = False,
) -> Trained:
    """Run the phases and save the model, which is let go of then: it is large.

    Args:
        work: the work folder.
        manifest: the utterances, with their splits.
        config: the options.
        source: the JSON file of the head.
        device: see `cache.encoders.device.choose_device`.
        searched: where that head learnt from train alone, the JSON file of the one of the search
            that learnt from dev too: the model has it where no phase gains.
        tracker: gets the curves.
        tell: for lines to be read while it runs.
        show_progress: whether to draw progress bars.
    """
    engine = start_engine(device)
    precision = compute_dtype(config.precision, device)
    cache = FrameCache(work)
    model, record = build_model(cache, source, engine.device, precision)
    if record.head.input_norm == SPEAKER:
        raise ConfigError(
            f"The head in {source} reads frames normalised by each speaker's recordings, which "
            "change with the encoder. Search a head without it (input_norm of --space), or take "
            "another trial (--trial)."
        )
    adapter = add_adapters(model.encoders, model.layers, config) if config.adapter else None
    train, dev, notes = _gather(cache, manifest, model, record)
    tiny = set(model.provenance["encoders"].values()) == {"tiny"}
    asked = set(config.phases) & set(ENCODER_PHASES)
    if tiny and not adapter and not asked <= set(config.learning_rates):
        published = " and ".join(f"{LEARNING_RATES[p]:g} (phase {p})" for p in sorted(asked))
        notes.append(f"Learning rates are those for tiny encoders; full ones get {published}.")
    steps = StepConfig(
        config.frame_budget or _step_frames(config, engine, model, train, dev),
        config.accumulate * engine.world,
        loss=record.training.loss,
        seed=config.seed,
        attribute_weight=record.training.attribute_weight,
    )
    if config.gradient_checkpointing:
        compute_activations_again(model)
    phases = [_phase_config(config, number, record, tiny=tiny) for number in config.phases]
    identity = {
        "head": file_sha256(source),
        "manifest_sha256": manifest_digest(manifest, record.head.attributes),
        "streams": dict(model.provenance["streams"]),
        "utterances": [len(train), len(dev)],
        "precision": precision,
        "boundary": config.boundary,
        "adapter": adapter,
        "dropout_masks": MASKS,
        **{f"phase {p.phase} {name}": v for p in phases for name, v in asdict(p).items()},
        **steps.to_json(),
    }
    checkpoints = Checkpoints(work.finetune, identity)
    if config.fresh and engine.leads:
        checkpoints.clear()
    engine.wait()
    say = tell or (lambda _: None)
    session = _Session(
        cache,
        work.finetune,
        manifest,
        config,
        engine,
        model,
        record,
        steps,
        train,
        dev,
        say,
        show_progress,
        tracker,
    )
    if precision == "bf16" and engine.leads:
        same, apart, of = agreement(cache, manifest, model, record, dev, steps.frame_budget)
        if model.labels:
            say(
                f"In bf16 recordings and cached frames give {same} of {of} dev rows the same label."
            )
        if record.head.attributes:
            say(f"In bf16 both say the attributes of dev alike up to {apart:.1%} of their scales.")
    results = _run_phases(session, phases, checkpoints)
    model.provenance |= {
        "corpus": manifest.corpus,
        "synthetic": manifest.synthetic,
        "manifest_sha256": manifest_digest(manifest, record.head.attributes),
        "steps": steps.to_json(),
        "phases": [result.to_json() for result in results],
        **{f"dev_{k}": v for k, v in results[-1].best.to_json().items() if k != "loss"},
    }
    if model.audio_encoder is not None:
        seconds = UtteranceSeconds.of_frames(train.lengths, model.audio_encoder.grid)
        model.provenance[ENTRY] = seconds.to_json()
    if searched is not None and 1 not in config.phases and not any(r.best_epoch for r in results):
        head, whole = load_head(searched)
        model.head.load_state_dict(head.state_dict())
        model.provenance["trained_on"] = whole.trained_on
        notes.append(
            "No phase gained anything, so the model is the encoders as they were and the searched "
            f"head, which learnt from {whole.trained_on}."
        )
    if adapter is not None:
        model.provenance["adapter"] = {"kind": config.adapter, **adapter, "merged": config.merge}
        if config.merge:
            model.merge_adapters()
    if engine.leads:
        rows = [row for result in results for row in result.log]
        model.save_pretrained(work.model, training=log_text(rows))
    engine.end()
    return Trained(results, notes, checkpoints)


def _run_phases(
    session: _Session, phases: Sequence[PhaseConfig], checkpoints: Checkpoints
) -> list[PhaseResult]:
    """Run what is not finished; returns all results."""
    config, model, engine = session.config, session.model, session.engine
    keeper = CheckpointManager(checkpoints, config.checkpoint_every, writes=engine.leads)
    for line in keeper.damaged:
        session.tell(line)
    if keeper.resumes:
        session.tell(keeper.resumes)
    model.load_state_dict(keeper.weights(), strict=False)
    earlier = [row for result in keeper.results for row in result.log]
    # What a killed run logged beyond its last checkpoint is taken back.
    begin = global_steps(earlier)[-1] + 1 if earlier else 0
    if session.tracker is not None:
        session.tracker.start(config, session.engine.device.type, begin)
    curves = Curves(session.folder, earlier, session.tracker)

    def after_step(trainer: Trainer, now: Progress) -> None:
        keeper.after_step(trainer, now)
        if engine.leads:
            curves.follow(now.log)

    def at_end(result: PhaseResult, weights: Mapping[str, Tensor]) -> None:
        if engine.leads:
            curves.end_phase(result.log)  # first: a phase that is kept is not logged again
        keeper.end_phase(result, weights)

    bar: float | None = None
    for phase in phases:
        if keeper.finished(phase.phase):
            continue
        if phase.phase != 1 and bar is None:
            bar = _bar(session, keeper.results)
        if phase.phase == 1:
            result = run_head_phase(
                session.cache,
                session.manifest,
                session.record,
                model,
                phase,
                tell=session.tell,
                show_progress=session.show_progress,
            )
            head = model.head.state_dict()
            at_end(result, {f"head.{name}": value.cpu() for name, value in head.items()})
            continue
        boundary, told = _boundary(session, phase)
        for line in told:
            session.tell(line)
        around = PhaseContext(
            engine,
            boundary,
            bar,
            after_step,
            at_end,
            keeper.resume(phase.phase),
            session.tell,
            session.show_progress,
        )
        done = run_phase(model, phase, session.steps, session.train, session.dev, around)
        bar = done.crosswise if done.best_epoch else bar
    if engine.leads:
        curves.close()
    return keeper.results


def _bar(session: _Session, done: Sequence[PhaseResult]) -> float | None:
    """What a phase is compared with: the last one that was kept, or heads like the searched one."""
    kept = [one.crosswise for one in done if one.crosswise is not None and one.best_epoch]
    if kept:
        return kept[-1]
    rate = next((one.config.learning_rate for one in done if one.config.phase == 1), None)
    try:
        scores = scores_of_seeds(
            session.cache,
            session.manifest,
            session.record,
            rate,
            device=str(session.engine.device),
        )
    except MissingStepError as error:
        session.tell(f"What a phase has to beat is the score at its start: {error}")
        return None
    mean = sum(scores) / len(scores)
    # The leader's: a GPU's sums differ in their last bits, and all processes have to go on alike.
    own = mean if session.engine.leads else 0.0
    mean = float(session.engine.sum(torch.tensor(own, dtype=torch.float64)))
    name = objective_name(session.record.head.labels, session.record.head.attributes)
    session.tell(
        f"Heads like this one from {len(scores)} other seeds: dev {name} {mean:.3f} in the mean "
        f"({min(scores):.3f} to {max(scores):.3f})."
    )
    return mean


def _boundary(session: _Session, phase: PhaseConfig) -> tuple[Boundary | None, list[str]]:
    """Cached hidden states for phase 2; or, in words, why not."""
    config, device = session.config, str(session.engine.device)
    if phase.phase != 2 or config.boundary == "off":
        return None, []
    if config.spec_augment:
        return None, ["No boundary cache: SpecAugment changes what the lower layers hear."]
    if compute_dtype(config.precision, device) != compute_dtype("auto", device):
        return None, ["No boundary cache: extraction computes in another precision."]
    used = (*session.train.utterances, *session.dev.utterances)
    return open_boundary(
        session.cache,
        replace(session.manifest, utterances=used),
        session.model,
        phase.unfreeze_layers,
        stored_dtype=config.boundary,
        device=device,
        show_progress=session.show_progress,
    )


def _step_frames(
    config: FinetuneConfig, engine: Engine, model: EmotionModel, train: Examples, dev: Examples
) -> int:
    """The leader's frame budget: all processes have to make the same batches."""
    own = step_frames(
        model,
        config.phases,
        (*train.lengths, *dev.lengths),
        unfreeze_layers=config.unfreeze_layers,
        checkpointing=config.gradient_checkpointing,
    )
    return int(engine.sum(torch.tensor(own if engine.leads else 0)))


def _gather(
    cache: FrameCache, manifest: Manifest, model: EmotionModel, record: HeadRecord
) -> tuple[Examples, Examples, list[str]]:
    """What is trained on, what is scored, and a note on what cannot be used."""
    rows = {split: manifest.in_split(split) for split in ("train", "dev")}
    known = failed_at_extraction(cache, record, [u for split in rows.values() for u in split])
    train, lost = gather_examples(model, rows["train"], known)
    dev, lost_too = gather_examples(model, rows["dev"], known)
    lost |= lost_too
    notes = []
    if lost:
        notes = [f"{len(lost)} utterances could not be used. First: {next(iter(lost.values()))}"]
    if not (len(train) and len(dev)):
        raise ConfigError(
            f"{len(train)} training and {len(dev)} development utterances can be used; "
            f"fine-tuning needs both. {' '.join(notes)}"
        )
    return train, dev, notes


def _phase_config(
    config: FinetuneConfig, number: int, record: HeadRecord, *, tiny: bool
) -> PhaseConfig:
    if number in ENCODER_PHASES:
        return PhaseConfig.of(config, number, tiny=tiny)
    rate = config.learning_rates.get(1, record.training.learning_rate)
    epochs = record.schedule.epochs
    return PhaseConfig(1, rate, epochs, min(config.head_patience or epochs, epochs))
