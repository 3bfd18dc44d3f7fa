"""Merge: several manifests become one, so that corpora are trained or scored on together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from corpora.base.errors import ConfigError, ManifestError
from corpora.label_map import LabelMap
from corpora.manifest import Manifest, keep_others, read_manifest, write_manifest
from corpora.names import plain_name
from corpora.tool_report import ToolReport, report_on
from corpora.utterance import Utterance


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
