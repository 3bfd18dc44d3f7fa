"""Tools for manifests: merge several into one, give one other splits or folds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from corpora.arrangement import Arrangement, arrange, folded
from corpora.base.codec import Jsonable
from corpora.base.errors import ConfigError, ManifestError
from corpora.base.report import Part, Report
from corpora.label_map import LabelMap
from corpora.manifest import Manifest, keep_others, read_manifest, write_manifest
from corpora.manifest_fields import keep_both
from corpora.protocol import SplitConfig
from corpora.splits import FEWEST, divide, folds_by, folds_of_count
from corpora.summary import Tally, noted
from corpora.utterance import Utterance, plain_name


@dataclass(frozen=True)
class ToolReport(Jsonable):
    """A manifest that was written.

    Attributes:
        did: what was done, a sentence.
        manifest: the CSV that was written.
        corpus: its name.
        labels: the label order.
        tally: what the manifest holds.
        corpora: utterances by corpus.
        settings: how splits and folds were made.
        notes: sentences to read.
    """

    json_entries = (
        "did manifest corpus labels corpora counts=tally.counts speakers=tally.speakers "
        "all_speakers=tally.all_speakers settings notes"
    )

    did: str
    manifest: Path
    corpus: str
    labels: tuple[str, ...]
    tally: Tally
    corpora: Mapping[str, int]
    settings: Mapping[str, Any]
    notes: tuple[str, ...]

    def to_text(self) -> str:
        """For a terminal."""
        listed = ", ".join(f"{name} {count:,}" for name, count in self.corpora.items())
        parts: tuple[Part, ...] = (
            self.did,
            self.tally.table(self.labels),
            *[f"Corpora: {listed}."] * (len(self.corpora) > 1),
            *noted(self.notes),
            self.tally.written(self.manifest),
        )
        return Report("", parts).to_text()


def report_on(did: str, manifest: Manifest, path: Path, notes: Sequence[str]) -> ToolReport:
    """The report on a manifest that was written to `path`."""
    counts: dict[str, int] = {}
    for utterance in manifest.utterances:
        counts[utterance.corpus] = counts.get(utterance.corpus, 0) + 1
    return ToolReport(
        did,
        path,
        manifest.corpus,
        manifest.labels,
        Tally.of(manifest.utterances, manifest.labels, {}),
        counts,
        manifest.settings,
        tuple(notes),
    )


def merge(
    paths: Sequence[Path], out: Path, labels: LabelMap, *, replace_other: bool = False
) -> ToolReport:
    """Merge manifests into `out`.

    Labels come in the order of the first manifest, then what the others add. Every row says its
    corpus, and speakers of different corpora are different people. An id that occurs twice gets its
    corpus in front. Splits are kept; folds and protocols end here, since they were each corpus's.

    Args:
        paths: two or more; the files stay as they are.
        out: the CSV to write; a JSON goes beside it.
        labels: new names of labels.
        replace_other: `out` may be the manifest of another corpus.

    Raises:
        ConfigError: fewer than two manifests, one of them twice or to be overwritten, or a map of
            something that there is not.
        ManifestError: two rows cannot be told apart, or a speaker stands in two splits.
        MissingStepError: a file is not there.
    """
    different = {path.resolve() for path in paths}
    if len(paths) < 2 or len(different) < len(paths):
        raise ConfigError("merge takes two manifests or more, each once.")
    if out.resolve() in different:
        raise ConfigError(f"{out} is one of the manifests to be merged. Name another --out.")
    read = [read_manifest(path) for path in paths]
    folded = [str(p) for p, m in zip(paths, read, strict=True) if any(u.fold for u in m.utterances)]
    manifests = [_with_corpus(m, path) for m, path in zip(read, paths, strict=True)]
    known: dict[str, dict[str, None]] = {}
    for manifest in manifests:
        for utterance in manifest.utterances:
            own = known.setdefault(utterance.corpus, {})
            if utterance.label:
                own[utterance.label] = None
    labels.check(known)
    order: dict[str, None] = {}
    for manifest in manifests:
        corpora = dict.fromkeys(u.corpus for u in manifest.utterances)
        order.update(dict.fromkeys(labels.order(manifest.labels, corpora)))
    before = sum(len(manifest.utterances) for manifest in manifests)
    rows = labels.apply(u for manifest in manifests for u in manifest.utterances)
    dropped = before - len(rows)
    occurring = {u.label for u in rows}
    rows, renamed = _told_apart(rows)
    scales = {name: ends for manifest in manifests for name, ends in manifest.scales.items()}
    agreed = {
        name: ends
        for name, ends in scales.items()
        if all(manifest.scales.get(name, ends) == ends for manifest in manifests)
    }
    merged = Manifest(
        tuple(rows),
        tuple(label for label in order if label in occurring),
        corpus="+".join(sorted(known)),
        shared_speakers=any(manifest.shared_speakers for manifest in manifests),
        synthetic=any(manifest.synthetic for manifest in manifests),
        scales=agreed,
    )
    if not replace_other:
        keep_others(out, merged.utterances)
    write_manifest(merged, out)
    notes = []
    if dropped:
        notes.append(f"{dropped:,} utterances are left out by the label map.")
    if renamed:
        notes.append(f"{renamed:,} ids occurred twice and got their corpus in front.")
    if folded:
        notes.append(
            f"The folds of {', '.join(folded)} are left out. `prepare split --folds` makes new "
            "ones."
        )
    differing = sorted(scales.keys() - agreed.keys())
    if differing:
        notes.append(
            f"WARNING: {', '.join(differing)} stand on different scales: do not compare their "
            "numbers across corpora."
        )
    without = Counter(u.corpus for u in rows if u.label and not u.split)
    for corpus, count in without.items():
        notes.append(f"{count:,} labelled utterances of {corpus} have no split and are not used.")
    return report_on(f"Merged {len(paths)} manifests.", merged, out, notes)


def _with_corpus(manifest: Manifest, path: Path) -> Manifest:
    """Every row says its corpus: its own, the manifest's, or the name of the folder or file."""
    stem = path.resolve().parent.name if path.stem == "manifest" else path.stem
    name = manifest.corpus or plain_name(stem)
    rows = tuple(replace(u, corpus=u.corpus or name, fold="", line=0) for u in manifest.utterances)
    return replace(manifest, utterances=rows, corpus=name)


