"""LoRA: adapters start at nothing, are trained alone, and are the same merged and beside."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor
from transformers import (
    HubertConfig,
    HubertModel,
    Wav2Vec2FeatureExtractor,
    WavLMConfig,
    WavLMModel,
)

from cache.audio import load_audio
from cli import main
from corpora.base.errors import ConfigError, MissingExtraError
from corpora.manifest import Manifest
from finetune.adapters import add_adapters, has_adapters, is_adapter, require_peft
from finetune.assembly import assemble
from finetune.config import FinetuneConfig
from finetune.finetune import run_finetune
from finetune.model import EmotionModel
from finetune.phases import trainable_parts, unfreeze
from heads.head import Head, HeadConfig
from tests.finetune.conftest import Searched
from tests.finetune.corpus import LABELS, make_model
from tests.finetune.scoring import evaluate_model
from tests.finetune.searched import copy_work
from tests.finetune.test_resume import StopError, digests, no_test_split, stop_after

pytest.importorskip("peft")

LORA = FinetuneConfig(
    adapter="lora",
    lora_rank=2,
    lr2=3e-3,
    lr3=3e-3,
    epochs=2,
    patience=2,
    frame_budget=200,
    device="cpu",
    checkpoint_every=3,
)
NOISE = [torch.rand(n, generator=torch.Generator().manual_seed(n)) - 0.5 for n in (6000, 9000)]
TEXTS = ["stop that now", ""]


def adapted(encoders: Path, config: FinetuneConfig = LORA, **options: Any) -> EmotionModel:
    model = make_model(encoders, **options)
    add_adapters(model.encoders, model.layers, config)
    return model


def learnt(model: EmotionModel) -> EmotionModel:
    """As if adapters had been trained: B is no longer 0."""
    generator = torch.Generator().manual_seed(3)
    for name, parameter in model.named_parameters():
        if is_adapter(name):
            parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)
    return model


def said(model: EmotionModel) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model(NOISE, TEXTS)
    return logits


def test_a_model_with_adapters_says_at_first_what_it_said_without(encoders: Path) -> None:
    torch.testing.assert_close(said(adapted(encoders)), said(make_model(encoders)), atol=0, rtol=0)
    assert not torch.allclose(said(learnt(adapted(encoders))), said(make_model(encoders)))


def test_phase_2_trains_the_upper_layers_adapters_and_phase_3_all(encoders: Path) -> None:
    model = adapted(encoders)
    every = {name for name, _ in model.named_parameters() if is_adapter(name)}
    upper = {name for name in every if ".layers.2." in name or ".layer.2." in name}
    head = {f"head.{name}" for name, _ in model.head.named_parameters()}
    for phase, expected in ((2, upper), (3, every)):
        unfreeze(model, trainable_parts(model, phase))
        trained = {name for name, p in model.named_parameters() if p.requires_grad}
        assert trained == expected | head
        # Dropout acts where it would if the layers themselves were trained.
        model.train()
        stack = model.encoders["audio"].stack
        assert stack is not None
        assert [layer.training for layer in stack] == [phase == 3, phase == 3, True]


@pytest.mark.parametrize("merged", [False, True])
def test_a_model_is_saved_with_its_adapters_or_merged(
    merged: bool, encoders: Path, tmp_path: Path
) -> None:
    model = learnt(adapted(encoders))
    before = said(model)
    if merged:
        model.merge_adapters()
        assert not any(is_adapter(name) for name, _ in model.named_parameters())
    model.save_pretrained(tmp_path / "model")
    folders = {path.name for path in (tmp_path / "model").iterdir() if path.is_dir()}
    both = {"audio_encoder", "text_encoder"}
    assert folders == (both if merged else both | {"audio_adapter", "text_adapter"})
    again = EmotionModel.from_pretrained(tmp_path / "model")
    torch.testing.assert_close(said(again), before, atol=1e-5, rtol=0)
    again.save_pretrained(tmp_path / "second")
    torch.testing.assert_close(
        said(EmotionModel.from_pretrained(tmp_path / "second")), said(again), atol=0, rtol=0
    )


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft asks for it
def test_peft_reads_the_adapter_folder_and_transformers_the_one_beside_it(
    encoders: Path, tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModel

    model = learnt(adapted(encoders))
    model.save_pretrained(tmp_path / "model")
    base = AutoModel.from_pretrained(tmp_path / "model" / "text_encoder").eval()
    assert not has_adapters(base)
    plain = PeftModel.from_pretrained(base, str(tmp_path / "model" / "text_adapter")).eval()
    assert model.text_encoder is not None
    batch = model.text_encoder.tokenizer(["stop that now"], return_tensors="pt")
    ids, mask = batch["input_ids"], batch["attention_mask"]
    with torch.no_grad():
        found = plain(input_ids=ids, attention_mask=mask).last_hidden_state[0]
        expected = model.text_encoder(["stop that now"], [3])[3].values
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_a_fine_tuning_gives_the_same_scores_merged_and_beside(
    searched: Searched, manifest: Manifest, tmp_path: Path
) -> None:
    logits, scores = [], []
    for merge in (False, True):
        work = copy_work(searched.work, tmp_path / str(merge))
        report = run_finetune(work, manifest, replace(LORA, merge=merge))
        assert report.model is not None
        assert any(phase.best_epoch for phase in report.phases), "adapters have learnt something"
        model = EmotionModel.from_pretrained(work.model)
        assert model.provenance["adapter"]["merged"] is merge
        waves = [load_audio(u.audio) for u in manifest.utterances[:6]]
        with torch.no_grad():
            logits.append(model(waves, [u.text for u in manifest.utterances[:6]]))
        scores.append(evaluate_model(work, manifest).report)
    torch.testing.assert_close(*logits, atol=1e-5, rtol=0)
    assert scores[0] == scores[1]


def test_a_run_that_stopped_goes_on_to_the_same_adapters(
    searched: Searched,
    manifest: Manifest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.set_num_threads(1)
    rows, found = no_test_split(manifest), []
    for name in ("whole", "stopped"):
        work = copy_work(searched.work, tmp_path / name)
        if name == "stopped":
            stop_after(monkeypatch, 11)  # in phase 3
            with pytest.raises(StopError):
                run_finetune(work, rows, LORA)
            monkeypatch.undo()
            torch.rand(3)
            with pytest.raises(ConfigError, match=r"adapter: .*\"rank\": 2.* -> .*\"rank\": 4"):
                run_finetune(work, rows, replace(LORA, lora_rank=4))
            with pytest.raises(ConfigError, match=r"adapter: .*\"rank\": 2.* -> null"):
                run_finetune(work, rows, replace(LORA, adapter="", lora_rank=8))
        run_finetune(work, rows, LORA)
        found.append(digests(work))
    assert found[0] == found[1]
    assert "audio_adapter/adapter_model.safetensors" in found[0]


def wavlm(folder: Path, kind: str) -> EmotionModel:
    """A small WavLM or HuBERT with a head."""
    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "conv_dim": (8, 8),
        "conv_kernel": (10, 8),
        "conv_stride": (20, 16),
        "num_feat_extract_layers": 2,
        "num_conv_pos_embeddings": 8,
        "num_conv_pos_embedding_groups": 2,
        "do_stable_layer_norm": True,
        "feat_extract_norm": "layer",
    }
    model = (
        WavLMModel(WavLMConfig(**sizes)) if kind == "wavlm" else HubertModel(HubertConfig(**sizes))
    )
    model.save_pretrained(folder)
    Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)
    head = Head(HeadConfig(LABELS, {"audio": 16}, {"audio": {"kind": "statistics"}}, mlp_width=4))
    return assemble(head, {"audio": folder}, {"audio": 1})


@pytest.mark.parametrize(
    ("kind", "targets"),
    [("hubert", ["q_proj", "v_proj"]), ("wavlm", ["intermediate_dense", "output_dense"])],
)
def test_each_architecture_has_layers_that_are_called_for_its_adapters(
    kind: str, targets: list[str], tmp_path: Path
) -> None:
    model = wavlm(tmp_path / "encoder", kind)
    found = add_adapters(model.encoders, model.layers, FinetuneConfig(adapter="lora"))
    assert found == {"rank": 8, "alpha": 16, "targets": {"audio": targets}}
    names = {n for part in trainable_parts(model, 3) for n in part.parameters if is_adapter(n)}
    # Of the one layer that is read, and not of the one that stays for its norm's sake.
    assert len(names) == 4
    before = said(learnt(model))
    model.merge_adapters()
    torch.testing.assert_close(said(model), before, atol=1e-5, rtol=0)


def test_an_adapter_that_would_do_nothing_is_refused(tmp_path: Path) -> None:
    model = wavlm(tmp_path / "encoder", "wavlm")
    config = FinetuneConfig(adapter="lora", lora_targets=("q_proj",))
    with pytest.raises(ConfigError, match="q_proj: the audio encoder reads the weights of this"):
        add_adapters(model.encoders, model.layers, config)


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        (("linear_q", "query_proj", "querry"), "querry: no linear layer.*Did you mean"),
        (("nothing",), "the audio encoder has none of nothing in its layers.*linear_q"),
        (("linear_q",), "the text encoder has none of linear_q in its layers.*query_proj"),
    ],
)
def test_targets_that_are_not_there_are_named(
    targets: tuple[str, ...], words: str, encoders: Path
) -> None:
    with pytest.raises(ConfigError, match=words):
        adapted(encoders, replace(LORA, lora_targets=targets))


def test_a_head_on_the_input_of_the_first_layer_has_nothing_to_adapt(encoders: Path) -> None:
    with pytest.raises(ConfigError, match="there is no layer to adapt"):
        adapted(encoders, layers={"audio": 0}, modalities=("audio",))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--lora-rank", "4"], "go with --adapter lora"),
        (["--merge"], "go with --adapter lora"),
        (["--adapter", "lora", "--lora-rank", "0"], "lora rank must be at least 1, got 0"),
        (["--adapter", "lora", "--phases", "1"], "trains in phases 2 and 3"),
        (["--adapter", "dora"], "'dora' is not"),
    ],
    ids=lambda value: "".join(value) if isinstance(value, list) else "",
)
def test_options_that_do_not_fit_are_said_in_one_sentence(
    options: list[str], words: str, tmp_path: Path
) -> None:
    result = CliRunner().invoke(main, ["finetune", "--work", str(tmp_path), *options])
    assert result.exit_code != 0
    assert words in result.output
    assert "Traceback" not in result.output


def test_without_peft_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finetune.adapters.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"\[lora\]"):
        require_peft()
