"""Cues in words: levels and terciles from their definitions, planted truth, and odd corpora."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from bench.descriptions import description_scores
from cache.config import ExtractConfig
from cache.encoders.grid import SAMPLE_RATE
from cache.extract.extract import extract
from cache.lookup import FrameCache
from corpora.base.errors import AudioError, ConfigError, ManifestError
from corpora.base.work import Work
from corpora.manifest import Manifest, Utterance, read_manifest, write_manifest
from explain.config import ExplainConfig
from explain.cues.describe import GRID, WORDS, cue_levels, describe, descriptions
from explain.cues.descriptors import default_cues
from explain.explain import explain_recordings, explain_split
from explain.ragged import Bools, Floats
from explain.subject import read_texts
from finetune.assembly import build_model
from tests.finetune.corpus import make_corpus
from tests.finetune.searched import add_search

# Pitch (semitones above the speaker's own) and loudness (a factor) of made-up emotions.
CARRIED = {
    "anger": (5.0, 3.0),
    "happiness": (5.0, 0.3),
    "boredom": (-5.0, 3.0),
    "sadness": (-5.0, 0.3),
}


def plain_quantile(values: Floats, share: float) -> float:
    """Linear between the order statistics, as NumPy's default."""
    ordered = sorted(values.tolist())
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return float(ordered[below] + (place - below) * (ordered[above] - ordered[below]))


def plain_rate(loudness: Floats, voiced: Bools) -> float:
    """Peaks whose level falls by 2 dB to both sides before anything rises above them."""
    level = 30 * np.log10(loudness)
    peaks = []
    for at in range(1, len(level) - 1):
        if not (level[at - 1] < level[at] > level[at + 1] and voiced[at]):
            continue
        left = right = at
        while left > 0 and level[left - 1] <= level[at]:
            left -= 1
        while right < len(level) - 1 and level[right + 1] <= level[at]:
            right += 1
        deepest = max(level[left : at + 1].min(), level[at : right + 1].min())
        if level[at] - deepest >= 2:
            peaks.append(at)
    return (len(peaks) - 1) / ((peaks[-1] - peaks[0]) * 0.02) if len(peaks) > 2 else np.nan


@pytest.mark.parametrize("length", [1, 2, 3, 40, 200])
def test_levels_follow_from_their_definition(length: int) -> None:
    random = np.random.default_rng(length)
    values = random.standard_normal((length, 5)) + 30
    values[:, 1] = np.exp(random.standard_normal(length))
    unvoiced = random.random(length) < 0.4
    values[unvoiced, 0] = np.nan
    f0 = values[~unvoiced, 0]
    low, middle, high = (
        (plain_quantile(f0, share) for share in (0.2, 0.5, 0.8)) if len(f0) > 2 else [np.nan] * 3
    )
    expected = [middle, plain_quantile(values[:, 1], 0.8), plain_rate(values[:, 1], ~unvoiced)]
    np.testing.assert_allclose(cue_levels(values), [*expected, high - low], rtol=1e-12)


def utterance(name: str, speaker: str, split: str = "train") -> Utterance:
    return Utterance(name, Path(f"{name}.wav"), "", speaker=speaker, split=split)


def plain_word(value: float, others: Floats, words: tuple[str, ...]) -> str:
    low, high = plain_quantile(others, 1 / 3), plain_quantile(others, 2 / 3)
    return words[0] if value <= low else words[2] if value >= high else words[1]


def test_words_go_by_the_terciles_of_the_speaker() -> None:
    random = np.random.default_rng(0)
    speakers = [f"s{number % 4}" for number in range(40)]
    offset = np.array([10.0 * int(name[1]) for name in speakers])
    levels = random.standard_normal((40, 4)) + offset[:, None]
    levels[random.random((40, 4)) < 0.2] = np.nan
    said, strangers = descriptions(levels, [utterance(f"u{n}", s) for n, s in enumerate(speakers)])
    assert strangers == 0
    for row, speaker in enumerate(speakers):
        expected = []
        for cue, words in enumerate(WORDS):
            own = levels[[n for n, s in enumerate(speakers) if s == speaker], cue]
            if not np.isnan(levels[row, cue]):
                expected.append(plain_word(levels[row, cue], own[~np.isnan(own)], words))
        assert said[row] == ", ".join(expected)