def _told_apart(rows: Sequence[Utterance]) -> tuple[list[Utterance], int]:
    """Put the corpus in front of ids that occur twice; return how many got one."""
    times = Counter(u.id for u in rows)
    named = [replace(u, id=f"{u.corpus}/{u.id}") if times[u.id] > 1 else u for u in rows]
    twice = [name for name, count in Counter(u.id for u in named).items() if count > 1]
    if twice:
        raise ManifestError(
            f"the id '{twice[0]}' stands in two of the manifests, and both call their corpus the "
            f"same ({len(twice):,} such ids). Merge parts of a corpus that share no utterance, or "
            "give one of them another name: `corpus` in its JSON and its column corpus."
        )
    return named, sum(count for count in times.values() if count > 1)


MOST_FOLDS = 200  # leave-one-speaker-out beyond this is a mistake, not a plan


def split(
    path: Path, out: Path, *, config: SplitConfig, folds: str = "", replace_other: bool = False
) -> ToolReport:
    """Write a manifest again with new splits.

    Args:
        path: the manifest; where `out` is the same, it is kept as `<name>.before-split-1.csv`.
        out: the CSV to write; a JSON goes beside it.
        config: seed, test fold and balance.
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
        if config.max_imbalance is not None or config.balanced_dev:
            raise ConfigError(
                "--max-imbalance and --balanced-dev leave rows out, and with folds every row is "
                "tested once. Take one or the other."
            )
        names, how = _folds(replace(manifest, utterances=tuple(bare)), folds, config.seed)
        made = folded(divide(bare, names, config.test_fold), how)
        settings: Mapping[str, Any] = {**made.settings, "seed": config.seed}
    else:
        made = arrange(bare, manifest.corpus, config)
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
