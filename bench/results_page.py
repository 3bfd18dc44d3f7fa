"""The page of `make results`: tables of what the commands said, put into `results_page.md`.

No times, dates or paths are in it, so that two runs can be compared.
"""

from __future__ import annotations

import csv
import io
import json
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from string import Template
from typing import Any

from bench.coverage import REPETITIONS
from bench.results import code_sha256
from bench.results_steps import AVERAGE, DEALS, NORMS, PAUSES, RUNS, Answers, Corpus, steps
from corpora.base.report import markdown_table

WORDS = Path(__file__).with_suffix(".md")
PACKAGES = ("torch", "transformers", "numpy", "scikit-learn", "zarr", "optuna")
DIGITS = 12
#: In the table; all of them are counted.
CUES = ("f0", "loudness")
REGRESSION = "logistic regression"

Found = Mapping[Corpus, Answers]
Line = Mapping[str, Any]


def results_page(found: Found, simulated: Mapping[str, Any]) -> str:
    """The page.

    Args:
        found: by corpus what its commands said.
        simulated: by number of speakers the coverage of intervals.
    """
    commands = {
        "layers": ("prepare", "split", "extract-layers", "layers", "extract-both"),
        "tables": (
            *(f"modalities-{norm}" for norm in NORMS),
            "extract-audio",
            *(f"poolings-{norm}" for norm in NORMS),
            "heads",
            "finetune",
        ),
        "attention": ("explain",),
        "pauses": (f"{AVERAGE}-0", f"{PAUSES}-0"),
        "optimism": ("search",),
        "chance": ("dealt-0",),
    }
    return Template(WORDS.read_text(encoding="utf-8")).substitute(
        _made_of(found),
        layers=_layers(found),
        chosen=_each(found, lambda said: f"layer {_sources(said)['audio']['best']}"),
        modalities=_by_norm(found, "modalities"),
        poolings=_by_norm(found, "poolings"),
        ahead=", ".join(_ahead(found)) or "no row",
        texts=_each(found, _texts),
        finetuned=_beside(found, "", _finetuned),
        attention=_beside(found, "attention of AS", _attention),
        verdicts=" ".join(f"{c.title}: {_section(said, 'Faithfulness')['audio']['verdict']}"
                          for c, said in found.items()),
        pauses=_beside(found, "head on", _pauses),
        cues=_cues(found),
        agree=_each(found, _agree),
        coverage=_coverage(simulated),
        repetitions=REPETITIONS,
        optimism="\n\n".join(_optimism(c, said) for c, said in found.items() if "search" in said),
        chance=_beside(found, "labels", _chance),
        **{f"{name}_commands": _commands(found, own) for name, own in commands.items()},
    )  # fmt: skip


def _made_of(found: Found) -> dict[str, str]:
    rows, weights = [], {}
    for corpus, said in found.items():
        facts = said["facts"]
        count = f"{facts['utterances']} of {facts['speakers']} speakers"
        guess = f"{len(facts['labels'])} (guessing {1 / len(facts['labels']):.3f})"
        digests = (facts["rows_sha256"], facts["recordings_sha256"])
        rows.append((corpus.title, count, guess, *(f"`{one[:DIGITS]}`" for one in digests)))
        for source in _sources(said).values():
            if source["encoder"]:
                digits = " ".join(f"`{one[:DIGITS]}`" for one in source["recipe"]["weights"])
                weights[source["encoder"]] = digits
    versions = [f"{name} {version(name)}" for name in PACKAGES]
    return {
        "data": markdown_table(("corpus", "utterances", "classes", "rows", "recordings"), rows),
        "weights": ", ".join(f"{name} {digits}" for name, digits in weights.items()),
        "code": code_sha256()[:DIGITS],
        "versions": ", ".join([f"Python {platform.python_version()}", *versions]),
    }


def _layers(found: Found) -> str:
    columns: dict[str, dict[str, str]] = {}
    for corpus, said in found.items():
        for line in _lines(said["layers"], "layers-audio"):
            title = f"{corpus.title}, {'statistics head' if line['params'] else REGRESSION}"
            columns.setdefault(title, {})[str(line["layer"])] = _score(line)
    return _columns("layer", columns)


