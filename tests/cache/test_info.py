"""cache info, and what `extract` says about a recipe that is new."""

import json
from pathlib import Path

import pytest

from cache.extract.plan import recipe_changes
from cache.recipe import JSON, Recipe
from cache.stream import FrameStream
from cache.upkeep.info import Info, StreamInfo, cache_info
from cache.upkeep.verify import verify
from corpora.base.errors import MissingStepError
from corpora.base.terminal import bytes_text, count_text
from corpora.base.work import Work
from corpora.manifest import Manifest
from tests.cache.filled import GRID, SOURCES, audio_recipe, fill_stream, fill_work, parts
from tests.cache.recordings import change


@pytest.fixture
def filled(fast_path: Path) -> tuple[Work, Manifest]:
    return fill_work(fast_path)


def of(info: Info, stream: str) -> StreamInfo:
    (found,) = [one for one in info.streams if one.stream == stream]
    return found


def test_a_stream_is_counted_and_named(filled: tuple[Work, Manifest]) -> None:
    work, manifest = filled
    source = SOURCES["audio"]
    opened = FrameStream.open(work.features / source.stream())
    one = of(cache_info(work, manifest), source.stream())
    frames = int(opened.lengths().sum())
    assert (one.kind, one.encoder, one.layer) == ("audio", "facebook/w2v-bert-2.0", 3)
    assert one.fingerprint == source.recipe.fingerprint
    assert one.versions == {"transformers": "5.22.0", "soundfile": "0.14.0", "soxr": "1.1.0"}
    assert (one.utterances, one.frames, one.parts) == (6, frames, 2)
    assert one.nbytes == opened.nbytes + 2 * 4
    assert one.hours == pytest.approx(frames * 320 / 16_000 / 3600)
    assert (one.present, one.wanted, one.complete) == (6, 6, True)


def test_every_stream_is_there(filled: tuple[Work, Manifest]) -> None:
    info = cache_info(*filled)
    assert {one.kind for one in info.streams} == {"audio", "text", "energy", "speech"}
    assert all(one.last and one.complete for one in info.streams)
    text = info.to_text()
    for one in info.streams:
        assert one.stream in text
    for words in ("facebook/w2v-bert-2.0", "silero-vad", "rms dB", "transformers 5.22.0"):
        assert words in text
    assert of(info, SOURCES["text"].stream()).hours is None


def test_an_incomplete_stream_says_how_much_it_has(filled: tuple[Work, Manifest]) -> None:
    work, manifest = filled
    changed = change(manifest, 0, text="something else", start=0.1)
    changed = change(changed, 1, audio=work.root / "nowhere.wav")
    info = cache_info(work, changed)
    audio, text = of(info, SOURCES["audio"].stream()), of(info, SOURCES["text"].stream())
    assert (audio.present, audio.wanted, audio.complete) == (4, 5, False)
    # u0's old text is u4's too, so the new one makes five different texts.
    assert (text.present, text.wanted) == (4, 5)
    assert "4 of 5" in info.to_text()
    assert "1 recording of the manifest cannot be read" in info.to_text()


def test_without_a_manifest_nothing_is_said_of_one(filled: tuple[Work, Manifest]) -> None:
    info = cache_info(filled[0], None)
    assert all(one.complete is None for one in info.streams)
    assert "of the manifest" not in info.to_text()


def test_of_another_recipe_the_model_type_is_said(filled: tuple[Work, Manifest]) -> None:
    work, manifest = filled
    old = audio_recipe(transformers="5.21.0")
    fill_stream(work, manifest, old, "layer_3", inputs=slice(2))
    unasked = fill_stream(work, manifest, SOURCES["audio"].recipe, "layer_1")
    info = cache_info(work, manifest)
    one = of(info, f"{old.folder}/layer_3")
    assert (one.encoder, one.last, one.present) == ("wav2vec2-bert", False, 2)
    assert of(info, f"{unasked.parent.name}/layer_1").last is False


def test_cues_are_named_by_their_set(filled: tuple[Work, Manifest]) -> None:
    work, manifest = filled
    recipe = Recipe("cues", {"set": "egemaps", "grid": GRID})
    fill_stream(work, manifest, recipe, "values", dtype="float32")
    info = cache_info(work, manifest)
    one = of(info, f"{recipe.folder}/values")
    assert (one.encoder, one.last, one.complete) == ("egemaps set", False, True)
    assert "kept by explain" in info.to_text()
    assert verify(work).ok