def test_who_is_not_known_or_speaks_twice_is_compared_with_the_training_rows() -> None:
    rows = [utterance(f"t{n}", "known") for n in range(9)]
    rows += [utterance("x", "", "test"), utterance("y", "Unknown", "test")]
    rows += [utterance("z1", "twice", "test"), utterance("z2", "twice", "test")]
    values = np.array([*range(9), 100.0, -100.0, 4.0, 4.1])
    said, strangers = descriptions(np.repeat(values[:, None], 4, axis=1), rows)
    assert strangers == 4
    assert said[9:11] == [
        "high pitch, loud, fast, wide range",
        "low pitch, quiet, slow, narrow range",
    ]
    medium = "medium pitch, medium loudness, medium speed, medium range"
    assert said[11:] == [medium, medium]


def test_without_training_rows_strangers_get_no_words() -> None:
    rows = [utterance(f"u{n}", "", "test") for n in range(5)]
    assert descriptions(np.arange(20.0).reshape(5, 4), rows)[0] == [""] * 5


def test_what_does_not_vary_gets_no_word() -> None:
    levels = np.column_stack([np.full(6, 40.0), np.arange(6), np.arange(6), np.arange(6)])
    said, _ = descriptions(levels, [utterance(f"u{n}", "s") for n in range(6)])
    assert said[0] == "quiet, slow, narrow range"


def levels_of(waveform: Floats) -> Floats:
    return cue_levels(default_cues(waveform.astype(np.float32), GRID))


def test_what_has_no_voice_or_no_sound_has_no_such_cues() -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal(SAMPLE_RATE)
    np.testing.assert_array_equal(np.isnan(levels_of(noise)), [True, False, True, True])
    assert np.isnan(levels_of(np.zeros(SAMPLE_RATE))).all()
    # A tone that goes on and on has pitch and loudness, and no syllables.
    steady = 0.1 * np.sin(2 * np.pi * 150 * np.arange(SAMPLE_RATE) / SAMPLE_RATE)
    assert np.isnan(levels_of(steady)).tolist() == [False, False, True, False]


@pytest.mark.parametrize("rate", [3.0, 5.0])
def test_tones_have_the_levels_they_were_made_with(rate: float) -> None:
    time = np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE
    found = levels_of(tone(time, 200.0, 0.1, rate))
    assert found[0] == pytest.approx(12 * np.log2(200 / 27.5), abs=0.1)
    assert found[2] == pytest.approx(rate, rel=0.05)
    louder = levels_of(tone(time, 200.0, 0.2, rate))
    assert louder[1] / found[1] == pytest.approx(4 ** (1 / 3), rel=0.01)  # of twice the amplitude


def tone(time: Floats, pitch: float, amplitude: float, rate: float) -> Floats:
    """Harmonics of a voice that moves by a semitone, in syllables."""
    phase = 2 * np.pi * pitch * (time + 0.02 * np.sin(2 * np.pi * 0.5 * time) / (np.pi))
    voice = np.sum([np.sin(k * phase) / k for k in (1, 2, 3, 4)], axis=0)
    sound: Floats = amplitude * (0.55 + 0.45 * np.cos(2 * np.pi * rate * time)) * voice
    return sound


def carried(folder: Path, speakers: int, each: int) -> Manifest:
    """Utterances whose emotion is carried by pitch and loudness alone; all say the same."""
    random = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    utterances = []
    for speaker in range(speakers):
        pitch, amplitude = random.uniform(110, 220), random.uniform(0.02, 0.06)
        for label, (higher, louder) in CARRIED.items():
            for number in range(each):
                name = f"s{speaker}{label}{number}"
                hertz = pitch * 2 ** ((higher + random.standard_normal()) / 12)
                time = np.arange(round(random.uniform(1.0, 1.4) * SAMPLE_RATE)) / SAMPLE_RATE
                loud = amplitude * louder * random.uniform(0.8, 1.25)
                sound = tone(time, hertz, loud, random.uniform(3, 6))
                soundfile.write(folder / f"{name}.wav", sound, SAMPLE_RATE, subtype="FLOAT")
                split = ("train", "train", "dev", "test")[speaker % 4]
                utterances.append(
                    Utterance(
                        name,
                        folder / f"{name}.wav",
                        label,
                        text="It is eleven o'clock.",
                        speaker=f"s{speaker}",
                        split=split,
                    )
                )
    return Manifest(tuple(utterances), tuple(CARRIED), corpus="tones", synthetic=True)


