"""`explain` as a whole, on a work folder with missing and broken alignments."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner

from cache.audio import load_audio
from cache.mapped import MappedFrames
from cli import main
from corpora.base.errors import ConfigError, ManifestError, MissingStepError
from corpora.base.files import write_json
from corpora.base.work import Work
from explain.config import ExplainConfig, parse_attended
from explain.explain import Explanation, explain_recordings, explain_split, other_head_note
from explain.load import choose_rows
from explain.report.write import SUMMARY
from explain.trust import EVIDENCE, kept_verdict
from finetune.assembly import assemble
from heads.records import load_head, save_head, trial_file
from tests.explain.conftest import SCRIPT, Explained

PLAIN = ExplainConfig(figures=False)


@pytest.fixture(scope="module")
def found(explained: Explained) -> Explanation:
    return explain_split(explained.work, explained.manifest, PLAIN)


def page(work: Work) -> str:
    return (work.explain / "report.html").read_text(encoding="utf-8")


def test_the_report_is_one_page_with_tables(explained: Explained, found: Explanation) -> None:
    text = page(explained.work)
    # What a reader asks for stands first, then the player, then the figures.
    places = [text.index(part) for part in ("Is it good?", 'id="player"', "Localisation</h2>")]
    assert places == sorted(places)
    assert "May the attention be believed?" in text
    with (explained.work.explain / "tables" / "localisation.csv").open(newline="") as file:
        assert next(csv.reader(file))[0] == "modality"
    summary = json.loads((explained.work.explain / "summary.json").read_text())
    assert summary["synthetic"] is True
    assert summary["methods"] == {"audio": "attention", "text": "attention"}


def test_what_is_missing_is_stated(explained: Explained, found: Explanation) -> None:
    text = found.to_text()
    assert "Without a TextGrid: 1 of" in text
    assert "TextGrids that cannot be used: 1" in text
    assert "No utterance is labelled neutral." in text
    assert "synthetic" in text


def test_a_transcript_that_is_markup_is_only_text(explained: Explained, found: Explanation) -> None:
    assert SCRIPT not in page(explained.work)
    assert any(u.text == SCRIPT for u in found.subject.utterances)


def test_columns_of_attention_sum_to_one(found: Explanation) -> None:
    offsets = found.subject.frames["audio"].offsets.tolist()
    weights = found.subject.weights["audio"]
    assert weights.shape[1] == 4
    for start, end in pairwise(offsets):
        assert weights[start:end].sum(dim=0).tolist() == pytest.approx([1] * 4, abs=1e-4)


def test_energy_speech_and_token_kinds_lie_on_the_frames(found: Explanation) -> None:
    subject = found.subject
    assert subject.energy is not None
    assert subject.token_kinds is not None
    assert subject.energy.shape == (subject.frames["audio"].total,)
    assert subject.frames["audio"].speech is not None
    assert subject.token_kinds.shape == (subject.frames["text"].total,)
    first = int(subject.frames["text"].offsets[0])
    assert int(subject.token_kinds[first]) == 0


def test_frames_that_do_not_fit_the_memory_are_read_from_disk(
    explained: Explained, found: Explanation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "work"
    shutil.copytree(explained.work.root, root, symlinks=True)
    monkeypatch.setattr("cache.mapped._free_memory", lambda: 0)
    mapped = explain_split(Work(root), explained.manifest, PLAIN)
    assert isinstance(mapped.subject.frames["audio"], MappedFrames)
    assert [one.title for one in mapped.sections] == [one.title for one in found.sections]
    for name, weights in found.subject.importance.items():
        assert torch.equal(mapped.subject.importance[name], weights)


def test_figures_are_png_and_svg_for_one_utterance(explained: Explained) -> None:
    one = next(u.id for u in explained.manifest.utterances if u.split == "test")
    config = ExplainConfig(ids=(one,))
    made = explain_split(explained.work, explained.manifest, config)
    folder = explained.work.explain / "items" / "figures"
    assert {p.name for p in folder.iterdir()} == {f"utterance-{one}.png", f"utterance-{one}.svg"}
    assert f"{one}: labelled" in made.to_text()
    assert "data:image/svg+xml" in (folder.parent / "report.html").read_text(encoding="utf-8")


def test_recordings_outside_the_manifest_are_explained(explained: Explained) -> None:
    audio = explained.manifest.utterances[0].audio
    made = explain_recordings(explained.work, [audio], PLAIN, text="stop that")
    assert made.subject.utterances[0].label == ""
    assert "heard as" in made.to_text()
    assert made.subject.energy is not None
    # The same encoders and head as on cached frames, which are stored in half precision.
    cached = explain_split(
        explained.work,
        explained.manifest,
        ExplainConfig(ids=(explained.manifest.utterances[0].id,), figures=False),
    )
    weights = made.subject.importance["audio"]
    assert weights.tolist() == pytest.approx(cached.subject.importance["audio"].tolist(), abs=1e-3)


def test_utterances_have_the_strength_of_what_was_heard(
    explained: Explained, found: Explanation, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Four utterances of an emotion were trained on.
    note = "No strength of emotion is told: no emotion can be ranked above neutral."
    assert note in found.to_text().replace("\n ", "")
    assert '"strengths":' not in page(explained.work)
    monkeypatch.setattr("heads.strength.LEAST_UTTERANCES", 2)
    made = explain_split(explained.work, explained.manifest, PLAIN)
    subject = made.subject
    assert subject.strength is not None
    assert '"strengths":{"anger":' in page(explained.work)
    vectors = torch.cat(list(subject.vectors.values()), dim=1).double().numpy()
    told = subject.strength(vectors)
    chosen = subject.utterances[0].id
    single = explain_split(
        explained.work, explained.manifest, ExplainConfig(ids=(chosen,), figures=False)
    )
    with (explained.work.explain / "items" / "tables" / "items.csv").open(newline="") as file:
        [row] = csv.DictReader(file)
    [item] = single.to_json()["items"]
    assert list(item["strengths"].values()) == pytest.approx(told[0], abs=1e-6)
    strength = item["strengths"].get(item["predicted"])
    assert row["strength"] == ("" if strength is None else str(strength))
    assert ("of strength" in single.to_text()) == (strength is not None)


def test_a_model_is_explained_on_recordings_alike(explained: Explained, tmp_path: Path) -> None:
    work = Work(tmp_path)
    head, record = load_head(explained.work.search)
    encoders = {kind: explained.work.encoders / f"tiny-{kind}" for kind in ("audio", "text")}
    made = {"corpus": "tones", "encoders": dict(record.origin.encoders)}
    assemble(head, encoders, record.origin.layers, provenance=made).save_pretrained(work.model)
    config = ExplainConfig(subject="model", limit=3, figures=False)
    by_model = explain_split(work, explained.manifest, config).subject
    config = ExplainConfig(limit=3, figures=False)
    by_head = explain_split(explained.work, explained.manifest, config).subject
    assert by_model.kind == "model"
    assert [u.id for u in by_model.utterances] == [u.id for u in by_head.utterances]
    assert by_model.utterances[0].label == by_head.utterances[0].label
    expected = pytest.approx(by_head.importance["text"].tolist(), abs=1e-3)
    assert by_model.importance["text"].tolist() == expected


def test_a_kept_head_with_attention_is_named_where_the_best_one_has_none(
    explained: Explained, tmp_path: Path
) -> None:
    head, record = load_head(explained.work.search)
    for number, score in ((3, 0.4), (7, 0.6)):
        path = trial_file(tmp_path, number)
        kept = replace(record, trial=number, dev_macro_f1=score)
        save_head(path, path.with_suffix(".safetensors"), head, kept)
    plain = replace(record.head, pooling={name: {"kind": "max"} for name in record.head.pooling})
    assert other_head_note(record, tmp_path) == ""
    assert "--trial 7" in other_head_note(replace(record, head=plain), tmp_path)
    assert other_head_note(replace(record, head=plain), tmp_path / "none") == ""


def test_a_limit_draws_the_same_rows_again_and_keeps_their_order(explained: Explained) -> None:
    first = choose_rows(explained.manifest, "train", limit=4, seed=1).utterances
    assert choose_rows(explained.manifest, "train", limit=4, seed=1).utterances == first
    order = [u.id for u in explained.manifest.utterances]
    assert [order.index(u.id) for u in first] == sorted(order.index(u.id) for u in first)


def test_mistakes_are_told(explained: Explained, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no utterance 'nobody'"):
        choose_rows(explained.manifest, "test", ids=["nobody"])
    with pytest.raises(MissingStepError, match="neither a searched head nor"):
        explain_split(Work(tmp_path), explained.manifest, PLAIN)
    with pytest.raises(ConfigError, match="more than 0 and at most 1"):
        ExplainConfig(attended=1.5)
    with pytest.raises(ValueError, match="`top` or a share"):
        parse_attended("most")
    assert parse_attended("top") is None


def test_the_command_prints_json(explained: Explained) -> None:
    result = CliRunner().invoke(
        main, ["explain", "--work", str(explained.work.root), "--json", "--no-plots"]
    )
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["sections"]["Localisation"]["audio"]["gini"] >= 0


def test_the_command_refuses_a_recording_and_an_utterance_at_once(explained: Explained) -> None:
    audio = str(explained.manifest.utterances[0].audio)
    result = CliRunner().invoke(main, ["explain", audio, "--utterance", "u000"])
    assert result.exit_code == 2
    assert "exclude one another" in result.output


def test_long_recordings_are_shown_over_time(
    explained: Explained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [u for u in explained.manifest.utterances if u.label != "neutral"][:8]
    sound = np.concatenate([load_audio(u.audio) for u in rows])
    path = tmp_path / "long.wav"
    soundfile.write(path, sound, 16_000)
    made = explain_recordings(explained.work, [path], ExplainConfig())
    seconds = len(sound) / 16_000
    [section] = [one for one in made.sections if one.title == "Over time"]
    [table] = section.tables
    assert table.rows[-1][2] == pytest.approx(seconds)
    assert {row[4] for row in table.rows} <= {"usual", "short", "long"}
    assert "each heard by itself" in made.to_text()
    folder = explained.work.explain / "items"
    assert (folder / "figures" / "over-time-long.png").is_file()
    assert (folder / "tables" / "over-time.csv").is_file()
    assert [u.id for u in made.subject.utterances] == ["long"]
    # One that the encoder does not take at once is explained by its most telling windows.
    monkeypatch.setattr("explain.explain.WHOLE_SECONDS", 2.0)
    made = explain_recordings(explained.work, [path], PLAIN)
    parts = made.subject.utterances
    assert all(0 <= u.start < u.end <= seconds for u in parts if u.start is not None and u.end)
    [section] = [one for one in made.sections if one.title == "Over time"]
    assert {item["predicted"] for item in made.summary["items"]} == set(section.data["long"])
    assert "longer than the 2 s that are heard at once" in made.to_text()


def test_short_recordings_have_no_curve(explained: Explained) -> None:
    audio = explained.manifest.utterances[0].audio
    made = explain_recordings(explained.work, [audio], PLAIN)
    assert not [one for one in made.sections if one.title == "Over time"]


def test_what_answers_rest_on_is_written(
    explained: Explained, found: Explanation, tmp_path: Path
) -> None:
    [section] = [one for one in found.sections if one.title == EVIDENCE]
    assert section.data["utterances"] == len(found.subject)
    # Three speakers cannot tell whether attention may be believed.
    assert any(text.startswith("No sentence is made: it is not shown") for text in section.text)
    with (explained.work.explain / "tables" / "evidence.csv").open(newline="") as file:
        assert {row["sentence"] for row in csv.DictReader(file)} == {""}
    one = found.subject.utterances[0].id
    path = tmp_path / "evidence.jsonl"
    config = replace(PLAIN, ids=(one,), evidence=path)
    single = explain_split(explained.work, explained.manifest, config)
    assert path in single.written
    [line] = path.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)] == single.summary["sections"][EVIDENCE]["answers"]
    assert json.loads(line)["none_because"] == "attention may not be believed"
    assert "cannot be said with so few speakers" in single.to_text()
    # The card of its page says what the split's tests found, how sure that is, and what to do.
    text = (explained.work.explain / "items" / "report.html").read_text(encoding="utf-8")
    for said in ("last explanation of a split, on the test split", "How sure: ", "What to do: "):
        assert said in text


def test_single_recordings_go_by_the_verdict_on_a_split(
    explained: Explained, tmp_path: Path
) -> None:
    root = tmp_path / "work"
    shutil.copytree(explained.work.root, root, symlinks=True)
    shutil.rmtree(root / "explain", ignore_errors=True)
    work, config = Work(root), replace(PLAIN, split="all")
    audio = explained.manifest.utterances[0].audio
    first = explain_recordings(work, [audio], PLAIN, text="stop that")
    assert "run `explain` on a split first" in first.to_text()
    explain_split(work, explained.manifest, config)
    # As if attention had been found to point to what decides.
    summary = json.loads((work.explain / SUMMARY).read_text(encoding="utf-8"))
    summary["sections"]["Faithfulness"]["audio"] |= {"dropping_tells": True, "verdict": "Good."}
    write_json(work.explain / SUMMARY, summary)
    made = explain_recordings(work, [audio], PLAIN, text="stop that")
    assert "On the whole manifest: Good." in " ".join(made.to_text().split())
    [answer] = made.summary["sections"][EVIDENCE]["answers"]
    assert {level["of"] for level in answer["cues"]} == {"corpus"}
    ids = tuple(u.id for u in explained.manifest.utterances if u.label == "neutral")
    made_of_rows = explain_split(work, explained.manifest, replace(PLAIN, ids=ids))
    answers = made_of_rows.summary["sections"][EVIDENCE]["answers"]
    assert "speaker" in {level["of"] for answer in answers for level in answer["cues"]}
    head, _ = load_head(work.search)
    with torch.no_grad():
        next(head.parameters()).add_(1e-3)
    assert kept_verdict(work.explain / SUMMARY, replace(made.subject, head=head))[1] is None
