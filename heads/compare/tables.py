"""The tables of a comparison as cells, Markdown and CSV."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corpora.base.files import atomic_path
from corpora.base.plots import DOTS_PER_INCH
from corpora.base.terminal import inert
from heads.compare.comparison import CompareReport
from heads.compare.lines import Line, Table
from heads.compare.outcomes import Outcome, Score
from heads.compare.rows import CAVEAT, SOURCE
from heads.metrics import HEADLINE, SCORES, score_cells
from heads.search.space import searched_class

if TYPE_CHECKING:
    from matplotlib.axes import Axes


AXES = ("queries", "heads", "scorer_layers", "hidden")
TUNED = ("learning_rate", "scorer_rate", "input_norm")
# Macro-F1 by which a row may be below the regression without a word on it.
WORTH_A_REASON = 0.03


def cells(report: CompareReport, table: Table) -> list[tuple[str, ...]]:
    """Header and lines of a table.

    On dev there is the score that the tuning was chosen by; the result stands under test.
    """
    scored = "test" in report.sizes
    where = "test" if scored else "dev"
    published = any(line.published for line in table.lines)
    name = "layer" if report.name == "layers" else "row"
    shaped = any("queries" in line.params for line in table.lines)
    header = [name, *["Q/H/n/p"] * shaped, "rate × scorers, norm", "dev macro-F1 (chosen by it)"]
    if scored:
        of = "folds" if report.folded else "test"
        header += [f"{of} macro-F1", f"{of} UA", f"{of} WA"]
        header += ["UA, folds", "WA, folds"] * report.folded
    compared = any(line.outcomes[where].difference for line in table.lines)
    header += [f"to {table.best}" + " on dev" * (not scored)] * compared
    marked = any(line.outcomes[where].under_trained for line in table.lines)
    header += ["note"] * marked
    header += ["published dev (test)*"] * published
    rows = [tuple(header)]
    for line in table.lines:
        row = [line.title, *[_shape(line)] * shaped, _tuning(line)]
        row.append(_score(line.outcomes["dev"], "macro_f1"))
        if scored:
            row += [_score(line.outcomes["test"], score) for score in HEADLINE]
            row += [
                _over_folds(line.outcomes["test"].scores[score])
                for score in ("uar", "accuracy")
                if report.folded
            ]
        row += [_difference(line.outcomes[where], line.title == table.best)] * compared
        row += ["under-trained, not worse" * line.outcomes[where].under_trained or "-"] * marked
        row += [str(line.published or "-")] * published
        rows.append(tuple(row))
    return rows


def right_columns(rows: Sequence[Sequence[str]]) -> tuple[int, ...]:
    """Columns of plain numbers."""
    return tuple(i for i, title in enumerate(rows[0]) if title == "utterances")


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
            "`to …`: macro-F1 less that of the table's best row on dev; p by a paired bootstrap "
            "over speakers, Holm-corrected within the table. Above .05, do not take rows for "
            "different."
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
    if any(line.is_reference for line in _lines(report)):
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
        reached = references[0].outcomes[where].scores["macro_f1"].mean
        for line in table.lines:
            outcome = line.outcomes[where]
            behind = reached - outcome.scores["macro_f1"].mean
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


def finetuned_cells(report: CompareReport) -> list[tuple[str, ...]]:
    """Header and lines of the rows that were taken on with their encoders."""
    header: tuple[str, ...] = ("row", "phases", "dev macro-F1: start, best (chosen by it)")
    if any(row.model for row in report.finetuned):
        header += ("test: head of the first seed", "test: model", "UA", "WA", "utterances")
    rows = [header]
    for row in report.finetuned:
        own: tuple[str, ...] = (row.title, row.phases, f"{row.dev[0]:.3f}, {row.dev[1]:.3f}")
        if row.head and row.model:
            own += (score_cells(row.head)[0], *score_cells(row.model))
        rows.append(own)
    return rows


def markdown(report: CompareReport, picture: str = "") -> str:
    """The report as Markdown.

    Args:
        report: the comparison.
        picture: its file name; "" for none.
    """
    title = "Layers" if report.name == "layers" else "Comparison"
    parts = [f"# {title}", "", *_paragraphs(report.introduction)]
    parts += [f"- {note}" for note in report.notes] + [""] * bool(report.notes)
    if picture:
        parts += [f"![macro-F1 with intervals]({picture})", ""]
    for table in report.tables:
        parts += [f"## {table.title}", "", *_pipes(cells(report, table)), ""]
    if report.finetuned:
        parts += ["## Fine-tuned with their encoders", "", *_pipes(finetuned_cells(report)), ""]
        parts += [f"- {note}" for row in report.finetuned for note in row.notes]
    parts += ["## How to read this", "", *(f"- {_escaped(note)}" for note in notes_of(report))]
    return "\n".join(parts).rstrip() + "\n"


def csv_text(report: CompareReport) -> str:
    """One line a row of a table and split, all numbers unrounded."""
    columns = ["table", "row", "key", "layer", "modalities", "pooling", *AXES, *TUNED]
    columns += ["split", "is_selection_score", "utterances", "speakers", "seeds"]
    for name in SCORES:
        columns += [name, f"{name}_deviation", f"{name}_low", f"{name}_high"]
        columns += [f"{name}_folds_mean", f"{name}_folds_deviation"]
    columns += ["difference_to", "difference", "difference_low", "difference_high", "p"]
    columns += ["to_reference", "to_reference_low", "to_reference_high", "under_trained"]
    columns += ["published_dev", "published_test", "published_from"]
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    for table in report.tables:
        for line in table.lines:
            for split, outcome in line.outcomes.items():
                record = _record(report, table, line, split, outcome)
                writer.writerow({name: inert(cell) for name, cell in record.items()})
    return out.getvalue()


def _record(
    report: CompareReport, table: Table, line: Line, split: str, outcome: Outcome
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
        "seeds": len(outcome.scores["macro_f1"].seeds),
    }
    for name, score in outcome.scores.items():
        low, high = score.interval or (None, None)
        mean, deviation = score.folds or (None, None)
        own |= {name: score.mean, f"{name}_deviation": score.deviation}
        own |= {f"{name}_low": low, f"{name}_high": high}
        own |= {f"{name}_folds_mean": mean, f"{name}_folds_deviation": deviation}
    if outcome.difference is not None:
        low, high = outcome.difference.interval
        own |= {"difference_to": table.best, "difference": outcome.difference.value}
        own |= {"difference_low": low, "difference_high": high, "p": outcome.difference.p}
    if outcome.to_reference is not None:
        low, high = outcome.to_reference.interval
        own |= {"to_reference": outcome.to_reference.value, "under_trained": outcome.under_trained}
        own |= {"to_reference_low": low, "to_reference_high": high}
    if line.published is not None:
        own |= {"published_dev": line.published.dev, "published_test": line.published.test}
        own["published_from"] = CAVEAT
    return own


def _lines(report: CompareReport) -> list[Line]:
    return [line for table in report.tables for line in table.lines]


def _has_intervals(report: CompareReport, split: str) -> bool:
    return any(line.outcomes[split].scores["macro_f1"].interval for line in _lines(report))


def _shape(line: Line) -> str:
    """Queries, heads, depth and hidden size of an attentive pooling."""
    if "queries" not in line.params:
        return "-"
    return "/".join(str(line.params.get(axis, "-")) for axis in AXES)


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
    score = outcome.scores[name]
    text = f"{score.mean:.3f}"
    if score.deviation is not None:
        text += f" ± {score.deviation:.3f}"
    if score.interval is not None and name == "macro_f1":
        text += f" [{score.interval.low:.3f}, {score.interval.high:.3f}]"
    return text


def _over_folds(score: Score) -> str:
    return "-" if score.folds is None else f"{score.folds[0]:.3f} ± {score.folds[1]:.3f}"


def _difference(outcome: Outcome, is_best: bool) -> str:
    if is_best or outcome.difference is None:
        return "-"
    p = outcome.difference.p
    return f"{outcome.difference.value:+.3f} ({'p < .001' if p < 0.001 else f'p = {p:.3f}'})"


def _pipes(rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(_escaped(cell) for cell in row)} |" for row in rows]
    return [lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]]


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*")


def _paragraphs(lines: Sequence[str]) -> list[str]:
    return [part for line in lines for part in (line, "")]


WIDTH = 7.5
# Inches a row, and for title and axis of a panel.
ROW, MARGIN = 0.3, 1.1
CURVE = 3.6
DEV, TEST, BEST = "0.6", "tab:blue", "tab:red"


def draw(path: Path, report: CompareReport) -> None:
    """Draw one panel a table.

    Args:
        path: the PNG file.
        report: with at least one table.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    from corpora.base.plots import require_matplotlib

    require_matplotlib("compare with --no-plots")
    from matplotlib.figure import Figure

    sweep = report.name == "layers"
    heights = [CURVE if sweep else ROW * len(table.lines) + MARGIN for table in report.tables]
    # Not pyplot: it keeps figures in a global list, and may look for a screen.
    figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    grid = figure.add_gridspec(len(heights), 1, height_ratios=heights)
    for number, table in enumerate(report.tables):
        axes = figure.add_subplot(grid[number])
        (_draw_curve if sweep else _draw_rows)(axes, report, table)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=DOTS_PER_INCH)


