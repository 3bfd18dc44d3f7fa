"""`export onnx`: a head or a model as one ONNX file, compared with what it was made of.

The file takes one utterance of any length and says logits and probabilities; what a program has to
know besides (labels, sampling rate, bounds, tokenizer) stands in its metadata. Of a model the input
is samples at 16 kHz, and of one that reads the tokens of what is said; of a head alone (`--frames`)
it is frames. `examples/run_onnx.py` runs such a file without torch.

Nothing is put in place before onnxruntime has said of real recordings what torch says.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cache.audio import load_audio
from cache.encoders.grid import SAMPLE_RATE
from cache.encoders.text_encoder import TextEncoder
from cache.frames import Frames
from cache.keys import normalise_text
from cache.lookup import FrameCache
from cache.recipe import layer_numbers
from corpora.base.errors import AudioError, ConfigError, EmopoolError, MissingExtraError
from corpora.base.files import fsync_folder, new_stamp, sweep, under_way, writing
from corpora.base.report import Report, Table
from corpora.base.work import Work
from corpora.manifest import Manifest, Utterance
from finetune.assembly import check_streams
from finetune.config import ExportConfig
from finetune.model import EmotionModel
from finetune.model_files import fsync
from finetune.one_recording import SAMPLES, TOKENS, OneRecording, OneUtterance, speech_input
from finetune.onnx_file import (
    OPSET,
    Agreement,
    Case,
    Subject,
    agreement,
    quantise,
    said_by_torch,
    write_file,
)
from finetune.predict.predict import is_head, model_names, open_predictor
from heads.dataset import Dataset
from heads.gold import Gold, objective_name
from heads.head import Head
from heads.pooling import pooling_config
from heads.records import HeadRecord, load_head

#: The largest difference of a logit between onnxruntime and torch.
TOLERANCE = 1e-4
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_INSTALL = "python -m pip install -c constraints.txt -e '.[onnx]'"
Tell = Callable[[str], None]


def missing_packages() -> list[str]:
    """What of the extra `onnx` is not installed."""
    return [name for name in _PACKAGES if find_spec(name) is None]


def export_onnx(
    work: Work,
    manifest: Manifest | None,
    split: str,
    config: ExportConfig,
    tell: Tell = lambda _: None,
) -> Report:
    """Write a head or a model as ONNX.

    Args:
        work: the work folder.
        manifest: whose recordings the file is compared on; None: it is compared on noise.
        split: of them.
        config: what is asked.
        tell: for lines to be read while it runs.

    Raises:
        MissingExtraError: packages of the extra `onnx` are missing.
        MissingStepError: there is no model and no searched head.
        ConfigError: what it reads, or computes, cannot be put into such a file.
        EmopoolError: the file does not say what torch says; nothing is written then.
    """
    missing = missing_packages()
    if missing:
        raise MissingExtraError(
            f"ONNX needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not "
            f"installed: {_INSTALL}."
        )
    subject = _subject(work, config, tell)
    rows = None if manifest is None else _chosen(manifest, split, subject.head, config.check)
    cases = list(subject.cases(rows))
    if not cases:
        raise ConfigError(
            f"none of the recordings of the split {split} can be used to compare the file on. Name "
            "another --split or --manifest."
        )
    out = config.out or work.root / ("head.onnx" if config.frames else "model.onnx")
    with _site(out) as site:
        plain = site / (f"fp32-{out.name}" if config.int8 else out.name)
        tell(f"Tracing (opset {OPSET}) …")
        write_file(subject, cases[0].inputs, plain)
        tell(f"Comparing with torch on {len(cases):,} {'recordings' if rows else 'of noise'} …")
        truth, torch_said = _gold(subject.head, cases), said_by_torch(subject.head, cases)
        before = None if truth is None else truth.score(torch_said)
        found = [agreement(plain, subject.head, cases, truth)]
        if found[0].difference > TOLERANCE:
            raise EmopoolError(
                f"onnxruntime's logits differ from torch's by up to {found[0].difference:.2g}, "
                f"more than {TOLERANCE:g}: {out} is not written. Report this encoder and head, "
                "with the versions of torch and onnxruntime."
            )
        if config.int8:
            tell("Quantising weights to 8 bits …")
            quantise(plain, site / out.name)
            found.append(agreement(site / out.name, subject.head, cases, truth))
            for left in site.glob(f"{plain.name}*"):
                left.unlink()
    return _report(out, subject, found, before, rows, split, len(cases))


def _subject(work: Work, config: ExportConfig, tell: Tell) -> Subject:
    name = config.model or model_names(work)[0]
    if config.frames and is_head(work, name):
        head, record = load_head(Path(name))
        origin = record.origin
        return _head_subject(
            head,
            {"encoders": dict(origin.encoders), "corpus": origin.corpus, "trial": record.trial},
            lambda rows: _cached_cases(work, head, record, rows),
        )
    model = open_predictor(work, name, "cpu", tell)
    made = {key: model.provenance.get(key) for key in ("encoders", "corpus", "trial")}
    if config.frames:
        return _head_subject(model.head, made, lambda rows: _encoded_cases(model, rows))
    module, shortest, longest = OneRecording(model), {}, {}
    metadata = _described(model.head, made)
    if module.listener is not None:
        shortest[SAMPLES] = module.listener.shortest
        metadata |= {"sampling_rate": str(SAMPLE_RATE), "shortest": str(module.listener.shortest)}
        if module.listener.longest is not None:
            longest[SAMPLES] = module.listener.longest
            metadata["longest"] = str(longest[SAMPLES])
    if model.text_encoder is not None:
        encoder = model.text_encoder
        shortest[TOKENS], longest[TOKENS] = (
            len(encoder.tokenise([""])[0].ids),
            encoder.maximum_tokens,
        )
        metadata["tokenizer"] = _tokenizer(encoder)
    return Subject(
        module.eval(), model.head, shortest, longest, metadata, lambda rows: _heard(model, rows)
    )


def _head_subject(
    head: Head, made: Mapping[str, Any], cases: Callable[[Manifest], Iterator[Case]]
) -> Subject:
    if head.config.needs_words:
        raise ConfigError(
            "the head reads the frames of informative words (pooling informative_average), which "
            "neither samples nor frames tell. `search` again without it (pooling of --space)."
        )
    module = OneUtterance(head).eval()
    inputs = _frame_inputs(head, {n: _noise_frames(head, n, 4) for n in head.config.modalities})
    return Subject(
        module,
        head,
        dict.fromkeys(inputs, 1),
        {},
        _described(head, made),
        lambda rows: _noise_cases(head) if rows is None else cases(rows),
    )


def _described(head: Head, made: Mapping[str, Any]) -> dict[str, str]:
    """Metadata of any file; ONNX takes text."""
    config = head.config
    return {
        "labels": json.dumps(list(config.labels), ensure_ascii=False),
        "attributes": json.dumps({name: list(ends) for name, ends in config.attributes.items()}),
        "made": json.dumps({**made, "emopool": version("emopool")}, ensure_ascii=False),
    }


def _tokenizer(encoder: TextEncoder) -> str:
    """JSON for the library `tokenizers`; it cuts long texts as the encoder does."""
    own: Any = copy.deepcopy(encoder.tokenizer.backend_tokenizer)
    own.no_padding()
    own.enable_truncation(encoder.maximum_tokens)
    return str(own.to_str())


def _chosen(manifest: Manifest, split: str, head: Head, most: int) -> Manifest:
    """Some of the annotated utterances of a split, spread over it evenly."""
    asked = Dataset((), head.config.labels, {}, attributes=head.config.attributes)
    rows = [u for u in manifest.in_split(split) if asked.is_annotated(u)] or manifest.in_split(
        split
    )
    places = np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(int)
    return replace(manifest, utterances=tuple(rows[place] for place in places))


def _cached_cases(work: Work, head: Head, record: HeadRecord, rows: Manifest) -> Iterator[Case]:
    """A searched head on frames of the cache."""
    cache = FrameCache(work)
    check_streams(cache, record)
    config, layers = head.config, record.origin.layers
    found = cache.find(
        rows,
        config.modalities,
        layers={name: layers[name] for name in config.modalities if name in layers},
        speech=config.needs_speech,
    )
    if not found.utterances:
        return
    read, _ = found.read()
    for row, utterance in enumerate(found.utterances):
        frames = {}
        for name in config.modalities:
            lower = layer_numbers(layers.get(name, ()))[:-1] if config.layers(name) > 1 else ()
            every = [*(found.others[name][layer] for layer in lower), read[name]]
            own = [one.select([row]).to(dtype=torch.float32) for one in every]
            frames[name] = Frames.beside(own)
        yield _frame_case(head, frames, utterance)


def _encoded_cases(model: EmotionModel, rows: Manifest) -> Iterator[Case]:
    """A model's head on what its encoders give."""
    for utterance, waveform in _recordings(model, rows):
        with torch.no_grad():
            yield _frame_case(model.head, model.encode(waveform, [utterance.text]), utterance)


