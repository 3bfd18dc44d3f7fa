"""A head finds its encoders, and takes no more of them than it reads."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

from cache.encoders.audio_encoder import load_audio_encoder
from cache.lookup import FrameCache
from corpora.base.errors import ConfigError
from corpora.base.work import Work
from finetune.assembly import assemble, refuse_unheard, without_upper_layers
from finetune.model import EmotionModel
from finetune.phases import trainable_parts
from heads.head import Head, HeadConfig
from tests.finetune.corpus import LABELS, make_model

NOISE = [torch.rand(n, generator=torch.Generator().manual_seed(n)) - 0.5 for n in (4000, 7000)]


def make_wav2vec(folder: Path, *, final_norm: bool) -> Path:
    """A small wav2vec 2.0; with `final_norm` a layer norm follows its last layer."""
    config = Wav2Vec2Config(
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=24,
        conv_dim=(8, 8),
        conv_kernel=(10, 8),
        conv_stride=(20, 16),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
        do_stable_layer_norm=final_norm,
        feat_extract_norm="layer" if final_norm else "group",
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        Wav2Vec2Model(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(return_attention_mask=final_norm).save_pretrained(folder)
    return folder


def wav2vec_model(folder: Path, layer: int) -> EmotionModel:
    head = Head(HeadConfig(LABELS, {"audio": 16}, {"audio": {"kind": "statistics"}}, mlp_width=4))
    return assemble(head, {"audio": folder}, {"audio": layer})


@pytest.mark.parametrize(("final_norm", "kept"), [(True, 3), (False, 2)])
def test_a_shortened_encoder_gives_the_same_frames(
    final_norm: bool, kept: int, tmp_path: Path
) -> None:
    folder = make_wav2vec(tmp_path / "encoder", final_norm=final_norm)
    whole = load_audio_encoder(folder)
    with torch.no_grad():
        expected = whole(NOISE, [2])[2].values
        shorter = without_upper_layers(load_audio_encoder(folder), 2)
        torch.testing.assert_close(shorter(NOISE, [2])[2].values, expected, atol=0, rtol=0)
    assert shorter.layers == kept


@pytest.mark.parametrize("final_norm", [True, False])
def test_a_shortened_encoder_is_saved_and_loaded_as_such(final_norm: bool, tmp_path: Path) -> None:
    model = wav2vec_model(make_wav2vec(tmp_path / "encoder", final_norm=final_norm), layer=1)
    with torch.no_grad():
        before = model(NOISE, None)
        model.save_pretrained(tmp_path / "model")
        again = EmotionModel.from_pretrained(tmp_path / "model")
        torch.testing.assert_close(again(NOISE, None), before, atol=0, rtol=0)


def test_what_no_logit_depends_on_is_never_trained(tmp_path: Path) -> None:
    model = wav2vec_model(make_wav2vec(tmp_path / "encoder", final_norm=True), layer=2)
    names = {name for part in trainable_parts(model, 3) for name in part.parameters}
    unused = {name for name, _ in model.named_parameters()} - names
    # The mask of pre-training, the layer that stays for its norm's sake, and the norm itself.
    assert "audio_encoder.model.masked_spec_embed" in unused
    assert "audio_encoder.model.encoder.layer_norm.weight" in unused
    assert all(".layers.2." in name or "layer_norm" in name or "masked" in name for name in unused)


def test_a_head_of_informative_words_does_not_hear_recordings(tmp_path: Path) -> None:
    head = HeadConfig(LABELS, {"audio": 16}, {"audio": {"kind": "informative_average"}})
    record: Any = SimpleNamespace(head=head)
    with pytest.raises(ConfigError, match="do not say when words are said"):
        refuse_unheard(FrameCache(Work(tmp_path)), record)


def test_a_layer_that_is_not_there_is_refused(encoders: Path) -> None:
    with pytest.raises(ConfigError, match="layer 9 of its audio encoder; this one has layers 0 to"):
        make_model(encoders, layers={"audio": 9, "text": 3})


def test_frames_of_another_width_are_refused(tmp_path: Path) -> None:
    folder = make_wav2vec(tmp_path / "encoder", final_norm=False)
    head = Head(HeadConfig(LABELS, {"audio": 20}, {"audio": {"kind": "average"}}))
    with pytest.raises(ConfigError, match="reads audio frames of 20 values; this encoder gives 16"):
        assemble(head, {"audio": folder}, {"audio": 3})
