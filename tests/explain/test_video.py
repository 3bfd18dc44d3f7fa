"""Video as a third modality, from the import to the report: a copy of audio has to do as audio."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from cache.config import ExtractConfig
from cache.extract.extract import extract
from cache.folder_import import import_folder
from cache.lookup import FrameCache
from cli import main
from corpora.base.errors import ConfigError
from corpora.base.work import Work
from corpora.manifest import Manifest, write_manifest
from explain.config import ExplainConfig
from explain.explain import explain_recordings, explain_split
from finetune.config import FinetuneConfig
from finetune.finetune import run_finetune
from finetune.predict.predict import open_predictor
from heads.compare.compare import run_compare
from heads.config import CompareConfig, SearchConfig
from heads.head import Head, HeadConfig
from heads.load import load_dataset, read_origin
from heads.records import HeadRecord, package_versions, save_head
from heads.search.search import run_search
from heads.search.space import Space
from heads.training import Cohort, Schedule, TrainingConfig
from heads.vector_store import VectorStore
from tests.explain.conftest import Explained

PLAIN = ExplainConfig(figures=False)


@dataclass(frozen=True, eq=False)
class Copied:
    """A work folder whose video is its audio; not to be changed but in copies of it."""

    work: Work
    manifest: Manifest
    times: Path


@pytest.fixture(scope="module")
def copied(explained: Explained, tmp_path_factory: pytest.TempPathFactory) -> Copied:
    root = tmp_path_factory.mktemp("copied")
    work, manifest = Work(root / "work"), explained.manifest
    shutil.copytree(explained.work.root, work.root, symlinks=True)
    write_manifest(manifest, work.manifest)
    tiny = {f"{kind}_encoder": "tiny" for kind in ("audio", "text")}
    layers = {f"{kind}_layers": (3,) for kind in ("audio", "text")}
    extract(work, manifest, ExtractConfig(**tiny, **layers, device="cpu"))  # type: ignore[arg-type]
    # What is kept of audio's frames beside them, and of an import's not.
    for folder in work.features.glob("audio-*/moments_*"):
        shutil.rmtree(folder)
    found = FrameCache(work).find(manifest, ["audio"])
    frames, times = found.load("audio"), found.times("audio")
    assert times is not None
    for name in ("frames", "times"):
        (root / name).mkdir()
    for row, (u, at) in enumerate(zip(found.utterances, times, strict=True)):
        np.save(root / f"frames/{u.id}.npy", frames.utterance(row).numpy())
        np.save(root / f"times/{u.id}.npy", at)
    import_folder(work, manifest, root / "frames", "video", name="copy", fps=50)
    return Copied(work, manifest, root / "times")


def test_a_copy_has_the_frames_and_the_speech_of_audio(copied: Copied) -> None:
    found = FrameCache(copied.work).find(copied.manifest, ["audio", "video"])
    audio, video = found.load("audio"), found.load("video")
    assert audio.values.equal(video.values)
    assert audio.speech is not None
    assert video.speech is not None
    assert audio.speech.equal(video.speech)


def test_searches_on_audio_and_on_its_copy_are_the_same(copied: Copied, tmp_path: Path) -> None:
    tables = {}
    for name in ("audio", "video"):
        shutil.copytree(copied.work.root, tmp_path / name, symlinks=True)
        shutil.rmtree(tmp_path / name / "search")
        config = SearchConfig(
            trials=12, cohort=6, epochs=2, modalities=(name,), folds="off", device="cpu"
        )
        run_search(Work(tmp_path / name), copied.manifest, config)
        table = (tmp_path / name / "search/trials.csv").read_text(encoding="utf-8")
        tables[name] = [line.replace(name, "one") for line in table.splitlines()]
    assert len(tables["audio"]) > 12
    # Also those that read speech alone, on video's clock.
    assert any("vad_average" in row for row in tables["video"])
    assert without_seconds(tables["audio"]) == without_seconds(tables["video"])


def without_seconds(lines: list[str]) -> list[tuple[str, ...]]:
    """A table's rows without the columns of how long things took."""
    header = lines[0].split(",")
    kept = [n for n, name in enumerate(header) if "second" not in name]
    return [tuple(line.split(",")[n] for n in kept) for line in lines]


