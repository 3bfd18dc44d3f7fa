"""Extraction at full size on one GPU, and what its parts ask of the device.

Two amounts of audio are extracted, each into an empty work folder; the difference is the rate
without what every run does once (loading, planning, hashing weights). The encoders also run alone,
on samples already decoded, in the same length-sorted batches.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from bench.extraction import encode, length_sorted_batches
from bench.gpu_counts import Finding, Roofline, Setup, counted, finish, step_finding, waiting_lines
from bench.recordings import make_manifest
from bench.table import seconds
from cache.config import ExtractConfig
from cache.encoders.audio_encoder import AudioEncoder, load_audio_encoder
from cache.encoders.device import choose_device, usual_dtype
from cache.encoders.front_ends import StackedMels, log_mels
from cache.encoders.grid import SAMPLE_RATE, read_grid
from cache.encoders.signal import Signal
from cache.encoders.text_encoder import load_text_encoder
from cache.encoders.vad import load_detector, speech
from cache.extract.extract import extract
from cache.keys import normalise_text
from corpora.base.terminal import bytes_text
from corpora.base.work import Work
from corpora.manifest import Manifest

# The corpus of Leygue et al. 2025, and the goal for it on one H200.
GOAL_HOURS, GOAL_MINUTES = 78.0, 4.0


@dataclass(frozen=True)
class Figures:
    """Measured on one device; "an hour" is of audio, and in seconds.

    Attributes:
        device: its name.
        hours: of audio in the larger extraction.
        recordings: in it, each with a text.
        audio_seconds: its audio, energy and speech streams took, everything included.
        text_seconds: its text stream took, everything included.
        audio_seconds_an_hour: without what a run does once.
        text_seconds_an_hour: the same for text.
        once_seconds: what a run does once.
        peak_bytes: of GPU memory.
        device_bytes: all GPU memory.
        encoder_an_hour: the audio encoder alone, front end included.
        front_end_an_hour: its front end alone.
        detector_an_hour: voice activity detection alone.
        text_encoder_an_hour: the text encoder alone.
        flop_a_second: of audio, in the audio encoder, padding included.
    """

    device: str
    hours: float
    recordings: int
    audio_seconds: float
    text_seconds: float
    audio_seconds_an_hour: float
    text_seconds_an_hour: float
    once_seconds: float
    peak_bytes: int
    device_bytes: int
    encoder_an_hour: float = 0.0
    front_end_an_hour: float = 0.0
    detector_an_hour: float = 0.0
    text_encoder_an_hour: float = 0.0
    flop_a_second: float = 0.0

    @property
    def goal_minutes(self) -> float:
        """What 78 hours with their texts would take, in minutes, start-up included."""
        rate = self.audio_seconds_an_hour + self.text_seconds_an_hour
        return (self.once_seconds + GOAL_HOURS * rate) / 60

    def to_text(self) -> str:
        """Several lines."""
        whole = self.audio_seconds + self.text_seconds
        rate = self.audio_seconds_an_hour + self.text_seconds_an_hour
        alone = self.encoder_an_hour + self.text_encoder_an_hour
        flop = self.flop_a_second * 3600
        memory = (
            f"{bytes_text(self.peak_bytes)} of {bytes_text(self.device_bytes)}"
            if self.device_bytes
            else "not measured"
        )
        return "\n".join(
            [
                f"Device: {self.device}",
                f"Extracted: {self.hours:.2f} hours of audio, {self.recordings:,} recordings with "
                f"texts, in {whole:.1f} s (audio, energy, speech {self.audio_seconds:.1f} s; text "
                f"{self.text_seconds:.1f} s)",
                f"Hours of audio a minute: {60 * self.hours / whole:.1f}; {60 / rate:.1f} without "
                f"the {self.once_seconds:.1f} s a run takes once",
                f"Time in the encoders: {alone / rate:.0%} (audio "
                f"{self.encoder_an_hour / self.audio_seconds_an_hour:.0%} of its pass, text "
                f"{self.text_encoder_an_hour / self.text_seconds_an_hour:.0%})",
                f"An hour of audio: {rate:.2f} s in all; alone: audio encoder "
                f"{self.encoder_an_hour:.2f} s, of which front end {self.front_end_an_hour:.2f} s; "
                f"voice activity {self.detector_an_hour:.2f} s; text encoder "
                f"{self.text_encoder_an_hour:.2f} s",
                f"Audio encoder: {self.flop_a_second / 1e9:.1f} GFLOP a second of audio, "
                f"{flop / self.encoder_an_hour / 1e12:.3g} TFLOP/s alone, "
                f"{flop / self.audio_seconds_an_hour / 1e12:.3g} TFLOP/s over its pass",
                f"GPU memory: {memory}",
                f"{GOAL_HOURS:.0f} hours, streams audio, text, energy, speech: "
                f"{self.goal_minutes:.1f} minutes (goal on one H200: under {GOAL_MINUTES:.0f})",
            ]
        )


# As in MSP-Podcast: 5.5 s on average.
SHORTEST, LONGEST = 2.0, 9.0
# Of the audio, what is extracted to know what every run does once, and what parts alone are fed.
PART = 0.125
# Seconds of audio and tokens that encoders are fed at once where they run alone.
BATCH_SECONDS = {False: 600.0, True: 40.0}
BATCH_TOKENS = {False: 25_000, True: 1_000}
# Recordings that a CPU encodes too.
COMPARED = 4


@dataclass(frozen=True)
class _Run:
    """One extraction: hours of audio, recordings, and seconds for each modality."""

    hours: float
    recordings: int
    audio: float
    text: float


def extraction(setup: Setup) -> Iterator[Finding]:
    """Rates, parts alone, what 78 hours would take; then counts of an extraction and a batch."""
    figures = measure(setup)
    for line in figures.to_text().splitlines():
        what, found = line.split(": ", 1)
        yield Finding(what, found, figures.__dict__)
    yield from _counted(setup)


def measure(setup: Setup) -> Figures:
    """Make the data, extract, and run the parts alone."""
    folder, config, on_gpu = setup.folder, _config(setup), setup.device != "cpu"
    small = _manifest(folder / "small", setup.hours * PART, seed=1)
    large = _manifest(folder / "large", setup.hours, seed=2)
    _extract(_empty(folder), small, config)  # kernels are chosen, files get into memory
    few = _extract(_empty(folder), small, config)
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    many = _extract(_empty(folder), large, config)
    figures = Figures(
        device=torch.cuda.get_device_name() if on_gpu else "CPU (a trial)",
        hours=many.hours,
        recordings=many.recordings,
        audio_seconds=many.audio,
        text_seconds=many.text,
        audio_seconds_an_hour=_an_hour((few.hours, few.audio), (many.hours, many.audio)),
        text_seconds_an_hour=_an_hour((few.hours, few.text), (many.hours, many.text)),
        once_seconds=0.0,
        peak_bytes=torch.cuda.max_memory_allocated() if on_gpu else 0,
        device_bytes=torch.cuda.mem_get_info()[1] if on_gpu else 0,
    )
    rate = figures.audio_seconds_an_hour + figures.text_seconds_an_hour
    once = max(0.0, few.audio + few.text - rate * few.hours)
    return _alone(replace(figures, once_seconds=once), small, setup, few.hours)


def equal_batch(setup: Setup) -> Iterator[Finding]:
    """Frames of a few recordings in fp32, from both encoders, on the device and on the CPU."""
    manifest = _manifest(setup.folder / "compared", COMPARED * 5.5 / 3600, seed=4)
    (waveforms,) = length_sorted_batches(manifest, BATCH_SECONDS[setup.small])
    words = [normalise_text(one.text) for one in manifest.utterances]
    found: dict[str, list[Tensor]] = {"audio": [], "text": []}
    for device in ("cpu", choose_device(setup.device)):
        audio = load_audio_encoder(setup.encoders()["audio"], device=device, compute_dtype="fp32")
        text = load_text_encoder(setup.encoders()["text"], device=device)
        with torch.inference_mode():
            found["audio"].append(audio(waveforms, [audio.layers])[audio.layers].values.cpu())
            found["text"].append(text(words, [text.layers])[text.layers].values.cpu())
    for name, (one, two) in found.items():
        gap, largest = float((one - two).abs().max()), float(one.abs().max())
        yield Finding(
            f"{name} frames in fp32, device against CPU",
            f"differ by {gap:.2g} at most, of {largest:.3g}",
            {"gap": gap, "largest": largest},
        )


def _counted(setup: Setup) -> Iterator[Finding]:
    """What a whole extraction asks of the device, and the audio encoder alone."""
    config, small = _config(setup), _manifest(setup.folder / "small", setup.hours * PART, seed=1)
    batches = length_sorted_batches(small, BATCH_SECONDS[setup.small])
    encoder = load_audio_encoder(
        Path(config.audio_encoder),
        device=setup.device,
        compute_dtype=usual_dtype(setup.device),
    )
    encoder.cast_weights()  # as an extraction does
    sample = batches[len(batches) // 2]
    with FlopCounterMode(display=False) as counter:
        encode(encoder, [sample])
    weights = sum(one.numel() * one.element_size() for one in encoder.parameters())

    def batch(encoder: AudioEncoder = encoder) -> None:
        with torch.inference_mode():
            encoder(sample, [encoder.layers])

    spoken = sum(map(len, sample)) / SAMPLE_RATE
    what = f"the audio encoder, a batch of {len(sample)} recordings, {spoken:.0f} s"
    work = Roofline(counter.get_total_flops(), weights)
    yield step_finding(what, batch, work, setup.device, 5, warm_up=2)
    del encoder, batch
    audio = replace(config, text_encoder="")
    found = counted(lambda: extract(_empty(setup.folder), small, audio), setup.device, 1)
    waits = (
        waiting_lines(lambda: extract(_empty(setup.folder), small, audio)).most_common(8)
        if setup.device != "cpu"
        else []
    )
    yield Finding(
        f"an extraction of audio, {len(small.utterances):,} recordings in about {len(batches)} "
        "batches, with loading",
        f"{found.kernels:,.0f} kernels, {found.copies:,.0f} copies, {found.waits:,.0f} waits of "
        f"the host, device busy {found.busy:.3g} s; where: "
        + (", ".join(f"{number} × {line}" for line, number in waits) or "nothing named"),
        found.__dict__,
    )


def compiled(setup: Setup) -> Iterator[Finding]:
    """The audio encoder with its layers compiled, against itself, on the same batches."""
    manifest = _manifest(setup.folder / "small", setup.hours * PART, seed=1)
    batches = length_sorted_batches(manifest, BATCH_SECONDS[setup.small])
    hours = sum(len(one) for batch in batches for one in batch) / SAMPLE_RATE / 3600
    encoder = load_audio_encoder(
        setup.encoders()["audio"],
        device=choose_device(setup.device),
        compute_dtype=usual_dtype(setup.device),
    )
    encoder.cast_weights()  # as an extraction does

    def once(encoder: AudioEncoder = encoder) -> Tensor:
        with torch.inference_mode():
            found: Tensor = encoder(batches[-1], [encoder.layers])[encoder.layers].values
        return found

    def run() -> None:
        encode(encoder, batches)

    run()
    plain, before = median(seconds(run) for _ in range(3)), once()
    compiling = seconds(encoder.compile_layers)
    first = seconds(run)
    joined, after = median(seconds(run) for _ in range(3)), once()
    right = once(load_audio_encoder(setup.encoders()["audio"], device=encoder.device))
    errors = [float((one - right).norm() / right.norm()) for one in (before, after)]
    yield Finding(
        "the audio encoder, layers compiled",
        f"{joined / hours:.2f} s an hour of audio against {plain / hours:.2f} as it is; compiling "
        f"takes {compiling:.0f} s, and the first pass {first - joined:.1f} s longer; against fp32 "
        f"its frames are {errors[1]:.2g} off, and {errors[0]:.2g} as it is",
        {"plain": plain, "compiled": joined, "compiling": compiling, "errors": errors},
    )


def _config(setup: Setup) -> ExtractConfig:
    folders = setup.encoders()
    return ExtractConfig(
        audio_encoder=str(folders["audio"]), text_encoder=str(folders["text"]), device=setup.device
    )


def _empty(folder: Path) -> Work:
    work = Work(folder / "work")
    shutil.rmtree(work.root, ignore_errors=True)
    work.root.mkdir()
    return work


def _alone(figures: Figures, manifest: Manifest, setup: Setup, hours: float) -> Figures:
    """Add what the parts take by themselves, each timed after one run that is not."""
    config = _config(setup)
    directory = Path(config.audio_encoder)
    encoder = load_audio_encoder(
        directory, device=config.device, compute_dtype=usual_dtype(config.device)
    )
    encoder.cast_weights()  # as an extraction does
    detector = load_detector(config.device)
    texts = load_text_encoder(Path(config.text_encoder), device=config.device)
    assert isinstance(encoder.front_end, StackedMels), "the benchmark is of W2V-BERT"
    known = encoder.front_end.settings
    grid = read_grid(directory)
    batches = length_sorted_batches(manifest, BATCH_SECONDS[setup.small])
    tokens = sorted(
        texts.tokenise([normalise_text(one.text) for one in manifest.utterances]),
        key=lambda one: -len(one.ids),
    )
    size = max(1, BATCH_TOKENS[setup.small] // len(tokens[0].ids))

    def front_end() -> None:
        for batch in batches:
            log_mels(Signal.of(batch, encoder.device), known)
        finish(config.device)

    def detect() -> None:
        for batch in batches:
            speech(batch, grid, detector)

    def read() -> None:
        with torch.inference_mode():
            for start in range(0, len(tokens), size):
                texts(tokens[start : start + size], [texts.layers])
        finish(config.device)

    def timed(action: object) -> float:
        assert callable(action)
        action()
        return seconds(action) / hours

    # A batch from the middle: of common length.
    sample = batches[len(batches) // 2]
    with FlopCounterMode(display=False) as counter:
        encode(encoder, [sample])
    audio_of_sample = sum(len(waveform) for waveform in sample) / SAMPLE_RATE
    return replace(
        figures,
        encoder_an_hour=timed(lambda: encode(encoder, batches)),
        front_end_an_hour=timed(front_end),
        detector_an_hour=timed(detect),
        text_encoder_an_hour=timed(read),
        flop_a_second=counter.get_total_flops() / audio_of_sample,
    )


def _an_hour(few: tuple[float, float], many: tuple[float, float]) -> float:
    """Seconds an hour of audio, from two pairs of hours and seconds, without what is done once.

    Where so little was extracted that the difference is noise, what is done once stays in.
    """
    more = many[1] - few[1]
    return more / (many[0] - few[0]) if more > 0 else many[1] / many[0]


def _manifest(folder: Path, hours: float, seed: int) -> Manifest:
    random = np.random.default_rng(seed)
    count = max(2, round(hours * 3600 / ((SHORTEST + LONGEST) / 2)))
    return make_manifest(folder, random.uniform(SHORTEST, LONGEST, count).tolist(), seed=seed)


def _extract(work: Work, manifest: Manifest, config: ExtractConfig) -> _Run:
    """Audio, energy and speech, then text, into an empty work folder."""
    hours = 0.0

    def audio() -> None:
        nonlocal hours
        report = extract(work, manifest, replace(config, text_encoder="")).report
        assert report is not None, "the work folder was empty"
        hours = report.seconds_of_audio / 3600

    def text() -> None:
        extract(work, manifest, config)

    return _Run(
        audio=seconds(audio), text=seconds(text), hours=hours, recordings=len(manifest.utterances)
    )
