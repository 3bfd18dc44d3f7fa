from __future__ import annotations

import json
import math
import pickle
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import transformers
from numpy.typing import NDArray

from cache.encoders.audio_encoder import AudioEncoder, load_audio_encoder
from cache.encoders.device import choose_device
from cache.encoders.files import encoder_fields, hash_files, weight_files
from cache.encoders.names import resolve_encoder
from corpora.base.errors import AudioError, ConfigError, EmopoolError

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
CONVOLUTIONS = {
    "conv_dim": (16,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}
# Name -> (class, its configuration). "stable" encoders end in a layer norm behind the last layer.
ENCODERS: dict[str, tuple[str, dict[str, object]]] = {
    "w2v-bert": ("Wav2Vec2Bert", {}),
    "wav2vec2-group": ("Wav2Vec2", CONVOLUTIONS),
    "wav2vec2-layer": ("Wav2Vec2", {**CONVOLUTIONS, "feat_extract_norm": "layer"}),
    "hubert-stable": (
        "Hubert",
        {**CONVOLUTIONS, "feat_extract_norm": "layer", "do_stable_layer_norm": True},
    ),
    "wavlm-group": ("WavLM", CONVOLUTIONS),
    "wavlm-stable": (
        "WavLM",
        {**CONVOLUTIONS, "feat_extract_norm": "layer", "do_stable_layer_norm": True},
    ),
    "data2vec": ("Data2VecAudio", CONVOLUTIONS),
}
PADDED = {"w2v-bert", "wav2vec2-layer", "hubert-stable", "wavlm-stable"}


def save_encoder(folder: Path, name: str, **overrides: object) -> Path:
    """A small random encoder with its front end, as save_pretrained writes them."""
    kind, options = ENCODERS[name]
    config = getattr(transformers, f"{kind}Config")(**SMALL, **options, **overrides)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        getattr(transformers, f"{kind}Model")(config).save_pretrained(folder)
    extractor(name).save_pretrained(folder)
    return folder


def extractor(name: str) -> Any:
    takes_mels = name == "w2v-bert"
    front_end = "SeamlessM4TFeatureExtractor" if takes_mels else "Wav2Vec2FeatureExtractor"
    return getattr(transformers, front_end)()


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], AudioEncoder]:
    loaded: dict[str, AudioEncoder] = {}

    def load(name: str) -> AudioEncoder:
        if name not in loaded:
            folder = save_encoder(tmp_path_factory.mktemp(name), name)
            loaded[name] = load_audio_encoder(folder)
        return loaded[name]

    return load