def _by_norm(found: Found, table: str) -> str:
    """A table of `compare`, columns by corpus and normalisation."""
    columns: dict[str, dict[str, str]] = {}
    for corpus, said in found.items():
        for norm, words in zip(NORMS, ("as they are", "standardised"), strict=True):
            lines = _lines(said[f"{table}-{norm}"], table)
            columns[f"{corpus.title}, {words}"] = {line["title"]: _score(line) for line in lines}
    return _columns(table, columns)


def _ahead(found: Found) -> Iterable[str]:
    for corpus, said in found.items():
        for norm in NORMS:
            for line in _lines(said[f"poolings-{norm}"], "poolings"):
                less = line["test"]["to_reference"]
                if less and less["interval"][0] > 0:
                    yield f"{corpus.title} {line['title']} ({norm})"


def _texts(said: Answers) -> str:
    return f"{said['facts']['texts']} texts for {said['facts']['utterances']} utterances"


def _finetuned(said: Answers) -> dict[str, str]:
    own = said["finetune"]
    before, after = own["head"]["report"], own["model"]["report"]
    return {
        "test utterances": f"{before['n']} of {before['speakers']} speakers",
        "head on frozen frames": f"{before['macro_f1']:.3f}",
        "model after phases 2 and 3": f"{after['macro_f1']:.3f}",
    }


def _attention(said: Answers) -> dict[str, str]:
    where = _section(said, "Localisation")["audio"]
    values = {
        "share of frames that hold 80 % of it (evenly: 0.800)": f"{where['mean_share']:.3f}",
        "Gini coefficient (evenly: 0)": f"{where['gini']:.3f}",
    }
    for row in _table(said, "correlations"):
        what = next(iter(row.values()))
        values[f"rank correlation with {what}"] = f"{float(row['Spearman mean']):.3f}"
    for row in _table(said, "word-informativeness"):
        values["rank correlation with words' surprisal"] = f"{float(row['Spearman mean']):.3f}"
    for row in _table(said, "places"):
        values[f"{row['place']}: its mass to its frames (evenly: 1)"] = f"{float(row['ratio']):.2f}"
    for row in _table(said, "phone-classes"):
        ratio = f"{float(row['ratio']):.2f}{_span(row['95 % low'], row['95 % high'])}"
        values[f"{row['name']}: attended to occurring (evenly: 1)"] = ratio
    return values


def _pauses(said: Answers) -> dict[str, str]:
    values = {}
    for pooling, words in ((AVERAGE, "all frames"), (PAUSES, "speech")):
        scores = [said[f"{pooling}-{seed}"]["report"]["macro_f1"] for seed in range(RUNS)]
        values[f"{words}, seeds 0 and 1"] = " and ".join(f"{score:.3f}" for score in scores)
    own = said["pauses"]
    if "reason" in own:
        return {**values, "speech less all frames": own["reason"]}
    low, high = own["interval"]
    holds = "holds 0: not shown" if low <= 0 <= high else "leaves 0 out"
    difference = f"{own['value']:+.3f}{_span(low, high)} {holds}"
    return {**values, "speech less all frames": difference}


def _cues(found: Found) -> str:
    rows = [
        (
            f"{corpus.title}, {row['predicted']}",
            row["cue"],
            row["expected"],
            f"{float(row['difference (deviations)']):+.2f}{_span(row['low'], row['high'])}",
        )
        for corpus, said in found.items()
        for row in _expected(said)
        if row["cue"] in CUES
    ]
    return markdown_table(("heard", "cue", "expected", "above neutral, in deviations"), rows)


def _agree(said: Answers) -> str:
    rows = _expected(said)
    return f"{sum(row['agrees'] == 'yes' for row in rows)} of {len(rows)}"


def _expected(said: Answers) -> list[dict[str, str]]:
    rows = [row for row in _table(said, "cues-levels") if row["prediction"] == "correct"]
    return [row for row in rows if row["expected"] and row["difference (deviations)"]]


