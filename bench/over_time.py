"""Emotion over time on an hour that is known: recordings of unseen speakers, joined by pauses."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np
import soundfile

from cache.audio import load_audio
from cache.encoders.grid import SAMPLE_RATE
from corpora.base.terminal import aligned
from corpora.manifest import Manifest, Utterance
from corpora.stretches import Stretch

CLI = Path(__file__).parents[1] / "cli.py"
# Between two recordings, seconds, drawn evenly.
PAUSES = (0.3, 1.0)


@dataclass(frozen=True)
class Joined:
    """A recording that was put together.

    Attributes:
        path: the file.
        pieces: where each recording lies; the name is its label.
    """

    path: Path
    pieces: tuple[Stretch, ...]

    @property
    def changes(self) -> list[float]:
        """The middles of the pauses in which the emotion changes."""
        return [
            (left.end + right.start) / 2
            for left, right in pairwise(self.pieces)
            if left.name != right.name
        ]


def join(path: Path, rows: Sequence[Utterance], minutes: float, scene: int, seed: int) -> Joined:
    """Write recordings one after the other, `scene` of one label in a row, until it is so long.

    Args:
        path: a WAV file to be.
        rows: labelled; drawn again and again.
        minutes: at least.
        scene: how many of a label and a speaker stand together, before another label follows.
        seed: of the order.
    """
    random = np.random.default_rng(seed)
    groups: dict[tuple[str, str], list[Utterance]] = {}
    for row in rows:
        groups.setdefault((row.label, row.speaker), []).append(row)
    sounds = {row.id: load_audio(row.audio, row.start, row.end) for row in rows}
    pieces: list[Stretch] = []
    at, last = 0, ""
    with soundfile.SoundFile(path, "w", SAMPLE_RATE, 1, "PCM_16") as file:
        while at < minutes * 60 * SAMPLE_RATE:
            others = [key for key in groups if key[0] != last]
            label, speaker = others[int(random.integers(len(others)))]
            own = groups[label, speaker]
            for number in random.permutation(len(own))[:scene]:
                sound = sounds[own[number].id]
                pause = np.zeros(round(random.uniform(*PAUSES) * SAMPLE_RATE), np.float32)
                file.write(sound)
                file.write(pause)
                end = at + len(sound)
                pieces.append(Stretch(at / SAMPLE_RATE, end / SAMPLE_RATE, label))
                at = end + len(pause)
            last = label
    return Joined(path, tuple(pieces))


def run_predict(work: Path, joined: Joined, *options: str) -> tuple[list[dict[str, str]], str]:
    """The rows of `--out x.csv`, and what the process took as text.

    By the door that users take: `cli.py` bounds what oneDNN keeps of each shape of batch.
    """
    out = joined.path.with_suffix(".out.csv")
    command = [sys.executable, str(CLI), "predict", str(joined.path), "--work", str(work)]
    begin = time.monotonic()
    process = subprocess.Popen([*command, *options, "--out", str(out)], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    with out.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    speed = soundfile.info(joined.path).duration / seconds
    peak = usage.ru_maxrss * 1024 / 1e6
    return rows, f"{seconds:.1f} s ({speed:.0f}× real time), peak {peak:,.0f} MB"


def found_changes(rows: Sequence[dict[str, str]]) -> list[float]:
    """Where the most probable label changes, seconds."""
    return [
        (float(left["to"]) + float(right["from"])) / 2
        for left, right in pairwise(rows)
        if left["label"] != right["label"]
    ]


def hits(these: Sequence[float], those: Sequence[float], within: float) -> tuple[float, float]:
    """Which share of these has one of those so near; and the median distance of all of them."""
    at = np.sort(np.array([-np.inf, *those, np.inf]))
    place = np.searchsorted(at, these)
    distance = np.minimum(np.abs(at[place] - these), np.abs(at[place - 1] - these))
    return float((distance <= within).mean()), float(median(distance))


def over_time_lines(work: Path, manifest: Manifest, folder: Path, minutes: float) -> list[str]:
    """All figures, as lines.

    Args:
        work: with a searched head.
        manifest: whose test recordings are joined.
        folder: for what is joined.
        minutes: of the long recording; memory is compared with a tenth of it.
    """
    tests = [row for row in manifest.in_split("test") if row.label]
    table: list[tuple[str, ...]] = [
        ("recording", "answers", "right", "changes found", "median", "of those found true")
    ]
    took = []
    for scene in (1, 4):
        joined = join(folder / f"scenes-of-{scene}.wav", tests, minutes, scene, seed=scene)
        rows, said = run_predict(work, joined, "--every", "0.5")
        took.append(f"--every 0.5, scenes of {scene}: {said}")
        window = float(rows[0]["end"]) - float(rows[0]["start"])
        table.append(_line(joined, rows, f"scenes of {scene}, windows of {window:g} s", window))
        rows, said = run_predict(work, joined, "--segments", "vad")
        took.append(f"--segments vad, scenes of {scene}: {said}")
        table.append(_line(joined, rows, f"scenes of {scene}, speech (vad)", window))
        cuts = folder / f"scenes-of-{scene}.csv"
        lines = [f"{one.start},{one.end}" for one in joined.pieces]
        cuts.write_text("\n".join(["start,end", *lines]), encoding="utf-8")
        rows, said = run_predict(work, joined, "--segments", str(cuts))
        took.append(f"--segments FILE, scenes of {scene}: {said}")
        table.append(_line(joined, rows, f"scenes of {scene}, bounds given", window))
    short = join(folder / "short.wav", tests, minutes / 10, 1, seed=1)
    took.append(f"--every 0.5, a tenth: {run_predict(work, short, '--every', '0.5')[1]}")
    return [*aligned(table, (1, 2, 3, 4, 5)), "", *took]


def _line(
    joined: Joined, rows: Sequence[dict[str, str]], name: str, window: float
) -> tuple[str, ...]:
    """A line of the table; an answer is right by the piece in which its middle lies."""
    inside = [(row, one) for row in rows if (one := _piece(joined, row)) is not None]
    right = np.mean([row["label"] == one.name for row, one in inside])
    changes = found_changes(rows)
    recall, distance = hits(joined.changes, changes, window)
    precision, _ = hits(changes, joined.changes, window)
    return (
        name,
        f"{len(rows):,}",
        f"{right:.3f}",
        f"{recall:.3f} of {len(joined.changes):,}",
        f"{distance:.2f} s",
        f"{precision:.3f} of {len(changes):,}",
    )


def _piece(joined: Joined, row: dict[str, str]) -> Stretch | None:
    """The piece that holds the middle of what an answer stands for; None in a pause."""
    middle = (float(row["from"]) + float(row["to"])) / 2
    place = np.searchsorted([one.start for one in joined.pieces], middle, side="right") - 1
    one = joined.pieces[max(int(place), 0)]
    return one if one.start <= middle <= one.end else None
