"""What the tests of fine-tuning share: encoders, recordings, caches; made once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from cache.encoders.names import resolve_encoder
from corpora.base.work import Work
from corpora.manifest import Manifest, write_manifest
from heads.head import Head
from heads.records import HeadRecord
from tests.finetune.corpus import extract_tiny, make_corpus
from tests.finetune.searched import add_search


@pytest.fixture(scope="session")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that holds `tiny-audio` and `tiny-text`."""
    root = tmp_path_factory.mktemp("encoders")
    for kind in ("audio", "text"):
        resolve_encoder("tiny", kind, root)
    return root / "encoders"


@pytest.fixture(scope="session")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return make_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="session", params=["float32", "float16"])
def cached(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    encoders: Path,
    manifest: Manifest,
) -> tuple[Work, str]:
    """A work folder with all layers extracted, in each stored dtype."""
    return make_work(tmp_path_factory.mktemp(request.param), encoders, manifest, request.param)


def make_work(
    root: Path, encoders: Path, manifest: Manifest, stored_dtype: str
) -> tuple[Work, str]:
    """Extract into a new work folder that borrows the encoders."""
    (root / "encoders").symlink_to(encoders)
    work = Work(root)
    write_manifest(manifest, work.manifest)
    extract_tiny(work, manifest, stored_dtype)
    return work, stored_dtype


@dataclass(frozen=True, eq=False)
class Searched:
    """A work folder with a head; not to be changed by a test."""

    work: Work
    head: Head
    record: HeadRecord


@pytest.fixture(scope="session")
def searched(
    tmp_path_factory: pytest.TempPathFactory, encoders: Path, manifest: Manifest
) -> Searched:
    """Frames as float32, and a head that asks which of them are speech."""
    root = tmp_path_factory.mktemp("searched")
    work, _ = make_work(root, encoders, manifest, "float32")
    return Searched(work, *add_search(work, manifest, {"kind": "average+vad_average"}))
