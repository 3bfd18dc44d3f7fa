"""The benchmark of fine-tuning: its rows, in the order of the table.

The speech encoder is W2V-BERT with 8 layers of 512 values, random weights: the shares of a step
that its layers, the front end and the optimiser have are like those of the full one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bench.encoders import save_audio_encoder, save_text_encoder
from bench.recordings import LABELS, make_manifest
from bench.table import Outcome, Row, Settings, compare
from cache.audio import load_audio
from cache.config import ExtractConfig
from cache.extract.extract import extract
from cache.keys import normalise_text
from cache.lookup import FrameCache
from corpora.base.work import Work
from corpora.manifest import Manifest
from finetune.assembly import assemble
from finetune.batches import gather_examples, plan_batches
from finetune.boundary import open_boundary
from finetune.model import EmotionModel
from finetune.phases import PhaseConfig, StepConfig, trainable_parts, unfreeze
from finetune.steps import Trainer
from heads.head import Head, HeadConfig

AUDIO = {"layers": 8, "dim": 512, "heads": 8}
TEXT = {"layers": 4, "dim": 256, "heads": 4}
UTTERANCES = 32
# Like acted speech: log-normal around 2.7 s.
MEDIAN_LOG, DEVIATION_LOG, SHORTEST, LONGEST = 1.0, 0.4, 1.0, 8.0
STEPS = StepConfig()
FRAME_BUDGET = STEPS.frame_budget
BOUNDARY_MOST, PADDING_MOST, ENCODERS_LEAST = 0.6, 0.08, 0.85
# Epochs that padding is counted over.
PLANS = 20


@dataclass(frozen=True)
class _Data:
    """A corpus, its frames, and where the encoders are."""

    work: Work
    manifest: Manifest
    config: ExtractConfig

    def model(self) -> EmotionModel:
        """A new model, the same each time."""
        dims = {"audio": AUDIO["dim"], "text": TEXT["dim"]}
        pooling = {"kind": "mqmha", "queries": 2, "heads": 2}
        head = Head(HeadConfig(LABELS, dims, dict.fromkeys(dims, pooling)))
        folders = {name: self.work.root / name for name in dims}
        return assemble(head, folders, {"audio": AUDIO["layers"], "text": TEXT["layers"]})


def _seconds(count: int) -> list[float]:
    drawn = np.random.default_rng(0).lognormal(MEDIAN_LOG, DEVIATION_LOG, count)
    clipped: list[float] = drawn.clip(SHORTEST, LONGEST).tolist()
    return clipped


def _prepare(settings: Settings) -> _Data:
    work = Work(settings.folder / "finetune")
    config = ExtractConfig(
        audio_encoder=str(work.root / "audio"), text_encoder=str(work.root / "text"), device="cpu"
    )
    recordings = settings.folder / "recordings"
    manifest = make_manifest(recordings, _seconds(settings.scaled(UTTERANCES, 4)))
    if not work.root.is_dir():
        work.root.mkdir()
        save_audio_encoder(work.root / "audio", **AUDIO)
        save_text_encoder(work.root / "text", **TEXT)
        extract(work, manifest, config)
    return _Data(work, manifest, config)


def _trainer(data: _Data, phase: int, *, cached: bool = False) -> Trainer:
    model = data.model()
    boundary = None
    if cached:
        boundary = open_boundary(
            FrameCache(data.work), data.manifest, model, None, stored_dtype="float16", device="cpu"
        )[0]
        assert boundary is not None, "W2V-BERT and DeBERTa run from a hidden state"
    train = gather_examples(model, data.manifest.utterances, {})[0]
    parts = trainable_parts(model, phase)
    unfreeze(model, parts)
    return Trainer(model, parts, PhaseConfig(phase, 1e-6), STEPS, train, None, boundary)


def boundary_steps(settings: Settings) -> Outcome:
    """Steps of phase 2 from cached hidden states, against the same from recordings."""
    data = _prepare(settings)
    ours, theirs = _trainer(data, 2, cached=True), _trainer(data, 2)
    steps = ours.steps_of(1)
    found = compare(
        lambda: list(ours.run_epoch(1)), lambda: list(theirs.run_epoch(1)), settings.times(3)
    )
    share = 1 / found.ratio
    return Outcome(
        f"{found.ours / steps:.2f} s a step",
        f"{found.theirs / steps:.2f} s a step",
        f"{share:.2f}×",
        share <= BOUNDARY_MOST,
    )


def padding(settings: Settings) -> Outcome:
    """Frames of batches that are padding, over some epochs of a small corpus."""
    lengths = [round(50 * seconds) for seconds in _seconds(settings.scaled(1_000, 200))]
    plans = [plan_batches(lengths, FRAME_BUDGET, seed=0, epoch=n) for n in range(PLANS)]
    sizes = [len(rows) * max(lengths[row] for row in rows) for plan in plans for rows in plan]
    waste = 1 - PLANS * sum(lengths) / sum(sizes)
    order = np.random.default_rng(0).permutation(lengths)
    together = round(FRAME_BUDGET / np.mean(lengths))
    at_random = [order[n : n + together] for n in range(0, len(order), together)]
    other = 1 - sum(lengths) / sum(len(batch) * max(batch) for batch in at_random)
    return Outcome(
        f"{100 * waste:.1f} %",
        f"{100 * other:.1f} %",
        f"{waste / other:.2f}×",
        waste < PADDING_MOST,
    )


def encoder_share(settings: Settings) -> Outcome:
    """What of a step of phase 3 the encoders' forward and backward passes take by themselves."""
    data = _prepare(settings)
    trainer = _trainer(data, 3)
    model, train = data.model().requires_grad_(True).train(), trainer.train
    audio, text = model.audio_encoder, model.text_encoder
    assert audio is not None
    assert text is not None
    plan = plan_batches(train.lengths, FRAME_BUDGET)
    inputs = []
    for rows in plan:
        members = [train.utterances[row] for row in rows]
        waveforms = [torch.from_numpy(load_audio(u.audio, u.start, u.end)) for u in members]
        tokens = text.tokenise([normalise_text(u.text) for u in members])
        inputs.append((audio.inputs(waveforms), tokens))

    def encoders() -> None:
        for features, tokens in inputs:
            heard: Tensor = audio.states(features, [audio.layers])[audio.layers]
            read = text(tokens, [text.layers])[text.layers].values
            (heard.sum() + read.sum()).backward()
            model.zero_grad()

    steps = trainer.steps_of(1)
    found = compare(lambda: list(trainer.run_epoch(1)), encoders, settings.times(3))
    share = found.ratio
    return Outcome(
        f"{found.ours / steps:.2f} s a step",
        f"{found.theirs / len(plan):.2f} s in encoders",
        f"{100 * share:.0f} %",
        share >= ENCODERS_LEAST,
    )


ROWS = (
    Row(
        "boundary",
        "phase 2 from cached hidden states, a quarter of the layers trained",
        "the same from recordings",
        f"at most {BOUNDARY_MOST}×",
        boundary_steps,
    ),
    Row(
        "padding",
        f"padding of batches of {FRAME_BUDGET} frames",
        "batches in random order",
        f"less than {100 * PADDING_MOST:g} %",
        padding,
    ),
    Row(
        "encoders",
        "phase 3, a whole step",
        "its encoders' passes alone",
        f"at least {100 * ENCODERS_LEAST:g} %",
        encoder_share,
    ),
)
