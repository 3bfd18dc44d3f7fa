"""The cache's benchmark: its rows, in the order of the table."""

from __future__ import annotations

from bench import extraction, front_end, reading
from bench.table import Row

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
        front_end.front_end,
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
