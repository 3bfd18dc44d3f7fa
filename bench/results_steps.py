"""What is done with a corpus for `make results`: commands, and what stands between them."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.coverage import SPEAKERS, coverage, declared_different
from cache.lookup import FrameCache
from corpora.base.files import write_text
from corpora.base.work import Work
from corpora.manifest import read_manifest, write_manifest
from explain.probing import shuffled_within
from heads.bootstrap import paired_differences
from heads.records import TEST_FOLD_PREDICTIONS, manifest_digest

DEALS = 3
# Seeds where rows are cheap; the poolings, of which two have scorers of two layers, take one.
RUNS = 2
AVERAGE, PAUSES = "average", "vad_average"
TUNED = "--learning-rates 3e-3 --scorer-rates 0.05 --no-plots"
# The second goes on in the folder of the first, whose regressions it needs as well.
NORMS = {
    "none": f"--input-norms none {TUNED} --fresh",
    "standardise": f"--input-norms standardise {TUNED}",
}
FIXED = """\
learning_rate = 3e-3
input_norm = "standardise"
mlp_width = 256
dropout = 0.1
weight_decay = 0.01
loss = "weighted_cross_entropy"
"""
ENCODERS = "--audio-encoder whisper-tiny.en --text-encoder"
HEAD = "W/compare/rows/audio-attentive-q1-h1-n2/head.json"
TABLES = ("correlations", "places", "phone-classes", "cues-levels", "word-informativeness")

#: By name of the step, what it said; `files` holds the text of those that are kept.
Answers = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Corpus:
    """A corpus to make results of.

    Attributes:
        name: of its reader.
        title: for people.
        folds: groups of speakers, each of which is the test set once.
        nested: the search is repeated for each group, too, which takes minutes.
        root: its folder.
    """

    name: str
    title: str
    folds: int
    nested: bool = False
    root: Path = Path()


EMODB = Corpus("emodb", "EMO-DB", 5, nested=True)
RAVDESS = Corpus("ravdess", "RAVDESS", 4)
SAMPLE = Corpus("sample", "sample corpus (synthetic speech)", 5, nested=True)


@dataclass(frozen=True)
class Step:
    """One command, or a function.

    Attributes:
        name: of its answer.
        words: what `cli.py` gets, `W/` standing for the work folder; "" for a function.
        does: called with the folder and the answers so far; before the command where there is one.
        keeps: files whose text is kept, as far as they are written.
    """

    name: str
    words: str = ""
    does: Callable[[Path, Answers], Mapping[str, Any]] | None = None
    keeps: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """As a user types it."""
        return f"python cli.py {self.words} --work W"


def steps(corpus: Corpus) -> list[Step]:
    """All that is done with a corpus, in order."""
    return [
        Step("prepare", f"prepare {corpus.name} path/to/{corpus.name}"),
        Step("split", f"prepare split --folds {corpus.folds}"),
        # All layers' frames, so that nothing is encoded twice: these corpora are small.
        Step("extract-layers", f"extract {ENCODERS} minilm --audio-layers all"),
        Step("layers", f"compare --layers --seeds 1 --input-norms standardise {TUNED}"),
        Step("extract-both", f"extract {ENCODERS} minilm", keeps=("extraction.json",)),
        Step("facts", does=_facts),
        *(
            Step(
                f"modalities-{norm}",
                f"compare --tables modalities --seeds {RUNS} {options}",
            )
            for norm, options in NORMS.items()
        ),
        Step("extract-audio", f"extract {ENCODERS} ''"),
        *(
            Step(
                f"poolings-{norm}",
                f"compare --tables poolings --seeds 1 {options}",
            )
            for norm, options in NORMS.items()
        ),
        Step(
            "heads",
            "compare --no-folds --tables poolings --poolings AS --seeds 1 "
            f"--input-norms standardise {TUNED} --fresh",
        ),
        Step(
            "explain",
            f"explain --head {HEAD} --split all --sounds 0 --no-plots",
            keeps=tuple(f"explain/tables/{name}.csv" for name in TABLES),
        ),
        Step("finetune", f"finetune --head {HEAD} --epochs 2 --fresh"),
        *(
            Step(
                f"dealt-{seed}",
                "compare --tables poolings --poolings average --seeds 1 "
                f"--input-norms standardise --manifest W/dealt-{seed}.csv {TUNED} --fresh",
                lambda folder, _, seed=seed: _deal(folder, seed),  # type: ignore[misc]
            )
            for seed in range(DEALS)
        ),
        *[Step("search", "search --trials 30 --test-folds protocol")] * corpus.nested,
        *(
            Step(
                f"{pooling}-{seed}",
                f"search --trials 1 --space W/{pooling}.toml --seed {seed} --folds off "
                "--test-folds protocol --fresh",
                lambda folder, _, pooling=pooling: _space(folder, pooling),  # type: ignore[misc]
                (f"search/{TEST_FOLD_PREDICTIONS}",),
            )
            for pooling in (AVERAGE, PAUSES)
            for seed in range(RUNS)
        ),
        Step("pauses", does=_pauses),
    ]


def _facts(folder: Path, _: Answers) -> Mapping[str, Any]:
    """What the data is, whatever folder it lies in."""
    work = Work(folder)
    manifest = read_manifest(work.manifest)
    rows = [u for u in manifest.utterances if u.label]
    hashes = sorted(FrameCache(work).hashes({u.audio for u in rows}).values())
    return {
        "utterances": len(rows),
        "speakers": len({u.speaker for u in rows}),
        "labels": list(manifest.labels),
        "texts": len({u.text for u in rows}),
        "rows_sha256": manifest_digest(manifest),
        "recordings_sha256": hashlib.sha256("\n".join(hashes).encode()).hexdigest(),
    }


def _deal(folder: Path, seed: int) -> Mapping[str, Any]:
    """Write a manifest whose labels are dealt out anew within each speaker."""
    manifest = read_manifest(Work(folder).manifest)
    rows = manifest.utterances
    order = shuffled_within(np.arange(float(len(rows))), [u.speaker for u in rows], seed)
    dealt = (replace(u, label=rows[int(n)].label) for u, n in zip(rows, order, strict=True))
    write_manifest(replace(manifest, utterances=tuple(dealt)), folder / f"dealt-{seed}.csv")
    return {}


def _space(folder: Path, pooling: str) -> Mapping[str, Any]:
    """Write a search space of one head: this pooling, all else as in the comparison."""
    write_text(folder / f"{pooling}.toml", f'pooling = "{pooling}"\n{FIXED}')
    return {}


def _pauses(folder: Path, answers: Answers) -> Mapping[str, Any]:
    """Frames of speech alone against all frames, paired over speakers."""
    said = {}
    for pooling in (AVERAGE, PAUSES):
        runs = []
        for seed in range(RUNS):
            [text] = answers[f"{pooling}-{seed}"]["files"].values()
            rows = list(csv.DictReader(io.StringIO(text)))
            columns = [name for name in rows[0] if name.startswith("p_")]
            runs.append([int(np.argmax([float(row[c]) for c in columns])) for row in rows])
        said[pooling] = np.array(runs)
    labels = [name.removeprefix("p_") for name in columns]
    gold = np.array([labels.index(row["gold"]) for row in rows])
    by_id = {u.id: u.speaker for u in read_manifest(Work(folder).manifest).utterances}
    speakers = [by_id[row["id"]] for row in rows]
    found, reason = paired_differences(
        gold, said[PAUSES][None], said[AVERAGE], len(labels), speakers
    )
    if not found:
        return {"reason": reason}
    return {"value": found[0].value, "interval": list(found[0].interval), "p": found[0].p}


def _coverage() -> Mapping[str, Any]:
    return {str(n): {"covered": coverage(n), "false": declared_different(n)[0]} for n in SPEAKERS}


#: Beside the corpora.
SIMULATION = (Step("coverage", does=lambda *_: _coverage()),)
