"""Split: a manifest gets new splits, or folds, in which no speaker stands twice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from corpora.arrangement import Arrangement, Wish, arrange, folded
from corpora.base.errors import ConfigError
from corpora.folds import FEWEST, divide, folds_by, folds_of_count
from corpora.manifest import Manifest, keep_others, read_manifest, write_manifest
from corpora.manifest_fields import keep_both
from corpora.tool_report import ToolReport, report_on

MOST_FOLDS = 200  # leave-one-speaker-out beyond this is a mistake, not a plan


def split(
    path: Path, out: Path, *, wish: Wish, folds: str = "", replace_other: bool = False
) -> ToolReport:
    """Write a manifest again with new splits.

    Args:
        path: the manifest; where `out` is the same, it is kept as `<name>.before-split-1.csv`.
        out: the CSV to write; a JSON goes beside it.
        wish: seed, test fold and balance.
        folds: `loso` (one fold a speaker), `session`, a number of folds of whole speakers, or ""
            for train, dev and test alone.
        replace_other: `out` may be the manifest of another corpus.

    Raises:
        ConfigError: another word for folds, or a fold that there is not.
        ManifestError: too few speakers, or speakers that are not known.
        MissingStepError: there is no such manifest.
    """
    manifest = read_manifest(path)
    if not replace_other:
        keep_others(out, manifest.utterances)
    bare = [replace(u, split="", fold="") for u in manifest.utterances]
    if folds:
        if wish.max_imbalance is not None or wish.balanced_dev:
            raise ConfigError(
                "--max-imbalance and --balanced-dev leave rows out, and with folds every row is "
                "tested once. Take one or the other."
            )
        names, how = _folds(replace(manifest, utterances=tuple(bare)), folds, wish.seed)
        made = folded(divide(bare, names, wish.test_fold), how)
        settings: Mapping[str, Any] = {**made.settings, "seed": wish.seed}
    else:
        made = arrange(bare, manifest.corpus, wish)
        settings = made.settings
    written = replace(
        manifest,
        utterances=made.utterances,
        protocol="",
        shared_speakers=False,
        settings=settings,
    )
    notes = [*made.notes, *_notes(made)]
    if manifest.protocol:
        notes.append(f"These are not the rows of the protocol {manifest.protocol} any more.")
    if out.resolve() == path.resolve() and written != manifest:
        kept = keep_both(path, lambda number: f"{path.stem}.before-split-{number}.csv")
        notes.append(f"The manifest as it was is kept in {kept}.")
    write_manifest(written, out)
    return report_on(f"Splits: {made.how}", written, out, notes)


def _folds(manifest: Manifest, folds: str, seed: int) -> tuple[list[str], str]:
    """The fold of each utterance, and where folds come from."""
    rows = manifest.utterances
    if folds in ("loso", "speaker", "session"):
        unit = "session" if folds == "session" else "speaker"
        names = folds_by(rows, unit)
        count = len(set(names) - {""})
        if count > MOST_FOLDS:
            raise ConfigError(
                f"--folds {folds} would make {count:,} folds; {MOST_FOLDS} is the most. Ask for a "
                "number of folds."
            )
        return names, f"one for each {unit}"
    if not folds.isdecimal() or not FEWEST <= int(folds) <= MOST_FOLDS:
        raise ConfigError(
            f"--folds {folds}: expected loso, session, or a number from {FEWEST} to {MOST_FOLDS}."
        )
    return folds_of_count(rows, int(folds), seed), f"each a group of speakers (seed {seed})"


def _notes(made: Arrangement) -> list[str]:
    counts = ", ".join(f"{name} {count:,}" for name, count in made.folds.items())
    notes = [f"Rows by fold: {counts}."] if counts else []
    for part, removed in made.removed.items():
        if removed:
            listed = ", ".join(f"{label} {count:,}" for label, count in removed.items())
            notes.append(f"Left out of {part} at random, to balance classes: {listed}.")
    return notes