def test_damage_and_foreign_files_are_said_and_do_not_stop_it(
    filled: tuple[Work, Manifest],
) -> None:
    work, manifest = filled
    (parts(work.features / SOURCES["audio"].stream())[0] / "zarr.json").unlink()
    (work.features / "notes.txt").touch()
    info = cache_info(work, manifest)
    one = of(info, SOURCES["audio"].stream())
    assert (one.parts, one.damaged, one.present) == (1, 1, 3)
    assert "1 part damaged" in info.to_text()
    assert "notes.txt" in info.to_text()


def test_json_holds_the_same(filled: tuple[Work, Manifest]) -> None:
    found = json.loads(json.dumps(cache_info(*filled).to_json()))
    (audio,) = [one for one in found["streams"] if one["stream"] == SOURCES["audio"].stream()]
    assert audio["complete"] is True
    assert audio["bytes"] > 0
    assert audio["encoder"] == "facebook/w2v-bert-2.0"


def test_no_cache_is_a_missing_step(fast_path: Path) -> None:
    with pytest.raises(MissingStepError, match="No features"):
        cache_info(Work(fast_path), None)


CHANGES: dict[str, tuple[dict[str, JSON], list[str]]] = {
    "weights": ({"weights": ["cd" * 32]}, ["weights: the encoder's files hold other numbers"]),
    "version": ({"transformers": "5.23.0"}, ["library version: transformers 5.22.0 -> 5.23.0"]),
    "dtype": ({"compute_dtype": "bf16"}, ["compute dtype: fp32 -> bf16"]),
    "front end": ({"front_end": {"stride": 4}}, ["front end: stride 2 -> 4"]),
    "decoder": (
        {"decoder": {"soundfile": "0.14.0", "soxr": "1.2.0"}},
        ["audio decoder: soxr 1.1.0 -> 1.2.0"],
    ),
    "configuration": (
        {"config": {"model_type": "wav2vec2-bert", "hidden_size": 8, "layers": 3}},
        ["encoder configuration: hidden_size 4 -> 8"],
    ),
    "two things": (
        {"weights": ["cd" * 32], "compute_dtype": "bf16"},
        ["compute dtype: fp32 -> bf16", "weights: the encoder's files hold other numbers"],
    ),
    "something of later": ({"windows": "30 s"}, ["windows: absent -> 30 s"]),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_changed_is_said_in_words(filled: tuple[Work, Manifest], name: str) -> None:
    fields, lines = CHANGES[name]
    assert recipe_changes(filled[0].features, audio_recipe(**fields)) == lines


def test_the_most_similar_recipe_is_compared(filled: tuple[Work, Manifest]) -> None:
    work, manifest = filled
    fill_stream(work, manifest, audio_recipe(compute_dtype="bf16"), "layer_3")
    wanted = audio_recipe(compute_dtype="bf16", transformers="5.23.0")
    assert recipe_changes(work.features, wanted) == [
        "library version: transformers 5.22.0 -> 5.23.0"
    ]


def test_a_whole_other_encoder_is_said_briefly(filled: tuple[Work, Manifest]) -> None:
    config: dict[str, JSON] = {f"field_{number}": number for number in range(20)}
    (line,) = recipe_changes(filled[0].features, audio_recipe(config=config))
    assert line.endswith("and 20 more")
    assert len(line) < 200


def test_nothing_is_said_of_a_recipe_that_is_there_or_the_first_of_its_kind(
    filled: tuple[Work, Manifest], tmp_path: Path
) -> None:
    work, _ = filled
    (work.features / "audio-notes").mkdir()
    assert recipe_changes(work.features, SOURCES["audio"].recipe) == []
    assert recipe_changes(work.features, Recipe("moments", {"of": "audio"})) == []
    assert recipe_changes(tmp_path / "features.zarr", SOURCES["audio"].recipe) == []


def test_amounts_are_readable() -> None:
    sizes = [0, 999, 1000, 9_994, 9_999, 123_456, 999_600, 1_500_000, 28_800_000_000, 3 * 10**12]
    assert [bytes_text(size) for size in sizes] == [
        *("0 bytes", "999 bytes", "1.00 kB", "9.99 kB", "10.0 kB", "123 kB", "1.00 MB"),
        *("1.50 MB", "28.8 GB", "3.00 TB"),
    ]
    assert count_text(1, "part") == "1 part"
    assert count_text(2000, "part") == "2,000 parts"
