"""Emotion over time: streams are whole recordings, stretches are `predict`, files say the same."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner, Result

from cache.audio import load_audio
from cli import main
from corpora.base.errors import AudioError, ConfigError
from corpora.manifest import Manifest
from corpora.stretches import Stretch, evenly
from corpora.textgrid import Interval, read_textgrid, write_textgrid
from corpora.utterance import Utterance
from finetune.assembly import assemble
from finetune.config import FinetuneConfig, PredictConfig
from finetune.finetune import run_finetune
from finetune.model import EmotionModel
from finetune.predict.answering import predict
from finetune.predict.over_time import LOT, over_time, speech_stretches
from finetune.predict.predict import open_predictor
from finetune.predict.prediction import Prediction
from finetune.predict.timeline import timeline_lines, write_timelines
from finetune.utterance_seconds import UtteranceSeconds, seconds_trained_on
from heads.head import Head, HeadConfig
from tests.cache.test_whisper import save_small
from tests.finetune.conftest import Searched
from tests.finetune.corpus import LABELS, PITCHES, RATE, make_model
from tests.finetune.searched import copy_work

LENGTHS = UtteranceSeconds(0.3, 0.5, 0.8)


@pytest.fixture(scope="module")
def model(encoders: Path) -> EmotionModel:
    return make_model(encoders, {"kind": "average+vad_average"}, modalities=("audio",))


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty seconds in two channels at 44.1 kHz: tones that change each second, and noise."""
    rate, generator = 44_100, np.random.default_rng(0)
    parts = []
    for number in range(40):
        time = np.arange(rate) / rate
        tone = 0.2 * np.sin(2 * np.pi * list(PITCHES.values())[number % 3] * time)
        parts.append(tone[:, None] + 0.1 * generator.standard_normal((rate, 2)))
    path = tmp_path_factory.mktemp("long") / "long.wav"
    soundfile.write(path, np.concatenate(parts), rate)
    return path


def utterance(path: Path) -> Utterance:
    return Utterance(str(path), path, "")


def pick(stretches: list[Stretch]) -> Any:
    return lambda *_: stretches


def run(*words: object) -> Result:
    return CliRunner().invoke(main, ["predict", *map(str, words)])


def values(answers: Any) -> np.ndarray:
    return np.array([list(one.probabilities.values()) for one in answers])


def test_stretches_are_answered_as_files_of_their_own(
    model: EmotionModel, recording: Path, tmp_path: Path
) -> None:
    whole = load_audio(recording)
    bounds = [(0.0, 1.5), (0.7, 3.0), (12.0, 12.1), (28.9, 31.3), (39.0, 40.0), (5.0, 25.0)]
    found = over_time([model], utterance(recording), pick([Stretch(*one) for one in bounds]))
    files = []
    for number, (start, end) in enumerate(sorted(bounds)):
        files.append(tmp_path / f"{number}.wav")
        cut = whole[round(start * RATE) : round(end * RATE)]
        soundfile.write(files[-1], cut, RATE, subtype="FLOAT")
    np.testing.assert_allclose(values(found.moments), values(model.predict(files)), atol=1e-5)
    assert [(one.start, one.end) for one in found.moments] == sorted(bounds)


def test_a_recording_in_one_window_is_what_predict_says(
    model: EmotionModel, recording: Path
) -> None:
    found = over_time([model], utterance(recording), lambda _, d, __: evenly(d, 1.0, 50.0))
    [one] = found.moments
    [said] = model.predict([recording])
    np.testing.assert_allclose(values([one]), values([said]), atol=1e-6)
    assert (one.start, one.end, one.label) == (0.0, 40.0, said.label)


def test_whisper_hears_each_window_as_a_file(tmp_path: Path, recording: Path) -> None:
    folder = save_small(tmp_path / "small")
    config = HeadConfig(LABELS, {"audio": 32}, {"audio": {"kind": "statistics"}}, mlp_width=8)
    whisper = assemble(Head(config, seed=1), {"audio": folder}, {"audio": 2})
    found = over_time([whisper], utterance(recording), lambda _, d, __: evenly(d, 3.0, 5.0))
    rows = [replace(utterance(recording), start=one.start, end=one.end) for one in found.moments]
    said = list(predict([whisper], rows))
    assert all(isinstance(one, Prediction) for one in said)
    # Cut before resampling there, behind it here: the edges differ.
    np.testing.assert_allclose(values(found.moments), values(said), atol=2e-3)
    with pytest.raises(AudioError, match="0 to 40 s is longer than the 30 s that are heard"):
        over_time([whisper], utterance(recording), pick([Stretch(0.0, 40.0)]))


