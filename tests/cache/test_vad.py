from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cache.encoders.device import choose_device
from cache.encoders.files import CHUNK, vad_fields, weights_file
from cache.encoders.grid import Grid
from cache.encoders.signal import Signal
from cache.encoders.vad import SpeechDetector, load_detector, speech
from corpora.base.files import file_sha256

GRID = Grid(320, 560)

# The package's own model, in a process of its own: importing it sets torch to one thread.
# Its probabilities chunk by chunk, and its weights under the names of the safetensors file.
REFERENCE = """
import sys, numpy as np, torch
from silero_vad import load_silero_vad
model = load_silero_vad()
given = np.load(sys.argv[1])
found = {}
for name in given.files:
    wave = torch.from_numpy(given[name])
    wave = torch.nn.functional.pad(wave, (0, -len(wave) % 512))
    model.reset_states()
    found[name] = np.array([model(chunk, 16000).item() for chunk in wave.split(512)])
state = model._model.state_dict()
found["stft_conv.weight"] = state["stft.forward_basis_buffer"]
for part in ("weight", "bias"):
    found["final_conv." + part] = state["decoder.decoder.2." + part]
    for n in range(4):
        found[f"conv{n + 1}.{part}"] = state[f"encoder.{n}.reparam_conv.{part}"]
for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
    found[f"lstm.{part}_l0"] = state["decoder.rnn." + part]
np.savez(sys.argv[2], **{name: np.asarray(value) for name, value in found.items()})
"""


def speechlike(samples: int, seed: int) -> NDArray[np.float32]:
    """Bursts of harmonics between stretches of faint noise."""
    rng = np.random.default_rng(seed)
    time = np.arange(samples) / 16000
    pitch = 120 + 30 * np.sin(2 * np.pi * 3 * time + seed)
    phase = 2 * np.pi * np.cumsum(pitch) / 16000
    voice = sum(np.sin(k * phase) / k for k in range(1, 20))
    bursts = np.sin(2 * np.pi * 2 * time) > 0
    return (0.1 * voice * bursts + 0.001 * rng.standard_normal(samples)).astype(np.float32)


WAVEFORMS = [speechlike(samples, seed) for seed, samples in enumerate((32000, 9000, 16384, 700))]


@pytest.fixture(scope="module")
def detector() -> SpeechDetector:
    return load_detector()


def test_the_network_gives_the_packages_own_probabilities(tmp_path: Path) -> None:
    given, found = tmp_path / "given.npz", tmp_path / "found.npz"
    np.savez(given, *WAVEFORMS)
    command = [sys.executable, "-c", REFERENCE, str(given), str(found)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, env=environment, capture_output=True)
    reference = dict(np.load(found))
    expected = [reference.pop(f"arr_{i}") for i in range(len(WAVEFORMS))]
    network = SpeechDetector().eval()
    # The package's TorchScript and safetensors weights are of different releases, so the network is
    # compared with the weights of the model it is compared to.
    network.load_state_dict({name: torch.from_numpy(value) for name, value in reference.items()})
    with torch.inference_mode():
        probabilities = network(Signal.of(WAVEFORMS, "cpu"))
    for ours, theirs in zip(probabilities, expected, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-4)
    assert np.ptp(np.concatenate(expected)) > 0.2  # a comparison of more than silence


def test_probabilities_do_not_depend_on_batch_mates(detector: SpeechDetector) -> None:
    together = speech(WAVEFORMS, GRID, detector)
    for wave, row in zip(WAVEFORMS, together, strict=True):
        np.testing.assert_allclose(speech([wave], GRID, detector)[0], row, atol=1e-5)


def test_there_is_one_probability_for_each_frame(detector: SpeechDetector) -> None:
    for row, wave in zip(speech(WAVEFORMS, GRID, detector), WAVEFORMS, strict=True):
        assert row.shape == (GRID.frames(len(wave)),)
        assert row.dtype == np.float32
        assert ((row >= 0) & (row <= 1)).all()


@pytest.mark.parametrize("grid", [GRID, Grid(320, 400), Grid(100, 700)])
def test_a_frame_has_the_probability_of_the_chunk_at_its_centre(
    detector: SpeechDetector, grid: Grid
) -> None:
    with torch.inference_mode():
        (chunks,) = detector(Signal.of(WAVEFORMS[1:2], "cpu"))
    (row,) = speech([WAVEFORMS[1]], grid, detector)
    for frame, probability in enumerate(row):
        centre = frame * grid.hop + grid.window // 2
        assert probability == chunks[centre // CHUNK].item()


def test_speech_is_told_from_silence(detector: SpeechDetector) -> None:
    silence = np.zeros(16000, dtype=np.float32)
    loud, quiet = speech([WAVEFORMS[0], silence], GRID, detector)
    assert loud.max() > 0.5
    assert quiet.max() < 0.2


def test_loading_leaves_the_number_of_threads_alone() -> None:
    code = (
        "import torch; torch.set_num_threads(2);"
        "from cache.encoders.vad import load_detector, speech;"
        "load_detector(); import sys; assert 'silero_vad' not in sys.modules;"
        "sys.exit(torch.get_num_threads() != 2)"
    )
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def test_no_waveforms_give_no_rows(detector: SpeechDetector) -> None:
    assert speech([], GRID, detector) == []


def test_the_recipe_holds_the_weights_hash() -> None:
    assert vad_fields()["weights"] == file_sha256(weights_file())


@pytest.mark.gpu
def test_a_gpu_gives_the_probabilities_of_the_cpu(detector: SpeechDetector) -> None:
    on_gpu = speech(WAVEFORMS, GRID, load_detector(choose_device("cuda")))
    for ours, theirs in zip(on_gpu, speech(WAVEFORMS, GRID, detector), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3)


@pytest.mark.parametrize("sizes", [[30_000], [1, 511, 512, 513, 7, 20_000, 8_456], [100] * 300])
def test_blocks_change_nothing(detector: SpeechDetector, sizes: list[int]) -> None:
    waveform = speechlike(sum(sizes), 3)
    blocks = np.split(waveform, np.cumsum(sizes)[:-1])
    with torch.inference_mode():
        [whole] = detector(Signal.of([waveform], "cpu"))
    np.testing.assert_allclose(detector.stream(blocks), whole.numpy(), atol=1e-5)
    assert len(detector.stream([])) == 0
