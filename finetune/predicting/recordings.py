"""From what stands on a command line to utterances: files, folders, a list, a manifest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from corpora.base.errors import ConfigError, ManifestError
from corpora.manifest import Manifest
from corpora.msp_podcast import BLIND
from corpora.tree import SUFFIXES, not_read, recordings_below
from corpora.utterance import SPLITS, Utterance, split_name
from finetune.predicting.answers import Unusable

LIST = "-"
# MSP-Podcast's test set without labels: its rows belong to no split, and are known by their names.
BLIND_SPLIT = BLIND.strip("_")


def utterances_of(
    names: Sequence[str], texts: Sequence[str] = (), lines: Iterable[str] = ()
) -> tuple[list[Utterance], list[Unusable]]:
    """Utterances to be predicted, in the order given, and what is there to be used but cannot.

    Args:
        names: files; folders, of which all recordings below are taken; or `-` for the lines.
        texts: what is said, one for each of the names, which then are files.
        lines: a recording each, with a text behind a tab where there is one.

    Raises:
        ConfigError: texts are not as many as names, or do not stand beside files.
    """
    if texts and (len(texts) != len(names) or any(_is_many(name) for name in names)):
        raise ConfigError(
            f"--text was given {len(texts)} times for {len(names)} recordings: expected one for "
            "each, in their order, and no folder. In a list on standard input (-) a text stands "
            "behind its recording and a tab."
        )
    pairs: list[tuple[str, str]] = []
    unusable: list[Unusable] = []
    for name, text in zip(names, texts or [""] * len(names), strict=True):
        if name == LIST:
            pairs += [_pair(line) for line in lines if line.strip()]
        elif Path(name).is_dir():
            found, unreadable = recordings_below(Path(name))
            pairs += [(str(path), "") for path in found]
            unusable += [
                Unusable(str(path), str(path), f"{path}: {not_read(path)}.") for path in unreadable
            ]
            if not found and not unreadable:
                reason = f"{name}: no recording in this folder ({', '.join(SUFFIXES)})."
                unusable.append(Unusable(name, name, reason))
        else:
            pairs.append((name, text))
    return [
        Utterance(id=name, audio=Path(name), label="", text=text) for name, text in pairs
    ], unusable


def rows_of(manifest: Manifest, split: str) -> list[Utterance]:
    """The utterances of a manifest that are asked for, labelled or not.

    Args:
        manifest: any.
        split: train, dev, test, all, or test3 for the recordings of MSP-Podcast that are published
            without labels.

    Raises:
        ManifestError: there is none.
    """
    if split == BLIND_SPLIT:
        rows = [u for u in manifest.utterances if BLIND in u.audio.name.lower()]
        looked = f"a recording with {BLIND} in its name"
    else:
        rows, looked = list(manifest.in_split(split)), f"an utterance in {split_name(split)}"
    if not rows:
        counts = {name: len(manifest.in_split(name)) for name in (*SPLITS, "")}
        held = ", ".join(f"{name or 'no split'} {count}" for name, count in counts.items())
        raise ManifestError(
            f"The manifest has not {looked} (utterances: {held}). Name another --split or manifest."
        )
    return rows


def _is_many(name: str) -> bool:
    return name == LIST or Path(name).is_dir()


def _pair(line: str) -> tuple[str, str]:
    name, _, text = line.rstrip("\r\n").partition("\t")
    return name.strip(), text.strip()