def _noise_cases(head: Head) -> Iterator[Case]:
    """A head on noise, of one frame and of more."""
    for length in (1, 7, 300):
        yield _frame_case(head, {n: _noise_frames(head, n, length) for n in head.config.modalities})


def _heard(model: EmotionModel, rows: Manifest | None) -> Iterator[Case]:
    """A model on recordings and texts, tokenised as a program without Emopool would."""
    from tokenizers import Tokenizer

    tokenizer = None
    if model.text_encoder is not None:
        tokenizer = Tokenizer.from_str(_tokenizer(model.text_encoder))
    given = _noise(model) if rows is None else _recordings(model, rows)
    for utterance, waveform in given:
        inputs: dict[str, NDArray[Any]] = {}
        if waveform is not None:
            inputs[SAMPLES] = np.asarray(waveform[0], dtype=np.float32)
        if tokenizer is not None:
            ids = tokenizer.encode(normalise_text(utterance.text)).ids
            inputs[TOKENS] = np.array(ids, dtype=np.int64)
        with torch.no_grad():
            expected = model(waveform, [utterance.text])[0]
        yield Case(inputs, expected, utterance if rows is not None else None)


Recording = tuple[Utterance, list[NDArray[np.float32]] | None]


def _recordings(model: EmotionModel, rows: Manifest) -> Iterator[Recording]:
    """Utterances with their samples, of a model that listens; those it cannot take are left out."""
    encoder = model.audio_encoder
    for utterance in rows.utterances:
        if encoder is None:
            yield utterance, None
            continue
        try:
            waveform = load_audio(
                utterance.audio,
                utterance.start,
                utterance.end,
                minimum_samples=encoder.grid.minimum_samples,
            )
        except AudioError:
            continue
        limit = encoder.front_end.limit
        if limit is None or len(waveform) <= limit:
            yield utterance, [waveform]


