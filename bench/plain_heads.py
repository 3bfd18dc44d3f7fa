"""The baseline of `bench.search`: heads trained one after the other, as one writes it in PyTorch.

Padded random batches from a `DataLoader`, masks, deviations from second moments, one optimiser a
head: what a competent user has after an afternoon. It reads float32 frames from memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

from heads.dataset import Dataset
from heads.head import HeadConfig
from heads.losses import LossConfig, focal_loss, inverse_frequency
from heads.training import Schedule, TrainingConfig

Item = tuple[dict[str, Tensor], dict[str, Tensor | None], int]
Batch = tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor], Tensor]


class PlainHead(nn.Module):
    """One head: poolings over padded batches, concatenation, MLP."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        self.poolings = nn.ModuleDict(
            {name: _pooling(config.pooling[name], config.dims[name]) for name in config.modalities}
        )
        size = sum(module.size for module in self.poolings.values())  # type: ignore[misc]
        width = config.mlp_width
        self.classifier = nn.Sequential(
            *([nn.Linear(size, width), nn.ReLU()] if width else []),
            nn.Dropout(config.dropout),
            nn.Linear(width or size, len(config.labels)),
        )
        self.statistics: dict[str, tuple[Tensor, Tensor]] = {}

    def forward(
        self, frames: dict[str, Tensor], masks: dict[str, Tensor], speech: dict[str, Tensor]
    ) -> Tensor:
        """Logits `[B, C]` from `[B, T, D]`, masks `[B, T]` and speech probabilities."""
        pooled = []
        for name, module in self.poolings.items():
            x = frames[name]
            if self.config.input_norm == "layernorm":
                x = F.layer_norm(x, x.shape[-1:])
            elif self.config.input_norm == "standardise":
                mean, deviation = self.statistics[name]
                x = (x - mean) / deviation
            pooled.append(module(x, masks[name], speech.get(name)))
        logits: Tensor = self.classifier(torch.cat(pooled, dim=1))
        return logits


class Moments(nn.Module):
    """Mean, deviation, maximum, mean over speech, or several of them."""

    def __init__(self, kind: str, dim: int) -> None:
        super().__init__()
        self.kind = kind
        self.size = dim * (2 if kind in ("statistics", "average+vad_average") else 1)

    def forward(self, x: Tensor, mask: Tensor, speech: Tensor | None) -> Tensor:
        """`[B, size]`."""
        if self.kind == "max":
            return x.masked_fill(~mask[..., None], float("-inf")).amax(1)
        parts = []
        if self.kind != "vad_average":
            parts.append(_mean(x, mask))
        if self.kind == "statistics":
            square = _mean(x**2, mask)
            parts.append((square - parts[0] ** 2).clamp_min(1e-10).sqrt())
        if "vad" in self.kind:
            spoken = mask if speech is None else mask & (speech >= 0.5)
            parts.append(_mean(x, torch.where(spoken.any(1, keepdim=True), spoken, mask)))
        return torch.cat(parts, dim=1)


class Attention(nn.Module):
    """Q queries on H slices, each with a scorer of its own."""

    def __init__(self, dim: int, queries: int, heads: int, layers: int, hidden: int) -> None:
        super().__init__()
        width = dim // heads
        self.queries, self.heads, self.size = queries, heads, 2 * queries * dim
        self.scorers = nn.ModuleList(
            nn.Linear(width, 1)
            if layers == 1
            else nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, 1))
            for _ in range(queries * heads)
        )

    def forward(self, x: Tensor, mask: Tensor, speech: Tensor | None) -> Tensor:
        """`[B, 2·Q·K]`."""
        parts = x.chunk(self.heads, dim=-1)
        out = []
        for number, scorer in enumerate(self.scorers):
            part = parts[number % self.heads]
            scores = scorer(part).squeeze(-1).masked_fill(~mask, float("-inf"))
            weight = torch.softmax(scores, dim=1)[..., None]
            mean = (weight * part).sum(1)
            square = (weight * part**2).sum(1)
            out += [mean, (square - mean**2).clamp_min(1e-10).sqrt()]
        return torch.cat(out, dim=1)