def waveforms(*lengths: int) -> list[NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    return [(rng.standard_normal(length) * 0.1).astype(np.float32) for length in lengths]


@pytest.mark.parametrize("name", ENCODERS)
def test_a_batch_gives_what_its_items_give_alone(
    encoder: Callable[[str], AudioEncoder], name: str
) -> None:
    model = encoder(name)
    batch = waveforms(8000, 3000, 5001, 700, 3000)
    layers = range(model.layers + 1)
    with torch.inference_mode():
        together = model(batch, layers)
        for index, waveform in enumerate(batch):
            alone = model([waveform], layers)
            for layer in layers:
                torch.testing.assert_close(
                    together[layer].utterance(index), alone[layer].values, rtol=1e-4, atol=5e-5
                )


@pytest.mark.parametrize("name", ENCODERS)
def test_only_encoders_known_to_ignore_padding_are_padded(
    encoder: Callable[[str], AudioEncoder], name: str
) -> None:
    front_end = encoder(name).front_end
    assert (front_end.group(8000) == front_end.group(3000)) == (name in PADDED)


@pytest.mark.parametrize("name", ENCODERS)
def test_layers_are_the_models_hidden_states(
    encoder: Callable[[str], AudioEncoder], name: str
) -> None:
    model = encoder(name)
    waveform = waveforms(6000)
    inputs = next(
        iter(extractor(name)(waveform, sampling_rate=16000, return_tensors="pt").values())
    )
    with torch.inference_mode():
        reference: Any = model.model(inputs, output_hidden_states=True)
        found = model(waveform, range(model.layers + 1))
    for layer in range(model.layers):
        expected = reference.hidden_states[layer][0]
        torch.testing.assert_close(found[layer].values, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ENCODERS)
def test_the_last_layer_is_the_last_hidden_state(
    encoder: Callable[[str], AudioEncoder], name: str
) -> None:
    model = encoder(name)
    waveform = waveforms(6000)
    inputs = next(
        iter(extractor(name)(waveform, sampling_rate=16000, return_tensors="pt").values())
    )
    with torch.inference_mode():
        expected = model.model(inputs).last_hidden_state[0]
        found = model(waveform, [model.layers])[model.layers]
    torch.testing.assert_close(found.values, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ENCODERS)
def test_an_utterance_has_the_frames_of_the_grid(
    encoder: Callable[[str], AudioEncoder], name: str
) -> None:
    model = encoder(name)
    lengths = (560, 720, 1000, 5000, 5119, 5120)
    with torch.inference_mode():
        frames = model(waveforms(*lengths), [1])[1]
    assert frames.lengths.tolist() == [model.grid.frames(length) for length in lengths]
    assert frames.dim == model.dim == 32


def test_the_upper_layers_run_on_an_inner_layers_frames(
    encoder: Callable[[str], AudioEncoder],
) -> None:
    model = encoder("w2v-bert")
    with torch.inference_mode():
        states = model(waveforms(6000), [1, 3])
        values = states[1].values[None]
        assert model.stack is not None
        for layer in list(model.stack)[1:]:
            values = layer(values)
    torch.testing.assert_close(values[0], states[3].values, rtol=1e-4, atol=1e-5)


def test_a_loaded_encoder_is_frozen_and_stays_in_eval_mode(
    encoder: Callable[[str], AudioEncoder],
) -> None:
    model = encoder("w2v-bert")
    torch.nn.ModuleList([model]).train()
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_an_unfrozen_encoder_trains_and_its_gradients_are_finite(tmp_path: Path) -> None:
    model = load_audio_encoder(save_encoder(tmp_path, "w2v-bert"))
    model.requires_grad_(True)
    assert model.train().training
    for _ in range(5):  # layer drop or SpecAugment would fail or differ on such short utterances
        frames = model(waveforms(800, 1200), [0, 3])
    frames[3].values.square().sum().backward()
    gradients = [p.grad for p in model.stack.parameters()] if model.stack is not None else []
    assert gradients
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


def test_training_mode_draws_no_random_numbers_without_dropout(tmp_path: Path) -> None:
    folder = save_encoder(tmp_path, "w2v-bert", conformer_conv_dropout=0.0, mask_time_prob=0.5)
    model = load_audio_encoder(folder)
    with torch.no_grad():
        quiet = model(waveforms(8000), [3])[3].values
        loud = model.requires_grad_(True).train()(waveforms(8000), [3])[3].values
    torch.testing.assert_close(loud, quiet, rtol=0, atol=0)


def test_bf16_changes_values_a_little_and_gives_float32(tmp_path: Path) -> None:
    folder, batch = save_encoder(tmp_path, "w2v-bert"), waveforms(8000, 3000)
    with torch.inference_mode():
        exact = load_audio_encoder(folder)(batch, [3])[3].values
        rough = load_audio_encoder(folder, compute_dtype="bf16")(batch, [3])[3].values
    assert rough.dtype == torch.float32
    assert not torch.equal(rough, exact)
    torch.testing.assert_close(rough, exact, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("name", ENCODERS)
def test_weights_that_are_cast_once_give_what_autocast_gives(tmp_path: Path, name: str) -> None:
    """To the bit, so that it makes no difference to a recipe, nor to fine-tuning's first step."""
    model = load_audio_encoder(save_encoder(tmp_path, name), compute_dtype="bf16")
    batch, layers = waveforms(8000, 3000), range(model.layers + 1)
    with torch.inference_mode():
        expected = model(batch, layers)
        model.cast_weights()
        found = model(batch, layers)
    assert {torch.bfloat16, torch.float32} == {one.dtype for one in model.parameters()}
    for layer in layers:
        assert torch.equal(found[layer].values, expected[layer].values)


def test_weights_stay_where_fp32_is_computed_in(tmp_path: Path) -> None:
    model = load_audio_encoder(save_encoder(tmp_path, "w2v-bert"))
    model.cast_weights()
    assert {one.dtype for one in model.parameters()} == {torch.float32}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method`:DeprecationWarning")  # torch's own
@pytest.mark.parametrize("name", ENCODERS)
def test_compiled_layers_give_the_same_frames(tmp_path: Path, name: str) -> None:
    model = load_audio_encoder(save_encoder(tmp_path, name))
    batches, layers = [waveforms(8000, 3000), waveforms(5000)], range(model.layers + 1)
    with torch.inference_mode():
        expected = [model(batch, layers) for batch in batches]
        model.compile_layers()
        for batch, wanted in zip(batches, expected, strict=True):
            found = model(batch, layers)
            for layer in layers:
                torch.testing.assert_close(
                    found[layer].values, wanted[layer].values, rtol=1e-4, atol=1e-5
                )


def test_what_cannot_be_compiled_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def compiled(forward: object, **_: object) -> Callable[..., None]:
        def failing(*_: object, **__: object) -> None:
            raise RuntimeError("no compiler\nand much besides")

        return failing

    monkeypatch.setattr(torch, "compile", compiled)
    model = load_audio_encoder(save_encoder(tmp_path, "w2v-bert"))
    with pytest.raises(
        ConfigError, match=r"compile the encoder's layers \(no compiler\)\. It needs"
    ):
        model.compile_layers()


def test_too_short_a_waveform_is_refused(encoder: Callable[[str], AudioEncoder]) -> None:
    with pytest.raises(AudioError, match="waveform 1 of the batch has 559 samples"):
        encoder("w2v-bert")(waveforms(600, 559), [3])


@pytest.mark.parametrize("layer", [-1, 4])
def test_a_layer_that_does_not_exist_is_refused(
    encoder: Callable[[str], AudioEncoder], layer: int
) -> None:
    with pytest.raises(ConfigError, match=f"layer {layer} does not exist"):
        encoder("w2v-bert")(waveforms(6000), [layer])


def test_a_directory_without_weights_is_refused(tmp_path: Path) -> None:
    folder = save_encoder(tmp_path, "w2v-bert")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match="holds no weights"):
        resolve_encoder(str(folder), "audio", tmp_path)


def test_weights_that_do_not_fill_the_model_are_refused(tmp_path: Path) -> None:
    folder = save_encoder(tmp_path, "w2v-bert")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 4}))
    with pytest.raises(ConfigError, match=r"the weights lack \d+ parameters"):
        load_audio_encoder(folder)


def test_pickled_weights_are_read_where_there_are_no_others(tmp_path: Path) -> None:
    folder = save_encoder(tmp_path, "w2v-bert")
    with torch.inference_mode():
        expected = load_audio_encoder(folder)(waveforms(3000), [3])[3].values
        state = transformers.AutoModel.from_pretrained(folder).half().state_dict()
        (folder / "model.safetensors").unlink()
        torch.save(state, folder / "pytorch_model.bin")
        found = load_audio_encoder(folder)(waveforms(3000), [3])[3].values
    assert weight_files(folder) == (folder / "pytorch_model.bin",)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ConfigError, match="lacks model-00001-of-00002"):
        weight_files(tmp_path)


def test_the_recipe_does_not_know_the_encoders_place(tmp_path: Path) -> None:
    here = encoder_fields(save_encoder(tmp_path / "a", "w2v-bert"), "audio")
    there = encoder_fields(save_encoder(tmp_path / "b", "w2v-bert"), "audio")
    assert here == there
    json.dumps(here)


def test_the_recipe_changes_with_weights_config_and_front_end(tmp_path: Path) -> None:
    folder = save_encoder(tmp_path, "w2v-bert")
    fields = [encoder_fields(folder, "audio")]
    for name in ("config.json", "preprocessor_config.json"):
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**content, "layer_norm_eps": math.pi}))
        fields.append(encoder_fields(folder, "audio"))
    fields.append(encoder_fields(folder, "audio", lambda paths: dict.fromkeys(paths, "other")))
    assert all(a != b for a, b in pairwise(fields))


def test_the_recipe_ignores_who_wrote_the_config(tmp_path: Path) -> None:
    folder = save_encoder(tmp_path, "w2v-bert")
    before = encoder_fields(folder, "audio")
    content = json.loads((folder / "config.json").read_text())
    changed = {**content, "_name_or_path": "x", "transformers_version": "0", "dtype": "float16"}
    (folder / "config.json").write_text(json.dumps(changed))
    assert encoder_fields(folder, "audio") == before


def test_files_are_hashed_by_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert hash_files([tmp_path / "a"]) == {tmp_path / "a": digest}


def test_a_name_that_is_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such directory, and not a hub id"):
        resolve_encoder("./not/there", "audio", tmp_path)


def test_a_hub_id_without_a_network_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    def refuse(*_: object, **__: object) -> str:
        raise ConnectionError("Connection refused")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    with pytest.raises(EmopoolError, match=r"Connection refused.*local directory, or use tiny"):
        resolve_encoder("someone/something", "audio", tmp_path)


def test_a_hub_id_that_is_on_this_machine_needs_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    folder = save_encoder(tmp_path / "snapshot", "w2v-bert")
    config = str(folder / "config.json")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", None)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: config)
    assert resolve_encoder("someone/something", "audio", tmp_path) == folder


@pytest.mark.parametrize("pickled", [False, True])
def test_a_hub_id_is_downloaded_with_pickled_weights_only_if_there_are_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pickled: bool
) -> None:
    import huggingface_hub

    asked: list[list[str]] = []

    def download(_: str, *, allow_patterns: list[str], **__: object) -> str:
        asked.append(allow_patterns)
        (tmp_path / "config.json").write_text("{}")
        name = "pytorch_model.bin" if pickled and len(asked) == 2 else "model.safetensors"
        if not pickled or len(asked) == 2:
            content = pickle.dumps({}) if name.endswith(".bin") else safetensors.torch.save({})
            (tmp_path / name).write_bytes(content)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    resolve_encoder("someone/something", "audio", tmp_path)
    assert len(asked) == (2 if pickled else 1)
    assert not any(".bin" in pattern for pattern in asked[0])


@pytest.mark.gpu
def test_a_gpu_gives_the_frames_of_the_cpu(tmp_path: Path) -> None:
    folder = save_encoder(tmp_path, "w2v-bert")
    batch, device = waveforms(8000, 3000), choose_device("cuda")
    with torch.inference_mode():
        expected = load_audio_encoder(folder)(batch, [3])[3].values
        found = load_audio_encoder(folder, device=device)(batch, [3])[3].values
        inexact = load_audio_encoder(folder, device=device, compute_dtype="bf16")
        rough = inexact(batch, [3])[3].values
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(rough.cpu(), expected, rtol=0.1, atol=0.1)
