"""The README.md of a model directory: what the model is, how good it is, what it is not for.

A card in the form that model hubs show. What `evaluate` found stands between two marks and is
written anew by each evaluation; everything else may be edited and stays.
"""

from __future__ import annotations

import html
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cache.recipe import layer_numbers, layers_from_json
from corpora.base.files import file_sha256, read_json, write_text
from corpora.utterance import ALL, SPLITS
from finetune.evaluate.evaluation import FORMAT, VERSION
from finetune.model_files import CARD, CONFIG
from heads.records import layer_weights_text

BEGIN, END = "<!-- results: written by `evaluate` -->", "<!-- end of results -->"
NOT_YET = "Not evaluated yet: `python cli.py evaluate` scores the model and fills in this section."
Config = Mapping[str, Any]

_INPUTS = {
    ("audio",): "One utterance of speech goes",
    ("text",): "A transcript goes",
    ("audio", "text"): "One utterance of speech and its transcript go",
}

_USE = """\
```python
from finetune.model import EmotionModel

model = EmotionModel.from_pretrained("DIRECTORY-OR-HUB-ID")
for prediction in model.predict(["hello.wav"]{texts}):
    print(prediction.label, prediction.probabilities)
```

or `python cli.py predict hello.wav --model DIRECTORY-OR-HUB-ID`{option}."""

# Splits that had a part in the making of the model, and what to say beside their scores.
_SEEN = {"dev": " (selected on)", "train": " (trained on)", ALL: " (trained on in part)"}

_LIMITS = """\
* **For research on how emotion sounds**: comparing heads and encoders, annotating recordings that a
  person will check, teaching.
* **Not for decisions about people**: hiring, schooling, policing, credit, medical diagnosis,
  surveillance. In the European Union, inferring the emotions of people at work or in education is
  prohibited but for medical and safety reasons (Regulation 2024/1689, article 5).
* It gives the label that listeners or actors of the training corpus would have given, one of the
  {count} it knows. That is not what a person feels, and other emotions get one of these labels too.
* Other languages, recording conditions, ages, and spontaneous instead of acted speech lower the
  scores, often by much. Score it on recordings of your own first: `evaluate --manifest`.
* Groups of speakers may be served unequally: see the results by sex above, where they are given.
* The probabilities are not calibrated: see ECE and temperature above, where they are given."""


def card_text(config: Config) -> str:
    """The card of a model.

    Args:
        config: what its config.json holds.
    """
    config = _escaped(config)
    made = config["provenance"]
    corpus = str(made.get("corpus") or "a corpus that is not named")
    reads = "text" in config["head"]["dims"]
    blocks = [
        "---\nlibrary_name: emopool\npipeline_tag: audio-classification\nlicense: other\n"
        "tags:\n- speech-emotion-recognition\n- emopool\n---",
        f"# Emotion from speech: {len(config['labels'])} classes, trained on {corpus}",
        *_warnings(made),
        f"{_INPUTS[tuple(sorted(config['head']['dims']))]} in, and a probability for each of these "
        f"labels comes out: {', '.join(config['labels'])}. Made by Emopool.",
        "## Use",
        _USE.format(
            texts=', texts=["Hello there."]' if reads else "",
            option=", with `--text 'Hello there.'`" if reads else "",
        ),
        *_without_text(config),
        "## Parts",
        _table(("part", "what", "parameters"), _parts(config)),
        "## Training",
        *_training(made, corpus),
        "## Results",
        f"{BEGIN}\n\n{NOT_YET}\n\n{END}",
        "## Intended use and limits",
        _LIMITS.format(count=len(config["labels"])),
        "## Licence",
        _licence(made, corpus),
    ]
    return "\n\n".join(blocks) + "\n"


def _escaped(value: Any) -> Any:  # noqa: ANN401 - JSON
    """JSON whose texts are no HTML: hubs draw a card, and labels and names come from corpora."""
    if isinstance(value, str):
        return html.escape(value, quote=False)
    if isinstance(value, Mapping):
        return {name: _escaped(entry) for name, entry in value.items()}
    return [_escaped(entry) for entry in value] if isinstance(value, list | tuple) else value


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
    reports = [_read(file) for file in sorted(evaluations.glob("*/report.json"))]
    own = [one for one in reports if one.get("subject") == "model" and one.get("sha256") == digest]
    found = results_text(sorted(own, key=_order)) if own else NOT_YET
    write_text(path, f"{before}{begin}\n\n{found}\n\n{end}{after}")


