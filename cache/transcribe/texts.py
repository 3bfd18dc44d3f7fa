"""Texts into the manifest: the old one is kept, and what changed meanwhile is left alone."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from cache.audio import why_absent
from cache.config import AUTO, TranscribeConfig
from cache.extract.targets import Item
from cache.lookup import FrameCache
from cache.transcribe.journal import Heard, Journal
from cache.transcribe.model_files import WhisperFiles
from corpora.manifest import Manifest, read_manifest, write_manifest
from corpora.manifest_fields import keep_both
from corpora.utterance import COLUMNS, Utterance, where_of


@dataclass(frozen=True)
class Filled:
    """What became of a manifest.

    Attributes:
        changed: utterances of which something is new.
        skipped: utterances that somebody changed or removed while the recordings were heard.
        kept_as: the old manifest; None if nothing changed.
        lost_columns: of the old manifest that Emopool does not know; they are in `kept_as` alone.
    """

    changed: int
    skipped: int = 0
    kept_as: Path | None = None
    lost_columns: tuple[str, ...] = ()


def fill(
    path: Path, planned: Mapping[str, Utterance], fields: Mapping[str, Mapping[str, Any]]
) -> Filled:
    """Write fields of utterances into a manifest, if there is anything new.

    The manifest is read again, because hours may have passed: a row gets what is new only if its
    recording, its text and its source are what they were.

    Args:
        path: of the manifest.
        planned: the utterances as they were, by id.
        fields: new values by id.
    """
    manifest = read_manifest(path)
    utterances = list(manifest.utterances)
    same = 0
    changed = 0
    for number, utterance in enumerate(utterances):
        if utterance.id not in fields or _state(utterance) != _state(planned[utterance.id]):
            continue
        same += 1
        new = replace(utterance, **fields[utterance.id])
        if new != utterance:
            utterances[number] = new
            changed += 1
    skipped = len(fields) - same
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
        utterance.alignment,
    )


def _copy_name(path: Path, number: int) -> str:
    """`manifest.before-transcribe.csv`, then `manifest.before-transcribe-2.csv`."""
    behind = f"-{number}" if number > 1 else ""
    return f"{path.stem}.before-transcribe{behind}{path.suffix}"


@dataclass(frozen=True)
class Plan:
    """What is to be heard and what becomes of it.

    Attributes:
        write: utterances that get the text.
        compare: utterances whose human text is compared with it.
        human: utterances whose human text stays.
        edited: utterances whose text, marked as recognised, is none that was recognised here: a
            person has corrected it, or it was made in another work folder. It stays, too.
        keys: content keys of the recordings by utterance id.
        absent: why recordings are not there, by utterance id.
    """

    write: tuple[Utterance, ...]
    compare: tuple[Utterance, ...]
    human: int = 0
    edited: int = 0
    keys: Mapping[str, str] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)

    @property
    def wanted(self) -> list[Utterance]:
        """All that are to be heard, in the manifest's order, as far as their files are there."""
        found = {u.id: u for u in (*self.write, *self.compare) if u.id in self.keys}
        return sorted(found.values(), key=lambda utterance: utterance.line)


def make_plan(
    cache: FrameCache, manifest: Manifest, config: TranscribeConfig, journal: Journal
) -> Plan:
    """Sort a manifest's utterances.

    Args:
        cache: whose index knows recordings by content.
        manifest: whose texts are to be filled in.
        config: what the user asks.
        journal: tells texts that were recognised from corrected ones.
    """
    chosen = manifest.in_split(config.split)
    human = [u for u in chosen if u.text and not u.text_source]
    marked = [u for u in chosen if u.text and u.text_source]
    listened = [u for u in chosen if config.overwrite or config.reference or not u.text]
    needed = {u.id: u for u in (*listened, *marked)}
    keys = {
        name: own["audio"]
        for name, own in cache.keys(list(needed.values())).items()
        if "audio" in own
    }
    given = journal.texts(keys[u.id] for u in marked if u.id in keys)
    edited = {u.id for u in marked if u.text not in given.get(keys.get(u.id, ""), ())}
    stays = edited | {u.id for u in human}
    compared = {u.id for u in human if config.reference}
    heard = [u for u in chosen if config.overwrite or u.id not in stays or u.id in compared]
    heard = heard[: config.limit]
    write = [u for u in heard if config.overwrite or u.id not in stays]
    return Plan(
        write=tuple(write),
        compare=tuple(u for u in heard if u.id in compared),
        human=0 if config.overwrite else len(human),
        edited=0 if config.overwrite else len(edited),
        keys=keys,
        absent=why_absent(u for u in heard if u.id not in keys),
    )


def heard_as(plan: Plan, config: TranscribeConfig, whisper: WhisperFiles) -> dict[Heard, Item]:
    """What is to be heard, by recording and language told, with its utterances.

    Raises:
        ConfigError: the model does not know a language.
    """
    of_all = "" if config.language == AUTO else whisper.code(config.language, "--language")
    codes: dict[str, str] = {}
    found: dict[Heard, list[Utterance]] = {}
    for utterance in plan.wanted:
        tag = "" if config.language else utterance.language
        if tag not in codes:
            codes[tag] = whisper.code(tag, f"{where_of(utterance)}: its language")
        found.setdefault((plan.keys[utterance.id], of_all or codes[tag]), []).append(utterance)
    return {one: Item(one[0], tuple(utterances), ()) for one, utterances in found.items()}
