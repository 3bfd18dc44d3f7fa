"""The layer is chosen by training utterances, and nothing else has a say."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from cache.config import Auto, ExtractConfig
from cache.encoders.audio_encoder import AudioEncoder
from cache.encoders.names import resolve_encoder
from cache.last_extraction import extract_command, read_failures
from cache.lookup import FrameCache
from cli import main
from corpora.base.errors import AudioError, ManifestError, UnreadableLayersError
from corpora.base.work import Work
from corpora.manifest import Manifest, Utterance, write_manifest
from heads import extraction
from heads.extraction import Extracted, extract
from heads.layer_choice import (
    SAMPLE,
    LayerChoice,
    LayerScore,
    draw_sample,
    rank_layers,
    read_choices,
    sample_digest,
)
from heads.load import load_dataset
from tests.finetune.corpus import make_corpus

TINY = ExtractConfig(
    audio_encoder="tiny",
    text_encoder="",
    audio_layers=Auto(),
    device="cpu",
)


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("encoders")
    for kind in ("audio", "text"):
        resolve_encoder("tiny", kind, root)
    return root / "encoders"


@pytest.fixture
def work(tmp_path: Path, encoders: Path) -> Work:
    root = tmp_path / "work"
    root.mkdir()
    (root / "encoders").symlink_to(encoders)
    return Work(root)


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return make_corpus(tmp_path)


def people(count: int, speakers: int, labels: int = 3) -> list[Utterance]:
    return [
        Utterance(
            id=f"u{n:04}",
            audio=Path(f"u{n}.wav"),
            label="abcdefgh"[n % labels],
            speaker=f"s{n // labels % speakers}" if speakers else "",
            split="train",
        )
        for n in range(count)
    ]


def planted(sample: list[Utterance], layer: int) -> NDArray[np.float32]:
    """Vectors in which layer 2 carries the class most clearly, layer 3 a little, 1 not at all."""
    strength = {1: 0.0, 2: 2.0, 3: 0.7}[layer]
    rng = np.random.default_rng(layer)
    centres = np.random.default_rng(9).standard_normal((8, 20))
    labels = ["abcdefgh".index(u.label) for u in sample]
    noise = rng.standard_normal((len(sample), 20))
    return (noise + strength * centres[labels]).astype(np.float32)


def test_the_layer_that_carries_the_class_comes_first() -> None:
    sample = people(90, 10)
    scores, folds, chance = rank_layers((1, 2, 3), lambda layer: planted(sample, layer), sample)
    choice = LayerChoice("audio", "it", "r", "", 90, 10, folds, chance, scores)
    assert choice.best(3) == (2, 3, 1)
    assert folds == 5
    assert scores[1].interval is not None
    assert scores[1].interval[0] <= scores[1].macro_f1 <= scores[1].interval[1]
    assert "No layer is surely better" not in choice.to_text((2,))
    assert LayerChoice.from_json(json.loads(json.dumps(choice.to_json()))) == choice


def test_a_class_that_follows_the_speaker_tells_nothing() -> None:
    """Speakers are held out as wholes: what only tells them apart does not count."""
    sample = people(120, 12)
    rng = np.random.default_rng(0)
    voices = rng.standard_normal((12, 20)) * 5
    numbers = [int(u.speaker[1:]) for u in sample]
    shuffled = [replace(u, label="abc"[n % 3]) for u, n in zip(sample, numbers, strict=True)]
    x = (voices[numbers] + rng.standard_normal((120, 20))).astype(np.float32)
    scores, _, chance = rank_layers((0,), lambda _: x, shuffled)
    assert scores[0].macro_f1 < 0.6
    assert chance == pytest.approx(1 / 3, abs=0.02)


def test_of_equals_the_lower_layer_is_better() -> None:
    scores = tuple(LayerScore(layer, 0.5, None) for layer in range(4))
    assert LayerChoice("audio", "it", "r", "", 9, 3, 3, 0.3, scores).best(2) == (0, 1)


def test_a_fold_that_leaves_one_label_is_nothing_to_rank_by() -> None:
    sample = [replace(u, label="ab"[u.speaker == "s0"]) for u in people(9, 3)]
    with pytest.raises(ManifestError, match="have one label left"):
        rank_layers((0,), lambda _: np.zeros((9, 4), np.float32), sample)


@pytest.mark.parametrize("sample", [people(9, 1), people(9, 3, labels=1), []])
def test_without_two_speakers_and_two_labels_there_is_nothing_to_rank_by(
    sample: list[Utterance],
) -> None:
    with pytest.raises(ManifestError, match="expected at least two of each"):
        rank_layers((0,), lambda _: np.zeros((len(sample), 4), np.float32), sample)


def test_the_sample_is_training_utterances_with_labels_and_stays_when_rows_come() -> None:
    utterances = people(3 * SAMPLE, 40)
    rows = [
        replace(u, split=("train", "train", "dev", "test")[n % 4], label=u.label if n % 7 else "")
        for n, u in enumerate(utterances)
    ]
    keys = {u.id: {"audio": f"{hash(u.id) & 0xFFFFFFFF:08x}"} for u in rows}
    sample = draw_sample(rows, keys)
    assert len(sample) == SAMPLE
    assert all(u.split == "train" and u.label for u in sample)
    again = draw_sample(rows[: 2 * SAMPLE], keys)
    shared = {u.id for u in again} & {u.id for u in rows[: 2 * SAMPLE]}
    assert {u.id for u in sample} & {u.id for u in rows[: 2 * SAMPLE]} <= shared


def test_the_digest_follows_labels_speakers_and_contents_alone() -> None:
    sample = people(6, 3)
    keys = {u.id: {"audio": u.id} for u in sample}
    before = sample_digest(sample, keys)
    assert sample_digest([replace(u, split="dev") for u in reversed(sample)], keys) == before
    for changed in (
        [replace(sample[0], label="z"), *sample[1:]],
        [replace(sample[0], speaker="other"), *sample[1:]],
    ):
        assert sample_digest(changed, keys) != before
    assert sample_digest(sample, {**keys, "u0000": {"audio": "else"}}) != before


def run(work: Work, manifest: Manifest, config: ExtractConfig = TINY, **options: bool) -> Extracted:
    return extract(work, manifest, config, foreign=options.get("foreign", False))


def test_frames_of_the_chosen_layer_alone_are_kept(work: Work, manifest: Manifest) -> None:
    found = run(work, manifest)
    choice = found.choices["audio"]
    source = FrameCache(work).extraction.source("audio")
    assert source.layers == choice.best()
    assert source.best == choice.best()[0]
    folder = work.features / source.recipe.folder
    kept = sorted(path.name for path in folder.glob("layer_*"))
    assert kept == [f"layer_{choice.best()[0]}"]
    assert choice.utterances == len(manifest.in_split("train"))
    assert "chosen" in found.to_text()
    assert load_dataset(FrameCache(work), manifest).layers == {"audio": choice.best()[0]}
    assert found.outcome.report is not None
    assert sum(found.outcome.report.added.values()) > 0


def test_test_utterances_have_no_part_in_the_choice(work: Work, manifest: Manifest) -> None:
    """Their labels may be anything, and their recordings are not encoded for it."""
    first = run(work, manifest).choices["audio"]
    mixed = [
        u if u.split == "train" else replace(u, label=manifest.labels[n % 3])
        for n, u in enumerate(manifest.utterances)
    ]
    again = run(work, replace(manifest, utterances=tuple(mixed))).choices["audio"]
    assert again == first


def test_a_choice_stays_until_the_training_rows_change(work: Work, manifest: Manifest) -> None:
    first = run(work, manifest).choices["audio"]
    again = run(work, manifest)
    assert again.outcome.report is None
    assert again.choices["audio"] == first
    fewer = replace(manifest, utterances=manifest.utterances[6:])
    assert run(work, fewer).choices["audio"].sample != first.sample
    assert read_choices(work.layers).rankings[first.recipe].sample != first.sample


def test_another_manifest_reads_the_layers_that_were_chosen(work: Work, manifest: Manifest) -> None:
    first = run(work, manifest).choices["audio"]
    foreign = tuple(replace(u, split="test") for u in manifest.utterances[:9])
    found = run(work, replace(manifest, utterances=foreign), foreign=True)
    assert found.choices["audio"] == first
    assert FrameCache(work).extraction.source("audio").layers == first.best()


def test_where_no_recording_can_be_read_it_is_the_recordings_that_are_named(
    work: Work, manifest: Manifest, tmp_path: Path
) -> None:
    absent = tuple(replace(u, audio=tmp_path / "nowhere.wav") for u in manifest.utterances)
    with pytest.raises(AudioError, match=r"none of the \d+ recordings.*nowhere\.wav"):
        run(work, replace(manifest, utterances=absent))


def test_several_layers_can_be_kept(work: Work, manifest: Manifest) -> None:
    found = run(work, manifest, replace(TINY, audio_layers=Auto(2)))
    best = found.choices["audio"].best(2)
    source = FrameCache(work).extraction.source("audio")
    assert source.layers == tuple(sorted(best))
    assert source.usual_layer == best[0]
    dataset = load_dataset(FrameCache(work), manifest, others=True)
    assert dataset.layers == {"audio": best[0]}
    assert set(dataset.others["audio"]) == {best[1]}
    assert "--audio-layers auto:2" in extract_command(work.root)


def test_layers_that_were_there_before_stay(work: Work, manifest: Manifest) -> None:
    run(work, manifest, replace(TINY, audio_layers=(0, 3)))
    found = run(work, manifest)
    folder = work.features / FrameCache(work).extraction.source("audio").recipe.folder
    kept = {path.name for path in folder.glob("layer_*")}
    assert kept == {"layer_0", "layer_3", f"layer_{found.choices['audio'].best()[0]}"}


def test_frames_of_a_ranking_that_was_killed_go_with_the_next_run(
    work: Work, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(extraction, "rank_layers", stop)
        with pytest.raises(KeyboardInterrupt):
            run(work, manifest)
    assert len(list(work.features.glob("audio-*/layer_*"))) == 4
    found = run(work, manifest)
    assert [path.name for path in work.features.glob("audio-*/layer_*")] == [
        f"layer_{found.choices['audio'].best()[0]}"
    ]
    assert read_choices(work.layers).temporary == ()


def test_frames_that_were_asked_for_since_stay(
    work: Work, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(extraction, "rank_layers", stop)
        with pytest.raises(KeyboardInterrupt):
            run(work, manifest)
    run(work, manifest, replace(TINY, audio_layers="all"))
    run(work, manifest)
    assert len(list(work.features.glob("audio-*/layer_*"))) == 4


def test_where_frames_of_all_layers_do_not_fit_moments_do(
    work: Work, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = run(work, manifest).choices["audio"]
    other = Work(work.root.parent / "other")
    other.root.mkdir()
    (other.root / "encoders").symlink_to(work.root / "encoders")
    monkeypatch.setattr(extraction, "_MOST_BYTES", 0)
    found = run(other, manifest)
    assert found.choices["audio"] == expected
    folder = other.features / expected.recipe
    assert [p.name for p in folder.glob("layer_*")] == [f"layer_{expected.best()[0]}"]


def test_both_encoders_are_ranked(work: Work, manifest: Manifest) -> None:
    both = replace(TINY, text_encoder="tiny", text_layers=Auto())
    found = run(work, manifest, both)
    assert list(found.choices) == ["audio", "text"]
    assert found.choices["text"].scores != found.choices["audio"].scores


@pytest.mark.parametrize("change", [{"label": ""}, {"split": "test"}, {"speaker": "one"}])
def test_where_nothing_can_be_chosen_the_last_is_taken_and_it_says_so(
    work: Work, manifest: Manifest, change: dict[str, str]
) -> None:
    rows = tuple(replace(u, **change) for u in manifest.utterances)  # type: ignore[arg-type]
    found = run(work, replace(manifest, utterances=rows))
    assert found.choices == {}
    assert "The data could not choose the audio layer" in found.to_text()
    assert FrameCache(work).extraction.source("audio").layers == (3,)
    folder = work.features / FrameCache(work).extraction.source("audio").recipe.folder
    assert [path.name for path in folder.glob("layer_*")] == ["layer_3"]


def test_an_encoder_whose_layers_cannot_be_read_gives_its_last(
    work: Work, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(encoder: AudioEncoder, act: Callable[[], Any], layers: Sequence[int]) -> object:
        if list(layers) != [encoder.layers]:
            raise UnreadableLayersError("its layers are no list")
        return read(encoder, act, layers)

    read = AudioEncoder.read_layers
    monkeypatch.setattr(AudioEncoder, "read_layers", refuse)
    found = run(work, manifest, replace(TINY, text_encoder="tiny", text_layers=Auto()))
    assert "its layers are no list" in found.to_text()
    assert list(found.choices) == ["text"]
    assert FrameCache(work).extraction.source("audio").layers == (3,)


def test_a_recording_that_cannot_be_read_is_left_out_of_the_sample(
    work: Work, manifest: Manifest
) -> None:
    first = manifest.in_split("train")[0]
    first.audio.write_bytes(b"no sound")
    found = run(work, manifest)
    assert found.choices["audio"].utterances == len(manifest.in_split("train")) - 1
    assert first.id in read_failures(work.failures)


def test_the_command_chooses_by_default_and_says_what(work: Work, manifest: Manifest) -> None:
    write_manifest(manifest, work.manifest)
    command = ["extract", "--audio-encoder", "tiny", "--text-encoder", "", "--device", "cpu"]
    result = CliRunner().invoke(main, [*command, "--work", str(work.root)])
    assert result.exit_code == 0, result.output
    assert "Layers of the audio encoder tiny, by 18 training utterances of 6 speakers" in (
        result.output
    )
    again = CliRunner().invoke(main, [*command, "--work", str(work.root), "--json"])
    value = json.loads(again.stdout)
    assert value["layer_choices"]["audio"]["best"] in range(4)
    assert len(value["layer_choices"]["audio"]["scores"]) == 4
    last = CliRunner().invoke(main, [*command, "--work", str(work.root), "--audio-layers", "last"])
    assert "tiny, layer 3" in last.output
    assert "Layers of the audio encoder" not in last.output


def test_a_protocol_can_name_the_layers(work: Work, manifest: Manifest) -> None:
    write_manifest(replace(manifest, protocol="leygue2025"), work.manifest)
    command = ["extract", "--audio-encoder", "tiny", "--text-encoder", "", "--device", "cpu"]
    result = CliRunner().invoke(main, [*command, "--work", str(work.root)])
    assert "Protocol leygue2025 sets: audio layers last" in result.output
    assert "tiny, layer 3" in result.output


def test_keys_of_the_sample_are_those_of_the_manifest(work: Work, manifest: Manifest) -> None:
    keys = FrameCache(work).keys(manifest.utterances)
    assert {u.id for u in draw_sample(manifest.utterances, keys)} == {
        u.id for u in manifest.in_split("train")
    }
