"""One ONNX file: traced and written, its weights made small, and run beside torch."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cache.encoders.hidden_states import first_line
from corpora.base.errors import ConfigError
from corpora.manifest import Manifest, Utterance
from finetune.one_recording import LOGITS, SAMPLES, OneRecording, OneUtterance
from heads.gold import Gold
from heads.head import Head, answers

#: Of the operators. 18 is what torch's exporter writes by itself: nothing is converted after it.
OPSET = 18
# Protocol buffers hold 2 GB; weights beyond go into a file beside.
_LARGEST = 1_900_000_000
# Names that a runtime says when it stops at one of these (`finetune.one_recording`).
_STOPS = {"too_short": "recording is too short", "too_long": "recording is too long"}

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Case:
    """An utterance to compare on.

    Attributes:
        inputs: of the file.
        expected: `[C + A]`, the outputs of the head in torch.
        utterance: None for noise.
    """

    inputs: Arrays
    expected: Tensor
    utterance: Utterance | None = None


@dataclass(frozen=True, eq=False)
class Subject:
    """What is exported.

    Attributes:
        module: a `OneUtterance` or `OneRecording`.
        head: the head in it.
        shortest: by input the fewest elements along its length.
        longest: the most, where there is a bound.
        metadata: of the file.
        cases: of some utterances of a manifest; of noise where there is none.
    """

    module: OneUtterance | OneRecording
    head: Head
    shortest: Mapping[str, int]
    longest: Mapping[str, int]
    metadata: Mapping[str, str]
    cases: Callable[[Manifest | None], Iterator[Case]]


@dataclass(frozen=True)
class Agreement:
    """How a file stands to what it was made of.

    Attributes:
        megabytes: its size, with that of weights beside it.
        difference: the largest of a logit (of an attribute where there are no labels).
        score: what heads are compared by, of what the file says; None where no row is annotated.
    """

    megabytes: float
    difference: float
    score: float | None


def write_file(subject: Subject, example: Arrays, path: Path) -> None:
    """Trace with lengths as symbols, and write the graph with its metadata."""
    given = {name: torch.from_numpy(value) for name, value in example.items()}
    shapes = {name: {0: _length(subject, name)} for name in given}
    with torch.no_grad(), _quietly():
        # Fills caches of constants, which would else keep the trace's own stand-ins.
        subject.module(given)
        try:
            program: Any = torch.onnx.export(
                subject.module,
                (),
                kwargs={"inputs": given},
                input_names=list(given),
                output_names=list(subject.module.outputs),
                dynamic_shapes={"inputs": shapes},
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
        except Exception as error:
            raise _untraceable(first_line(error)[:300]) from error
    # The exporter takes a length for a number where it finds no other way, and says nothing.
    fixed = [one.name for one in program.model.graph.inputs if isinstance(one.shape[0], int)]
    if fixed:
        raise _untraceable(f"it fixes the length of {', '.join(fixed)}")
    for node in program.model.graph:
        read = [one.name or "" for one in node.inputs if one is not None]
        for end, words in _STOPS.items():
            if node.op_type == "Gather" and read[0].endswith(end):
                node.name = words
    program.model.metadata_props.update({**subject.metadata, "opset": str(OPSET)})
    program.save(path, external_data=_bytes(subject.module) > _LARGEST)


def _untraceable(reason: str) -> ConfigError:
    return ConfigError(
        f"this model cannot be traced into an ONNX file ({reason}). Export its head alone "
        "(--frames), or choose an encoder such as whisper-base or facebook/w2v-bert-2.0."
    )


def _length(subject: Subject, name: str) -> Any:  # noqa: ANN401 - of torch, untyped
    """The symbol that stands for a length; a trace takes 1 for a number, so it begins above."""
    low = subject.shortest[name]
    if name == SAMPLES:
        assert isinstance(subject.module, OneRecording)
        assert subject.module.listener is not None
        low = subject.module.listener.encoder.grid.samples(2)
    return torch.export.Dim(name, min=max(2, low), max=subject.longest.get(name))


@contextmanager
def _quietly() -> Iterator[None]:
    """Exporters warn of what does not concern us, such as torchvision that is not installed."""
    names = ("", "torch.onnx", "onnxscript", "torch.export")
    before = {name: logging.getLogger(name).level for name in names}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name in names:
                logging.getLogger(name).setLevel(logging.ERROR)
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


def _bytes(module: nn.Module) -> int:
    every = [*module.parameters(), *module.buffers()]
    return sum(one.numel() * one.element_size() for one in every)


def quantise(plain: Path, target: Path) -> None:
    """Weights of matrix products as 8 bit integers with a scale for each column.

    Unsigned ones: processors without VNNI add products of signed ones in 16 bits, which overflow
    (largest difference of a logit .56 instead of 1.4; docs/studies.md). The head stays as it is: it
    is small, and all that is said hangs on it.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    graph = onnx.load(plain, load_external_data=False).graph
    wide = {one.name for one in graph.initializer if one.data_type != onnx.TensorProto.FLOAT}
    kept = [node.name for node in graph.node if _of_the_head(node) or wide.intersection(node.input)]
    with _quietly():
        quantize_dynamic(
            plain,
            target,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            weight_type=QuantType.QUInt8,
            nodes_to_exclude=kept,
            use_external_data_format=plain.with_name(f"{plain.name}.data").exists(),
        )


def _of_the_head(node: Any) -> bool:  # noqa: ANN401 - of onnx, untyped
    """Whether a node was traced inside the head."""
    scopes = [one.value for one in node.metadata_props if one.key.endswith("name_scopes")]
    return any("'one'" in scope or "'head'" in scope for scope in scopes)


def agreement(path: Path, head: Head, cases: Sequence[Case], truth: Gold | None) -> Agreement:
    """Run a file on all cases."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails is raised, too
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_outputs()]
    classes, largest, said = len(head.config.labels), 0.0, []
    expected = said_by_torch(head, cases)
    for row, case in enumerate(cases):
        found = dict(zip(names, session.run(None, dict(case.inputs)), strict=True))
        values = [found[name] for name in names if name != LOGITS]
        said.append(np.concatenate(values).astype(np.float64))
        logits = found.get(LOGITS)
        off = (
            said[-1] - expected[row] if logits is None else logits - case.expected[:classes].numpy()
        )
        largest = max(largest, float(np.abs(off).max()))
    files = [path, path.with_name(f"{path.name}.data")]
    size = sum(file.stat().st_size for file in files if file.exists())
    score = None if truth is None else truth.score(np.stack(said))
    return Agreement(size / 1e6, largest, score)


def said_by_torch(head: Head, cases: Sequence[Case]) -> NDArray[np.float64]:
    """`[n, C + A]`, what the head in torch says."""
    expected = torch.stack([case.expected for case in cases])
    said: NDArray[np.float64] = answers(head.config, expected).double().numpy()
    return said