def results_text(reports: Sequence[Mapping[str, Any]]) -> str:
    """The tables of a card.

    Args:
        reports: report.json of each evaluation, at least one.
    """
    rows = []
    for one in reports:
        name = f"{one['corpus'] or 'its corpus'}, {one['split']}"
        if not one["note"]:  # of another corpus it has seen nothing
            name += _SEEN.get(one["split"], "")
        rows.append((name, *_scores(one["report"]), *_calibration(one)))
    scores = ("macro-F1", "UA", "WA", "weighted F1", "utterances", "speakers")
    blocks = [_table(("set", *scores, "ECE", "temperature"), rows)]
    if any(one["report"]["intervals"] for one in reports):
        blocks.append("In brackets: 95 % intervals of a bootstrap over speakers.")
    blocks.append(
        "UA is the mean recall of the classes, WA the share that is right; guessing gives a UA of "
        f"{1 / len(reports[0]['report']['labels']):.3f}. ECE: expected calibration error before → "
        "after dividing the logits by the temperature, which was fitted on the development set."
    )
    notes = {text for one in reports for text in (one["note"], one.get("protocol", "")) if text}
    blocks += sorted(notes)
    last = reports[0]
    classes = [
        (
            c["label"],
            f"{c['precision']:.3f}",
            f"{c['recall']:.3f}",
            f"{c['f1']:.3f}",
            f"{c['support']:,}",
        )
        for c in last["report"]["per_class"]
        if c["support"]
    ]
    title = f"{last['corpus'] or 'its corpus'}, {last['split']}"
    measures = ("label", "precision", "recall", "F1", "utterances")
    blocks += [f"By label ({title}):", _table(measures, classes)]
    for key, name in (("by_sex", "sex"), ("by_corpus", "corpus")):
        groups = last.get(key) or {}
        if groups:
            found = [(group, *_scores(report)) for group, report in groups.items()]
            blocks += [f"By {name} ({title}):", _table((name, *scores), found)]
    return "\n\n".join(blocks)


def _order(report: Mapping[str, Any]) -> tuple[bool, int, str]:
    """Its own corpus first, and of it the test set."""
    splits = (*SPLITS[::-1], ALL)
    return bool(report["note"]), splits.index(report["split"]), str(report["corpus"])


def _read(path: Path) -> dict[str, Any]:
    return dict(_escaped(read_json(path, kind=FORMAT, version=VERSION)))


def _scores(report: Mapping[str, Any]) -> tuple[str, ...]:
    cells = []
    for name in ("macro_f1", "uar", "accuracy", "weighted_f1"):
        if name not in report:  # an evaluation of an earlier version
            cells.append("-")
            continue
        low_high = (report["intervals"] or {}).get(name)
        interval = f" [{low_high[0]:.3f}, {low_high[1]:.3f}]" if low_high else ""
        cells.append(f"{report[name]:.3f}{interval}")
    return (*cells, f"{report['n']:,}", f"{report['speakers']:,}")


def _calibration(one: Mapping[str, Any]) -> tuple[str, str]:
    found = one.get("calibration")
    if not found:
        return "-", "-"
    before, after = found["before"]["ece"], found["after"]["ece"]
    return f"{before:.3f} → {after:.3f}", f"{found['temperature']:.2f}"


def _warnings(made: Mapping[str, Any]) -> list[str]:
    lines = []
    if "tiny" in made.get("encoders", {}).values():
        lines.append(
            "> **Tiny encoders that began with random weights.** This model shows that the parts "
            "work together. It is of no use for recognising emotions."
        )
    if made.get("synthetic"):
        lines.append("> **Trained on synthetic speech.** Its scores say nothing about people.")
    return lines


def _without_text(config: Config) -> list[str]:
    if set(config["head"]["dims"]) != {"audio", "text"}:
        return []
    return [
        "A recording whose words are not given is judged with an empty text, which lowers the "
        "scores; `--transcribe` lets Whisper write them down."
    ]


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


def _training(made: Mapping[str, Any], corpus: str) -> list[str]:
    trial = f"Trial {made['trial']} of a search over heads" if "trial" in made else "A head"
    digest = str(made.get("manifest_sha256", ""))[:12]
    rows = f" (SHA-256 of its manifest begins with `{digest}`)" if digest else ""
    blocks = [f"{trial} was fine-tuned with its encoders on {corpus}{rows}."]
    phases = [one for one in made.get("phases", ()) if isinstance(one, Mapping)]
    if phases:
        cells = [
            (
                str(one["config"]["phase"]),
                f"{one['config']['learning_rate']:g}",
                f"{sum(row['parameters'] for row in one['trainable']):,}",
                f"{one['start']['macro_f1']:.3f}",
                f"{one['best']['macro_f1']:.3f}",
            )
            for one in phases
        ]
        head = ("phase", "learning rate", "trained parameters", "dev macro-F1 before", "after")
        blocks.append(_table(head, cells))
    if made.get("versions"):
        used = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
        blocks.append(f"With {used}. `config.json` has all settings and the digest of each file.")
    return blocks


def _licence(made: Mapping[str, Any], corpus: str) -> str:
    names = sorted({str(name) for name in made.get("encoders", {}).values()} - {"tiny"})
    of = f"the encoders it began with ({', '.join(names)}) and " if names else ""
    return (
        f"Emopool is MIT-licensed; the weights are not covered by that. Their use is bound by the "
        f"licences of {of}the corpus it was trained on ({corpus}): several corpora of emotional "
        "speech, such as IEMOCAP and MSP-Podcast, are for research only and may not be passed on "
        "in any form. Read these before you publish or use the model, and name them here."
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