def test_a_manifest_is_described_and_kept_and_described_again_alike(tmp_path: Path) -> None:
    work = Work(tmp_path)
    manifest = carried(tmp_path / "audio", 2, 3)
    silent = tmp_path / "audio" / "silent.wav"
    soundfile.write(silent, np.zeros(SAMPLE_RATE), SAMPLE_RATE)
    rows = (*manifest.utterances, Utterance("silent", silent, "anger", speaker="s0"))
    write_manifest(replace(manifest, utterances=rows), work.manifest)
    report = describe(work, work.manifest, work.manifest)
    found = read_manifest(work.manifest).utterances
    assert found[-1].description == ""
    assert "1 utterances have no voice to describe" in report.to_text()
    for one in found[:-1]:
        # A third of a speaker's utterances are medium, so not all of a half are high.
        assert ("high pitch" if CARRIED[one.label][0] < 0 else "low pitch") not in one.description
        assert ("loud," if CARRIED[one.label][1] < 1 else "quiet") not in one.description
    assert [replace(one, description="") for one in found] == [
        replace(one, line=0)
        for one in read_manifest(tmp_path / "manifest.before-describe-1.csv").utterances
    ]
    before = work.manifest.read_bytes()
    describe(work, work.manifest, work.manifest)
    assert work.manifest.read_bytes() == before
    assert len(list(tmp_path.glob("manifest.before-describe-*.csv"))) == 1


def test_a_corpus_without_speakers_goes_by_its_training_rows_or_is_refused(tmp_path: Path) -> None:
    work = Work(tmp_path)
    manifest = carried(tmp_path / "audio", 4, 1)
    nobody = tuple(replace(u, speaker="") for u in manifest.utterances)
    write_manifest(replace(manifest, utterances=nobody), work.manifest)
    said = describe(work, work.manifest, work.manifest).to_text()
    assert "16 utterances are of unknown speakers" in said.replace("\n", " ")
    nowhere = tuple(replace(u, split="") for u in nobody)
    write_manifest(replace(manifest, utterances=nowhere), work.manifest)
    with pytest.raises(ManifestError, match=r"nothing to compare with.*speaker.*`prepare split`"):
        describe(work, work.manifest, work.manifest)


def test_recordings_that_cannot_be_read_are_said(tmp_path: Path) -> None:
    work = Work(tmp_path)
    manifest = carried(tmp_path / "audio", 1, 1)
    manifest.utterances[0].audio.write_bytes(b"no sound")
    write_manifest(manifest, work.manifest)
    assert "1 recordings cannot be read" in describe(work, work.manifest, work.manifest).to_text()
    for one in manifest.utterances:
        one.audio.write_bytes(one.id.encode())
    with pytest.raises(AudioError, match="none of the 4 recordings can be read"):
        describe(work, work.manifest, work.manifest)


@pytest.mark.slow
def test_a_text_encoder_reads_the_emotion_that_only_cues_carry(tmp_path: Path) -> None:
    work = Work(tmp_path)
    write_manifest(carried(tmp_path / "audio", 8, 6), work.manifest)
    describe(work, work.manifest, work.manifest)
    manifest = read_manifest(work.manifest)
    extract(work, manifest, ExtractConfig(audio_encoder="tiny", text_encoder=""))
    found = {
        name: float(np.mean([one.macro_f1 for one in scores]))
        for name, scores in description_scores(
            FrameCache(work), manifest, "minilm", range(5)
        ).items()
    }
    # Four classes. A third of the utterances are medium in a cue that two values carry.
    assert found["text"] < 0.3
    assert found["description"] > 0.6
    assert found["text + description"] > 0.6
    assert found["description, dealt anew"] < 0.3
    assert found["text + description, dealt anew"] < 0.3
    assert found["all, dealt anew"] < found["audio"] + 0.05


def test_a_head_that_reads_descriptions_is_explained_and_goes_onto_no_recordings(
    tmp_path: Path,
) -> None:
    work = Work(tmp_path)
    rows = make_corpus(tmp_path, 24)
    said = tuple(replace(u, description=f"{u.label} heard") for u in rows.utterances)
    manifest = replace(rows, utterances=said)
    write_manifest(manifest, work.manifest)
    config = ExtractConfig(
        audio_encoder="tiny", text_encoder="tiny", device="cpu", describe="append"
    )
    extract(work, manifest, config)
    add_search(work, manifest, {"kind": "as"})
    found = explain_split(work, manifest, ExplainConfig(figures=False))
    words = {word.text for one in read_texts(found.subject) or () for word in one.words}
    assert {"heard)", "(anger"} <= words
    with pytest.raises(ConfigError, match=r"--describe append.*recordings by themselves have not"):
        explain_recordings(work, [rows.utterances[0].audio], ExplainConfig(figures=False))
    with pytest.raises(ConfigError, match="Score it with `evaluate`"):
        build_model(FrameCache(work), work.search, "cpu", "fp32")
    extract(work, manifest, replace(config, describe=""))
    with pytest.raises(ConfigError, match='describe: "append" -> absent'):
        explain_split(work, manifest, ExplainConfig(figures=False))