def _draw_rows(axes: Axes, report: CompareReport, table: Table) -> None:
    """Points in the table's order from the top; the bar is the interval, else the deviation."""
    scored = [split for split in ("dev", "test") if split in report.sizes]
    offset = 0.14 if len(scored) == 2 else 0.0
    bars = set()
    for split, shift, colour, marker in (("dev", -offset, DEV, "o"), ("test", offset, TEST, "s")):
        if split not in scored:
            continue
        for row, line in enumerate(table.lines):
            score = line.outcomes[split].scores["macro_f1"]
            low, high, kind = _reach(score)
            bars.add((split, kind))
            own = BEST if line.title == table.best and split == "test" else colour
            axes.hlines(row + shift, low, high, color=own, linewidth=1.4)
            axes.plot(score.mean, row + shift, marker, color=own, markersize=4.5)
        label = f"{_named(report, split)}, bar: {_kinds(bars, split)}"
        axes.plot([], [], marker, color=colour, markersize=4.5, label=label)
    axes.plot([], [], "s", color=BEST, markersize=4.5, label=f"{table.best}: best on dev")
    axes.set_yticks(range(len(table.lines)), [line.title for line in table.lines])
    axes.invert_yaxis()
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    axes.set(xlabel="macro-F1, mean over seeds")
    axes.set_title(table.title, fontsize="medium")
    axes.legend(fontsize="x-small", loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)


