"""The cache's benchmark: its rows, in the order of the table."""

from __future__ import annotations

import numpy as np
from transformers import SeamlessM4TFeatureExtractor

from bench import extraction, reading
from bench.table import Outcome, Row, Settings, compare, seconds_outcome
from cache.encoders.front_ends import FbankSettings, log_mels
from cache.encoders.grid import SAMPLE_RATE
from cache.encoders.signal import Signal

# 60 recordings of 1 to 12 s: 6.5 minutes, in batches of 10 as on a CPU.
COUNT, BATCH = 60, 10
SHORTEST, LONGEST = 1.0, 12.0


def front_end(settings: Settings) -> Outcome:
    """Both on the CPU, the same batches, the extractor's settings."""
    random = np.random.default_rng(0)
    lengths = random.uniform(SHORTEST, LONGEST, settings.scaled(COUNT, BATCH))
    waveforms = [
        random.standard_normal(round(length * SAMPLE_RATE)).astype(np.float32) * 0.1
        for length in sorted(lengths, reverse=True)
    ]
    batches = [waveforms[start : start + BATCH] for start in range(0, len(waveforms), BATCH)]
    extractor = SeamlessM4TFeatureExtractor()
    known = FbankSettings.from_extractor(extractor)

    def ours() -> None:
        for batch in batches:
            log_mels(Signal.of(batch, "cpu"), known)

    def theirs() -> None:
        for batch in batches:
            extractor(batch, sampling_rate=SAMPLE_RATE, padding=True, return_tensors="pt")

    return seconds_outcome(compare(ours, theirs, settings.times(5)), 1.8)


RANDOM = "random utterances, 64 a draw"
ROWS = (
    Row("flat", RANDOM, "np.memmap on a flat file", "at least 0.8×", reading.against_flat),
    Row("hdf5", RANDOM, "h5py, one dataset an utterance", "at least 2×", reading.against_hdf5),
    Row("zarr", RANDOM, "zarr-python, 1,024-row chunks", "at least 10×", reading.against_zarr),
    Row("whole", "whole stream, sums checked", "np.fromfile", "at least 0.6×", reading.whole),
    Row(
        "front-end",
        "front end, CPU, fp64 FFT",
        "transformers extractor",
        "at least 1.8×",
        front_end,
    ),
    Row(
        "extract",
        "extract, CPU, scaled encoder",
        "the encoder alone",
        "at least 0.87×",
        extraction.against_encoder,
    ),
    Row(
        "whisper",
        "extract, CPU, whisper-tiny.en's shape",
        "the encoder alone",
        "at least 0.8×",
        extraction.whisper_against_encoder,
    ),
    Row(
        "auto",
        "a layer chosen by 2,000 utterances, tiny",
        "extract of the last layer",
        "under 1.3×",
        extraction.auto_of_tiny,
    ),
    Row(
        "auto-wavlm",
        "the same, WavLM's shape",
        "extract of the last layer",
        "under 1.3×",
        extraction.auto_of_wavlm,
    ),
    Row(
        "no-op",
        "extract with nothing to do",
        "10,000 utterances in 2,000 parts",
        "under 3 s",
        extraction.nothing_to_do,
    ),
    Row(
        "memory",
        "peak memory, 2,000 utterances",
        "200 of the same lengths",
        "at most 1.1× + 3 parts",
        extraction.memory,
    ),
)
