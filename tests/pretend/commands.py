"""Checks of encoders and whole commands on the pretend device (see `tests.pretend.checks`)."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from transformers import (
    BertConfig,
    BertModel,
    HubertConfig,
    HubertModel,
    PreTrainedTokenizerFast,
    Wav2Vec2FeatureExtractor,
    WavLMConfig,
    WavLMModel,
)

from cache import mapped
from cache.audio import energy
from cache.config import ExtractConfig, TranscribeConfig
from cache.encoders.audio_encoder import load_audio_encoder
from cache.encoders.device import choose_device, usual_dtype
from cache.encoders.grid import SAMPLE_RATE
from cache.encoders.names import resolve_encoder
from cache.encoders.text_encoder import load_text_encoder
from cache.encoders.vad import load_detector, speech
from cache.extract import encoding
from cache.extract import extract as extracting
from cache.extract.encoding import Decoded, Encoded, Recording, encode_audio
from cache.extract.extract import extract
from cache.extract.plan import make_plan
from cache.extract.targets import Item, Target, targets_of
from cache.last_extraction import Source
from cache.recipe import Recipe
from cache.stream import FrameStream
from cache.transcribe.transcribe import transcribe as run_transcribe
from cache.transcribe.whisper import load_whisper
from corpora.base.errors import AudioError, ConfigError
from corpora.base.work import Work
from corpora.manifest import Manifest, Utterance, write_manifest
from explain.config import ExplainConfig
from explain.explain import explain_split
from finetune.batches import gather_examples
from finetune.config import EvaluateConfig, FinetuneConfig, PredictConfig
from finetune.evaluate.evaluate import evaluate as run_evaluate
from finetune.finetune import run_finetune
from finetune.phases import (
    FRAME_BUDGET,
    PhaseConfig,
    StepConfig,
    step_frames,
    trainable_parts,
    unfreeze,
)
from finetune.predict.predict import run_predict
from finetune.steps import Trainer
from heads.compare.compare import run_compare
from heads.config import CompareConfig, SearchConfig
from heads.search.search import run_search
from tests.cache.whispers import save_whisper
from tests.finetune.corpus import make_corpus, make_model
from tests.pretend.checks import check, first_kinds, gap, say, scratch
from tests.pretend.cuda import pretend_cuda
from tests.pretend.device import DEVICE

# Not the first, so that whatever takes another than the one asked for is found.
GPU = "cuda:1"


@check
def devices() -> None:
    """Which GPU is meant, and what is computed in there."""
    job = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "5"}
    with pretend_cuda() as device, scratch() as root:
        torch.backends.cudnn.allow_tf32 = True
        for name, environment, expected in (
            ("auto", {}, "cuda:0"),
            ("cuda", {}, "cuda:0"),
            ("cuda:1", {}, "cuda:1"),
            ("cuda", job, "cuda:1"),
            ("auto", job, "cuda:1"),
            ("cuda:0", job, "cuda:0"),
            ("cpu", job, "cpu"),
        ):
            with patch.dict(os.environ, environment):
                assert choose_device(name) == expected, (name, environment)
            assert expected == "cpu" or device.current == int(expected[-1])
        assert not torch.backends.cudnn.allow_tf32
        for name, said in (("cuda:2", "cuda:0 to cuda:1"), ("gpu", "got 'gpu'")):
            try:
                choose_device(name)
            except ConfigError as error:
                found = str(error)
            else:
                found = ""
            assert said in found, found
        whisper = save_whisper(root / "whisper")
        kept = device.capability
        for capability, encoders, heard in (
            ((9, 0), "bf16", torch.bfloat16),
            ((8, 0), "bf16", torch.bfloat16),
            ((7, 5), "fp32", torch.float16),
            ((7, 0), "fp32", torch.float16),
        ):
            device.capability = capability
            assert usual_dtype(GPU) == encoders, capability
            assert load_whisper(whisper, device=GPU)._model.dtype == heard, capability
        device.capability = kept
    assert usual_dtype("cpu") == "fp32"


def _waveform_encoder(folder: Path, kind: str) -> Path:
    small: dict[str, Any] = {
        **{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
        **{"intermediate_size": 64, "conv_dim": (32,) * 7, "num_conv_pos_embeddings": 16},
        "num_conv_pos_embedding_groups": 4,
    }
    masked = kind == "wavlm"
    small |= {"feat_extract_norm": "layer" if masked else "group", "do_stable_layer_norm": masked}
    model = WavLMModel(WavLMConfig(**small)) if masked else HubertModel(HubertConfig(**small))
    model.eval().save_pretrained(folder)
    Wav2Vec2FeatureExtractor(return_attention_mask=masked).save_pretrained(folder)
    return folder


def _bert(folder: Path, tokenizer: Path) -> Path:
    pieces = PreTrainedTokenizerFast.from_pretrained(tokenizer)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = BertConfig(vocab_size=len(pieces), intermediate_size=64, **sizes)
    BertModel(config).eval().save_pretrained(folder)
    pieces.save_pretrained(folder)
    return folder


def count_calls(model: Any) -> list[int]:
    """A list whose sum is always the number of kernels that the model's own passes launched."""
    own: list[int] = []
    model.register_forward_pre_hook(lambda *_: own.append(-DEVICE.kernels))
    model.register_forward_hook(lambda *_: own.append(DEVICE.kernels))
    return own


