"""One utterance, as it is traced: the same numbers as in a batch, of every pooling and encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cache.encoders.grid import encoder_shape
from cache.frames import Frames
from corpora.base.errors import ConfigError
from finetune.assembly import assemble
from finetune.model import EmotionModel
from finetune.one_recording import OneRecording, OneUtterance, _one_front_end, speech_input
from heads.axes import INPUT_NORMS
from heads.head import Head, HeadConfig, answers
from tests.cache.test_audio_encoder import ENCODERS, save_encoder
from tests.cache.test_whisper import save_small
from tests.finetune.corpus import LABELS, make_model
from tests.heads import references

DIM = 16
# It asks for times of words, which are no input.
KINDS = [one for one in references.descriptions() if one["kind"] != "informative_average"]


def uneven(head: Head, most: float = 1.0) -> Head:
    """A head whose frames and layers do not count the same."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name in head.config.modalities:
            for parameter in head.pooling(name).parameters():
                parameter.uniform_(-most, most, generator=generator)
    return head.eval().requires_grad_(False)


@pytest.mark.parametrize("norm", INPUT_NORMS)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
def test_a_head_says_of_one_utterance_what_it_says_of_it_in_a_batch(
    kind: dict[str, Any], norm: str
) -> None:
    shape = {"audio": DIM, "text": DIM}
    scales = {"arousal": (1.0, 7.0)}
    config = HeadConfig(LABELS, shape, dict.fromkeys(shape, kind), norm, 8, attributes=scales)
    head = uneven(Head(config, seed=1))
    if head.affine("audio") is not None:
        head.set_input_statistics("audio", torch.arange(DIM) / 4, 0.5 + torch.arange(DIM) / 8)
    generator = torch.Generator().manual_seed(1)
    lengths = (7, 1, 30)
    batch = {
        name: Frames.from_list(
            [2 + torch.randn(n, DIM, generator=generator) for n in lengths],
            [torch.rand(n, generator=generator) for n in lengths] if name == "audio" else None,
        )
        for name in shape
    }
    together = head(batch)
    one = OneUtterance(head)
    assert one.outputs == ("logits", "probabilities", "attributes")
    for row in range(len(lengths)):
        own = {name: frames.select([row]) for name, frames in batch.items()}
        speech = own["audio"].speech
        assert speech is not None
        inputs = {name: frames.values for name, frames in own.items()}
        logits, probabilities, attributes = one({**inputs, speech_input("audio"): speech})
        torch.testing.assert_close(logits, together[row, : len(LABELS)], atol=1e-5, rtol=1e-5)
        said = answers(config, together[row])
        torch.testing.assert_close(torch.cat([probabilities, attributes]), said, atol=1e-5, rtol=0)


def on_encoder(folder: Path, pooling: dict[str, Any], most: float = 1.0) -> EmotionModel:
    """A head on the last layer of a speech encoder."""
    layers, dim = encoder_shape(folder)
    config = HeadConfig(LABELS, {"audio": dim}, {"audio": pooling}, "none", 8)
    head = uneven(Head(config, seed=1), most)
    return assemble(head, {"audio": folder}, {"audio": layers})


def noise(samples: int) -> Tensor:
    return torch.randn(samples, generator=torch.Generator().manual_seed(samples)) * 0.1


@pytest.mark.parametrize("pooling", ["mqmha", "average+vad_average"])
@pytest.mark.parametrize("name", ["whisper", *ENCODERS])
def test_a_model_says_of_samples_what_it_says_by_extraction(
    name: str, pooling: str, tmp_path: Path
) -> None:
    folder = save_small(tmp_path) if name == "whisper" else save_encoder(tmp_path, name)
    model = on_encoder(folder, {"kind": pooling})
    one = OneRecording(model).eval()
    assert one.listener is not None
    with torch.no_grad():
        for samples in (one.listener.shortest, 5_001, 16_000, 40_000):
            waveform = noise(samples)
            logits, _ = one({"samples": waveform})
            torch.testing.assert_close(logits, model([waveform], None)[0], atol=2e-5, rtol=1e-5)
        wrong = [one.listener.shortest - 1] * (name != "whisper")
        for samples in (*wrong, *[480_001] * (name == "whisper")):
            with pytest.raises((IndexError, RuntimeError), match="index out of range"):
                one({"samples": noise(samples)})


def test_a_model_that_reads_takes_tokens(encoders: Path) -> None:
    model = make_model(encoders)
    assert model.text_encoder is not None
    one, waveform = OneRecording(model).eval(), noise(12_000)
    [tokens] = model.text_encoder.tokenise(["stop that now"])
    with torch.no_grad():
        found, _ = one({"samples": waveform, "tokens": torch.from_numpy(tokens.ids)})
        expected = model([waveform], ["stop that now"])[0]
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)


def test_a_front_end_of_another_kind_is_refused_in_a_sentence() -> None:
    with pytest.raises(ConfigError, match="Export the head alone: --frames"):
        _one_front_end(np.zeros(1))  # type: ignore[arg-type]
