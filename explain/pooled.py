"""A head in two halves: what it pools each modality to, and what it says of pooled vectors.

What several analyses need of an utterance is then computed once: the scores of its frames, and the
vectors of the modalities that are left alone while frames of another are dropped.

Chunks of utterances side by side, each on one thread.

The products of one utterance are small: two threads that share one wait for each other longer
than they compute, on a busy machine many times longer. Two chunks at once lose nothing.

Which frames decide, for heads without attention and as a second opinion on those with it.

Three answers, each relative to the utterance's own mean frame, which says nothing about when:

- gradient: Σ_d g_d (x_d − x̄_d), with g the gradient of the logit; the first-order change of the
  logit if the frame were the mean frame (gradient × input, with the mean as baseline).
- occlusion: how much the class's probability falls when a window of frames is left out.
- integrated gradients (Sundararajan et al. 2017), the gradient averaged on the straight way from
  the mean frame to the frame; by captum, in the extra `explain`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from cache.frames import Frames
from cache.mapped import MappedFrames
from corpora.base.errors import MissingExtraError
from heads.head import Head, Inputs
from heads.pooling import AttentionPooling
from heads.pooling.view import View


@contextmanager
def one_thread_each() -> Iterator[ThreadPoolExecutor]:
    """As many workers as torch has threads, each with one; then as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    workers = ThreadPoolExecutor(before, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield workers
    finally:
        workers.shutdown(cancel_futures=True)
        torch.set_num_threads(before)


# Of a scale, below and above its middle.
SIDES = ("low", "high")


def answering_head(head: Head, attribute: str = "") -> Head:
    """A copy that says classes alone, or on which side of its scale an attribute lies.

    The output z of an attribute is −1 and 1 at the ends of the scale. With −z and z for the logits
    of two classes the probability of a side is the logistic function of ±2 z, and what speaks for
    an answer is what moves z away from the middle: each analysis of classes is one of z.

    Args:
        head: with or without attributes.
        attribute: one of its attributes; "" for its classes.
    """
    if not head.config.attributes:
        return copy.deepcopy(head)
    labels, output = head.config.labels, head.output
    weight, bias = output.weight[: len(labels)], output.bias[: len(labels)]
    if attribute:
        at = len(labels) + list(head.config.attributes).index(attribute)
        labels = tuple(f"{side} {attribute}" for side in SIDES)
        weight = torch.stack([-output.weight[at], output.weight[at]])
        bias = torch.stack([-output.bias[at], output.bias[at]])
    state = {**head.state_dict(), "output.weight": weight, "output.bias": bias}
    return Head.from_state(replace(head.config, labels=labels, attributes={}), state)


def is_attentive(head: Head, modality: str) -> bool:
    """Whether the pooling of a modality learns weights."""
    return head.attention_pooling(modality) is not None


def neighbours(frames: Frames | MappedFrames, first: int, end: int) -> Frames:
    """The utterances from `first` to before `end`; those in memory share it with the batch."""
    if isinstance(frames, MappedFrames):
        return frames.select(range(first, end))
    start, stop = frames.offsets[[first, end]].tolist()
    return frames.part(slice(start, stop), frames.offsets[first : end + 1] - start)


def runs(lengths: Sequence[int], most: int, together: int | None = None) -> list[tuple[int, int]]:
    """Neighbouring utterances, from one to before another, with at most so many frames.

    Args:
        lengths: frames of each utterance.
        most: frames in a run; one utterance is in it, however long.
        together: most utterances in a run.
    """
    found: list[tuple[int, int]] = []
    start = held = 0
    for number, length in enumerate(lengths):
        full = together is not None and number - start == together
        if number > start and (full or held + length > most):
            found.append((start, number))
            start, held = number, 0
        held += length
    return [*found, (start, len(lengths))]


def frame_view(head: Head, frames: Frames, modality: str) -> View:
    """The frames of a modality as the head reads them.

    For attention they are centred an utterance at a time, while its frames are in the processor's
    cache: passes over a whole batch of 1024 features take three times as long.
    """
    if not is_attentive(head, modality) or head.config.input_norm == "layernorm":
        return Inputs.from_frames(frames).view(*head.config.view(modality))
    centred = torch.empty(frames.values.shape, dtype=torch.float32)
    lengths = frames.lengths.tolist()
    means = []
    parts = zip(frames.values.split(lengths), centred.split(lengths), strict=True)
    for stored, target in parts:
        wide = stored.float()
        means.append(wide.mean(dim=0))
        torch.sub(wide, means[-1], out=target)
    return View.of_centred(centred, lengths, {"mean": torch.stack(means)})


def scores(head: Head, view: View, modality: str) -> Tensor:
    """`[H, Q, N]`, what the attention of a modality is the softmax of."""
    return _attentive(head, modality).scores(view, head.affine(modality))


def as_scores(head: Head, columns: Tensor, modality: str) -> Tensor:
    """`[N, Q·H]`, query-major, laid out as `scores` are: `[H, Q, N]`."""
    cut: Tensor = columns.unflatten(1, (-1, _attentive(head, modality).slices))
    return cut.permute(2, 1, 0)


def pooled(head: Head, view: View, modality: str, scored: Tensor | None = None) -> Tensor:
    """What a modality is pooled to: `[B, P]`, or `[V, B, P]`.

    Args:
        head: in eval mode.
        view: from `frame_view`.
        modality: whose frames these are.
        scored: of attention, `[H, Q, N]`, or `[H, V, Q, N]` for V ways of attending to the same
            frames; computed where it is not given. A frame at -inf is left out.
    """
    affine = head.affine(modality)
    if not is_attentive(head, modality):
        return head.pooling(modality).pool(view, affine)[0]
    scored = scores(head, view, modality) if scored is None else scored
    ways = scored if scored.ndim == 4 else scored[:, None]
    module = _attentive(head, modality)
    vectors = module.pool_scored(view, affine, ways.flatten(1, 2), ways.shape[1])
    return vectors if scored.ndim == 4 else vectors[0]


def logits_of(head: Head, vectors: Mapping[str, Tensor]) -> Tensor:
    """Logits of pooled vectors of each modality, without dropout.

    Args:
        head: in eval mode.
        vectors: `[…, B, P]`; those of one modality may be V sets, which the others' go with.

    Returns:
        `[…, B, C]`.
    """
    first = head.output if head.hidden is None else head.hidden
    sizes = [vectors[name].shape[-1] for name in head.config.modalities]
    blocks = first.weight.split(sizes, dim=1)
    # Each modality by itself: what is the same in all sets goes through the layer once.
    parts = []
    for name, block in zip(head.config.modalities, blocks, strict=True):
        several = vectors[name].ndim == 3
        # Sets lie beside one another in an utterance (`AttentionPooling.lay_out`): one product.
        own = vectors[name].transpose(0, 1) if several else vectors[name]
        through = F.linear(own, block)
        parts.append(through.transpose(0, 1) if several else through)
    total = sum(parts[1:], start=parts[0] + first.bias)
    return total if head.hidden is None else cast(Tensor, head.output(F.relu(total)))


def _attentive(head: Head, modality: str) -> AttentionPooling:
    return cast(AttentionPooling, head.attention_pooling(modality))


# Steps of the integral; captum's own default. Its error is far below what frames differ by.
STEPS = 50
# 10 frames are 200 ms on the usual grid, about a syllable.
OCCLUSION_FRAMES, OCCLUSION_STEP = 10, 5
# Of long utterances windows grow, so that a minute costs no more than this many passes,
MOST_WINDOWS = 150
# with so many frames in float32 at once (0.1 GB at 1024-d).
CHUNK_FRAMES = 32_768


def mean_frames(frames: Frames) -> Tensor:
    """`[N, D]` float32, each frame's utterance mean: the baseline."""
    lengths = frames.lengths
    means = torch.stack(
        [part.float().mean(dim=0) for part in frames.values.split(lengths.tolist())]
    )
    return means.repeat_interleave(lengths, dim=0)


def gradient_saliency(
    head: Head, frames: Mapping[str, Frames], targets: Tensor | None = None
) -> dict[str, Tensor]:
    """Signed gradient saliency `[N]` of each modality.

    Args:
        head: in eval mode.
        frames: a batch, by modality.
        targets: `[B]` classes whose logits are explained; the most probable ones by default.
    """
    inputs = {
        name: replace(
            batch, values=batch.values.detach().to(torch.float32, copy=True).requires_grad_()
        )
        for name, batch in frames.items()
    }
    with torch.enable_grad():
        logits = head(inputs)
        chosen = logits.argmax(dim=1) if targets is None else targets
        # Utterances do not touch one another, so one sum gives each its own gradient.
        total = logits.gather(1, chosen[:, None]).sum()
        names = list(inputs)
        gradients = torch.autograd.grad(total, [inputs[name].values for name in names])
    return {
        name: (gradient * (inputs[name].values.detach() - mean_frames(frames[name]))).sum(dim=1)
        for name, gradient in zip(names, gradients, strict=True)
    }


def as_importance(saliency: Tensor, lengths: Sequence[int]) -> Tensor:
    """Shares `[N]` float64 that sum to 1 over each utterance; even where no frame has any.

    Of the frames that speak for the class. One that speaks against it has a large saliency too,
    below 0: dropped, it would leave the answer surer than before.
    """
    parts = []
    for part in saliency.detach().double().clamp(min=0).split(list(lengths)):
        total = part.sum()
        parts.append(part / total if total > 0 else torch.full_like(part, 1 / len(part)))
    return torch.cat(parts)


def occlusion_saliency(
    head: Head,
    frames: Mapping[str, Frames],
    modality: str,
    *,
    target: int | None = None,
    window: int = OCCLUSION_FRAMES,
    step: int = OCCLUSION_STEP,
) -> Tensor:
    """`[T]`, how much the class's probability falls without each frame of one utterance.

    Windows are left out one at a time (frames are ragged: nothing has to stand in their place); a
    frame gets the mean over the windows that cover it. An utterance no longer than a window has
    nothing to compare with: NaN.

    Args:
        head: in eval mode.
        frames: one utterance, by modality.
        modality: whose frames are left out.
        target: the class; the most probable one by default.
        window: frames left out at once.
        step: frames from one window to the next.
    """
    values, speech = frames[modality].values, frames[modality].speech
    count = len(values)
    if count <= window:
        return torch.full((count,), float("nan"))
    step = max(step, -(-(count - window) // MOST_WINDOWS))
    window = min(max(window, 2 * step), count - 1) if step > window else window
    starts = [*range(0, count - window, step), count - window]
    kept = torch.ones(len(starts), count, dtype=torch.bool)
    for row, start in enumerate(starts):
        kept[row, start : start + window] = False
    after = []
    with torch.no_grad():
        before = torch.softmax(head(frames), dim=1)[0]
        chosen = int(before.argmax()) if target is None else target
        for rows in kept.split(max(1, CHUNK_FRAMES // count)):
            shorter = Frames.from_list(
                [values[row] for row in rows],
                None if speech is None else [speech[row] for row in rows],
            )
            batch = {
                name: shorter if name == modality else other.select([0] * len(rows))
                for name, other in frames.items()
            }
            after.append(torch.softmax(head(batch), dim=1)[:, chosen])
    covered = (~kept).float()
    falls = before[chosen] - torch.cat(after)
    return (falls[:, None] * covered).sum(dim=0) / covered.sum(dim=0)


def has_captum() -> bool:
    """Whether integrated gradients can be computed."""
    return find_spec("captum") is not None


def integrated_gradients(
    head: Head, frames: Mapping[str, Frames], *, target: int | None = None, steps: int = STEPS
) -> dict[str, Tensor]:
    """`[T]` of each modality for one utterance, signed; they sum to the logit's change.

    The change is that from an utterance of mean frames to this one.

    Raises:
        MissingExtraError: captum is not installed.
    """
    if not has_captum():
        raise MissingExtraError(
            "Integrated gradients need captum, which is not installed: "
            "pip install 'emopool[explain]'."
        )
    from captum.attr import IntegratedGradients

    names = list(frames)
    speech = {name: frames[name].speech for name in names}

    def logits(*values: Tensor) -> Tensor:
        batch = {}
        for name, padded in zip(names, values, strict=True):
            everything = torch.ones(padded.shape[:2], dtype=torch.bool)
            laid = Frames.from_padded(padded, everything)
            own = speech[name]
            batch[name] = laid if own is None else laid.with_speech(own.repeat(len(padded)))
        out: Tensor = head(batch)
        return out

    inputs = tuple(frames[name].values.float()[None] for name in names)
    baselines = tuple(mean_frames(frames[name])[None] for name in names)
    if target is None:
        with torch.no_grad():
            target = int(logits(*inputs)[0].argmax())
    longest = max(len(batch.values) for batch in frames.values())
    at_once = max(1, min(steps, CHUNK_FRAMES // longest))
    found = IntegratedGradients(logits).attribute(
        inputs, baselines=baselines, target=target, n_steps=steps, internal_batch_size=at_once
    )
    return {
        name: part.detach()[0].sum(dim=1).float() for name, part in zip(names, found, strict=True)
    }