@check
def encoders() -> None:
    """Front ends and encoders of every family, in fp32 and bf16; and the detector."""
    random = np.random.default_rng(0)
    waves = [
        torch.from_numpy(random.standard_normal(6000 + 500 * i).astype(np.float32) / 10)
        for i in range(4)
    ]
    texts = ["stop that", "", "it is eight", "I miss you so much"]
    with scratch() as root:
        folders = {
            "W2V-BERT": resolve_encoder("tiny", "audio", root),
            "Whisper": save_whisper(root / "whisper"),
            "WavLM": _waveform_encoder(root / "wavlm", "wavlm"),
            "HuBERT": _waveform_encoder(root / "hubert", "hubert"),
            "DeBERTa": resolve_encoder("tiny", "text", root),
        }
        folders["BERT"] = _bert(root / "bert", folders["DeBERTa"])
        with torch.inference_mode():
            for name, folder in folders.items():
                reads = name in ("DeBERTa", "BERT")
                load: Any = load_text_encoder if reads else load_audio_encoder
                given = texts if reads else waves
                expected = load(folder)(given, [0, 1])
                for compute in ("fp32",) if reads else ("fp32", "bf16"):
                    options = {} if reads else {"compute_dtype": compute}
                    with pretend_cuda() as device:
                        encoder = load(folder, device=GPU, **options)
                        if not reads:
                            encoder.cast_weights()
                        own = count_calls(encoder.model)
                        device.reset()
                        found = encoder(given, [0, 1])
                        beside = 0 if reads else device.kernels - sum(own)
                        device.kernels -= beside
                        say(f"{name}, {compute}", device)
                        if beside and compute == "fp32":
                            device.kernels = beside
                            device.by_wait.clear()
                            say(f"front end and frames of {name}", device)
                        assert found[1].device == torch.device(GPU)
                        for layer, frames in expected.items():
                            off = gap(found[layer].values, frames.values) / frames.values.std()
                            assert off < (1e-4 if compute == "fp32" else 0.2), (name, layer)
            grid = load_audio_encoder(folders["W2V-BERT"]).grid
            here = speech(waves, grid, load_detector())
            with pretend_cuda() as device:
                detector = load_detector(GPU)
                device.reset()
                there = speech(waves, grid, detector)
                say("speech of 4 recordings", device)
                for one, two in zip(here, there, strict=True):
                    assert np.abs(one - two).max() < 1e-5


