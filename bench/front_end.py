"""The front end: log-mel features in batches in torch against the transformers extractor."""

from __future__ import annotations

import numpy as np
import torch
from transformers import SeamlessM4TFeatureExtractor

from bench.measure import compare
from bench.table import Outcome, Settings, seconds_outcome
from cache.encoders.fbank import FbankSettings, log_mels
from cache.encoders.grid import SAMPLE_RATE

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
            log_mels([torch.from_numpy(waveform) for waveform in batch], known)

    def theirs() -> None:
        for batch in batches:
            extractor(batch, sampling_rate=SAMPLE_RATE, padding=True, return_tensors="pt")

    return seconds_outcome(compare(ours, theirs, settings.times(5)), 1.8)