def _noise(model: EmotionModel) -> Iterator[Recording]:
    """Half a second, three and seven of noise, said to be words."""
    generator = np.random.default_rng(0)
    for number, seconds in enumerate((0.5, 3.0, 7.0)):
        samples = generator.normal(0, 0.1, round(seconds * SAMPLE_RATE)).astype(np.float32)
        text = " ".join(["so it is"] * number)
        utterance = Utterance(id=f"noise {number}", audio=Path(), label="", text=text)
        yield utterance, None if model.audio_encoder is None else [samples]


def _noise_frames(head: Head, modality: str, length: int) -> Frames:
    generator = torch.Generator().manual_seed(length)
    values = torch.randn(length, head.config.dims[modality], generator=generator)
    return Frames.from_list([values], [torch.rand(length, generator=generator)])


def _frame_inputs(head: Head, frames: Mapping[str, Frames]) -> dict[str, NDArray[Any]]:
    inputs: dict[str, NDArray[Any]] = {}
    for name in head.config.modalities:
        inputs[name] = frames[name].values.numpy()
        if name != "text" and pooling_config(head.config.pooling[name]).needs_speech:
            speech = frames[name].speech
            assert speech is not None, "a head that asks for it has it"
            inputs[speech_input(name)] = speech.float().numpy()
    return inputs


def _frame_case(
    head: Head, frames: Mapping[str, Frames], utterance: Utterance | None = None
) -> Case:
    with torch.no_grad():
        expected = head({name: frames[name] for name in head.config.modalities})[0]
    return Case(_frame_inputs(head, frames), expected, utterance)


@contextmanager
def _site(out: Path) -> Iterator[Path]:
    """Yield a folder; what is in it then goes beside `out`, which comes last, or is removed."""
    out.parent.mkdir(parents=True, exist_ok=True)
    sweep(out.parent)
    site = under_way(out, new_stamp())
    site.mkdir()
    try:
        with writing(out):
            yield site
            for file in sorted(site.iterdir(), key=lambda file: file.name == out.name):
                fsync(file)
                os.replace(file, out.parent / file.name)
            fsync_folder(out.parent)
    finally:
        shutil.rmtree(site, ignore_errors=True)


def _gold(head: Head, cases: Sequence[Case]) -> Gold | None:
    """The truth about the cases, where all are annotated."""
    utterances = tuple(case.utterance for case in cases if case.utterance is not None)
    dataset = Dataset(utterances, head.config.labels, {}, attributes=head.config.attributes)
    if len(utterances) < len(cases) or not all(map(dataset.is_annotated, utterances)):
        return None
    return Gold.of(dataset, torch.arange(len(dataset)))


def _report(
    out: Path,
    subject: Subject,
    found: Sequence[Agreement],
    before: float | None,
    rows: Manifest | None,
    split: str,
    count: int,
) -> Report:
    config = subject.head.config
    name = objective_name(config.labels, config.attributes)
    where = f"{count:,} recordings of {split}" if rows else f"{count} pieces of noise"
    columns = ["", "MB", "largest difference", *[name] * (before is not None)]
    table = [["torch", None, None, *[before] * (before is not None)]]
    for one, kind in zip(found, ("onnxruntime, fp32", "onnxruntime, int8"), strict=False):
        shown = f"{one.difference:.1e}"
        table.append([kind, one.megabytes, shown, *[one.score] * (before is not None)])
    inputs = ", ".join(subject.shortest)
    parts: list[str | Table] = [
        f"One utterance of any length goes in ({inputs}), {', '.join(subject.module.outputs)} come "
        f"out; opset {OPSET}. Labels and all a program has to know are in the metadata.",
        Table("", columns, table, f"Compared on {where}", right=range(1, len(columns))),
    ]
    if rows is None:
        parts.append("No manifest was at hand: noise says nothing of scores. See --manifest.")
    data = {
        "file": str(out),
        "opset": OPSET,
        "inputs": list(subject.shortest),
        "outputs": list(subject.module.outputs),
        "compared_on": {"utterances": count, "split": split if rows else None},
        "score": name,
        "torch": before,
        "onnxruntime": [
            {"megabytes": one.megabytes, "largest_difference": one.difference, "score": one.score}
            for one in found
        ],
    }
    run = "samples" in subject.shortest or TOKENS in subject.shortest
    after = [f"python examples/run_onnx.py {out} RECORDING"] * run
    return Report("Exported", parts, [out], after, data)