@check
def extraction_batch() -> None:
    """600 s in 120 recordings: what is launched beside the encoder; samples are sent once."""
    random = np.random.default_rng(0)
    lengths = np.sort(random.uniform(3, 7, 120))[::-1] * SAMPLE_RATE
    noise = [random.standard_normal(round(n)).astype(np.float32) / 10 for n in lengths]
    fields = {"stored_dtype": "float16"}
    beside = [Target(Recipe(kind, fields), kind) for kind in ("energy", "speech")]

    def run(folder: Path, waves: list[Any], device: str, compute: Any) -> tuple[Encoded, list[int]]:
        """What is encoded, and how many kernels the encoder's own were."""
        encoder = load_audio_encoder(folder, device=device, compute_dtype=compute)
        detector, grid = load_detector(device), encoder.grid
        layers = Source(Recipe("audio", fields), layers=(0, encoder.layers))
        batch = []
        for number, wave in enumerate(waves):
            utterances = (Utterance(f"u{number}", Path("a.wav"), ""),)
            item = Item(f"{number:032x}", utterances, (*targets_of(layers), *beside))
            recording = Recording(item, len(wave) / SAMPLE_RATE)
            batch.append(Decoded(recording, wave, energy(wave, grid)))
        encoder.cast_weights()
        own = count_calls(encoder.model)
        DEVICE.reset()
        options: Any = {"stored": torch.float16, "batch_frames": 1_000_000}
        return encode_audio(batch, grid, encoder, detector, **options), own

    with scratch() as root:
        # The others' convolutions take a CPU long, and recordings count, not their lengths.
        runs = (
            ("W2V-BERT", resolve_encoder("tiny", "audio", root), noise),
            ("Whisper", save_whisper(root / "whisper"), noise[::5]),
            ("WavLM", _waveform_encoder(root / "wavlm", "wavlm"), noise[::5]),
        )
        for name, folder, waves in runs:
            expected, _ = run(folder, waves, "cpu", "fp32")
            samples = sum(wave.nbytes for wave in waves)
            for compute, most in (("fp32", 2e-3), ("bf16", 0.1))[: 2 if waves is noise else 1]:
                with pretend_cuda() as device:
                    found, own = run(folder, waves, GPU, compute)
                    device.kernels -= sum(own)
                    say(f"a batch outside {name}, {compute}", device)
                    found.ready()
                    # Beside them go numbers and masks of frames, windows and filters.
                    sys.stderr.write(f"sent {device.sent_bytes / samples:.3f} times\n")
                    assert device.sent_bytes <= 1.1 * samples
                for one, two in zip(expected.rows, found.rows, strict=True):
                    for (_, _, x), (_, _, y) in zip(one.values, two.values, strict=True):
                        assert np.abs(x.astype(np.float32) - y.astype(np.float32)).max() <= most


def extracted(root: Path, **options: Any) -> tuple[Manifest, Work, ExtractConfig]:
    """A corpus and its work folder, extracted on the CPU."""
    manifest = make_corpus(root / "corpus", 24)
    work = Work(root / "cpu")
    work.root.mkdir()
    write_manifest(manifest, work.manifest)
    config = ExtractConfig(
        audio_encoder="tiny",
        text_encoder="tiny",
        device="cpu",
        audio_layers=(1, 3),
        text_layers=(1, 3),
        **options,
    )
    extract(work, manifest, config)
    return manifest, work, config


def streams(work: Work) -> dict[str, FrameStream]:
    """By kind and name, whatever the recipe."""
    return {
        f"{path.parent.name.rpartition('-')[0]}/{path.name}": FrameStream.open(path)
        for path in sorted(work.features.glob("*/*"))
        if path.is_dir()
    }