def _pooling(description: Any, dim: int) -> nn.Module:  # noqa: ANN401 - a mapping with a kind
    options = dict(description)
    kind = options.pop("kind")
    known = {"as": (1, 1, 2), "sa": (2, 1, 2), "mha": (1, 2, 1), "mqmha": (2, 2, 1)}
    if kind not in known:
        return Moments(kind, dim)
    queries, heads, layers = known[kind]
    return Attention(
        dim,
        options.get("queries", queries),
        options.get("heads", heads),
        options.get("scorer_layers", layers),
        options.get("hidden", 256),
    )


def _mean(x: Tensor, mask: Tensor) -> Tensor:
    share = mask.to(x.dtype)[..., None]
    return (x * share).sum(1) / share.sum(1)


def items(dataset: Dataset, rows: Tensor) -> list[Item]:
    """The utterances of these rows with frames in float32, as a list in memory."""
    found: list[Item] = []
    for row, target in zip(rows.tolist(), dataset.targets(rows).tolist(), strict=True):
        frames, speech = {}, {}
        for name, batch in dataset.frames.items():
            own = slice(int(batch.offsets[row]), int(batch.offsets[row + 1]))
            frames[name] = batch.utterance(row).float()
            speech[name] = None if batch.speech is None else batch.speech[own]
        found.append((frames, speech, target))
    return found


def collate(batch: Sequence[Item]) -> Batch:
    """Pad a batch."""
    frames, masks, speech = {}, {}, {}
    for name in batch[0][0]:
        values = [item[0][name] for item in batch]
        frames[name] = pad_sequence(values, batch_first=True)
        lengths = torch.tensor([len(value) for value in values])
        masks[name] = torch.arange(frames[name].shape[1]) < lengths[:, None]
        spoken = [item[1][name] for item in batch]
        if spoken[0] is not None:
            speech[name] = pad_sequence([s for s in spoken if s is not None], batch_first=True)
    return frames, masks, speech, torch.tensor([item[2] for item in batch])


class PlainTraining:
    """One head in training, an epoch at a time."""

    def __init__(
        self,
        config: HeadConfig,
        training: TrainingConfig,
        rows: list[Item],
        schedule: Schedule,
        statistics: dict[str, tuple[Tensor, Tensor]],
    ) -> None:
        torch.manual_seed(training.seed)
        self.head = PlainHead(config)
        self.head.statistics = statistics
        self.loader: DataLoader[Item] = DataLoader(
            rows,  # type: ignore[arg-type]
            batch_size=schedule.batch_size,
            shuffle=True,
            collate_fn=collate,
            generator=torch.Generator().manual_seed(schedule.data_seed),
        )
        self.optimiser = torch.optim.AdamW(
            self.head.parameters(),
            lr=training.learning_rate,
            weight_decay=training.weight_decay,
        )
        steps = schedule.epochs * len(self.loader)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimiser, lambda step: schedule.factor(step, steps)
        )
        targets = torch.tensor([item[2] for item in rows])
        self.loss = _Loss(training.loss, inverse_frequency(targets, len(config.labels)))
        self.clip = schedule.clip

    def run_epoch(self) -> None:
        """One pass over the rows."""
        for frames, masks, speech, target in self.loader:
            loss = self.loss(self.head(frames, masks, speech), target)
            self.optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.head.parameters(), self.clip)
            self.optimiser.step()
            self.scheduler.step()

    def predict(self, rows: list[Item]) -> Tensor:
        """Classes of the rows."""
        self.head.eval()
        with torch.no_grad():
            found = [
                self.head(*collate(rows[start : start + 64])[:3]).argmax(-1)
                for start in range(0, len(rows), 64)
            ]
        self.head.train()
        return torch.cat(found)


class _Loss:
    """Focal loss or cross-entropy, with class weights or an adjusted prior."""

    def __init__(self, config: LossConfig, weight: Tensor) -> None:
        self.gamma = config.gamma if config.kind == "focal" else 0.0
        self.weight = weight if config.class_weight else None
        prior = 1 / weight
        self.prior = (prior / prior.sum()).log() if config.logit_adjustment else None

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        if self.prior is not None:
            logits = logits + self.prior
        return focal_loss(logits, target, self.weight, self.gamma)