def test_all_that_is_there_is_compared(copied: Copied, tmp_path: Path) -> None:
    shutil.copytree(copied.work.root, tmp_path / "work", symlinks=True)
    config = CompareConfig(tables=("modalities",), seeds=1, epochs=2, device="cpu", plot=False)
    report = run_compare(Work(tmp_path / "work"), copied.manifest, config)
    lines = {line.title: line for line in report.tables[0].lines}
    assert {"audio", "video", "audio+video", "text+video", "audio+text+video"} <= set(lines)
    for what in ("", "logistic regression, "):
        ours, theirs = lines[f"{what}audio"].outcomes, lines[f"{what}video"].outcomes
        for split in ("dev", "test"):
            assert ours[split].scores == theirs[split].scores


def test_three_modalities_are_chosen_from_in_all_ways() -> None:
    space = Space(("a", "b"), {"audio": 4, "text": 4, "video": 6}, speech=True)
    assert space.axes["modalities"].values == (  # type: ignore[union-attr]
        "audio+text+video", "audio+text", "audio+video", "text+video", "audio", "text", "video",
    )  # fmt: skip


def add_head(work: Work, manifest: Manifest, pooling: str, modalities: tuple[str, ...]) -> Head:
    """A head as a search leaves it."""
    dataset = load_dataset(FrameCache(work), manifest, modalities)
    config = HeadConfig(
        manifest.labels,
        dataset.dims,
        {name: {"kind": "average" if name == "text" else pooling} for name in modalities},
        mlp_width=16,
    )
    head = Head(config, 1)
    training, schedule = TrainingConfig(1e-2, seed=1), Schedule(epochs=4, batch_size=8)
    cohort = Cohort([head], [training], VectorStore(dataset), dataset.rows("train"), schedule)
    for _ in range(schedule.epochs):
        cohort.run_epoch()
    record = HeadRecord(
        trial=4,
        start="",
        params={},
        head=head.config,
        training=training,
        schedule=schedule,
        origin=read_origin(FrameCache(work), manifest, dataset.frames),
        study_seed=0,
        versions=package_versions(),
        dev_macro_f1=0.5,
    )
    save_head(work.search / "best.json", work.search / "head.safetensors", head, record)
    return head


def run(work: Work, *words: str) -> Result:
    return CliRunner().invoke(main, [*words, "--work", str(work.root)])


@pytest.fixture
def own(copied: Copied, tmp_path: Path) -> Work:
    shutil.copytree(copied.work.root, tmp_path / "work", symlinks=True)
    return Work(tmp_path / "work")


@pytest.mark.parametrize("modalities", [("video",), ("audio", "video"), ("text", "video")])
def test_a_head_is_scored_and_explained(
    copied: Copied, own: Work, modalities: tuple[str, ...]
) -> None:
    add_head(own, copied.manifest, "mha", modalities)
    scored = run(own, "evaluate", "--json")
    assert scored.exit_code == 0, scored.output
    made = explain_split(own, copied.manifest, PLAIN)
    subject, said = made.subject, made.to_text()
    assert tuple(subject.times) == tuple(name for name in modalities if name != "text")
    assert "Video (attention)" in said
    tables = {path.stem for path in (own.explain / "tables").glob("*.csv")}
    assert {"phones", "phone-onsets", "faithfulness-areas-video"} <= tables
    assert "correlations-video" in tables
    summary = json.loads((own.explain / "summary.json").read_text(encoding="utf-8"))
    assert set(summary["methods"]) == set(modalities)
    if "audio" not in modalities:
        assert "reads no frames extracted from audio" in said
    single = explain_split(
        own, copied.manifest, ExplainConfig(ids=(subject.utterances[0].id,), figures=True)
    )
    wanted = "most attended of video at" if "audio" in modalities else "most attended at"
    assert wanted in " ".join(single.to_text().split())