def test_lots_and_gaps_change_nothing(
    model: EmotionModel, recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stretches = evenly(40.0, 0.1, 0.3)
    assert len(stretches) > LOT
    together = over_time([model], utterance(recording), pick(stretches))
    done: list[float] = []
    monkeypatch.setattr("finetune.predict.over_time.LOT", 7)
    apart = over_time([model], utterance(recording), pick(stretches), progress=done.append)
    np.testing.assert_allclose(values(apart.moments), values(together.moments), atol=1e-5)
    assert sum(done) == pytest.approx(1)


def test_an_ensemble_is_the_mean(model: EmotionModel, encoders: Path, recording: Path) -> None:
    other = make_model(encoders, {"kind": "statistics"}, modalities=("audio",))
    stretches = pick(evenly(40.0, 5.0, 2.0))
    both = over_time([model, other], utterance(recording), stretches)
    each = [over_time([one], utterance(recording), stretches).moments for one in (model, other)]
    expected = (values(each[0]) + values(each[1])) / 2
    np.testing.assert_allclose(values(both.moments), expected, atol=1e-6)


def test_speech_is_merged_over_short_gaps_and_clicks_are_left_out() -> None:
    chunk = 0.032
    speech = np.zeros(400, np.float32)
    for first, last in ((10, 60), (70, 100), (150, 155), (200, 400)):
        speech[first:last] = 0.9
    speech[300] = 0.6
    found = speech_stretches(speech, 400 * chunk)
    bounds = [edge for one in found for edge in (one.start, one.end)]
    assert bounds == pytest.approx([edge * chunk for edge in (10, 100, 200, 400)])
    parted = speech_stretches(speech, 400 * chunk, longest=4.0)
    assert [one.end for one in parted[:-1]] == pytest.approx([100 * chunk, 300 * chunk], abs=0.15)
    assert all(one.seconds <= 4.0 for one in parted)
    assert parted[1].end == parted[2].start
    assert speech_stretches(np.zeros(50, np.float32), 1.6) == []


def test_short_and_long_stretches_are_marked_in_every_file(
    model: EmotionModel, recording: Path, tmp_path: Path
) -> None:
    cut = [Stretch(1.0, 1.2, "a b"), Stretch(2.0, 2.5), Stretch(3.0, 4.0)]
    found = over_time([model], utterance(recording), pick(cut), lengths=LENGTHS)
    assert [one.length for one in found.moments] == ["short", "usual", "long"]
    names = [tmp_path / f"out{end}" for end in (".csv", ".jsonl", ".rttm", ".TextGrid", ".svg")]
    assert write_timelines(names, [found]) == names
    with names[0].open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["length"] for row in rows] == ["short", "usual", "long"]
    assert [float(row["p_anger"]) for row in rows] == pytest.approx(values(found.moments)[:, 0])
    lines = [json.loads(line) for line in names[1].read_text().splitlines()]
    assert [line["length"] for line in lines] == ["short", "usual", "long"]
    assert [line["probabilities"] for line in lines] == [o.probabilities for o in found.moments]
    fields = [line.split(" ") for line in names[2].read_text().splitlines()]
    assert [line[6] for line in fields] == ["short", "<NA>", "long"]
    assert [line[7] for line in fields] == [one.label for one in found.moments]
    assert all(len(line) == 10 for line in fields)
    grid = read_textgrid(names[3])
    tiers = {tier.name: tier.intervals for tier in grid.tiers}
    assert list(tiers) == ["emotion", "probability", "length", "name"]
    assert tiers["length"] == (
        Interval(0, 1, ""),
        Interval(1, 1.2, "short"),
        Interval(1.2, 2, ""),
        Interval(2, 2.5, "usual"),
        Interval(2.5, 3, ""),
        Interval(3, 4, "long"),
        Interval(4, 40, ""),
    )
    assert "hatched" in names[4].read_text() or "svg" in names[4].read_text()
    assert "short: 1 of 1" in "\n".join(timeline_lines(found))
    unknown = over_time([model], utterance(recording), pick(cut))
    assert {one.length for one in unknown.moments} == {"unknown"}


