"""Texts into the manifest: the old one is kept, and what changed meanwhile is left alone."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from corpora.manifest import read_manifest, write_manifest
from corpora.manifest_fields import keep_both
from corpora.rows import COLUMNS
from corpora.utterance import Utterance


@dataclass(frozen=True)
class Filled:
    """What became of a manifest.

    Attributes:
        changed: utterances whose text or text_source is new.
        skipped: utterances that somebody changed or removed while the recordings were heard.
        kept_as: the old manifest; None if nothing changed.
        lost_columns: of the old manifest that Emopool does not know; they are in `kept_as` alone.
    """

    changed: int
    skipped: int = 0
    kept_as: Path | None = None
    lost_columns: tuple[str, ...] = ()


def fill_texts(
    path: Path, planned: Mapping[str, Utterance], texts: Mapping[str, str], source: str
) -> Filled:
    """Write texts into a manifest, if there is anything new.

    The manifest is read again, because hours may have passed: a row gets its text only if its
    recording, its text and its source are what they were.

    Args:
        path: of the manifest.
        planned: the utterances as they were, by id.
        texts: new ones by id.
        source: of these texts.
    """
    manifest = read_manifest(path)
    utterances = list(manifest.utterances)
    same = 0
    changed = 0
    for number, utterance in enumerate(utterances):
        if utterance.id not in texts or _state(utterance) != _state(planned[utterance.id]):
            continue
        same += 1
        new = replace(utterance, text=texts[utterance.id], text_source=source)
        if new != utterance:
            utterances[number] = new
            changed += 1
    skipped = len(texts) - same
    if not changed:
        return Filled(0, skipped)
    kept_as = keep_both(path, partial(_copy_name, path))
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = [name.strip() for name in next(csv.reader(file))]
    lost = tuple(name for name in header if name and name not in COLUMNS)
    write_manifest(replace(manifest, utterances=tuple(utterances)), path)
    return Filled(changed, skipped, kept_as, lost)


def _state(utterance: Utterance) -> tuple[object, ...]:
    return (
        utterance.audio,
        utterance.start,
        utterance.end,
        utterance.text,
        utterance.text_source,
    )


def _copy_name(path: Path, number: int) -> str:
    """`manifest.before-transcribe.csv`, then `manifest.before-transcribe-2.csv`."""
    behind = f"-{number}" if number > 1 else ""
    return f"{path.stem}.before-transcribe{behind}{path.suffix}"
