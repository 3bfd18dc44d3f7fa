"""The README.md of a model directory: what the model is, how good it is, what it is not for.

A card in the form that model hubs show. What `evaluate` found stands between two marks and is
written anew by each evaluation; everything else may be edited and stays.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cache.recipe import layer_numbers, layers_from_json
from corpora.base.files import file_sha256, read_json, write_text
from corpora.base.report import fill_template
from corpora.utterance import ALL, SPLITS
from finetune.evaluate.evaluation import FORMAT, VERSION
from finetune.model_files import CARD, CONFIG
from heads.gold import objective_name
from heads.records import layer_weights_text

BEGIN, END = "<!-- results: written by `evaluate` -->", "<!-- end of results -->"
NOT_YET = "Not evaluated yet: `python cli.py evaluate` scores the model and fills in this section."
Config = Mapping[str, Any]

# Splits that had a part in the making of the model, and what to say beside their scores.
_SEEN = {"dev": " (selected on)", "train": " (trained on)", ALL: " (trained on in part)"}


def card_text(config: Config) -> str:
    """The card of a model.

    Args:
        config: what its config.json holds.
    """
    made = {"manifest_sha256": "", "versions": {}, **config["provenance"]}
    encoders = made.get("encoders", {})
    return fill_template(
        "finetune",
        "model_card.md",
        labels=config["labels"],
        attributes=scales_text(config["head"].get("attributes", {})),
        corpus=str(made.get("corpus") or "a corpus that is not named"),
        made=made,
        encoders=encoders,
        began=sorted({str(name) for name in encoders.values()} - {"tiny"}),
        listens="audio" in config["head"]["dims"],
        reads="text" in config["head"]["dims"],
        parts=_parts(config),
        score=objective_name(config["labels"], config["head"].get("attributes", {})),
        phases=[_phase(one) for one in made.get("phases", ()) if isinstance(one, Mapping)],
        begin=BEGIN,
        end=END,
        results=NOT_YET,
    )


def scales_text(attributes: Mapping[str, Sequence[float]]) -> list[str]:
    """Each attribute with its scale, such as `arousal (1 to 7)`."""
    return [f"{name} ({low:g} to {high:g})" for name, (low, high) in attributes.items()]


def _phase(one: Mapping[str, Any]) -> Mapping[str, Any]:
    """A phase with its scores as text: of several the mean, which it was chosen by."""
    scores = {}
    for name in ("start", "best"):
        known = [one[name][kind] for kind in ("macro_f1", "mean_ccc") if kind in one[name]]
        scores[name] = f"{sum(known) / len(known):.3f}"
    return {**one, **scores}


def update_card(directory: Path, evaluations: Path) -> None:
    """Write what was found about a model into its card.

    A card without the two marks, or that cannot be read or written, is left alone.

    Args:
        directory: of the model.
        evaluations: the folder of all evaluations of its work folder; those of other models, and of
            this one before it was trained again, do not count.
    """
    path = directory / CARD
    if not path.is_file() or not os.access(directory, os.W_OK):
        return
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        return
    digest = file_sha256(directory / CONFIG)
    reports = [
        read_json(file, kind=FORMAT, version=VERSION)
        for file in sorted(evaluations.glob("*/report.json"))
    ]
    own = [one for one in reports if one.get("subject") == "model" and one.get("sha256") == digest]
    found = results_text(sorted(own, key=_order)) if own else NOT_YET
    write_text(path, f"{before}{begin}\n\n{found}\n\n{end}{after}")


def results_text(reports: Sequence[Mapping[str, Any]]) -> str:
    """The tables of a card.

    Args:
        reports: report.json of each evaluation, at least one.
    """
    said = {text for one in reports for text in (one["note"], one.get("protocol", "")) if text}
    groups: dict[str, Any] = {"by_sex": {}, "by_corpus": {}}
    return fill_template(
        "finetune",
        "model_results.md",
        reports=[{**groups, **one} for one in reports],
        seen=_SEEN,
        notes=sorted(said),
    ).rstrip("\n")


def _order(report: Mapping[str, Any]) -> tuple[bool, int, str]:
    """Its own corpus first, and of it the test set."""
    splits = (*SPLITS[::-1], ALL)
    return bool(report["note"]), splits.index(report["split"]), str(report["corpus"])


def _parts(config: Config) -> list[tuple[str, str, str]]:
    names, head = config["provenance"].get("encoders", {}), config["head"]
    rows = []
    for kind, encoder in config["encoders"].items():
        what = f"`{names.get(kind, 'unknown')}` ({encoder['model_type']}), hidden state"
        read = layers_from_json(config["layers"][kind])
        shares = config.get("layer_weights", {}).get(kind)
        if shares:
            own = layer_weights_text({kind: shares}, {kind: read}).removeprefix(f"{kind} ")
            what += f"s with learnt weights: {own}"
        else:
            what += f" {layer_numbers(read)[-1]}"
        rows.append((f"{kind} encoder", what, f"{encoder['parameters']:,}"))
    kinds = {str(pooling["kind"]) for pooling in head["pooling"].values()}
    width = f"{head['mlp_width']} hidden units" if head["mlp_width"] else "linear"
    rows.append(("head", f"pooling {' and '.join(sorted(kinds))}, classifier: {width}", ""))
    return rows