def test_overlapping_windows_stand_for_what_is_nearest(
    model: EmotionModel, recording: Path, tmp_path: Path
) -> None:
    found = over_time([model], utterance(recording), lambda _, d, __: evenly(d, 1.0, 3.0))
    assert [one.since for one in found.moments][:3] == [0.0, 2.0, 3.0]
    write_timelines([tmp_path / "a.TextGrid"], [found])
    [emotion, *_] = read_textgrid(tmp_path / "a.TextGrid").tiers
    assert [one.label for one in emotion.intervals] == [one.label for one in found.moments]
    twice = over_time([model], utterance(recording), pick([Stretch(0, 2), Stretch(1, 3)]))
    with pytest.raises(ConfigError, match="segments overlap, which a tier of a TextGrid cannot"):
        write_timelines([tmp_path / "a.TextGrid"], [twice])


def test_of_several_recordings_each_has_its_textgrid(
    model: EmotionModel, recording: Path, tmp_path: Path
) -> None:
    one = over_time([model], utterance(recording), pick([Stretch(0, 2)]))
    other = replace(one, audio=Path("other.wav"))
    found = write_timelines([tmp_path / "x.TextGrid"], [one, other])
    assert [path.name for path in found] == ["x-long.TextGrid", "x-other.TextGrid"]
    with pytest.raises(ConfigError, match="several recordings are called long"):
        write_timelines([tmp_path / "x.png"], [one, one])


def test_lengths_trained_on_are_those_of_the_training_recordings(
    searched: Searched, manifest: Manifest
) -> None:
    work = searched.work
    model = open_predictor(work, work.search, "cpu")
    found = seconds_trained_on(work, [model])
    seconds = [soundfile.info(u.audio).duration for u in manifest.in_split("train")]
    assert found is not None
    expected = np.percentile(seconds, (1, 50, 99))
    assert [found.shortest, found.median, found.longest] == pytest.approx(expected, abs=0.021)
    model.provenance["search_manifest_sha256"] = "another"
    assert seconds_trained_on(work, [model]) is None
    model.provenance["utterance_seconds"] = LENGTHS.to_json()
    assert seconds_trained_on(work, [model]) == LENGTHS