@check
def extraction() -> None:
    """The whole pass: the CPU's numbers; nothing is read before it arrived."""

    def run(root: Path, name: str, compute: str, device: str) -> Work:
        there = Work(root / name)
        there.root.mkdir()
        (there.root / "encoders").symlink_to(work.root / "encoders")

        def planned(*arguments: Any) -> Any:
            return replace(make_plan(*arguments), compute_dtype=compute)

        with patch.object(extracting, "make_plan", planned):
            extract(there, manifest, replace(config, device=device))
        return there

    with scratch() as root:
        manifest, work, config = extracted(root, batch_seconds=4.0)
        for compute, most in (("fp32", 2e-3), ("bf16", 0.1)):
            with pretend_cuda() as device:
                there = run(root, compute, compute, GPU)
                say(f"extract, {compute}", device)
                assert not device.pending
            one, two = streams(work), streams(there)
            assert one.keys() == two.keys()
            for name, stream in one.items():
                assert set(stream.keys) == set(two[name].keys), name
                x, y = (s.load(stream.keys).values for s in (stream, two[name]))
                assert not y.isnan().any(), f"{name}: read before it arrived"
                assert gap(x, y) <= most, name
        # Broken on purpose: the writer does not wait.
        with (
            pretend_cuda() as device,
            patch.object(encoding, "arrival", lambda device: lambda: None),
        ):
            try:
                run(root, "early", "fp32", GPU)
            except AudioError as error:
                found = str(error)
            else:
                found = ""
            assert "not finite" in found, "a writer that does not wait is not found"
            device.pending.clear()


@check
def search() -> None:
    """Frames on the GPU, in memory, on disk; folds; layers of their own; the reference."""
    runs: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "on the GPU": ({}, {"trials": 14, "cohort": 14, "ensemble": 2, "cuda_graphs": False}),
        "recorded": ({}, {"trials": 14, "cohort": 14, "epochs": 4}),
        "folds": ({}, {"trials": 3, "cohort": 3, "folds": "2", "precision": "bf16"}),
        "untied": ({}, {"trials": 12, "cohort": 6, "tied": False, "seed": 3}),
        "in memory": ({"GPU_SHARE": 0.0}, {"trials": 11, "cohort": 11}),
        "on disk": ({"GPU_SHARE": 0.0, "MEMORY_SHARE": 0.0}, {"trials": 11, "cohort": 11}),
    }
    shares: dict[str, Any] = {"GPU_SHARE": mapped.GPU_SHARE, "MEMORY_SHARE": mapped.MEMORY_SHARE}
    with scratch() as root:
        manifest, work, _ = extracted(root)
        for name, (limits, options) in runs.items():
            own = Work(root / name.replace(" ", "-"))
            shutil.copytree(work.root, own.root, symlinks=True)
            given = {"epochs": 1, "batch_size": 8, "folds": "off", **options}
            with (
                pretend_cuda() as device,
                patch.multiple(mapped, **shares | limits),
                first_kinds(),
            ):
                run_search(own, manifest, SearchConfig(**given, device=GPU))
                say(f"search, {name}", device)


@check
def compare() -> None:
    """Poolings side by side."""
    with scratch() as root:
        manifest, work, _ = extracted(root)
        config = CompareConfig(seeds=1, learning_rates=(1e-3,), epochs=1, batch_size=8, plot=False)
        with pretend_cuda() as device, first_kinds():
            run_compare(work, manifest, replace(config, device=GPU))
            say("compare", device)


def searched(root: Path) -> tuple[Manifest, Work]:
    """The same with a head."""
    manifest, work, _ = extracted(root)
    config = SearchConfig(trials=11, cohort=11, epochs=1, batch_size=8, folds="off", device="cpu")
    with first_kinds():
        run_search(work, manifest, config)
    return manifest, work


TUNINGS: dict[str, dict[str, Any]] = {
    "phase 1": {"phases": (1,)},
    "phases 1 to 3": {"phases": (1, 2, 3), "fresh": True},
    "phase 3, checkpointing": {"phases": (3,), "fresh": True, "gradient_checkpointing": True},
    "phase 2, augmented": {
        **{"phases": (2,), "fresh": True, "boundary_cache": False},
        **{"spec_augment": 0.1, "layerdrop": 0.3},
    },
}


