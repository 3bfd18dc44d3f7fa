"""How much memory a batch takes inside an encoder, and so how large it may be.

Reckoned from the encoder's configuration, in numbers of D features and F of the feed-forward width,
H heads, B inputs padded to T frames or tokens. What is alive at the worst moment of a pass:

- 8 D a frame in attention, or 4 D + 2 F between the two products of the feed-forward part;
- of each hidden state that is read, 2 D: as it is computed, and without its padding;
- where attention has a bias that depends on content, and where it is written out, some copies of
  the scores, H T² an input. A kernel that goes through them in pieces makes a mask of T² at most;
- W2V-BERT with `relative_key`: a vector of D / H for each pair of frames, once a batch, and its
  convolution's padding;
- DeBERTa: projected positions, 2 · 2 · span · D, repeated for every text however short it is, and
  scores of every token with all of them;
- encoders of waveforms: two copies of their first convolution's output, which has a frame every
  few samples.

A layer that is trained keeps for its backward pass what `_kept` says; with gradient checkpointing
its input alone, and one layer is computed again at a time. Weights, gradients and the optimiser's
moments are not counted here. `tests/cache/test_budget.py` holds this to what is alive on a CPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from cache.encoders.audio_encoder import AudioEncoder
from cache.encoders.device import ComputeDtype
from cache.encoders.grid import FBANK_MODELS, SAMPLE_RATE, WHISPER_MODELS
from cache.encoders.text_encoder import TextEncoder
from cache.mapped import free_bytes

# Of a GPU's free memory; the rest is for what kernels need inside, and for what lies scattered.
GPU_SHARE = 0.8
# What a batch may take on a CPU. Only short texts through a full DeBERTa would take more.
CPU_BYTES = 2_000_000_000
# Nobody says more in a second, special tokens aside: for texts whose length is not known yet.
_TOKENS_A_SECOND = 10


@dataclass(frozen=True)
class Need:
    """Bytes of a batch of inputs of one length.

    Attributes:
        shared: once a batch.
        each: for each input.
    """

    shared: float
    each: float

    def __add__(self, other: Need) -> Need:
        return Need(self.shared + other.shared, self.each + other.each)

    def of(self, inputs: int) -> int:
        """Of so many inputs."""
        return math.ceil(self.shared + inputs * self.each)

    def fitting(self, nbytes: float) -> int:
        """How many inputs fit, at least one: it is tried, whatever the formula says."""
        return max(1, int((nbytes - self.shared) / self.each))


def batch_need(
    config: Any,  # noqa: ANN401 (untyped library)
    length: int,
    *,
    compute_dtype: ComputeDtype = "fp32",
    states: int = 1,
    trained: int = 0,
    checkpointing: bool = False,
) -> Need:
    """The most memory that a pass through an encoder takes at once.

    Args:
        config: of transformers.
        length: frames or tokens of each input, padding included.
        compute_dtype: of the matrix products.
        states: how many hidden states are read.
        trained: how many layers keep what their backward pass needs; all of them: what lies below
            is trained too.
        checkpointing: whether these keep their input alone.
    """
    dim, heads = int(config.hidden_size), int(config.num_attention_heads)
    wide = int(getattr(config, "intermediate_size", 0) or getattr(config, "encoder_ffn_dim", 0))
    cast = 0.5 if compute_dtype == "bf16" else 1.0  # in bf16 norms and residuals stay in fp32
    fbank = config.model_type in FBANK_MODELS
    eager = not fbank and getattr(config, "_attn_implementation", "eager") == "eager"
    scores, kept_scores = (5.0, 3.0) if eager else (4.0 * cast, 1.5 * cast) if fbank else (0.0, 0.0)
    # Elements of four bytes: of each frame, of each input, of the batch.
    masks = 0.0 if config.model_type in WHISPER_MODELS else 1.5
    attention = (4 + 4 * cast) * dim + (scores * heads + masks) * length
    feed_forward = (2 + 2 * cast) * dim + 2 * wide * cast
    kept = _kept(dim, wide * cast) + kept_scores * heads * length
    below, below_kept, an_input, an_input_kept, shared, shared_kept = 64.0, 0.0, 0.0, 0.0, 0.0, 0.0
    if fbank:
        padding = int(config.conv_depthwise_kernel_size) - 1
        below += int(config.feature_projection_input_dim)
        an_input, an_input_kept = dim * padding, dim * padding
        kept += 16 * dim + 2 * wide * cast  # two feed-forward parts, and a convolution
        if config.position_embeddings_type == "relative_key":
            pairs = length**2 * dim / heads
            shared = pairs * (1 if compute_dtype == "fp32" else 1.5) + 6 * length**2
            shared_kept = pairs * cast + 2 * length**2
        else:
            shared = shared_kept = 4 * length * dim
            if compute_dtype == "bf16":  # its table of all positions, cast
                shared += int(config.max_source_positions) * dim
    if hasattr(config, "num_buckets"):  # WavLM's distances, before any head has its bias
        shared = max(0.0, 14 - scores * heads) * length**2
    if getattr(config, "relative_attention", False):  # DeBERTa's
        span = int(getattr(config, "position_buckets", -1))
        if span < 1:
            span = int(getattr(config, "max_relative_positions", -1))
        if span < 1:
            span = int(config.max_position_embeddings)
        an_input, an_input_kept = 4 * span * dim, 4 * span * dim
        attention += 2 * span * heads
        kept += 4 * span * heads
        shared, shared_kept = 8 * length**2, 4 * length**2
    if strides := getattr(config, "conv_stride", None):
        hop = math.prod(strides)
        first = int(config.conv_dim[0]) * hop / strides[0]
        # Its norm in fp32 lies beside a copy of its input where that is in bf16.
        attention = max(attention, (2.25 if compute_dtype == "fp32" else 2.5) * first + 2 * hop)
        below_kept = 7 * first + 2 * hop
    layers = trained
    if checkpointing and trained:
        # One at a time is whole, the others are their inputs.
        below_kept, layers = below_kept + trained * dim, 1
    frame = below + max(attention, feed_forward) + 2 * states * dim + layers * kept
    if trained >= int(config.num_hidden_layers):
        frame += below_kept
    an_input += layers * an_input_kept
    return Need(4 * (shared + layers * shared_kept), 4 * (frame * length + an_input))


def _kept(dim: int, wide: float) -> float:
    """What a layer keeps of each frame: input, queries, keys, values, norms, both products."""
    return 14 * dim + 3.5 * wide


@dataclass(frozen=True, eq=False)
class Budget:
    """How large a batch may be, in frames: those of long inputs count for more than one.

    Attributes:
        frames: of a batch, padding included.
        size: from the length of an input to the frames that it counts as.
    """

    frames: int
    size: Callable[[int], int]

    def at_once(self, length: int) -> int:
        """How many inputs of a length go together."""
        return max(1, self.frames // self.size(length))


def batch_budget(
    frames: int,
    *,
    audio: AudioEncoder | None = None,
    text: TextEncoder | None = None,
    states: int = 1,
) -> Budget:
    """As many frames as asked for, where they fit the memory that is free.

    Args:
        frames: of a batch, padding included: as many as keep the device busy.
        audio: whose frames are counted, where there is one.
        text: beside it, for as many tokens as can be said meanwhile; else its tokens are counted.
        states: how many hidden states of each are read.
    """
    encoder = audio or text
    assert encoder is not None, "a batch goes through an encoder"
    nbytes = batch_bytes(encoder.device)

    @cache
    def size(length: int) -> int:
        need = Need(0, 0)
        if audio is not None:
            precision = audio.compute_dtype
            need += batch_need(audio.model.config, length, compute_dtype=precision, states=states)
        if text is not None:
            tokens = length if audio is None else spoken_tokens(audio, length)
            tokens = min(tokens, text.maximum_tokens)
            need += batch_need(text.model.config, tokens, states=states)
        return max(length, math.ceil(frames / need.fitting(nbytes)))

    return Budget(frames, size)


def batch_bytes(device: torch.device | str) -> float:
    """What a batch may take on a device, beside what lies there already."""
    on_gpu = torch.device(device).type == "cuda"
    return GPU_SHARE * free_bytes(str(device)) if on_gpu else CPU_BYTES


def spoken_tokens(audio: AudioEncoder, frames: int) -> int:
    """The most tokens that are said in so many frames."""
    return 2 + math.ceil(frames * audio.grid.hop / SAMPLE_RATE * _TOKENS_A_SECOND)


def dictation_need(config: Any, itemsize: int) -> Need:  # noqa: ANN401 (untyped library)
    """What a Whisper takes for pieces that it writes down together.

    Args:
        config: of the whole model.
        itemsize: bytes of its numbers.
    """
    places = int(config.max_source_positions) + int(config.max_target_positions)
    kept = 2 * int(config.decoder_layers) * places * int(config.d_model) * itemsize
    logits = 3 * 4 * int(config.vocab_size)
    return batch_need(config, int(config.max_source_positions)) + Need(0, kept + logits)
