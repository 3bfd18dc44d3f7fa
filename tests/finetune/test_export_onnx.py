"""ONNX files say what torch says: heads by default, models and real encoders marked slow."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from cache.encoders.names import is_packaged, resolve_encoder
from cli import main
from corpora.base.errors import ConfigError, EmopoolError, MissingExtraError
from corpora.base.work import Work
from corpora.manifest import Manifest, write_manifest
from corpora.readers.registry import read_corpus
from finetune import export_onnx as module
from finetune.config import ExportConfig
from finetune.export_onnx import TOLERANCE, export_onnx
from finetune.onnx_file import OPSET, Agreement, agreement, write_file
from heads.head import Head, HeadConfig
from tests.cache.test_audio_encoder import ENCODERS, save_encoder
from tests.cache.test_whisper import save_small
from tests.corpora.test_emodb import REAL, needs_data
from tests.finetune.conftest import Searched
from tests.finetune.corpus import LABELS, make_model
from tests.finetune.test_one_recording import KINDS, on_encoder, uneven

EXAMPLE = Path(__file__).parents[2] / "examples" / "run_onnx.py"
needs_onnx = pytest.mark.skipif(
    bool(module.missing_packages()), reason="onnx, onnxscript, onnxruntime (extra onnx) are missing"
)


def session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(path, options)


@needs_onnx
def test_a_head_that_hears_and_reads_goes_into_a_file_of_frames(
    searched: Searched, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "head.onnx"
    command = ["export", "onnx", "--frames", "--out", str(out), "--json"]
    ran = CliRunner().invoke(main, [*command, "--work", str(searched.work.root), "--split", "dev"])
    assert ran.exit_code == 0, ran.output
    report = json.loads(ran.stdout)
    assert report["inputs"] == ["audio", "audio_speech", "text"]
    assert report["compared_on"] == {"utterances": 9, "split": "dev"}
    [found] = report["onnxruntime"]
    assert found["largest_difference"] < TOLERANCE
    assert found["score"] == report["torch"]
    assert [path.name for path in out.parent.iterdir()] == ["head.onnx"]
    known = session(out).get_modelmeta().custom_metadata_map
    assert json.loads(known["labels"]) == list(searched.head.config.labels)
    assert known["opset"] == str(OPSET) == "18"
    with pytest.raises(SystemExit, match="it reads frames"):
        runpy.run_path(str(EXAMPLE))["main"](str(out), "a.wav")


def test_without_its_packages_the_message_says_what_to_install(
    searched: Searched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "onnx" else object())
    with pytest.raises(MissingExtraError, match=r"needs onnx, which is not installed: .*\[onnx\]"):
        export_onnx(searched.work, None, "test", ExportConfig())


def test_a_head_of_informative_words_is_refused() -> None:
    pooling = {"audio": {"kind": "informative_average"}}
    head = Head(HeadConfig(("a", "b"), {"audio": 4}, pooling))
    with pytest.raises(ConfigError, match="informative words"):
        module._head_subject(head, {}, lambda _: iter(()))


@needs_onnx
def test_a_file_that_says_something_else_is_not_written(
    searched: Searched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(subject: Any, example: Any, path: Path) -> None:
        path.write_bytes(b"")

    wrong = Agreement(0.0, 0.5, None)
    monkeypatch.setattr(module, "write_file", other)
    monkeypatch.setattr(module, "agreement", lambda *_: wrong)
    config = ExportConfig(frames=True, out=tmp_path / "out" / "head.onnx")
    with pytest.raises(EmopoolError, match=r"differ from torch's by up to 0\.5"):
        export_onnx(searched.work, None, "test", config)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.slow
@needs_onnx
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
def test_every_pooling_goes_into_a_file(kind: dict[str, Any], tmp_path: Path) -> None:
    config = HeadConfig(("a", "b"), {"audio": 16}, {"audio": kind}, "layernorm", 8)
    head = uneven(Head(config, 1))
    subject = module._head_subject(head, {}, lambda _: iter(()))
    cases = list(subject.cases(None))
    write_file(subject, cases[1].inputs, tmp_path / "head.onnx")
    assert agreement(tmp_path / "head.onnx", head, cases, None).difference < TOLERANCE


@pytest.mark.slow
@needs_onnx
@pytest.mark.parametrize("name", ENCODERS)
def test_every_speech_encoder_goes_into_a_file(name: str, tmp_path: Path) -> None:
    model = on_encoder(save_encoder(tmp_path / "encoder", name), {"kind": "mqmha"})
    work = Work(tmp_path / "work")
    model.save_pretrained(work.model)
    [found] = export_onnx(work, None, "test", ExportConfig()).data["onnxruntime"]
    assert found["largest_difference"] < TOLERANCE


@pytest.fixture(scope="module")
def written(
    tmp_path_factory: pytest.TempPathFactory, encoders: Path, manifest: Manifest
) -> tuple[Work, dict[str, Any]]:
    """The model directory of the tiny pair as a file, on the corpus of tones."""
    work = Work(tmp_path_factory.mktemp("written"))
    make_model(encoders).save_pretrained(work.model)
    write_manifest(manifest, work.manifest)
    return work, dict(export_onnx(work, manifest, "all", ExportConfig(int8=True)).data)


@pytest.mark.slow
@needs_onnx
def test_a_model_that_hears_and_reads_goes_into_a_file_of_samples_and_tokens(
    written: tuple[Work, dict[str, Any]], manifest: Manifest, capsys: pytest.CaptureFixture[str]
) -> None:
    work, report = written
    plain, small = report["onnxruntime"]
    assert report["inputs"] == ["samples", "tokens"]
    assert plain["largest_difference"] < TOLERANCE < small["largest_difference"]
    assert small["megabytes"] < plain["megabytes"]
    utterance = manifest.utterances[5]
    runpy.run_path(str(EXAMPLE))["main"](
        str(work.root / "model.onnx"), str(utterance.audio), utterance.text
    )
    said = [line.split(": ") for line in capsys.readouterr().out.splitlines()]
    assert [label for label, _ in said] == list(manifest.labels)
    assert sum(float(value) for _, value in said) == pytest.approx(1, abs=2e-3)


@pytest.mark.slow
@needs_onnx
def test_what_is_too_long_for_whisper_is_refused_by_runtime_and_script(tmp_path: Path) -> None:
    model = on_encoder(save_small(tmp_path / "encoder"), {"kind": "average+vad_average"})
    work = Work(tmp_path / "work")
    model.save_pretrained(work.model)
    export_onnx(work, None, "test", ExportConfig())
    path = work.root / "model.onnx"
    for samples, words in ((480_001, "recording is too long"), (0, "recording is too short")):
        with pytest.raises(Exception, match=words):
            session(path).run(None, {"samples": np.zeros(samples, dtype=np.float32)})
    soundfile.write(tmp_path / "long.wav", np.zeros(480_001), 16_000)
    with pytest.raises(SystemExit, match="has 480001 samples; expected 1 to 480000"):
        runpy.run_path(str(EXAMPLE))["main"](str(path), str(tmp_path / "long.wav"))


@pytest.mark.slow
@needs_onnx
@needs_data
@pytest.mark.parametrize("name", ["whisper-tiny.en", "whisper-base"])
def test_real_encoders_on_fifty_real_recordings(name: str, tmp_path: Path) -> None:
    if not is_packaged(name):
        pytest.skip(f"the packages of {name} are not installed")
    work = Work(tmp_path / "work")
    folder = resolve_encoder(name, "audio", work.root)
    on_encoder(folder, {"kind": "mqmha"}, 0.05).save_pretrained(work.model)
    corpus = read_corpus("emodb", REAL)
    rows = tuple(u for u in corpus.utterances if u.label in LABELS)
    manifest = Manifest(rows, LABELS, corpus="emodb")
    report = export_onnx(work, manifest, "all", ExportConfig()).data
    [found] = report["onnxruntime"]
    assert report["compared_on"]["utterances"] == 50
    assert found["largest_difference"] <= TOLERANCE
    assert found["score"] == report["torch"]