@check
def finetune() -> None:
    """Phases 1 to 3 from the boundary cache, in bf16; the model then predicts."""
    with scratch() as root:
        manifest, work = searched(root)
        for name, options in TUNINGS.items():
            with pretend_cuda() as device:
                config = FinetuneConfig(epochs=1, device=GPU, frame_budget=200, **options)
                run_finetune(work, manifest, config)
                say(f"finetune, {name}", device)
                learnt = any("backward" in kernel for kernel in device.by_kernel)
                assert learnt, f"{name}: nothing is trained on the GPU"
        with pretend_cuda() as device:
            run_evaluate(work, manifest, "test", EvaluateConfig(subject="model", device=GPU))
            say("evaluate", device)
        with pretend_cuda() as device:
            list(
                run_predict(
                    work, manifest.utterances[:4], PredictConfig(device=GPU), lambda _: None
                )
            )
            say("predict", device)


@check
def finetune_step() -> None:
    """A step of each phase."""
    with scratch() as root:
        resolve_encoder("tiny", "audio", root)
        resolve_encoder("tiny", "text", root)
        manifest = make_corpus(root / "corpus", 24)
        for phase in (2, 3):
            with pretend_cuda() as device:
                model = make_model(root / "encoders", device=GPU, compute_dtype="bf16")
                train = gather_examples(model, manifest.in_split("train"), {})[0]
                parts = trainable_parts(model, phase)
                unfreeze(model, parts)
                how = PhaseConfig(phase, 1e-3, epochs=1)
                trainer = Trainer(model, parts, how, StepConfig(frame_budget=200), train)
                steps: Any = trainer.run_epoch(1)
                next(steps)
                trainer.load_moments(trainer.moments())  # as from a checkpoint
                counts = [value["step"] for value in trainer.optimiser.state.values()]
                assert {count.device for count in counts} == {torch.device(GPU)}
                device.reset()
                next(steps)
                say(f"a step of phase {phase}", device)
                steps.close()
                own = [step_frames(model, (phase,), train.lengths)]
                for total in (2_000_000_000, 200_000_000):
                    with patch.object(torch.cuda, "mem_get_info", lambda *_, n=total: (n, n)):
                        own.append(step_frames(model, (phase,), train.lengths))
                assert FRAME_BUDGET["cuda"] == own[0] >= own[1] > own[2] >= 100, own


@check
def transcribe() -> None:
    """Whisper, its front end and the detector."""
    with scratch() as root:
        manifest = make_corpus(root / "corpus", 6)
        work = Work(root / "work")
        work.root.mkdir()
        silent = tuple(replace(u, text="") for u in manifest.utterances)
        write_manifest(replace(manifest, utterances=silent), work.manifest)
        whisper = save_whisper(root / "whisper")
        with pretend_cuda() as device:
            config = TranscribeConfig(model=str(whisper), device=GPU, speech_threshold=0.0)
            run_transcribe(work, work.manifest, config)
            say("transcribe", device)


def explained(subject: str, occlusion: int) -> None:
    with scratch() as root:
        manifest, work = searched(root)
        if subject == "model":
            config = FinetuneConfig(phases=(2,), epochs=1, device="cpu", frame_budget=200)
            run_finetune(work, manifest, config)
        with pretend_cuda() as device:
            options = ExplainConfig(
                subject=subject, split="test", figures=False, device=GPU, occlusion=occlusion
            )
            explain_split(work, manifest, options)
            say(f"explain {subject}, {occlusion} occluded", device)


@check
def explain_head() -> None:
    explained("head", 0)


@check
def explain_model() -> None:
    explained("model", 0)


@check
def explain_head_occluded() -> None:
    explained("head", 2)


@check
def explain_model_occluded() -> None:
    explained("model", 2)
