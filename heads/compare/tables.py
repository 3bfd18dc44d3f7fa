"""The tables of a comparison, to read and as CSV, and how to read them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from corpora.base.report import Table, csv_text
from heads.compare.comparison import CompareReport, Finetuned
from heads.compare.lines import Line, RowTable
from heads.compare.outcomes import Outcome, Score
from heads.compare.rows import CAVEAT, SOURCE
from heads.metrics import score_cells
from heads.search.report import shape_text
from heads.search.space import searched_class

AXES = ("queries", "heads", "scorer_layers", "hidden")
TUNED = ("learning_rate", "scorer_rate", "input_norm")
# Macro-F1 by which a row may be below the regression without a word on it.
WORTH_A_REASON = 0.03


def shown_table(report: CompareReport, table: RowTable) -> Table:
    """A table as it is shown.

    On dev there is the score that the tuning was chosen by; the result stands under test.
    """
    scored = "test" in report.sizes
    where = "test" if scored else "dev"
    published = any(line.published for line in table.lines)
    name = "layer" if report.name == "layers" else "row"
    shaped = any("queries" in line.params for line in table.lines)
    chosen_by = f"dev {report.objective_name} (chosen by it)"
    columns = [name, *["Q/H/n/p"] * shaped, "rate × scorers, norm", chosen_by]
    headlines = _headlines(report)
    by_fold = {
        name: title for name, title in headlines.items() if report.folded and name != "macro_f1"
    }
    if scored:
        of = "folds" if report.folded else "test"
        columns += [f"{of} {title}" for title in headlines.values()]
        columns += [f"{title}, folds" for title in by_fold.values()]
    compared = any(line.outcomes[where].difference for line in table.lines)
    columns += [f"to {table.best}" + " on dev" * (not scored)] * compared
    marked = any(line.outcomes[where].under_trained for line in table.lines)
    columns += ["note"] * marked
    columns += ["published dev (test)*"] * published
    rows = []
    for line in table.lines:
        row = [line.title, *[shape_text(line.params)] * shaped, _tuning(line)]
        row.append(_score(line.outcomes["dev"], report.objective))
        if scored:
            row += [_score(line.outcomes["test"], score) for score in headlines]
            scores = line.outcomes["test"].scores
            row += [_over_folds(scores[one]) if one in scores else "-" for one in by_fold]
        difference = None if line.title == table.best else line.outcomes[where].difference
        row += [difference.short if difference else "-"] * compared
        row += ["under-trained, not worse" * line.outcomes[where].under_trained or "-"] * marked
        row += [str(line.published or "-")] * published
        rows.append(row)
    return Table("", columns, rows, table.title)


def _headlines(report: CompareReport) -> dict[str, str]:
    """The scores that a table has, by name, and what they are called there."""
    found = {"macro_f1": "macro-F1", "uar": "UA", "accuracy": "WA"} if report.origin.labels else {}
    if report.attributes:
        found["mean_ccc"] = "mean CCC"
        found |= {f"ccc_{name}": f"CCC {name}" for name in report.attributes}
        found |= {f"mae_{name}": f"MAE {name}" for name in report.attributes}
    return found


def notes_of(report: CompareReport) -> list[str]:
    """How to read the tables."""
    lines = []
    if report.config.seeds > 1:
        lines.append(f"± is the standard deviation over {report.config.seeds} seeds.")
    if report.folded:
        lines.append(
            "Folds: out-of-fold predictions of all utterances, counted together; the columns "
            "`UA, folds` and `WA, folds` are mean ± deviation over the folds, as the field "
            "reports them. A tuning is chosen in every fold by itself, on the next one (in "
            "brackets: by how many folds)."
        )
    bounded = [split for split in report.sizes if _has_intervals(report, split)]
    if bounded:
        lines.append(
            "[95 % interval], bootstrap over speakers of the mean over seeds: what other speakers "
            "of the same kind would change."
        )
    for split, reason in report.reasons.items():
        if reason:
            lines.append(f"{split}: {reason if split in bounded else f'no intervals: {reason}'}.")
    if any(line.outcomes[s].difference for s in report.sizes for line in _lines(report)):
        lines.append(
            f"`to …`: {report.objective_name} less that of the table's best row on dev; p by a "
            "paired bootstrap over speakers, Holm-corrected within the table. Above .05, do not "
            "take rows for different."
        )
    lines.append(
        "The dev score is what a row's tuning was chosen by: it is no result."
        + ("" if "test" in report.sizes else " There is no test split, so this table has none.")
    )
    edges = [line.title for line in _lines(report) if line.at_edge]
    if edges:
        lines.append(
            f"Rates at an end of those tried: {', '.join(dict.fromkeys(edges))}. A better one may "
            "lie beyond: --learning-rates."
        )
    references = any(line.is_reference for line in _lines(report))
    if references and report.attributes:
        lines.append(
            "Ridge regression: of attributes on scaled mean and deviation of the frames, λ chosen "
            "on dev by the mean CCC."
        )
    if references and report.origin.labels:
        lines.append(
            "Logistic regression: scikit-learn, on mean and deviation of the frames, scaling and C "
            "chosen on dev."
        )
    if any(o.under_trained for line in _lines(report) for o in line.outcomes.values()):
        lines.append(
            "Under-trained, not worse: below the regression by more than its 95 % interval. A head "
            "with deviations could do what the regression does: more --epochs or other rates may "
            "mend it."
        )
    lines += _below_reference(report)
    if any(line.published for line in _lines(report)):
        lines.append(f"* {CAVEAT}: {SOURCE}.")
    return lines


def _below_reference(report: CompareReport) -> list[str]:
    """Why rows are further below the regression than `WORTH_A_REASON`."""
    where = "test" if "test" in report.sizes else "dev"
    reasons: dict[str, list[str]] = {}
    for table in report.tables:
        references = [line for line in table.lines if line.is_reference]
        if len(references) != 1:  # of modalities: each row has a regression of its own
            continue
        reached = references[0].outcomes[where].scores[report.objective].mean
        for line in table.lines:
            outcome = line.outcomes[where]
            behind = reached - outcome.scores[report.objective].mean
            if line.is_reference or behind <= WORTH_A_REASON:
                continue
            if not searched_class(line.params["pooling"]).deviations:
                reason = "they read no deviations, which it does"
            elif outcome.under_trained:
                continue
            elif outcome.to_reference is not None:
                reason = "0 is in the interval of the difference"
            else:
                reason = f"{report.sizes[where][1]} speakers are too few to say whether more would"
            reasons.setdefault(reason, []).append(f"{line.title} (-{behind:.3f})")
    return [
        f"Below the regression on {where} by more than {WORTH_A_REASON:g}: {', '.join(rows)}; "
        f"{reason}."
        for reason, rows in reasons.items()
    ]


# Of each parameter that is trained, in float32: its gradient and AdamW's two moments.
TRAINED_BYTES = 3 * 4


def finetuned_table(finetuned: Sequence[Finetuned]) -> Table:
    """The rows that were taken on with their encoders."""
    scored = any(row.model for row in finetuned)
    columns = ["row", "phases", "trained", "their MB", "dev macro-F1: start, best (chosen by it)"]
    columns += ["test: head of the first seed", "test: model", "UA", "WA", "utterances"] * scored
    rows = []
    for row in finetuned:
        held = row.trained * TRAINED_BYTES / 1e6
        trained = (f"{row.trained:,}", f"{held:,.1f}") if row.trained else ("-", "-")
        cells = [row.title, row.phases, *trained, f"{row.dev[0]:.3f}, {row.dev[1]:.3f}"]
        if row.head and row.model:
            cells += (score_cells(row.head)[0], *score_cells(row.model))
        rows.append(cells)
    notes = ["Trained: parameters, and what their gradients and AdamW's two moments take."]
    notes += [f"Note: {note}" for row in finetuned for note in row.notes]
    return Table("", columns, rows, "Fine-tuned with their encoders", notes=notes)


def csv_of(report: CompareReport) -> str:
    """One line a row of a table and split, all numbers unrounded."""
    records = [
        _record(report, table, line, split, outcome)
        for table in report.tables
        for line in table.lines
        for split, outcome in line.outcomes.items()
    ]
    return csv_text(list(records[0]), records)


def _record(
    report: CompareReport, table: RowTable, line: Line, split: str, outcome: Outcome
) -> dict[str, Any]:
    own: dict[str, Any] = {
        "table": table.name,
        "row": line.title,
        "key": line.key,
        "layer": line.layer,
        **{name: line.params.get(name) for name in ("modalities", "pooling", *AXES)},
        **{name: _values(line, name) for name in TUNED},
        "split": split,
        "is_selection_score": split == "dev",
        "utterances": report.sizes[split][0],
        "speakers": report.sizes[split][1],
        "seeds": len(outcome.scores[report.objective].seeds),
    }
    for name, score in outcome.scores.items():
        low, high = score.interval or (None, None)
        mean, deviation = score.folds or (None, None)
        own |= {name: score.mean, f"{name}_deviation": score.deviation}
        own |= {f"{name}_low": low, f"{name}_high": high}
        own |= {f"{name}_folds_mean": mean, f"{name}_folds_deviation": deviation}
    found, reference, published = outcome.difference, outcome.to_reference, line.published
    low, high = found.interval if found else (None, None)
    own |= {"difference_to": found and table.best, "difference": found and found.value}
    own |= {"difference_low": low, "difference_high": high, "p": found and found.p}
    low, high = reference.interval if reference else (None, None)
    own |= {"to_reference": reference and reference.value}
    own |= {"to_reference_low": low, "to_reference_high": high}
    own |= {"under_trained": reference and outcome.under_trained}
    own |= {"published_dev": published and published.dev}
    own |= {"published_test": published and published.test}
    return own | {"published_from": published and CAVEAT}


def _lines(report: CompareReport) -> list[Line]:
    return [line for table in report.tables for line in table.lines]


def _has_intervals(report: CompareReport, split: str) -> bool:
    return any(line.outcomes[split].scores[report.objective].interval for line in _lines(report))


def _tuning(line: Line) -> str:
    """The tuning, or with folds how many of them chose which."""
    attentive = "queries" in line.params
    texts = [
        f"{t.learning_rate:g}{f' × {t.scorer_rate:g}' if attentive else ''}, {t.input_norm}"
        for t in line.tunings
    ]
    counts = Counter(texts)
    if len(counts) < 2:
        return "".join(counts) or "-"
    return "; ".join(f"{text} ({count})" for text, count in counts.most_common())


def _values(line: Line, name: str) -> str:
    """The values of one tuned axis that were chosen."""
    found = dict.fromkeys(getattr(tuning, name) for tuning in line.tunings)
    return " ".join(f"{value:g}" if isinstance(value, float) else value for value in found)


def _score(outcome: Outcome, name: str) -> str:
    score = outcome.scores.get(name)
    if score is None:
        return "-"
    text = f"{score.mean:.3f}"
    if score.deviation is not None:
        text += f" ± {score.deviation:.3f}"
    if score.interval is not None and name not in ("uar", "accuracy"):
        text += " [{:.3f}, {:.3f}]".format(*score.interval)
    return text


def _over_folds(score: Score) -> str:
    return "-" if score.folds is None else f"{score.folds[0]:.3f} ± {score.folds[1]:.3f}"
