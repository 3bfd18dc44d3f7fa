from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.encoders.grid import Grid, convolution_grid, fbank_grid, read_grid
from corpora.base.errors import ConfigError

WAV2VEC_KERNELS = (10, 3, 3, 3, 3, 2, 2)
WAV2VEC_STRIDES = (5, 2, 2, 2, 2, 2, 2)


@given(st.integers(0, 500_000), st.integers(1, 4))
def test_stacked_log_mels_give_the_extractors_number_of_frames(samples: int, stride: int) -> None:
    spectra = 0 if samples < 400 else 1 + (samples - 400) // 160
    assert fbank_grid(stride).frames(samples) == spectra // stride


@given(
    st.integers(0, 200_000),
    st.lists(st.tuples(st.integers(1, 12), st.integers(1, 6)), min_size=1, max_size=8),
)
def test_a_stack_of_convolutions_gives_the_frames_of_one_after_the_other(
    samples: int, stack: list[tuple[int, int]]
) -> None:
    length = samples
    for kernel, stride in stack:
        length = 0 if length < kernel else 1 + (length - kernel) // stride
    grid = convolution_grid([k for k, _ in stack], [s for _, s in stack])
    assert grid.frames(samples) == length


def test_wav2vec2_frames_are_25_ms_every_20_ms() -> None:
    assert convolution_grid(WAV2VEC_KERNELS, WAV2VEC_STRIDES) == Grid(hop=320, window=400)


@given(st.integers(1, 500), st.integers(1, 900))
def test_minimum_samples_give_one_frame_and_one_less_gives_none(hop: int, window: int) -> None:
    grid = Grid(hop, window)
    assert grid.frames(grid.minimum_samples) == 1
    assert grid.frames(grid.minimum_samples - 1) == 0


@given(st.integers(1, 500), st.integers(1, 900), st.integers(0, 5000))
def test_every_frame_lies_inside_the_recording(hop: int, window: int, samples: int) -> None:
    frames = Grid(hop, window).frames(samples)
    assert (frames - 1) * hop + window <= samples or frames == 0
    assert frames * hop + window > samples


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown grid rule"):
        Grid(320, 400, "padded")


def encoder(folder: Path, config: dict[str, object], front_end: dict[str, object]) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(front_end))
    return folder


def test_the_grid_is_read_from_the_files_of_w2v_bert(tmp_path: Path) -> None:
    encoder(tmp_path, {"model_type": "wav2vec2-bert"}, {"stride": 2, "sampling_rate": 16000})
    assert read_grid(tmp_path) == Grid(hop=320, window=560)


def test_the_grid_is_read_from_the_files_of_a_convolutional_encoder(tmp_path: Path) -> None:
    config = {"conv_kernel": WAV2VEC_KERNELS, "conv_stride": WAV2VEC_STRIDES}
    encoder(tmp_path, {"model_type": "wavlm", **config}, {})
    assert read_grid(tmp_path) == Grid(hop=320, window=400)


@pytest.mark.parametrize(
    ("config", "front_end", "message"),
    [
        ({"model_type": "moonshine"}, {}, "describes a moonshine"),
        ({"model_type": "wav2vec2-bert", "add_adapter": True}, {}, "add_adapter"),
        ({"model_type": "wav2vec2-bert"}, {"sampling_rate": 8000}, "8000 Hz"),
        ({"conv_kernel": [3], "conv_stride": [2, 2]}, {}, "the same number"),
    ],
)
def test_an_encoder_without_a_known_grid_is_refused(
    tmp_path: Path, config: dict[str, object], front_end: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        read_grid(encoder(tmp_path, config, front_end))


def test_a_damaged_config_is_named(tmp_path: Path) -> None:
    encoder(tmp_path, {}, {})
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match=r"config\.json is not readable as JSON"):
        read_grid(tmp_path)


def test_a_missing_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.json is missing"):
        read_grid(tmp_path)


def test_planning_modules_do_not_import_torch() -> None:
    code = (
        "import cache.encoders.grid, cache.encoders.files, cache.audio, cache.encoders.grid;"
        "import cache.encoders.files, sys;"
        "cache.encoders.files.vad_fields(); cache.audio.decoder_fields();"
        "sys.exit(bool({'torch', 'transformers', 'huggingface_hub'} & set(sys.modules)))"
    )
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
