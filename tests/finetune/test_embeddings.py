"""`predict --embeddings`: what the classifier reads, of recordings and of manifests, as files."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from cache.lookup import FrameCache
from cli import main
from corpora.base.work import Work
from corpora.manifest import Manifest, write_manifest
from finetune.model import EmotionModel
from finetune.predict.answering import predict
from finetune.predict.prediction import Prediction
from heads.head import classify, pooled_vectors
from heads.load import load_dataset
from heads.predict import gather
from heads.vector_store import VectorStore
from tests.finetune.conftest import Searched
from tests.finetune.corpus import DIMS, make_model
from tests.finetune.searched import copy_work


@pytest.fixture(scope="module")
def models(encoders: Path) -> list[EmotionModel]:
    return [make_model(encoders), make_model(encoders, {"kind": "statistics"})]


@pytest.fixture
def work(searched: Searched, manifest: Manifest, tmp_path: Path) -> Work:
    made = copy_work(searched.work, tmp_path / "work")
    write_manifest(manifest, made.manifest)  # its paths are relative
    return made


def run(*words: object) -> Result:
    return CliRunner().invoke(main, ["predict", *map(str, words)])


def test_the_classifier_reads_the_embedding(models: list[EmotionModel], manifest: Manifest) -> None:
    for model in models:
        for one in predict([model], manifest.utterances[:5], embeddings=True):
            assert isinstance(one, Prediction)
            assert list(one.embedding) == ["audio", "text"]
            read = [torch.from_numpy(own)[None] for own in one.embedding.values()]
            with torch.no_grad():
                logits = classify([model.head], [read])[0, 0].double().numpy()
            expected = np.exp(logits) / np.exp(logits).sum()
            assert list(one.probabilities.values()) == pytest.approx(expected, abs=1e-6)
            assert "embedding" not in one.to_json()
    [plain] = predict(models[:1], manifest.utterances[:1])
    assert isinstance(plain, Prediction)
    assert not plain.embedding


def test_a_heads_embeddings_are_the_pooled_vectors_of_its_cached_frames(
    work: Work, searched: Searched, manifest: Manifest, tmp_path: Path
) -> None:
    out = tmp_path / "deep" / "out.npz"
    done = run("--work", work.root, "--split", "dev", "--embeddings", out, "--json")
    assert done.exit_code == 0, done.output
    size = 2 * sum(DIMS.values())
    assert f"Wrote {out}: 9 embeddings of {size} numbers." in done.stderr
    dataset = load_dataset(FrameCache(work), manifest)
    rows = dataset.rows("dev")
    with torch.no_grad():
        [pooled] = pooled_vectors(
            [searched.head], gather(VectorStore(dataset), [searched.head], rows)
        )
    with np.load(out, allow_pickle=False) as file:
        assert set(file) == {"ids", "embeddings", "columns"}
        assert file["ids"].tolist() == [u.id for u in manifest.in_split("dev")]
        assert file["embeddings"].dtype == np.float32
        np.testing.assert_allclose(file["embeddings"], torch.cat(pooled, dim=1), atol=1e-4)
        columns = file["columns"].tolist()
    assert (columns[0], columns[-1], len(columns)) == (
        "audio_0",
        f"text_{2 * DIMS['text'] - 1}",
        size,
    )


def test_a_csv_holds_the_same_numbers_for_recordings_of_a_model(
    models: list[EmotionModel], manifest: Manifest, tmp_path: Path
) -> None:
    models[0].save_pretrained(tmp_path / "model")
    models[1].save_pretrained(tmp_path / "other")
    files = [u.audio for u in manifest.utterances[:3]]
    words = (*files, tmp_path / "gone.wav", "--model", tmp_path / "model")
    for suffix in ("csv", "npz"):
        done = run(*words, "--embeddings", tmp_path / f"out.{suffix}")
        assert done.exit_code == 1  # one is gone
        assert "3 embeddings of" in done.stderr
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    with np.load(tmp_path / "out.npz", allow_pickle=False) as file:
        assert header == ["id", *file["columns"]]
        assert [row[0] for row in rows] == file["ids"].tolist() == [str(path) for path in files]
        assert np.array_equal(np.array([row[1:] for row in rows], np.float32), file["embeddings"])
        alone = file["embeddings"]
    done = run(
        *files,
        "--model",
        tmp_path / "model",
        "--model",
        tmp_path / "other",
        "--embeddings",
        tmp_path / "both.npz",
    )
    assert done.exit_code == 0, done.output
    with np.load(tmp_path / "both.npz", allow_pickle=False) as file:
        assert file["columns"][0] == "model1.audio_0"
        assert file["columns"][-1].startswith("model2.text_")
        np.testing.assert_allclose(file["embeddings"][:, : alone.shape[1]], alone, atol=1e-5)


def test_nothing_is_written_where_nothing_could_be_used_and_other_names_are_refused(
    work: Work, tmp_path: Path
) -> None:
    done = run("gone.wav", "--work", work.root, "--embeddings", tmp_path / "out.npz")
    assert done.exit_code == 1
    assert not (tmp_path / "out.npz").exists()
    assert "out.npz was not written" in done.stderr
    done = run("gone.wav", "--work", work.root, "--embeddings", tmp_path / "out.pkl")
    assert done.exit_code == 1
    assert "expected a name that ends in .npz or .csv" in " ".join(done.output.split())
