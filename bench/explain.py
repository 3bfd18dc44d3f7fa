"""The benchmark of explanations: 2,600 utterances from the cache, and the whole command.

Each is a process of its own, on a cache nobody has read yet but the system that wrote it.

A work folder to explain, made up: recordings, TextGrids, a full cache, a head.

2,600 utterances are the published development set (Leygue et al., Interspeech 2025: 8 · 326, of
MSP-Podcast, whose segments last 2.75 to 11 s and mostly 3 to 6). What is drawn at random keeps its
shape: frames of 1024 and 768 values, 40 speakers, about 12 phones a second.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from bench.recordings import make_manifest
from bench.table import Outcome, Row, Settings
from cache.encoders.grid import SAMPLE_RATE, Grid, fbank_grid
from cache.last_extraction import (
    TOKEN_KIND,
    VALUES,
    Extraction,
    Source,
    layer_name,
    write_extraction,
)
from cache.lookup import FrameCache
from cache.recipe import JSON, Recipe
from cache.store.layout import ensure_stream, open_features
from cache.stream import PartWriter
from corpora.base.work import Work
from corpora.manifest import Manifest, write_manifest
from corpora.textgrid import Interval, fill_gaps, write_textgrid
from corpora.utterance import Utterance
from explain.cues.descriptors import DEFAULT
from explain.cues.stream import cue_recipe
from heads.head import Head, HeadConfig
from heads.load import load_dataset, read_origin
from heads.records import BEST, WEIGHTS, HeadRecord, package_versions, save_head
from heads.training import Schedule, TrainingConfig

LABELS = (
    "anger", "contempt", "disgust", "fear", "happiness", "neutral", "sadness", "surprise",
)  # fmt: skip
SPLIT = "dev"
SPEAKERS = 40
AUDIO_DIM, TEXT_DIM = 1024, 768
AUDIO_LAYER, TEXT_LAYER = 24, 12
# Log-normal around 4.3 s, 4.7 s in the mean.
MEDIAN_LOG, DEVIATION_LOG, SHORTEST, LONGEST = np.log(4.3), 0.4, 1.0, 11.0
GRID = fbank_grid(2)
POOLING = {"kind": "mqmha", "queries": 2, "heads": 2}
# A drawn scorer times this gives weights as narrow as a trained one's.
SPREAD = 4.0
VOWELS = ("AA1", "AE1", "AH0", "AW1", "AY1", "EH1", "ER0", "IH1", "IY0", "OW1", "UW1")
CONSONANTS = ("B", "D", "DH", "F", "HH", "K", "L", "M", "N", "P", "R", "S", "SH", "T", "V", "Z")
EDGE_SECONDS, PAUSE_SECONDS = 0.15, 0.05

Streams = Mapping[str, NDArray[np.generic]]


def make_work(folder: Path, count: int) -> Work:
    """Recordings and a work folder with all that `explain` reads of them, in one split.

    Args:
        folder: does not exist yet.
        count: of utterances.
    """
    random = np.random.default_rng(0)
    seconds = random.lognormal(MEDIAN_LOG, DEVIATION_LOG, count).clip(SHORTEST, LONGEST)
    made = make_manifest(folder / "recordings", seconds.tolist())
    utterances = tuple(
        replace(
            u,
            label=LABELS[number % len(LABELS)],
            speaker=f"s{number % SPEAKERS:02}",
            split=SPLIT,
            alignment=_align(u, float(seconds[number]), random),
        )
        for number, u in enumerate(made.utterances)
    )
    manifest = replace(made, utterances=utterances, labels=LABELS)
    work = Work(folder / "work")
    write_manifest(manifest, work.manifest)
    _fill_cache(work, manifest, seconds)
    _add_head(work, manifest)
    return work


def _align(u: Utterance, seconds: float, random: np.random.Generator) -> Path:
    """Words over the recording but for its edges, with short pauses, and phones inside them."""
    words: list[Interval] = []
    phones: list[Interval] = []
    said = u.text.split()
    bounds = np.linspace(EDGE_SECONDS, seconds - EDGE_SECONDS, len(said) + 1)
    for name, (start, end) in zip(said, pairwise(bounds.tolist()), strict=True):
        stop = max(end - PAUSE_SECONDS, (start + end) / 2)
        words.append(Interval(start, stop, name))
        count = max(1, round(12 * (end - start)))
        edges = np.linspace(start, stop, count + 1).tolist()
        for place, (first, last) in enumerate(pairwise(edges)):
            phones.append(
                Interval(first, last, str(random.choice(VOWELS if place % 2 else CONSONANTS)))
            )
    path = u.audio.with_suffix(".TextGrid")
    tiers = {
        "words": fill_gaps(words, seconds, ""),
        "phones": fill_gaps(phones, seconds, "sil"),
    }
    write_textgrid(path, tiers, seconds)
    return path


def _fill_cache(work: Work, manifest: Manifest, seconds: NDArray[np.float64]) -> None:
    """Frames, token kinds, energy, speech and cues, and the record of their extraction."""
    grid: JSON = GRID.to_json()
    recipes = {
        kind: Recipe(kind, {"made": "up", **({} if kind == "text" else {"grid": grid})})
        for kind in ("audio", "text", "energy", "speech")
    }
    cues = cue_recipe(DEFAULT, GRID)
    streams = {
        "audio": (recipes["audio"], layer_name(AUDIO_LAYER), AUDIO_DIM, np.float16),
        "text": (recipes["text"], layer_name(TEXT_LAYER), TEXT_DIM, np.float16),
        "kinds": (recipes["text"], TOKEN_KIND, 1, np.uint8),
        "energy": (recipes["energy"], VALUES, 1, np.float32),
        "speech": (recipes["speech"], VALUES, 1, np.float32),
        "cues": (cues, VALUES, 2 * len(DEFAULT.cues), np.float32),
    }
    features = open_features(work.features)
    keys = FrameCache(work).keys(manifest.utterances)
    with ExitStack() as open_writers:
        writers = {}
        for name, (recipe, stream, dim, dtype) in streams.items():
            path = ensure_stream(features, recipe, stream, dim, dtype)
            writers[name] = open_writers.enter_context(PartWriter(path, dim, dtype))
        for u, drawn in zip(manifest.utterances, _draw(manifest, seconds, GRID), strict=True):
            for name, values in drawn.items():
                kind = "text" if name in ("text", "kinds") else "audio"
                writers[name].add(keys[u.id][kind], values)
    write_extraction(
        work.extraction,
        Extraction(
            {
                "audio": Source(recipes["audio"], "made up", (AUDIO_LAYER,)),
                "text": Source(recipes["text"], "made up", (TEXT_LAYER,)),
                "energy": Source(recipes["energy"]),
                "speech": Source(recipes["speech"]),
            }
        ),
    )


def _draw(manifest: Manifest, seconds: NDArray[np.float64], grid: Grid) -> Iterator[Streams]:
    """What each stream holds of each utterance."""
    random = np.random.default_rng(1)
    for number, u in enumerate(manifest.utterances):
        frames = grid.frames(round(seconds[number] * SAMPLE_RATE))
        words = len(u.text.split())
        kinds = np.concatenate([[0], np.where(random.random(words) < 0.2, 2, 1), [0]])
        kinds[1] = 1
        count = len(DEFAULT.cues)
        voiced = np.repeat(random.random((frames, 1)) < 0.6, count, axis=1)
        # Frames share an offset, as voices and channels do; neighbours share half of the rest.
        noise = random.standard_normal((frames + 1, AUDIO_DIM), dtype=np.float32)
        offset = 0.5 * random.standard_normal((1, AUDIO_DIM), dtype=np.float32)
        edge = np.abs(np.arange(frames) / frames - 0.5) > 0.46
        yield {
            "audio": offset + 0.7 * (noise[1:] + noise[:-1]),
            "text": random.standard_normal((len(kinds), TEXT_DIM), dtype=np.float32),
            "kinds": kinds[:, None].astype(np.uint8),
            "energy": random.normal(-35, 8, (frames, 1)).astype(np.float32),
            "speech": np.where(edge, 0.05, 0.9)[:, None].astype(np.float32),
            "cues": np.concatenate(
                [random.standard_normal((frames, count)) * voiced, voiced], axis=1
            ).astype(np.float32),
        }


def _add_head(work: Work, manifest: Manifest) -> None:
    """`search/best.json` of a head whose parameters are drawn."""
    dims = {"audio": AUDIO_DIM, "text": TEXT_DIM}
    config = HeadConfig(LABELS, dims, dict.fromkeys(dims, POOLING), mlp_width=256)
    head = Head(config, 1)
    with torch.no_grad():
        for name, parameter in head.poolings.named_parameters():
            if name.endswith("weight"):
                parameter.mul_(SPREAD)
    cache = FrameCache(work)
    record = HeadRecord(
        trial=0,
        start="",
        params={},
        head=config,
        training=TrainingConfig(1e-3),
        schedule=Schedule(1),
        origin=read_origin(cache, manifest, load_dataset(cache, manifest).frames),
        study_seed=0,
        versions=package_versions(),
        dev_macro_f1=1 / len(LABELS),
    )
    save_head(work.search / BEST, work.search / WEIGHTS, head, record)


UTTERANCES = 2_600
MOST_SECONDS = 60.0
ROOT = Path(__file__).parents[1]
#: Analyses that are no statistics from the cache: cues are taken from recordings.
LEFT_OUT = ("cues",)

T = TypeVar("T")


def statistics(settings: Settings) -> Outcome:
    """All that `explain` computes but cues, in seconds; nothing is drawn or written.

    Opening the head, reading frames and TextGrids, and the means and deviations that probing keeps
    in the cache are in it: they are computed in the first repeat.
    """
    found = [_measured(_made(settings)) for _ in range(settings.times(1))]
    took = {name: median(one[name] for one in found) for name in found[0]}
    total = sum(took.values())
    parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in took.items())
    rate = settings.scaled(UTTERANCES, 50) / total
    return Outcome(f"{total:.1f} s", parts, f"{rate:.0f} a second", total < MOST_SECONDS)


def command(settings: Settings) -> Outcome:
    """`cli.py explain` from start to end: imports, cues that are cached, pictures and page too."""
    work = _made(settings)
    arguments = [sys.executable, "cli.py", "explain", "--work", str(work), "--split", "dev"]
    seconds = []
    for _ in range(settings.times(1)):
        started = time.perf_counter()
        subprocess.run(
            arguments, check=True, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        seconds.append(time.perf_counter() - started)
    size = (work / "explain" / "report.html").stat().st_size
    return Outcome(f"{median(seconds):.1f} s", f"a page of {size / 1e6:.1f} MB", "", True)


def _made(settings: Settings) -> Path:
    """The work folder, made once; without moments, which are made when they are first needed."""
    folder = settings.folder / "explain"
    if not folder.is_dir():
        make_work(folder, settings.scaled(UTTERANCES, 50))
    return folder / "work"


def _measured(work: Path) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "bench.explain", str(work)],
        check=True,
        cwd=ROOT,
        env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},
        stdout=subprocess.PIPE,
        text=True,
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main(root: str) -> None:
    """Explain a work folder's development set, and print the seconds of each part as JSON."""
    from cache.lookup import FrameCache
    from corpora.alignments import read_alignments
    from corpora.base.work import Work
    from corpora.manifest import read_manifest
    from explain.analyses import ANALYSES, Context
    from explain.config import ExplainConfig
    from explain.item import collect_items
    from explain.load import build_subject, cached_material, choose_rows
    from explain.subject import read_texts
    from finetune.evaluate.scored import open_head

    took: dict[str, float] = {}

    def timed(name: str, action: Callable[[], T]) -> T:
        started = time.perf_counter()
        result = action()
        took[name] = time.perf_counter() - started
        return result

    work, config = Work(Path(root)), ExplainConfig(split="dev", figures=False)
    manifest = read_manifest(work.manifest)
    opened = open_head(FrameCache(work), work.search)
    rows = choose_rows(manifest, config.split)
    material = timed("reading", lambda: cached_material(opened, rows))
    subject = timed(
        "head",
        lambda: build_subject(
            opened.head, material, source=opened.source, manifest=manifest, split=config.split
        ),
    )
    aligned = timed("TextGrids", lambda: read_alignments(subject.utterances))
    timed("items", lambda: collect_items(subject, aligned, read_texts(subject)))
    context = Context(subject, aligned, manifest, opened.cache, config)
    for name, analysis in ANALYSES.items():
        if name not in LEFT_OUT:
            timed(name, lambda analysis=analysis: analysis(context))  # type: ignore[misc]
    sys.stdout.write(json.dumps(took) + "\n")


ROWS = (
    Row(
        "statistics",
        "statistics of 2,600 utterances, cues, pictures and page excluded",
        "seconds of each part",
        f"under {MOST_SECONDS:.0f} s",
        statistics,
    ),
    Row(
        "command",
        "`explain` of 2,600 utterances, cached cues, pictures and page included",
        "what it writes",
        "",
        command,
    ),
)

if __name__ == "__main__":
    main(sys.argv[1])