def test_a_copy_is_explained_as_audio_is(copied: Copied, tmp_path: Path) -> None:
    found = {}
    for name in ("audio", "video"):
        work = Work(tmp_path / name)
        shutil.copytree(copied.work.root, work.root, symlinks=True)
        add_head(work, copied.manifest, "mha", (name,))
        found[name] = explain_split(work, copied.manifest, PLAIN)
    audio, video = (found[name].subject for name in ("audio", "video"))
    assert audio.probabilities.equal(video.probabilities)
    assert audio.importance["audio"].equal(video.importance["video"])
    # Half a hop from where the tiny encoder's frames have their middle, so up to that far off.
    assert np.abs(audio.times["audio"] - video.times["video"]).max() < 0.01
    assert audio.step("audio") == pytest.approx(video.step("video"), abs=1e-5)
    assert found["audio"].intro[1] != found["video"].intro[1]  # who made the frames


def test_frames_at_odd_times_are_explained(copied: Copied, own: Work) -> None:
    frames = copied.times.parent / "frames"
    odd = own.root.parent / "odd"
    odd.mkdir()
    for path in sorted(copied.times.iterdir()):
        at = np.load(path)
        late = np.random.default_rng(len(at)).uniform(0, 0.3, len(at))
        np.save(odd / path.name, np.sort(np.linspace(0, at[-1] - 0.3, len(at)) + late))
    import_folder(own, copied.manifest, frames, "video", times=odd)
    add_head(own, copied.manifest, "vad_average", ("video",))
    assert run(own, "evaluate", "--json").exit_code == 0
    add_head(own, copied.manifest, "mha", ("video",))
    made = explain_split(own, copied.manifest, PLAIN)
    tables = {path.stem for path in (own.explain / "tables").glob("*.csv")}
    assert "phones" in tables
    assert "phone-onsets" not in tables  # lags in frames would be no times
    page = (own.explain / "report.html").read_text(encoding="utf-8")
    assert '"times":[' in page
    assert made.subject.probabilities.isfinite().all()


def test_audio_without_a_clock_is_explained_as_far_as_it_goes(copied: Copied, own: Work) -> None:
    frames = copied.times.parent / "frames"
    import_folder(own, copied.manifest, frames, "audio")
    add_head(own, copied.manifest, "mha", ("audio",))
    said = explain_split(own, copied.manifest, PLAIN).to_text()
    assert "they were imported without a clock" in said
    import_folder(own, copied.manifest, frames, "audio", fps=50)
    add_head(own, copied.manifest, "mha", ("audio",))
    assert "imported without a clock" not in explain_split(own, copied.manifest, PLAIN).to_text()


def test_what_needs_an_encoder_of_video_is_refused_in_a_sentence(copied: Copied, own: Work) -> None:
    add_head(own, copied.manifest, "mha", ("audio", "video"))
    recording = copied.manifest.utterances[0].audio
    words = "reads video frames that were imported, and there is no encoder here"
    with pytest.raises(ConfigError, match=words):
        run_finetune(own, copied.manifest, FinetuneConfig(device="cpu"))
    with pytest.raises(ConfigError, match=words):
        open_predictor(own, own.search, "cpu")
    with pytest.raises(ConfigError, match=words):
        explain_recordings(own, [recording], PLAIN)
    with pytest.raises(ConfigError, match=words):
        explain_split(own, copied.manifest, ExplainConfig(figures=False, occlusion=1))
    for command in (["predict", str(recording)], ["finetune", "--best"]):
        done = run(own, *command)
        assert done.exit_code == 1
        assert words in " ".join(done.output.split())
