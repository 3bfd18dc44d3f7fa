from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaModel

from cache.encoders.files import encoder_fields, maximum_tokens
from cache.encoders.names import resolve_encoder
from cache.encoders.text_encoder import INSIDE, SPECIAL, WORD_START, TextEncoder, load_text_encoder
from corpora.base.errors import ConfigError

TEXTS = ("Der Lappen liegt auf dem Eisschrank.", "", "I'm so angry, stop lying to me.", "Stop.")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return resolve_encoder("tiny", "text", tmp_path_factory.mktemp("work"))


@pytest.fixture(scope="module")
def encoder(folder: Path) -> TextEncoder:
    return load_text_encoder(folder)


def byte_level_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of another family: spaces belong to the tokens, punctuation is split off."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: i for i, piece in enumerate(["<s>", "<pad>", "</s>", "<unk>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, cls_token="<s>", sep_token="</s>", pad_token="<pad>"
    )


def save_roberta(folder: Path) -> Path:
    """An encoder whose positions start behind the padding index: 30 tokens at most."""
    tokenizer = byte_level_tokenizer()
    config = XLMRobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=32,
        pad_token_id=1,
    )
    XLMRobertaModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_batch_gives_what_its_items_give_alone(encoder: TextEncoder) -> None:
    layers = range(encoder.layers + 1)
    with torch.inference_mode():
        together = encoder(TEXTS, layers)
        for index, text in enumerate(TEXTS):
            alone = encoder([text], layers)
            for layer in layers:
                torch.testing.assert_close(
                    together[layer].utterance(index), alone[layer].values, rtol=1e-4, atol=1e-5
                )


def test_layers_are_the_models_hidden_states_and_the_last_its_output(encoder: TextEncoder) -> None:
    inputs = encoder.tokenizer(TEXTS[0], return_tensors="pt")
    with torch.inference_mode():
        reference: Any = encoder.model(**inputs, output_hidden_states=True)
        found = encoder([TEXTS[0]], range(encoder.layers + 1))
    for layer, expected in enumerate(reference.hidden_states):
        torch.testing.assert_close(found[layer].values, expected[0])
    torch.testing.assert_close(found[encoder.layers].values, reference.last_hidden_state[0])


def test_there_is_one_frame_for_each_token(encoder: TextEncoder) -> None:
    with torch.inference_mode():
        frames = encoder(TEXTS, [0])[0]
    assert frames.lengths.tolist() == [len(kinds) for kinds in encoder.token_kinds(TEXTS)]
    assert frames.dim == encoder.dim


def test_tokens_give_the_frames_of_their_texts(encoder: TextEncoder) -> None:
    with torch.inference_mode():
        from_texts = encoder(TEXTS, [3])[3].values
        from_tokens = encoder(encoder.tokenise(TEXTS), [3])[3].values
    torch.testing.assert_close(from_tokens, from_texts, rtol=0, atol=0)


def test_an_empty_text_is_its_special_tokens(encoder: TextEncoder) -> None:
    (tokens,) = encoder.tokenise([""])
    assert tokens.pieces == ("[CLS]", "[SEP]")
    assert tokens.kinds.tolist() == [SPECIAL, SPECIAL]


def test_kinds_tell_special_tokens_word_starts_and_the_rest(encoder: TextEncoder) -> None:
    (tokens,) = encoder.tokenise(["Stop lying, Kopernikus"])
    assert tokens.pieces[:4] == ("[CLS]", "▁stop", "▁lying", ",")
    assert tokens.kinds[:5].tolist() == [SPECIAL, WORD_START, WORD_START, INSIDE, WORD_START]
    assert set(tokens.kinds[5:-1].tolist()) == {INSIDE}
    assert tokens.kinds[-1] == SPECIAL


@settings(max_examples=60)
@given(st.lists(st.text("abcdeüß,.'日 ", min_size=1), max_size=6).map(" ".join))
def test_every_word_has_one_start_whatever_the_tokenizer(encoder: TextEncoder, text: str) -> None:
    words = text.split()
    normalised = " ".join(words)
    byte_level = TextEncoder(encoder.model, byte_level_tokenizer(), 512)
    for either in (encoder, byte_level):
        (kinds,) = either.token_kinds([normalised])
        assert np.count_nonzero(kinds == WORD_START) == len(words)
        assert kinds[0] == kinds[-1] == SPECIAL


def test_spans_point_into_the_text(encoder: TextEncoder) -> None:
    text = "I'm so angry"
    (tokens,) = encoder.tokenise([text])
    spoken = [text[start:end].strip() for start, end in tokens.spans]
    assert spoken == ["", "I'm", "so", "angry", ""]


def test_a_long_text_is_truncated_and_says_so(encoder: TextEncoder) -> None:
    long, short = encoder.tokenise(["stop " * 600, "stop " * 510])
    assert (len(long.ids), long.truncated) == (512, True)
    assert (len(short.ids), short.truncated) == (512, False)
    assert long.kinds[-1] == SPECIAL
    with torch.inference_mode():
        assert encoder([long], [3])[3].lengths.tolist() == [512]


def test_an_encoder_with_offset_positions_takes_its_longest_text(tmp_path: Path) -> None:
    encoder = load_text_encoder(save_roberta(tmp_path))
    assert encoder.maximum_tokens == 30
    with torch.inference_mode():
        frames = encoder(["word " * 50, "a"], [0, 2])
    assert frames[2].lengths.tolist() == [30, 3]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"model_type": "deberta-v2", "max_position_embeddings": 512}, 512),
        ({"model_type": "xlm-roberta", "max_position_embeddings": 514, "pad_token_id": 1}, 512),
        ({"model_type": "modernbert", "max_position_embeddings": 8192}, 512),
        ({"model_type": "bert", "max_position_embeddings": 128}, 128),
        ({"model_type": "xlnet"}, 512),
    ],
)
def test_the_longest_text_follows_the_config(config: dict[str, Any], expected: int) -> None:
    assert maximum_tokens(config) == expected


def test_a_loaded_encoder_is_frozen_and_stays_in_eval_mode(encoder: TextEncoder) -> None:
    torch.nn.ModuleList([encoder]).train()
    assert not any(module.training for module in encoder.modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_gradients_reach_an_unfrozen_encoder(folder: Path) -> None:
    encoder = load_text_encoder(folder).requires_grad_(True)
    encoder.train()
    encoder(TEXTS, [3])[3].values.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())


@pytest.mark.parametrize("layer", [-1, 4])
def test_a_layer_that_does_not_exist_is_refused(encoder: TextEncoder, layer: int) -> None:
    with pytest.raises(ConfigError, match=f"layer {layer} does not exist"):
        encoder(TEXTS, [layer])


def test_a_directory_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    save_roberta(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "tokenizer_config.json").unlink()
    with pytest.raises(ConfigError, match="holds no tokenizer"):
        load_text_encoder(tmp_path)


def test_the_recipe_changes_with_the_tokenizer(tmp_path: Path) -> None:
    save_roberta(tmp_path)
    before = encoder_fields(tmp_path, "text")
    json.dumps(before)
    with (tmp_path / "tokenizer.json").open("a") as file:
        file.write("\n")
    assert encoder_fields(tmp_path, "text") != before