def _coverage(simulated: Mapping[str, Any]) -> str:
    rows = []
    for speakers, own in simulated.items():
        shares = [*(own["covered"][name] for name in ("macro_f1", "uar", "accuracy")), own["false"]]
        rows.append((speakers, *(f"{100 * share:.1f} %" for share in shares)))
    columns = ("speakers", "macro-F1", "UA", "WA", "equal systems called different (p < .05)")
    return markdown_table(columns, rows)


def _optimism(corpus: Corpus, said: Answers) -> str:
    rows: list[tuple[str, ...]] = []
    triples = []
    for fold in said["search"]["folds"]:
        luck = fold["optimism"]
        triples.append((luck["selected"], luck["nested"], fold["report"]["macro_f1"]))
        rows.append((fold["name"], fold["head"], *(f"{value:.3f}" for value in triples[-1])))
    means = (sum(column) / len(triples) for column in zip(*triples, strict=True))
    rows.append(("mean", "", *(f"{value:.3f}" for value in means)))
    report, less = said["search"]["report"], said["search"]["difference"]
    pooled = (
        f"{report['macro_f1']:.3f}{_span(*(report['intervals'] or {}).get('macro_f1', ('', '')))}"
    )
    rows.append(("all together", "", "", "", pooled))
    if less:
        difference = f"{less['value']:+.3f}{_span(*less['interval'])}"
        rows.append(("less the regression", "", "", "", difference))
    return markdown_table(
        (f"{corpus.title}, group", "winner", "chosen by", "corrected", "test"), rows
    )


def _chance(said: Answers) -> dict[str, str]:
    values = {"guessing": f"{1 / len(said['facts']['labels']):.3f}"}
    sources = {"as they are": "poolings-standardise"}
    sources |= {f"dealt out, seed {seed}": f"dealt-{seed}" for seed in range(DEALS)}
    for words, step in sources.items():
        for line in _lines(said[step], "poolings"):
            if line["title"] in (AVERAGE, REGRESSION):
                values[f"{words}: {line['title']}"] = _score(line)
    return values


def _beside(found: Found, first: str, column: Callable[[Answers], Mapping[str, str]]) -> str:
    """A table with a column for each corpus."""
    return _columns(first, {corpus.title: column(said) for corpus, said in found.items()})


def _columns(first: str, columns: Mapping[str, Mapping[str, str]]) -> str:
    """A table of columns; rows in the order in which they first stand."""
    titles = dict.fromkeys(title for column in columns.values() for title in column)
    rows = [(title, *(column.get(title, "–") for column in columns.values())) for title in titles]
    return markdown_table((first, *columns), rows)


def _each(found: Found, words: Callable[[Answers], str]) -> str:
    return ", ".join(f"{corpus.title} {words(said)}" for corpus, said in found.items())


def _score(line: Line) -> str:
    """Macro-F1 of a line of `compare`."""
    own = line["test"]["macro_f1"]
    spread = "" if own["deviation"] is None else f" ± {own['deviation']:.3f}"
    return f"{own['mean']:.3f}{spread}{_span(*own['interval'] or ('', ''))}"


def _span(low: float | str, high: float | str) -> str:
    """An interval behind a number; CSV has "" where there is none."""
    return "" if low == "" else f" [{float(low):.2f}, {float(high):.2f}]"


def _lines(answer: Mapping[str, Any], table: str) -> list[Line]:
    return next((t["lines"] for t in answer["tables"] if t["name"] == table), [])


def _section(said: Answers, name: str) -> Mapping[str, Any]:
    section: Mapping[str, Any] = said["explain"]["sections"][name]
    return section


def _sources(said: Answers) -> Mapping[str, Any]:
    sources: Mapping[str, Any] = json.loads(said["extract-both"]["files"]["extraction.json"])
    return sources["sources"]  # type: ignore[no-any-return]


def _table(said: Answers, name: str) -> list[dict[str, str]]:
    text = said["explain"]["files"].get(f"explain/tables/{name}.csv", "")
    return list(csv.DictReader(io.StringIO(text)))


def _commands(found: Found, names: Sequence[str]) -> str:
    """The commands of these steps in order, each once."""
    plans = [{step.name: step.line for step in steps(corpus) if step.words} for corpus in found]
    lines = dict.fromkeys(plan[name] for name in names for plan in plans if name in plan)
    return "\n".join(("```", *lines, "```"))