def test_the_command_writes_and_says(searched: Searched, recording: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    words = (recording, "--work", searched.work.root, "--every", 2, "--out", out)
    done = run(*words, "--out", tmp_path / "out.png")
    assert done.exit_code == 0, done.output
    assert "(the median utterance trained on) every 2 s, each heard by itself" in done.stderr
    assert "marked short or long" in done.stderr
    assert "long.wav: 0:40.00, 21 segments" in done.stdout
    assert len(out.read_text().splitlines()) == 22
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    lines = [json.loads(line) for line in run(*words, "--json").stdout.splitlines()]
    assert [line["start"] for line in lines][:3] == [0.0, 2.0, 4.0]
    assert list(lines[0])[:5] == ["recording", "start", "end", "from", "to"]


def test_what_is_wrong_is_one_sentence(searched: Searched, recording: Path, tmp_path: Path) -> None:
    work = ("--work", searched.work.root)
    quiet = tmp_path / "quiet.wav"
    soundfile.write(quiet, np.zeros(3 * RATE), RATE)
    done = run(quiet, recording, *work, "--segments", "vad")
    assert done.exit_code == 1
    assert f"{quiet}: no speech found in 3.0 s, so nothing is said." in done.stderr
    write_textgrid(quiet.with_suffix(".TextGrid"), {"words": [Interval(0, 3, "x")]}, 3.0)
    done = run(quiet, *work, "--segments", "textgrid", "--tier", "phones", "--json")
    assert done.exit_code == 1
    assert "no tier 'phones'" in json.loads(done.stdout)["error"]
    cuts = tmp_path / "cuts.csv"
    cuts.write_text("start,end\n0,1\n2,9\n")
    done = run(quiet, *work, "--segments", cuts)
    assert "the segment 2 to 9 s does not lie inside the recording" in done.stderr
    for bad, said in (
        (("--every", 1, "--segments", "vad"), "exclude one another"),
        (("--every", 1, "--out", "a.doc"), "its suffix says what is written"),
        (("--every", 1, "--window", 90), "longer than the 60 s that are heard at once"),
        (("--out", "a.csv"), "give --every or --segments"),
        (("--segments", "textgrid"), "go together"),
        (("--segments", "nowhere.csv"), "no such file"),
        (("--every", 0), "every must be more than 0"),
    ):
        done = run(quiet, *work, *bad)
        assert done.exit_code != 0
        assert said in done.stderr, bad


def test_texts_of_segments_are_read(searched: Searched, recording: Path, tmp_path: Path) -> None:
    cuts = tmp_path / "cuts.csv"
    cuts.write_text("start,end,text\n0,1,stop that now\n2,3,\n")
    done = run(recording, "--work", searched.work.root, "--segments", cuts, "--json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["text_source"] for line in lines] == ["given", "none"]
    assert lines[0]["text"] == "stop that now"


def test_a_fine_tuned_model_knows_what_it_was_trained_on(
    searched: Searched, manifest: Manifest, tmp_path: Path
) -> None:
    work = copy_work(searched.work, tmp_path / "work")
    run_finetune(work, manifest, FinetuneConfig(phases=(2,), epochs=1, lr2=1e-4))
    made = EmotionModel.from_pretrained(work.model).provenance["utterance_seconds"]
    assert 0.3 <= made["shortest"] <= made["median"] <= made["longest"] <= 0.8


def test_options_are_checked_in_python_too() -> None:
    with pytest.raises(ConfigError, match="exclude"):
        PredictConfig(every=1.0, segments="vad")


SCALES = {"arousal": (1.0, 7.0), "valence": (-1.0, 1.0)}


@pytest.mark.parametrize("labels", [LABELS, ()])
def test_attributes_over_time_are_those_of_the_windows_as_files(
    labels: tuple[str, ...], encoders: Path, recording: Path, tmp_path: Path
) -> None:
    pooling = {"audio": {"kind": "average"}}
    shape = HeadConfig(labels, {"audio": 128}, pooling, mlp_width=8, attributes=SCALES)
    rating = assemble(Head(shape, seed=1), {"audio": encoders / "tiny-audio"}, {"audio": 2})
    stretches = [Stretch(start, start + 2.0) for start in (0.0, 3.0, 12.0)]
    found = over_time([rating], utterance(recording), pick(stretches), lengths=LENGTHS)
    rows = [replace(utterance(recording), start=one.start, end=one.end) for one in stretches]
    for moment, said in zip(found.moments, predict([rating], rows), strict=True):
        assert isinstance(said, Prediction)
        # Cut before resampling there, behind it here: the edges differ.
        assert moment.attributes == pytest.approx(dict(said.attributes), abs=1e-3)
        assert moment.label == said.label
    means = {
        name: np.mean([one.attributes[name] for one in found.moments]) for name in found.scales
    }
    assert found.means() == pytest.approx(means)
    written = write_timelines([tmp_path / f"x{s}" for s in (".csv", ".jsonl", ".png")], [found])
    with written[0].open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [float(row["arousal"]) for row in table] == pytest.approx(
        [one.attributes["arousal"] for one in found.moments], abs=1e-4
    )
    lines = [json.loads(line) for line in written[1].read_text().splitlines()]
    assert lines[2]["attributes"] == pytest.approx(dict(found.moments[2].attributes))
    for name in ("label", "probability"):
        assert (name in table[0]) == (name in lines[0]) == bool(labels)
    assert written[2].stat().st_size > 10_000
    [grid] = write_timelines([tmp_path / "x.TextGrid"], [found])
    tiers = [tier.name for tier in read_textgrid(grid).tiers]
    assert tiers == [*["emotion", "probability"] * bool(labels), *SCALES, "length"]
    text = "\n".join(timeline_lines(found))
    assert f"mean arousal {means['arousal']:.2f}" in text
    if labels:
        write_timelines([tmp_path / "x.rttm"], [found])
    else:
        with pytest.raises(ConfigError, match="RTTM names labels, and arousal and valence are"):
            write_timelines([tmp_path / "x.rttm"], [found])
