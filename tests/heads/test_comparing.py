"""The comparison: resumable, chosen on dev alone, its numbers those of its predictions."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from sklearn.metrics import accuracy_score, f1_score, recall_score

import heads.training
from corpora.base.errors import CacheError, ConfigError, ManifestError
from corpora.base.files import read_json
from heads.bootstrap import paired_differences
from heads.compare.compare import ROWS
from heads.compare.comparison import CompareReport
from heads.compare.division import Division, refuse_torn_speakers
from heads.compare.lines import Line
from heads.compare.outcomes import choose_tuning
from heads.compare.passes import FORMAT, VERSION, KeptRuns, RunKey
from heads.compare.rendering import readable, terminal_text
from heads.compare.rows import CAVEAT
from heads.config import CompareConfig, Tuning, parse_rates
from heads.dataset import Dataset
from heads.metrics import SCORES
from heads.predict import predict
from heads.records import load_head
from heads.vector_store import VectorStore
from tests.heads.comparisons import (
    EPOCHS,
    RATES,
    SEEDS,
    in_folds,
    many_speakers,
    small_comparison,
)
from tests.heads.searches import make_origin, relabelled, small_dataset

SCORERS, NORMS = CompareConfig.scorer_rates, CompareConfig.input_norms
FIRST = Tuning(RATES[0], SCORERS[0], NORMS[0])
LABELLED = ("macro_f1", "uar", "accuracy")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[CompareReport, Path]:
    folder = tmp_path_factory.mktemp("work") / "compare"
    return small_comparison(folder), folder


@pytest.fixture(scope="module")
def folded(tmp_path_factory: pytest.TempPathFactory) -> tuple[CompareReport, Path]:
    folder = tmp_path_factory.mktemp("folds") / "compare"
    dataset = in_folds(many_speakers())
    return small_comparison(folder, dataset=dataset, poolings=("statistics",)), folder


def lines_of(report: CompareReport) -> list[Line]:
    return [line for table in report.tables for line in table.lines]


def heads_of(report: CompareReport) -> list[Line]:
    return [line for line in lines_of(report) if not line.is_reference]


def essence(report: CompareReport) -> dict[str, Any]:
    """All numbers of a report, without the paths."""
    value = report.to_json()
    return {name: value[name] for name in ("tables", "sizes", "reasons", "notes")}


def kept_classes(folder: Path, line: Line, split: str) -> np.ndarray[Any, Any]:
    """`[seeds, n]` as tuned in each part, read as any other program would."""
    classes = []
    for seed in range(SEEDS):
        own = [
            safetensors.torch.load(
                (
                    folder / ROWS / line.key / f"{tuning.key}-seed{seed}-part{part}.safetensors"
                ).read_bytes()
            )[split]
            for part, tuning in enumerate(line.tunings)
        ]
        classes.append(np.concatenate([said.argmax(-1).numpy() for said in own]))
    return np.stack(classes)


def by_sklearn(gold: Any, predicted: Any) -> dict[str, float]:
    return {
        "macro_f1": f1_score(gold, predicted, average="macro", zero_division=0),
        "uar": recall_score(gold, predicted, average="macro", zero_division=0),
        "accuracy": accuracy_score(gold, predicted),
        "weighted_f1": f1_score(gold, predicted, average="weighted", zero_division=0),
    }


@pytest.mark.parametrize("split", ["dev", "test"])
def test_scores_are_those_of_the_kept_predictions_by_scikit_learn(
    split: str, done: tuple[CompareReport, Path]
) -> None:
    report, folder = done
    dataset = many_speakers()
    gold = dataset.targets(dataset.rows(split)).numpy()
    for line in heads_of(report):
        found = [by_sklearn(gold, own) for own in kept_classes(folder, line, split)]
        for name in SCORES:
            values = [scores[name] for scores in found]
            score = line.outcomes[split].scores[name]
            assert score.seeds == pytest.approx(values)
            assert score.mean == pytest.approx(np.mean(values))
            assert score.deviation == pytest.approx(np.std(values, ddof=1))


def test_every_row_has_the_same_grid_and_takes_its_best_on_dev(
    done: tuple[CompareReport, Path],
) -> None:
    for line in heads_of(done[0]):
        scorers = SCORERS if "queries" in line.params else SCORERS[:1]
        assert list(line.selection) == [
            Tuning(rate, scorer, norm) for rate in RATES for scorer in scorers for norm in NORMS
        ]
        best = max(line.selection.values())
        assert line.selection[line.tunings[0]] == best
        assert line.outcomes["dev"].scores["macro_f1"].seeds[0] == pytest.approx(best)


def test_of_equal_tunings_the_one_with_the_lowest_rate_is_taken() -> None:
    low, high = Tuning(1e-3, 0.3, "none"), Tuning(1e-2, 0.05, "none")
    assert choose_tuning({high: 0.5, low: 0.5}) == low
    assert choose_tuning({low: 0.5, high: 0.6}) == high


def test_a_row_clearly_below_the_regression_is_under_trained_and_not_the_best(
    tmp_path: Path,
) -> None:
    options: dict[str, Any] = {"poolings": ("average", "max"), "tables": ("poolings",)}
    report = small_comparison(tmp_path / "c", learning_rates=(1e-6,), seeds=1, epochs=1, **options)
    (table,) = report.tables
    lines = {line.title: line for line in table.lines}
    assert table.best == "logistic regression"
    assert table.best_head in ("average", "max")
    for name in ("average", "max"):
        outcome = lines[name].outcomes["test"]
        assert outcome.to_reference is not None
        assert outcome.to_reference.interval.high < 0
        assert outcome.under_trained
    said = " ".join(terminal_text(report).split())
    assert "under-trained, not worse" in said
    assert re.search(
        r"Below the regression on test by more than 0\.03: average \(-0\.\d+\), max \(-0\.\d+\); "
        "they read no deviations, which it does",
        said,
    )


def test_labels_of_the_test_set_change_no_choice(
    done: tuple[CompareReport, Path], tmp_path: Path
) -> None:
    other = small_comparison(tmp_path / "c", dataset=relabelled(many_speakers(), "test"))
    for before, after in zip(lines_of(done[0]), lines_of(other), strict=True):
        assert (before.tunings, before.strengths) == (after.tunings, after.strengths)
        scores = [line.outcomes["dev"].scores for line in (before, after)]
        assert scores[0] == scores[1]
    assert [table.best for table in other.tables] == [table.best for table in done[0].tables]
    assert essence(other) != essence(done[0])


class Stopped:
    """`Cohort.run_epoch` that is interrupted at one call."""

    def __init__(self, at: int) -> None:
        self.left = at
        self.real = heads.training.Cohort.run_epoch

    def __call__(self, cohort: heads.training.Cohort) -> None:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        self.real(cohort)


# Of the first seed the four rows without attention are trained first, then MHA.
@pytest.mark.parametrize(
    ("at", "runs"), [(0, 0), (EPOCHS, 16), (2 * EPOCHS - 1, 16), (2 * EPOCHS, 24)]
)
def test_a_stopped_comparison_goes_on_to_the_same_numbers(
    at: int, runs: int, done: tuple[CompareReport, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "compare"
    stopped = Stopped(at)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heads.training.Cohort, "run_epoch", lambda cohort: stopped(cohort))
        with pytest.raises(KeyboardInterrupt):
            small_comparison(folder)
    assert len(list((folder / ROWS).glob("*/*-seed*.safetensors"))) == runs
    assert essence(small_comparison(folder)) == essence(done[0])


def test_a_finished_comparison_trains_nothing_again(
    done: tuple[CompareReport, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = Stopped(0)
    monkeypatch.setattr(heads.training.Cohort, "run_epoch", lambda cohort: stopped(cohort))
    assert essence(small_comparison(done[1])) == essence(done[0])


def test_more_seeds_rates_and_rows_add_to_what_is_there(tmp_path: Path) -> None:
    folder = tmp_path / "compare"
    small_comparison(folder, seeds=1, poolings=("average",), tables=("poolings",))
    first = {p: p.read_bytes() for p in (folder / ROWS).glob("*/*-seed*.safetensors")}
    assert len(first) == len(RATES) * len(NORMS)
    report = small_comparison(folder, learning_rates=(*RATES, 3e-3), poolings=("average", "max"))
    assert all(path.read_bytes() == data for path, data in first.items())
    rates = [tuning.learning_rate for tuning in report.tables[0].lines[0].selection]
    assert list(dict.fromkeys(rates)) == [1e-3, 3e-3, 1e-2]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"origin": make_origin(manifest_sha256="1" * 64)}, "manifest_sha256"),
        ({"origin": make_origin(streams={"audio": "audio-1/layer_4"})}, "streams"),
        ({"epochs": EPOCHS + 1}, f"epochs: {EPOCHS} -> {EPOCHS + 1}"),
        ({"batch_size": 8}, "batch_size"),
        ({"fixed": {"weight_decay": 0.3}}, "weight_decay"),
        ({"dataset": in_folds(many_speakers())}, "rows_sha256"),
    ],
)
def test_runs_over_something_else_are_refused_with_the_difference(
    change: dict[str, Any], named: str, done: tuple[CompareReport, Path]
) -> None:
    with pytest.raises(ConfigError, match=named) as caught:
        small_comparison(done[1], **change)
    assert "--fresh" in str(caught.value)


def test_a_fresh_comparison_removes_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "compare"
    small_comparison(folder, poolings=("average",), tables=("poolings",))
    (folder / "notes.txt").write_text("mine")
    options: dict[str, Any] = {"tables": ("poolings",), "poolings": ("max",), "epochs": 1}
    small_comparison(folder, fresh=True, **options)
    assert {path.name for path in (folder / ROWS).glob("*/*-seed0*")} == {
        f"{rate:g}-{SCORERS[0]:g}-{norm}-seed0-part0.safetensors"
        for rate in RATES
        for norm in NORMS
    }
    assert not list((folder / ROWS / "audio+text-average").glob("*"))
    assert (folder / "notes.txt").read_text() == "mine"


def test_a_damaged_run_is_named_with_what_to_do(tmp_path: Path) -> None:
    folder = tmp_path / "compare"
    options: dict[str, Any] = {"tables": ("poolings",), "poolings": ("average",), "seeds": 1}
    small_comparison(folder, **options)
    path = KeptRuns(folder / ROWS).path(RunKey("audio+text-average", FIRST, 0))
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(CacheError, match="Delete it"):
        small_comparison(folder, **options)
    path.unlink()
    small_comparison(folder, **options)


def test_rows_are_compared_with_the_best_on_dev_over_all_seeds(
    done: tuple[CompareReport, Path],
) -> None:
    report, folder = done
    dataset = many_speakers()
    rows = dataset.rows("test")
    gold, speakers = dataset.targets(rows).numpy(), dataset.speakers(rows)
    table = report.tables[0]
    on_dev = {
        line.title: line.outcomes["dev"].scores["macro_f1"].mean
        for line in table.lines
        if not line.is_reference
    }
    assert table.best == max(on_dev, key=lambda title: on_dev[title])
    own = {
        line.title: kept_classes(folder, line, "test")
        for line in table.lines
        if not line.is_reference
    }
    reference = json.loads((folder / ROWS / "reference-audio+text.json").read_text())
    said = np.array(reference["predicted"]["test"])
    others = [line for line in table.lines if line.title != table.best]
    stacked = np.stack([own.get(line.title, np.stack([said] * SEEDS)) for line in others])
    expected, _ = paired_differences(gold, stacked, own[table.best], 3, speakers)
    assert expected is not None
    assert [line.outcomes["test"].difference for line in others] == expected
    for line in others:
        difference = line.outcomes["test"].difference
        assert difference is not None
        scores = [report.find(title) for title in (line.title, table.best)]
        means = [s.outcomes["test"].scores["macro_f1"].mean for s in scores if s is not None]
        assert difference.value == pytest.approx(means[0] - means[1])


def test_an_interval_is_of_the_mean_over_seeds_and_holds_it(
    done: tuple[CompareReport, Path],
) -> None:
    for line in lines_of(done[0]):
        for outcome in line.outcomes.values():
            for name in LABELLED:
                score = outcome.scores[name]
                assert score.interval is not None
                assert score.interval.low <= score.mean <= score.interval.high


def test_few_speakers_have_no_intervals_and_no_comparison(tmp_path: Path) -> None:
    report = small_comparison(tmp_path / "c", dataset=small_dataset(), seeds=1)
    assert all(
        outcome.difference is None and outcome.scores["macro_f1"].interval is None
        for line in lines_of(report)
        for outcome in line.outcomes.values()
    )
    assert "fewer than 8" in terminal_text(report)
    steps = [line for line in terminal_text(report, Path("o.csv")).splitlines() if "cli.py" in line]
    assert steps
    assert all(" --manifest o.csv --work " in line for line in steps)


def test_a_comparison_is_read_back_and_reads_the_same(done: tuple[CompareReport, Path]) -> None:
    report, folder = done
    again = CompareReport.from_json(
        read_json(folder / "compare.json", kind=FORMAT, version=VERSION)
    )
    assert readable(again).to_markdown() == (folder / "compare.md").read_text(encoding="utf-8")
    assert [replace(line, selection={}) for line in lines_of(report)] == lines_of(again)


def test_published_figures_stand_in_a_column_of_their_own(
    done: tuple[CompareReport, Path],
) -> None:
    report, folder = done
    average = report.find("average")
    assert average is not None
    assert average.published is not None
    assert average.published.dev == 0.3559
    for text in (terminal_text(report), (folder / "compare.md").read_text()):
        assert "published dev (test)" in text
        assert CAVEAT in text
    with (folder / "compare.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    known = {row["row"]: row["published_dev"] for row in rows if row["published_dev"]}
    assert known["MHA"] == "0.3829"
    assert known["audio"] == "0.2921"
    assert {row["published_from"] for row in rows if row["published_dev"]} == {CAVEAT}


def test_a_dev_score_is_called_one_of_selection(done: tuple[CompareReport, Path]) -> None:
    with (done[1] / "compare.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["split"], row["is_selection_score"]) for row in rows} == {
        ("dev", "True"),
        ("test", "False"),
    }
    assert "it is no result" in terminal_text(done[0])


def test_without_a_test_split_the_table_says_that_it_has_no_result(tmp_path: Path) -> None:
    dataset = many_speakers()
    utterances = tuple(
        replace(u, split="" if u.split == "test" else u.split) for u in dataset.utterances
    )
    report = small_comparison(tmp_path / "c", dataset=replace(dataset, utterances=utterances))
    assert set(report.sizes) == {"dev"}
    assert "There is no test split" in terminal_text(report)


def test_the_head_of_a_row_is_kept_as_one_that_can_be_fine_tuned(
    done: tuple[CompareReport, Path],
) -> None:
    report, folder = done
    dataset = many_speakers()
    for line in heads_of(report):
        head, record = load_head(report.heads[line.key])
        assert (record.training.learning_rate,) == tuple(t.learning_rate for t in line.tunings)
        assert (record.head.input_norm,) == tuple(t.input_norm for t in line.tunings)
        said = predict([head], VectorStore(dataset), dataset.rows("test"))[0]
        kept = safetensors.torch.load(
            (
                folder / ROWS / line.key / f"{line.tunings[0].key}-seed0-part0.safetensors"
            ).read_bytes()
        )["test"]
        torch.testing.assert_close(said, kept)
        assert record.dev_macro_f1 == line.outcomes["dev"].scores["macro_f1"].seeds[0]


def test_the_grid_has_every_pair_of_queries_and_heads_at_both_depths(tmp_path: Path) -> None:
    report = small_comparison(
        tmp_path / "c", tables=("grid",), poolings=(), seeds=1, learning_rates=(1e-3,), epochs=1
    )
    lines = {line.title: line for line in report.tables[0].lines if not line.is_reference}
    assert set(lines) == {f"Q{q} H{h} n{n}" for q in (1, 2, 4) for h in (1, 2, 4) for n in (1, 2)}
    assert lines["Q1 H1 n2"].published is not None  # AS
    assert lines["Q1 H1 n2"].published.test == 0.3649
    assert lines["Q1 H1 n1"].published is None
    assert {line.params["hidden"] for line in lines.values() if "n2" in line.title} == {256}


def test_folds_score_every_utterance_once_out_of_fold(
    folded: tuple[CompareReport, Path],
) -> None:
    report, folder = folded
    dataset = in_folds(many_speakers())
    division = Division.of(dataset)
    for split in ("dev", "test"):
        assert division.scored(split).sort().values.tolist() == list(range(len(dataset)))
    for part in division.parts:
        held = [set(part.rows[split].tolist()) for split in ("train", "dev", "test")]
        assert set.union(*held) == set(range(len(dataset)))
        assert sum(map(len, held)) == len(dataset)
        assert {dataset.utterances[i].fold for i in held[2]} == {part.name}
    gold = dataset.targets(division.scored("test")).numpy()
    for line in heads_of(report):
        classes = kept_classes(folder, line, "test")
        found = [by_sklearn(gold, own) for own in classes]
        for name in SCORES:
            score = line.outcomes["test"].scores[name]
            assert score.mean == pytest.approx(np.mean([own[name] for own in found]))


def test_folds_are_averaged_as_the_field_reports_them(
    folded: tuple[CompareReport, Path],
) -> None:
    report, folder = folded
    dataset = in_folds(many_speakers())
    division = Division.of(dataset)
    line = heads_of(report)[0]
    classes = kept_classes(folder, line, "test")
    start, values = 0, []
    for part in division.parts:
        own = part.rows["test"]
        gold = dataset.targets(own).numpy()
        said = classes[:, start : start + len(own)]
        values.append(np.mean([by_sklearn(gold, seed)["uar"] for seed in said]))
        start += len(own)
    expected = (np.mean(values), np.std(values, ddof=1))
    assert line.outcomes["test"].scores["uar"].folds == pytest.approx(expected)
    assert "UA, folds" in terminal_text(report)


def test_labels_of_a_fold_change_no_choice_for_its_own_head(tmp_path: Path) -> None:
    dataset = in_folds(many_speakers())
    part = Division.of(dataset).parts[0]
    changed = set(part.rows["test"].tolist())
    names = dict(zip(dataset.labels, dataset.labels[1:] + dataset.labels[:1], strict=True))
    utterances = tuple(
        replace(u, label=names[u.label]) if i in changed else u
        for i, u in enumerate(dataset.utterances)
    )
    options: dict[str, Any] = {"poolings": ("average",), "tables": ("poolings",), "seeds": 1}
    said, rates = [], []
    for number, own in enumerate((dataset, replace(dataset, utterances=utterances))):
        folder = tmp_path / str(number)
        rates.append(
            [line.tunings[0] for line in heads_of(small_comparison(folder, dataset=own, **options))]
        )
        kept = KeptRuns(folder / ROWS)
        said.append(kept.answers(RunKey("audio+text-average", FIRST, 0))["test"])
    torch.testing.assert_close(said[0], said[1], rtol=0, atol=0)
    assert rates[0] == rates[1]


def test_heads_of_folds_are_not_offered_for_fine_tuning(
    folded: tuple[CompareReport, Path],
) -> None:
    assert folded[0].heads == {}
    assert "--finetune" not in terminal_text(folded[0])


def test_folds_can_be_left_aside_for_the_splits(tmp_path: Path) -> None:
    dataset = many_speakers()
    utterances = tuple(replace(u, fold=str(i % 3)) for i, u in enumerate(dataset.utterances))
    own = replace(dataset, utterances=utterances)
    options: dict[str, Any] = {"poolings": ("average",), "tables": ("poolings",)}
    report = small_comparison(tmp_path / "c", dataset=own, folds=False, **options)
    assert not report.folded
    assert report.sizes["test"][0] == len(dataset.rows("test"))


def fold_named(dataset: Dataset, name: str) -> Dataset:
    return replace(dataset, utterances=tuple(replace(u, fold=name) for u in dataset.utterances))


def test_two_folds_are_too_few(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="at least 3 folds"):
        small_comparison(tmp_path / "c", dataset=fold_named(small_dataset(), "1"))


def test_folds_that_share_a_speaker_are_refused() -> None:
    dataset = in_folds(small_dataset())
    refuse_torn_speakers(dataset)
    torn = replace(dataset.utterances[0], fold="3")
    with pytest.raises(ManifestError, match=f"'{torn.speaker}' stands in the folds"):
        refuse_torn_speakers(replace(dataset, utterances=(torn, *dataset.utterances[1:])))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"poolings": ("statistic",)}, "Did you mean 'statistics'"),
        ({"tables": ("pooling",)}, "Did you mean 'poolings'"),
        ({"tables": ()}, "No table"),
        ({"seeds": 0}, "seeds must be"),
        ({"learning_rates": (0.0,)}, "more than 0 and less than 1"),
        ({"epochs": 0}, "at least 1"),
        ({"input_norms": ("batch",)}, "none, layernorm, standardise or speaker"),
        ({"scorer_rates": (0.0,)}, "scorer rate must"),
        ({"precision": "fp8"}, "auto, fp32 or bf16"),
        ({"fixed": {"loss": "votes"}}, "votes"),
    ],
)
def test_a_bad_option_is_refused_with_what_would_do(
    options: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=words):
        small_comparison(tmp_path / "c", **options)
    assert not (tmp_path / "c").exists()


def test_what_a_protocol_sets_beside_the_pooling_holds_for_every_row(tmp_path: Path) -> None:
    fixed = {"loss": "cross_entropy", "learning_rate": 1e-5, "pooling": ["max"]}
    report = small_comparison(tmp_path / "c", fixed=fixed, seeds=1, epochs=1)
    assert {line.params["loss"] for line in heads_of(report)} == {"cross_entropy"}
    for line in heads_of(report):
        assert {tuning.learning_rate for tuning in line.selection} == set(RATES)
    with pytest.raises(ConfigError, match='loss: "cross_entropy" -> "weighted_cross_entropy"'):
        small_comparison(tmp_path / "c", seeds=1, epochs=1)


def test_rates_are_read_and_sorted() -> None:
    assert CompareConfig(learning_rates=parse_rates("1e-3, 3e-4")).learning_rates == (
        3e-4,
        1e-3,
    )
    with pytest.raises(ValueError, match="numbers such as"):
        parse_rates("1e-3,fast")


def test_what_the_data_has_not_is_left_out_and_said(tmp_path: Path) -> None:
    dataset = many_speakers()
    frames = {"audio": replace(dataset.frames["audio"], speech=None)}
    report = small_comparison(
        tmp_path / "c", dataset=replace(dataset, frames=frames), poolings=(), epochs=1, seeds=1
    )
    assert any("vad_average is left out" in note for note in report.notes)
    assert any("no table of modalities" in note for note in report.notes)
    assert {table.name for table in report.tables} == {"poolings"}


def test_the_picture_is_drawn_with_a_panel_a_table(tmp_path: Path) -> None:
    small_comparison(tmp_path / "c", plot=True, seeds=1, epochs=1)
    assert (tmp_path / "c" / "poolings.png").read_bytes().startswith(b"\x89PNG")
    assert "](poolings.png)" in (tmp_path / "c" / "compare.md").read_text()
