"""Extraction: against its encoder alone, with nothing to do, and its memory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from statistics import median
from unittest.mock import patch

import numpy as np
import torch

import cache.store.writer
from bench.encoders import save_audio_encoder, save_wavlm_encoder, save_whisper_encoder
from bench.recordings import make_manifest
from bench.table import Comparison, Outcome, Settings, compare, seconds, seconds_outcome
from cache.audio import load_audio
from cache.config import Auto, ExtractConfig
from cache.encoders.audio_encoder import AudioEncoder, load_audio_encoder
from cache.encoders.grid import SAMPLE_RATE
from cache.extract.extract import extract
from cache.store.parts import PART_BYTES
from corpora.base.terminal import bytes_text
from corpora.base.work import Work
from corpora.manifest import Manifest, write_manifest
from heads.extraction import extract as extract_chosen

ROOT = Path(__file__).parents[1]
BATCH_SECONDS = 40.0

# 8 layers of 512 take 5 GFLOP a second of audio, a fifteenth of W2V-BERT 2.0; 10 minutes.
SCALED = {"layers": 8, "dim": 512, "heads": 8}
ENCODED, ENCODED_SHORTEST, ENCODED_LONGEST = 120, 2.0, 8.0

# All of one length, so that a part of `PER_PART` utterances can be made to close at a size.
CACHED, PER_PART, CACHED_SECONDS = 10_000, 5, 0.2
MOST_SECONDS = 3.0

# Utterances as EMO-DB has them, and as many as layers are ranked by.
SPOKEN = 381
SPOKEN_SHORTEST, SPOKEN_LONGEST = 1.2, 4.5
CHOSEN_FROM = 2_000

FEW, MANY = 200, 2_000
MEMORY_SHORTEST, MEMORY_LONGEST = 2.0, 6.0


def against_encoder(settings: Settings) -> Outcome:
    """`extract` of audio, energy and speech against the encoder on samples already decoded."""
    scaled = SCALED if settings.size >= 0.1 else {"layers": 2, "dim": 64, "heads": 2}
    encoder = save_audio_encoder(settings.folder / "encoded" / "encoder", **scaled)
    count, bounds = settings.scaled(ENCODED, 6), (ENCODED_SHORTEST, ENCODED_LONGEST)
    found, _ = _against(settings.folder / "encoded", encoder, count, bounds, settings.times(3))
    return seconds_outcome(found, 0.87)


def whisper_against_encoder(settings: Settings) -> Outcome:
    """The same with an encoder of the shape of whisper-tiny.en, on as much as EMO-DB's subset."""
    encoder = save_whisper_encoder(settings.folder / "whisper" / "encoder")
    count, bounds = settings.scaled(SPOKEN, 6), (SPOKEN_SHORTEST, SPOKEN_LONGEST)
    found, spoken = _against(settings.folder / "whisper", encoder, count, bounds, settings.times(3))
    outcome = seconds_outcome(found, 0.8)
    return replace(outcome, here=f"{outcome.here}, {spoken / found.ours:.0f}× real time")


def _against(
    folder: Path, encoder_folder: Path, count: int, bounds: tuple[float, float], repeats: int
) -> tuple[Comparison, float]:
    """An extraction against its encoder alone, and how many seconds of sound there were."""
    random = np.random.default_rng(0)
    manifest = make_manifest(folder / "audio", random.uniform(*bounds, count).tolist())
    config = ExtractConfig(
        audio_encoder=str(encoder_folder),
        text_encoder="",
        device="cpu",
        batch_seconds=BATCH_SECONDS,
    )
    encoder = load_audio_encoder(encoder_folder)
    batches = length_sorted_batches(manifest, BATCH_SECONDS)
    spoken = sum(len(one) for batch in batches for one in batch) / SAMPLE_RATE

    def ours() -> None:
        shutil.rmtree(folder / "work", ignore_errors=True)
        (folder / "work").mkdir()
        outcome = extract(Work(folder / "work"), manifest, config)
        assert outcome.report is not None
        assert not outcome.report.failures

    found = compare(ours, lambda: encode(encoder, batches), repeats, warm_up=False)
    shutil.rmtree(folder)
    return found, spoken


def auto_of_tiny(settings: Settings) -> Outcome:
    """A layer chosen by the data against the last layer, with the tiny encoder."""
    return _auto(settings, "tiny")


def auto_of_wavlm(settings: Settings) -> Outcome:
    """The same with an encoder of WavLM's shape, in small."""
    return _auto(settings, str(save_wavlm_encoder(settings.folder / "wavlm")))


