"""`push`, with the hub replaced: what is sent, what is refused before anything is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from click.testing import CliRunner
from huggingface_hub.utils._paths import filter_repo_objects

from cli import main
from corpora.base.errors import ConfigError, EmopoolError, MissingStepError
from finetune.model import EmotionModel
from finetune.push import push
from tests.finetune.corpus import make_model


class Hub:
    """Stands for the hub: takes the files that the patterns let through."""

    def __init__(self) -> None:
        self.asked: dict[str, Any] = {}
        self.files: dict[str, bytes] = {}
        self.error: Exception | None = None

    def __call__(self, **_: Any) -> Hub:
        return self

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> str:
        if self.error is not None:
            raise self.error
        self.asked = {"repo_id": repo_id, "private": private, "exist_ok": exist_ok}
        return f"https://hub.example/{repo_id}"

    def upload_folder(
        self, *, repo_id: str, folder_path: Path, allow_patterns: list[str], commit_message: str
    ) -> None:
        every = (path for path in folder_path.rglob("*") if path.is_file())
        names = [path.relative_to(folder_path).as_posix() for path in every]
        kept = filter_repo_objects(names, allow_patterns=allow_patterns)
        self.files = {name: (folder_path / name).read_bytes() for name in kept}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    stand_in = Hub()
    monkeypatch.setattr(huggingface_hub, "HfApi", stand_in)
    return stand_in


@pytest.fixture
def model(tmp_path: Path, encoders: Path) -> Path:
    folder = tmp_path / "model"
    make_model(encoders, modalities=("audio",)).save_pretrained(folder, training="a,b\n")
    return folder


def test_what_arrives_is_the_model_and_its_card(model: Path, hub: Hub, tmp_path: Path) -> None:
    (model / ".DS_Store").write_bytes(b"of an editor")
    report = push(model, "anna/ser")
    assert hub.asked == {"repo_id": "anna/ser", "private": True, "exist_ok": True}
    assert report.data["url"] == "https://hub.example/anna/ser"
    assert set(report.data["files"]) == set(hub.files)
    assert {"README.md", "config.json", "head.safetensors", "training.csv"} < set(hub.files)
    assert not any(name.startswith(".") for name in hub.files)
    assert hub.files["README.md"].startswith(b"---\nlibrary_name: emopool")
    for name, data in hub.files.items():
        (tmp_path / "there" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "there" / name).write_bytes(data)
    EmotionModel.from_pretrained(tmp_path / "there")


def test_a_dry_run_lists_and_sends_nothing(model: Path, hub: Hub) -> None:
    ran = CliRunner().invoke(main, ["push", str(model), "anna/ser", "--public", "--dry-run"])
    assert ran.exit_code == 0, ran.output
    assert "would go to https://huggingface.co/anna/ser (public)" in ran.output
    assert "audio_encoder/model.safetensors" in ran.output
    assert not hub.asked
    assert not hub.files


def test_a_public_one_is_asked_for(model: Path, hub: Hub) -> None:
    ran = CliRunner().invoke(main, ["push", str(model), "anna/ser", "--public", "--json"])
    assert ran.exit_code == 0, ran.output
    assert json.loads(ran.output)["sent"] is True
    assert hub.asked["private"] is False


def test_a_refusal_of_the_hub_is_a_sentence(model: Path, hub: Hub) -> None:
    hub.error = OSError("401 Client Error\nmore")
    with pytest.raises(EmopoolError, match=r"\(401 Client Error\)\. Log in with `hf auth login`"):
        push(model, "anna/ser")


def test_what_is_no_model_or_was_altered_is_not_sent(model: Path, hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(MissingStepError, match="no model in"):
        push(tmp_path / "nothing", "anna/ser")
    with pytest.raises(ConfigError, match="expected owner/name"):
        push(model, "ser")
    (model / "training.csv").write_text("altered")
    with pytest.raises(ConfigError, match=r"training\.csv was altered"):
        push(model, "anna/ser")
    assert not hub.asked
