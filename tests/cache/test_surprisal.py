"""Bits of surprisal of words: the equations, what is refused, and the stream in the cache."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from transformers import AutoTokenizer

from cache.config import ExtractConfig
from cache.encoders.language_model import load_language_model
from cache.encoders.names import resolve_encoder
from cache.extract.extract import extract
from cache.last_extraction import SURPRISAL, extract_command
from cache.lookup import FrameCache
from cache.upkeep.info import cache_info
from cache.upkeep.prune import prune_plan
from cache.upkeep.verify import verify
from corpora.base.errors import ConfigError, MissingStepError
from corpora.base.work import Work
from corpora.manifest import Manifest, write_manifest
from tests.cache.language_models import Array, bert_bits, gpt2_bits, save_bert, save_gpt2
from tests.cache.recordings import change, make_manifest

TEXTS = ("Number is said", "Hausboote, said d.", "said", "is - said 'number'!")
# Number of pieces that count in each word: punctuation is read, and nobody says it.
MASK = 4


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_gpt2(tmp_path_factory.mktemp("gpt2"))


def weights(folder: Path) -> dict[str, Array]:
    found = load_file(folder / "model.safetensors")
    return {name: value.astype(np.float64) for name, value in found.items()}


def test_masked_a_word_is_read_left_to_right_between_all_others(bert: Path) -> None:
    own, tokenizer = weights(bert), AutoTokenizer.from_pretrained(bert)
    expected = []
    for text in TEXTS:
        words = [tokenizer.tokenize(word) for word in text.split()]
        pieces = [piece for word in words for piece in word]
        ids = [2, *tokenizer.convert_tokens_to_ids(pieces), 3]
        bits, at = [], 1
        for word in words:
            total, end = 0.0, at + len(word)
            for place, piece in zip(range(at, end), word, strict=True):
                if any(c.isalnum() for c in piece):
                    hidden = [*ids[:place], *[MASK] * (end - place), *ids[end:]]
                    total += bert_bits(own, hidden)[place, ids[place]]
            bits.append(total)
            at = end
        expected.append(np.array(bits))
    found = load_language_model(bert)(TEXTS)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    assert len(found[1]) == 3
    assert found[3][1] == 0  # a dash
    assert min(bits.max() for bits in found) > 1


def test_causal_a_word_is_read_after_all_before_it(gpt2: Path) -> None:
    own, tokenizer = weights(gpt2), AutoTokenizer.from_pretrained(gpt2)
    expected = []
    for text in TEXTS:
        ids = tokenizer(text)["input_ids"]
        said = gpt2_bits(own, [0, *ids])
        bits = np.zeros(len(text.split()))
        word = 0
        for place, (number, letter) in enumerate(zip(ids, text, strict=True)):
            word += letter == " "
            bits[word] += said[place, number] * letter.isalnum()
        expected.append(bits)
    for ours, theirs in zip(load_language_model(gpt2)(TEXTS), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_texts_do_not_mind_their_company_and_long_ones_are_read_as_far_as_it_goes(
    kind: str, request: pytest.FixtureRequest
) -> None:
    model = load_language_model(request.getfixturevalue(kind))
    long = "said number is " * 20
    together = model([*TEXTS, "", long.strip()])
    assert len(together[4]) == 0
    assert 3 < len(together[5]) < 60
    for text, bits in zip(TEXTS, together, strict=False):
        np.testing.assert_allclose(model([text])[0], bits, rtol=1e-4, atol=1e-4)
    assert (together[5] > 0).all()


def test_umlauts_of_two_bytes_belong_to_their_word(gpt2: Path) -> None:
    model = load_language_model(gpt2)
    (bits,) = model(["Tüten für"])
    assert len(bits) == 2
    # The chain rule: the bits of words add up to those of the text.
    own, tokenizer = weights(gpt2), AutoTokenizer.from_pretrained(gpt2)
    ids = tokenizer("Tüten für")["input_ids"]
    said = gpt2_bits(own, [0, *ids])
    space = tokenizer.convert_ids_to_tokens(ids).index("\u0120")
    total = sum(said[place, one] for place, one in enumerate(ids) if place != space)
    np.testing.assert_allclose(bits.sum(), total, rtol=1e-5)


def test_a_head_that_was_not_trained_is_refused_in_a_sentence(tmp_path: Path) -> None:
    folder = save_bert(tmp_path / "bare", head=False)
    with pytest.raises(ConfigError, match="without a trained language-model head") as refused:
        load_language_model(folder)
    assert "cls.predictions" in str(refused.value)
    tiny = resolve_encoder("tiny", "text", tmp_path)
    with pytest.raises(ConfigError, match="without a trained language-model head"):
        load_language_model(tiny)
    audio = resolve_encoder("tiny", "audio", tmp_path)
    (audio / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    (audio / "tokenizer_config.json").write_bytes((folder / "tokenizer_config.json").read_bytes())
    with pytest.raises(ConfigError, match="wav2vec2-bert which is no language model"):
        load_language_model(audio)


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(tmp_path / "work")


@pytest.fixture
def manifest(tmp_path: Path, work: Work) -> Manifest:
    found = change(make_manifest(tmp_path), 1, text="")
    write_manifest(found, work.manifest)
    return found


def test_it_is_a_stream_of_its_own_beside_the_tokens(
    work: Work, manifest: Manifest, bert: Path, gpt2: Path
) -> None:
    plain = ExtractConfig(audio_encoder="", text_encoder="tiny", device="cpu")
    extract(work, manifest, plain)
    with pytest.raises(MissingStepError, match="no surprisal stream"):
        FrameCache(work).surprisal(manifest.utterances)
    lines: list[str] = []
    config = replace(plain, surprisal_model=str(bert))
    extract(work, manifest, config, tell=lines.append)
    assert lines[0] == f"Surprisal of 4 texts by {bert}, a masked language model."
    cache = FrameCache(work)
    model = load_language_model(bert)
    for utterance, bits in zip(
        manifest.utterances, cache.surprisal(manifest.utterances), strict=True
    ):
        assert (bits is None) == (not utterance.text)
        if bits is not None:
            np.testing.assert_allclose(bits, model([utterance.text])[0], rtol=1e-5)
    assert f"--surprisal-model {bert}" in extract_command(work.root)
    # Nothing is computed twice, and another model's bits lie beside.
    lines.clear()
    extract(work, manifest, config, tell=lines.append)
    assert not lines
    folder = cache.extraction.source(SURPRISAL).recipe.folder
    extract(work, manifest, replace(config, surprisal_model=str(gpt2)))
    assert FrameCache(work).extraction.source(SURPRISAL).recipe.folder != folder
    kinds = {one.stream.split("-")[0]: one for one in cache_info(work, manifest).streams}
    assert (kinds[SURPRISAL].present, kinds[SURPRISAL].dim) == (4, 1)
    assert verify(work).ok
    assert prune_plan(work, [work.manifest]).parts == 0
    dropped = prune_plan(work, [work.manifest], last_only=True)
    assert [one.stream for one in dropped.streams if one.parts] == [f"{folder}/values"]


def test_the_bits_are_of_what_is_said_and_not_of_descriptions(
    work: Work, manifest: Manifest, bert: Path
) -> None:
    rows = tuple(replace(u, description="loud") for u in manifest.utterances)
    described = replace(manifest, utterances=rows)
    config = ExtractConfig(
        audio_encoder="",
        text_encoder="tiny",
        device="cpu",
        describe="append",
        surprisal_model=str(bert),
    )
    extract(work, described, config)
    found = FrameCache(work).surprisal(rows)
    assert [None if one is None else len(one) for one in found] == [4, None, 4, 4, 4, 4]
