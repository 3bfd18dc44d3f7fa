"""A saved model is the model; anything else in its place is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

import pytest
import torch
from transformers import AutoModel

from corpora.base.errors import ConfigError, EmopoolError, FormatVersionError, MissingStepError
from corpora.base.files import new_stamp, under_way, write_json
from finetune.model import EmotionModel
from finetune.model_files import has_model
from tests.finetune.corpus import make_model

WAVEFORMS = [torch.rand(n, generator=torch.Generator().manual_seed(n)) - 0.5 for n in (5000, 9000)]
TEXTS = ["stop that now", ""]


def logits(model: EmotionModel) -> torch.Tensor:
    with torch.no_grad():
        return model.forward(WAVEFORMS, TEXTS)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, encoders: Path) -> Path:
    directory = tmp_path_factory.mktemp("saved") / "model"
    make_model(encoders, {"kind": "average+vad_average"}, {"audio": 2, "text": 1}).save_pretrained(
        directory, training="phase\n"
    )
    return directory


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


@pytest.mark.parametrize("kind", ["mqmha", "vad_average"])
@pytest.mark.parametrize("modalities", [("audio", "text"), ("audio",), ("text",)], ids="+".join)
def test_logits_before_saving_equal_those_after_loading(
    kind: str, modalities: tuple[str, ...], encoders: Path, tmp_path: Path
) -> None:
    model = make_model(encoders, {"kind": kind}, {"audio": 2, "text": 3}, modalities)
    before = logits(model)
    model.save_pretrained(tmp_path / "model")
    torch.testing.assert_close(
        logits(EmotionModel.from_pretrained(tmp_path / "model")), before, atol=0, rtol=0
    )


def test_a_loaded_model_saves_the_same_files_again(saved: Path, tmp_path: Path) -> None:
    EmotionModel.from_pretrained(saved).save_pretrained(tmp_path / "again", training="phase\n")
    first, second = (
        {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        for root in (saved, tmp_path / "again")
    )
    assert first == second


def test_loading_does_not_need_the_encoders_it_came_from(encoders: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(encoders, tmp_path / "encoders"))
    model = make_model(own)
    before = logits(model)
    model.save_pretrained(tmp_path / "model")
    shutil.rmtree(own)
    torch.testing.assert_close(
        logits(EmotionModel.from_pretrained(tmp_path / "model")), before, atol=0, rtol=0
    )


def test_an_encoder_folder_is_a_plain_transformers_directory(saved: Path) -> None:
    encoder = AutoModel.from_pretrained(saved / "audio_encoder", local_files_only=True)
    weights = EmotionModel.from_pretrained(saved).get_submodule("audio_encoder.model").state_dict()
    assert encoder.state_dict().keys() == weights.keys()
    assert all(torch.equal(value, weights[name]) for name, value in encoder.state_dict().items())


def test_provenance_is_kept(encoders: Path, tmp_path: Path) -> None:
    model = make_model(encoders, provenance={"trial": 7})
    model.provenance["phases"] = [2, 3]
    model.save_pretrained(tmp_path / "model")
    found = EmotionModel.from_pretrained(tmp_path / "model").provenance
    assert found == {"trial": 7, "phases": [2, 3]}


def remove(directory: Path) -> None:
    (directory / "text_encoder" / "tokenizer.json").unlink()


def alter(directory: Path) -> None:
    weights = directory / "audio_encoder" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)


def add(directory: Path) -> None:
    (directory / "text_encoder" / "modeling_custom.py").write_text("raise SystemExit\n")


def another_head(directory: Path) -> None:
    config = json.loads((directory / "config.json").read_text())
    config["head"]["mlp_width"] = 5
    write_json(directory / "config.json", config)


def no_description(directory: Path) -> None:
    config = json.loads((directory / "config.json").read_text())
    del config["head"]["pooling"]
    write_json(directory / "config.json", config)


def reversed_labels(directory: Path) -> None:
    """As a person might: the digest stays."""
    path = directory / "config.json"
    config = json.loads(path.read_text())
    config["labels"].reverse()
    path.write_text(json.dumps(config))


def labels_that_contradict(directory: Path) -> None:
    config = json.loads((directory / "config.json").read_text())
    config["id2label"] = {"0": "sadness", "1": "neutral", "2": "anger"}
    write_json(directory / "config.json", config)


def an_immense_head(directory: Path) -> None:
    config = json.loads((directory / "config.json").read_text())
    config["head"]["mlp_width"] = 10**9
    write_json(directory / "config.json", config)


def listed_code(directory: Path) -> None:
    """Code that the directory calls its own, with its digest."""
    code = directory / "audio_encoder" / "modeling_custom.py"
    code.write_text("raise SystemExit\n")
    config = json.loads((directory / "config.json").read_text())
    digest = hashlib.sha256(code.read_bytes()).hexdigest()
    config["files"]["audio_encoder/modeling_custom.py"] = digest
    write_json(directory / "config.json", config)


def an_encoder(directory: Path) -> None:
    shutil.copy(directory / "audio_encoder" / "config.json", directory / "config.json")


def another_version(directory: Path) -> None:
    config = json.loads((directory / "config.json").read_text())
    write_json(directory / "config.json", {**config, "version": 99})


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (remove, ConfigError, r"text_encoder/tokenizer\.json is missing"),
        (alter, ConfigError, r"audio_encoder/model\.safetensors was altered"),
        (add, ConfigError, r"text_encoder/modeling_custom\.py does not belong"),
        (another_head, ConfigError, r"head\.safetensors does not fit"),
        (an_immense_head, ConfigError, r"hidden\.weight is .*, expected \(1000000000, "),
        (reversed_labels, FormatVersionError, r"config\.json was altered.*Restore the file"),
        (labels_that_contradict, ConfigError, r"its id2label is .*'0': 'sadness'"),
        (no_description, ConfigError, "does not describe a model"),
        (listed_code, ConfigError, r"lists audio_encoder/modeling_custom\.py.*never read"),
        (an_encoder, ConfigError, "is no model of Emopool: .* that of wav2vec2-bert"),
        (another_version, FormatVersionError, "99"),
        (shutil.rmtree, MissingStepError, "no model in"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_damaged_model_is_refused_with_the_reason(
    damage: Callable[[Path], None], error: type[EmopoolError], message: str, copy: Path
) -> None:
    damage(copy)
    with pytest.raises(error, match=message):
        EmotionModel.from_pretrained(copy)


def test_a_readme_and_hidden_files_may_be_added(copy: Path) -> None:
    (copy / "README.md").write_text("# A model\n")
    (copy / ".gitattributes").write_text("*.safetensors filter=lfs\n")
    EmotionModel.from_pretrained(copy)


def test_an_earlier_model_is_replaced_whole(copy: Path, encoders: Path) -> None:
    make_model(encoders, modalities=("text",)).save_pretrained(copy)
    assert sorted(path.name for path in copy.iterdir()) == [
        "README.md",
        "config.json",
        "head.safetensors",
        "text_encoder",
    ]
    assert [path.name for path in copy.parent.iterdir()] == ["model"]


def test_a_folder_that_is_no_model_is_not_replaced(encoders: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "thesis.txt").write_text("the only copy")
    with pytest.raises(ConfigError, match="not replaced"):
        make_model(encoders).save_pretrained(tmp_path / "model")
    assert (tmp_path / "model" / "thesis.txt").read_text() == "the only copy"


def test_an_earlier_model_survives_a_save_that_fails(copy: Path, encoders: Path) -> None:
    before = logits(EmotionModel.from_pretrained(copy))
    model = make_model(encoders, provenance={"not JSON": object()})
    with pytest.raises(TypeError):
        model.save_pretrained(copy)
    torch.testing.assert_close(logits(EmotionModel.from_pretrained(copy)), before, atol=0, rtol=0)
    assert [path.name for path in copy.parent.iterdir()] == ["model"]


DEAD = "0000000000000000-1-00000000-elsewhere"  # a day ago


@pytest.mark.parametrize("new", [True, False])
def test_a_model_that_was_left_between_two_renames_is_put_in_place(new: bool, copy: Path) -> None:
    under_way(copy.with_name("other"), DEAD).mkdir()  # of a run that was killed before
    aside = under_way(copy, DEAD, "old")
    copy.rename(aside)
    if new:
        shutil.copytree(aside, under_way(copy, DEAD))
        (under_way(copy, DEAD) / "README.md").write_text("new")
    assert has_model(copy)
    assert [path.name for path in copy.parent.iterdir()] == ["model"]
    assert ((copy / "README.md").read_text() == "new") == new
    EmotionModel.from_pretrained(copy)


def test_what_others_have_under_way_stays(copy: Path) -> None:
    mine = under_way(copy, new_stamp())
    mine.mkdir()
    copy.rename(under_way(copy, new_stamp(), "old"))
    assert not has_model(copy)
    assert mine.is_dir()
    assert len(list(copy.parent.iterdir())) == 2


def test_code_that_an_encoder_asks_for_is_not_run(copy: Path) -> None:
    """Even where config.json is made to call it its own file."""
    path = copy / "audio_encoder" / "config.json"
    value = json.loads(path.read_text())
    value["auto_map"] = {"AutoModel": "modeling_custom.Model"}
    path.write_text(json.dumps(value))
    config = json.loads((copy / "config.json").read_text())
    config["files"]["audio_encoder/config.json"] = hashlib.sha256(path.read_bytes()).hexdigest()
    write_json(copy / "config.json", config)
    model = EmotionModel.from_pretrained(copy)
    assert type(model.get_submodule("audio_encoder.model")).__module__.startswith("transformers.")


def test_config_says_what_hubs_look_for_and_where_it_comes_from(saved: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    assert config["model_type"] == "emopool"
    assert config["architectures"] == ["EmotionModel"]
    assert list(config["id2label"].values()) == config["labels"]
    assert [config["label2id"][label] for label in config["labels"]] == [0, 1, 2]
    assert config["encoders"]["audio"]["folder"] == "audio_encoder"
    assert config["encoders"]["text"]["layers"] == 1


def test_a_hub_id_that_is_on_this_machine_needs_no_network(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[object, ...]] = []

    def cached(*words: object) -> str:
        asked.append(words)
        return str(saved / "config.json")

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", cached)
    monkeypatch.setattr("huggingface_hub.snapshot_download", None)
    found = EmotionModel.from_pretrained("someone/emotion", revision="v2")
    torch.testing.assert_close(logits(found), logits(EmotionModel.from_pretrained(saved)))
    assert asked == [("someone/emotion", "config.json", None, "v2")]


def test_a_hub_id_is_downloaded_whole_and_without_code(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, object] = {}

    def download(name: str, **options: object) -> str:
        asked.update(options, name=name)
        return str(saved)

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    EmotionModel.from_pretrained("someone/emotion")
    patterns = asked["allow_patterns"]
    assert isinstance(patterns, list)
    listed = json.loads((saved / "config.json").read_text())["files"]
    assert all(any(fnmatch(name, pattern) for pattern in patterns) for name in listed)
    assert not any(fnmatch("text_encoder/modeling.py", pattern) for pattern in patterns)
    assert not any(fnmatch("pytorch_model.bin", pattern) for pattern in patterns)
    assert asked["ignore_patterns"] == []


def test_a_hub_id_that_cannot_be_reached_is_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise ConnectionError("Connection refused")

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(EmopoolError, match=r"Connection refused.*finetune --best"):
        EmotionModel.from_pretrained("someone/emotion")
    with pytest.raises(MissingStepError, match="no such directory, and it is no hub id"):
        EmotionModel.from_pretrained("/no/such/model")
