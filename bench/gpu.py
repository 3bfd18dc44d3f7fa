"""Extraction at full size on one GPU. Started by `bench/gpu.sh`, which says what it needs.

Two amounts of audio are extracted, each into an empty work folder; the difference is the rate
without what every run does once (loading, planning, hashing weights). The encoders also run alone,
on samples already decoded, in the same length-sorted batches.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.encoders import save_audio_encoder, save_text_encoder
from bench.extraction import encode, length_sorted_batches
from bench.gpu_report import Figures
from bench.measure import seconds
from bench.recordings import make_manifest
from cache.encoders.audio_encoder import load_audio_encoder
from cache.encoders.fbank import log_mels
from cache.encoders.front_ends import StackedMels
from cache.encoders.grid import SAMPLE_RATE, read_grid
from cache.encoders.text_encoder import load_text_encoder
from cache.encoders.vad import load_detector, speech
from cache.extracting.audio_pass import BATCH_SECONDS
from cache.extracting.config import ExtractConfig
from cache.extracting.run import extract
from cache.extracting.text_pass import BATCH_TOKENS
from cache.keys import normalise_text
from corpora.base.work import Work
from corpora.manifest import Manifest

NO_DEVICE = 2
# As in MSP-Podcast: 5.5 s on average.
SHORTEST, LONGEST = 2.0, 9.0


@dataclass(frozen=True)
class Scale:
    """How much of everything.

    Attributes:
        hours: of the larger extraction.
        part: of that the smaller one has, and the encoder runs alone on.
        device: `cuda`, or `cpu` for a trial.
        audio: arguments of `save_audio_encoder`.
        text: arguments of `save_text_encoder`.
    """

    hours: float
    part: float
    device: str
    audio: dict[str, int]
    text: dict[str, int]


FULL = Scale(hours=8.0, part=0.125, device="cuda", audio={}, text={})
TOY = Scale(
    hours=0.04,
    part=0.25,
    device="cpu",
    audio={"layers": 2, "dim": 64, "heads": 2},
    text={"layers": 2, "dim": 64, "heads": 2},
)


@dataclass(frozen=True)
class _Run:
    """One extraction: hours of audio, recordings, and seconds for each modality."""

    hours: float
    recordings: int
    audio: float
    text: float


def measure(scale: Scale, folder: Path) -> Figures:
    """Make the data, extract, and run the parts alone.

    Args:
        scale: how much.
        folder: for everything; removed by the caller.
    """
    config = ExtractConfig(
        audio_encoder=str(save_audio_encoder(folder / "w2v-bert", **scale.audio)),
        text_encoder=str(save_text_encoder(folder / "deberta", **scale.text)),
        device=scale.device,
    )
    small = _manifest(folder / "small", scale.hours * scale.part, seed=1)
    large = _manifest(folder / "large", scale.hours, seed=2)
    _extract(Work(folder / "first"), small, config)  # kernels are chosen, files get into memory
    few = _extract(Work(folder / "few"), small, config)
    if scale.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    many = _extract(Work(folder / "many"), large, config)
    figures = Figures(
        device=torch.cuda.get_device_name() if scale.device == "cuda" else "CPU (a trial)",
        hours=many.hours,
        recordings=many.recordings,
        audio_seconds=many.audio,
        text_seconds=many.text,
        audio_seconds_an_hour=_an_hour((few.hours, few.audio), (many.hours, many.audio)),
        text_seconds_an_hour=_an_hour((few.hours, few.text), (many.hours, many.text)),
        once_seconds=0.0,
        peak_bytes=torch.cuda.max_memory_allocated() if scale.device == "cuda" else 0,
        device_bytes=torch.cuda.mem_get_info()[1] if scale.device == "cuda" else 0,
    )
    rate = figures.audio_seconds_an_hour + figures.text_seconds_an_hour
    once = max(0.0, few.audio + few.text - rate * few.hours)
    return _alone(replace(figures, once_seconds=once), small, config, few.hours)


def _alone(figures: Figures, manifest: Manifest, config: ExtractConfig, hours: float) -> Figures:
    """Add what the parts take by themselves, each timed after one run that is not."""
    bf16 = config.device == "cuda"
    directory = Path(config.audio_encoder)
    encoder = load_audio_encoder(
        directory, device=config.device, compute_dtype="bf16" if bf16 else "fp32"
    )
    detector = load_detector(config.device)
    texts = load_text_encoder(Path(config.text_encoder), device=config.device)
    assert isinstance(encoder.front_end, StackedMels), "the benchmark is of W2V-BERT"
    known = encoder.front_end.settings
    grid = read_grid(directory)
    batches = length_sorted_batches(manifest, BATCH_SECONDS[config.device])
    tokens = sorted(
        texts.tokenise([normalise_text(one.text) for one in manifest.utterances]),
        key=lambda one: -len(one.ids),
    )
    size = max(1, BATCH_TOKENS[config.device] // len(tokens[0].ids))

    def front_end() -> None:
        for batch in batches:
            log_mels([torch.from_numpy(waveform) for waveform in batch], known, encoder.device)
        _finish(config.device)

    def detect() -> None:
        for batch in batches:
            speech(batch, grid, detector)

    def read() -> None:
        with torch.inference_mode():
            for start in range(0, len(tokens), size):
                texts(tokens[start : start + size], [texts.layers])
        _finish(config.device)

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


def _finish(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _manifest(folder: Path, hours: float, seed: int) -> Manifest:
    random = np.random.default_rng(seed)
    count = max(2, round(hours * 3600 / ((SHORTEST + LONGEST) / 2)))
    return make_manifest(folder, random.uniform(SHORTEST, LONGEST, count).tolist(), seed=seed)


def _extract(work: Work, manifest: Manifest, config: ExtractConfig) -> _Run:
    """Audio, energy and speech, then text, into an empty work folder."""
    work.root.mkdir()
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


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--hours", type=float, help="Of audio to extract.  [default: 8]")
@click.option("--toy", is_flag=True, help="Try the script with toy encoders on the CPU.")
def main(hours: float | None, toy: bool) -> None:
    """Extract with full-size encoders on one GPU and print how fast it was."""
    if not toy and not torch.cuda.is_available():
        click.echo(
            "No CUDA device here (PyTorch finds none): the GPU figures stay open. "
            "--toy tries the script on a CPU.",
            err=True,
        )
        raise click.exceptions.Exit(NO_DEVICE)
    scale = TOY if toy else FULL
    with tempfile.TemporaryDirectory(prefix="emopool-gpu-") as folder:
        figures = measure(replace(scale, hours=hours or scale.hours), Path(folder))
    click.echo(figures.to_text())


if __name__ == "__main__":
    main()