def _draw_curve(axes: Axes, report: CompareReport, table: Table) -> None:
    """Macro-F1 over layers: the statistics head and the reference, on the last split scored."""
    split = "test" if "test" in report.sizes else "dev"
    for reference, colour, marker, name in (
        (False, TEST, "o", "statistics head"),
        (True, "tab:orange", "s", "logistic regression"),
    ):
        lines = [line for line in table.lines if line.is_reference == reference]
        layers = [_layer(line) for line in lines]
        scores = [line.outcomes[split].scores["macro_f1"] for line in lines]
        axes.plot(layers, [s.mean for s in scores], marker + "-", color=colour, label=name)
        reaches = [_reach(score) for score in scores]
        axes.vlines(
            layers, [r[0] for r in reaches], [r[1] for r in reaches], color=colour, alpha=0.5
        )
        kinds = {kind for _, _, kind in reaches} - {""}
        if kinds:
            axes.plot([], [], "-", color=colour, alpha=0.5, label=f"bar: {', '.join(kinds)}")
    axes.set_xticks(sorted({_layer(line) for line in table.lines}))
    axes.grid(axis="y", color="0.9")
    axes.set(xlabel="hidden state", ylabel=f"macro-F1, {_named(report, split)}")
    axes.set_title(table.title, fontsize="medium")
    axes.legend(fontsize="x-small")


def _reach(score: Score) -> tuple[float, float, str]:
    """The ends of a bar, and what it shows."""
    if score.interval is not None:
        return score.interval.low, score.interval.high, "95 % interval"
    if score.deviation is not None:
        return score.mean - score.deviation, score.mean + score.deviation, "± seeds"
    return score.mean, score.mean, ""


def _kinds(bars: set[tuple[str, str]], split: str) -> str:
    return ", ".join(sorted(kind for own, kind in bars if own == split and kind)) or "none"


def _named(report: CompareReport, split: str) -> str:
    if split == "dev":
        return "dev (tuning chosen by it)"
    return "folds" if report.folded else "test"


def _layer(line: Line) -> int:
    assert line.layer is not None  # a line of a sweep
    return line.layer
