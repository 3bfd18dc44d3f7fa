"""The kept logistic regression: only for the rows and streams it was fitted on."""

from __future__ import annotations

from pathlib import Path

from heads.dataset import VectorStore
from heads.reference import logistic_reference, read_reference, write_reference
from tests.heads.searches import make_origin
from tests.heads.synthetic import make_dataset


def test_a_reference_of_other_rows_is_not_taken_for_this_one(tmp_path: Path) -> None:
    path = tmp_path / "reference.json"
    reference = logistic_reference(VectorStore(make_dataset()), ["audio"])
    write_reference(path, reference, make_origin())
    assert read_reference(path) == reference
    assert read_reference(path, make_origin()) == reference
    assert read_reference(path, make_origin(manifest_sha256="1" * 64)) is None
    assert read_reference(path, make_origin(streams={"audio": "other"})) is None