def _auto(settings: Settings, encoder: str) -> Outcome:
    """All utterances are training ones: none is encoded for the frames alone."""
    folder = settings.folder / "auto"
    random = np.random.default_rng(0)
    count = settings.scaled(CHOSEN_FROM, 24)
    made = make_manifest(
        folder / "audio", random.uniform(SPOKEN_SHORTEST, SPOKEN_LONGEST, count).tolist()
    )
    manifest = replace(made, utterances=tuple(replace(u, split="train") for u in made.utterances))
    one = ExtractConfig(audio_encoder=encoder, text_encoder="", device="cpu")

    def run(config: ExtractConfig) -> None:
        shutil.rmtree(folder / "work" / "features.zarr", ignore_errors=True)
        (folder / "work" / "layers.json").unlink(missing_ok=True)
        (folder / "work").mkdir(exist_ok=True)
        found = extract_chosen(Work(folder / "work"), manifest, config)
        assert bool(found.choices) == isinstance(config.audio_layers, Auto)

    found = compare(
        lambda: run(replace(one, audio_layers=Auto())), lambda: run(one), settings.times(3)
    )
    shutil.rmtree(folder)
    share = found.ours / found.theirs
    return Outcome(f"{found.ours:.1f} s", f"{found.theirs:.1f} s", f"{share:.2f}×", share < 1.3)


def length_sorted_batches(
    manifest: Manifest, batch_seconds: float
) -> list[list[np.ndarray[tuple[int], np.dtype[np.float32]]]]:
    """All recordings decoded, longest first, in batches of so many seconds, padding included."""
    waveforms = sorted((load_audio(u.audio) for u in manifest.utterances), key=len, reverse=True)
    batches: list[list[np.ndarray[tuple[int], np.dtype[np.float32]]]] = []
    for waveform in waveforms:
        full = (
            batches and (len(batches[-1]) + 1) * len(batches[-1][0]) > batch_seconds * SAMPLE_RATE
        )
        if not batches or full:
            batches.append([])
        batches[-1].append(waveform)
    return batches


def encode(
    encoder: AudioEncoder, batches: list[list[np.ndarray[tuple[int], np.dtype[np.float32]]]]
) -> None:
    """Run the encoder for its last layer and forget what it gives."""
    with torch.inference_mode():
        for batch in batches:
            encoder(batch, [encoder.layers])
        if encoder.device.type == "cuda":
            torch.cuda.synchronize()


def nothing_to_do(settings: Settings) -> Outcome:
    """The whole process `cli.py extract` over a complete cache."""
    folder = settings.folder / "cached"
    work = Work(folder / "work")
    work.root.mkdir(parents=True)
    manifest = make_manifest(
        folder / "audio", [CACHED_SECONDS] * settings.scaled(CACHED, 2 * PER_PART)
    )
    write_manifest(manifest, work.manifest)
    config = ExtractConfig(audio_encoder="tiny", text_encoder="tiny", device="cpu")
    # One utterance of the tiny encoder: 9 frames of 128 float16.
    with patch.object(cache.store.writer, "PART_BYTES", PER_PART * 9 * 128 * 2):
        extract(work, manifest, config)
    parts = _audio_parts(work)
    command = [sys.executable, str(ROOT / "cli.py"), "extract", "--work", str(work.root)]
    command += ["--audio-encoder", "tiny", "--text-encoder", "tiny", "--device", "cpu"]
    command += ["--audio-layers", "last", "--text-layers", "last"]

    def run() -> None:
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)

    run()
    found = median(seconds(run) for _ in range(settings.times(5)))
    assert _audio_parts(work) == parts, "there was something to do"
    shutil.rmtree(folder)
    return Outcome(
        f"{found:.2f} s",
        f"{len(manifest.utterances):,} in {parts:,} parts",
        "",
        found < MOST_SECONDS,
    )


def memory(settings: Settings) -> Outcome:
    """Peak memory of two processes, one with ten times as many utterances of the same lengths."""
    folder = settings.folder / "memory"
    random = np.random.default_rng(0)
    few = random.uniform(MEMORY_SHORTEST, MEMORY_LONGEST, settings.scaled(FEW, 2)).tolist()
    peaks = []
    for name, lengths in (("few", few), ("many", few * (MANY // FEW))):
        work = Work(folder / name)
        work.root.mkdir(parents=True)
        write_manifest(make_manifest(folder / f"{name}-audio", lengths), work.manifest)
        command = [sys.executable, "-m", "bench.peak", str(work.root)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True
        )
        peaks.append(int(done.stdout.split()[-1]))
    shutil.rmtree(folder)
    return Outcome(
        bytes_text(peaks[1]),
        bytes_text(peaks[0]),
        f"{peaks[1] / peaks[0]:.2f}×",
        peaks[1] <= 1.1 * peaks[0] + 3 * PART_BYTES,
    )


def _audio_parts(work: Work) -> int:
    """How many parts the frames of the audio encoder are in."""
    return len(list(work.features.glob("audio-*/layer_*/part-*")))
