"""The development set of what is scored, and the temperature that is fitted on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from corpora.base.work import Work
from corpora.manifest import Manifest, read_manifest
from finetune.evaluating.calibration import Calibration, calibrate
from finetune.evaluating.ensemble import average
from finetune.evaluating.subjects import Scored, Source, Subject
from heads.origin import manifest_digest


def calibrate_on_dev(
    work: Work,
    manifest: Manifest,
    split: str,
    subjects: Sequence[Subject],
    scored: Scored,
    *,
    show: bool = False,
) -> tuple[Calibration | None, str]:
    """Fit a temperature on the development set, and measure calibration on what was scored.

    Args:
        work: the work folder, whose manifest has the development set of its own models.
        manifest: whose utterances were scored.
        split: of them.
        subjects: one, or the members of an ensemble.
        scored: what they say about the split.
        show: whether to draw a progress bar.

    Returns:
        The calibration, or None and the reason why there is none.
    """
    if any(one.source.knows_dev for one in subjects):
        return None, "dev was learnt from, so no utterance is left to fit it on (search --no-refit)"
    own = _development_manifest(work, manifest, subjects[0].source)
    same = own is manifest and split == "dev"
    labels = subjects[0].source.labels
    if same:
        dev = scored
    else:
        utterances = tuple(u for u in own.in_split("dev") if u.label)
        if not utterances or {u.label for u in utterances} - set(labels):
            return None, "the manifest has no development set with these labels to fit it on"
        rows = replace(own, utterances=utterances)
        title = "Score dev" if show else ""
        each = [subject.score(rows, title=title) for subject in subjects]
        dev = average(each, [one.source.labels for one in subjects])
    if not dev.utterances:
        return None, "no utterance of the development set could be used"
    where = f"the dev split of {own.corpus or 'the manifest'}"
    gold, dev_gold = _targets(scored, labels), _targets(dev, labels)
    return (
        calibrate(scored.probabilities, gold, dev.probabilities, dev_gold, where, same_rows=same),
        "",
    )


def _development_manifest(work: Work, manifest: Manifest, source: Source) -> Manifest:
    """The manifest trained on, where it is at hand: its development set is the model's own."""
    if source.manifest_sha256 in ("", manifest_digest(manifest)) or not work.manifest.is_file():
        return manifest
    own = read_manifest(work.manifest)
    return own if manifest_digest(own) == source.manifest_sha256 else manifest


def _targets(scored: Scored, labels: Sequence[str]) -> list[int]:
    return [labels.index(u.label) for u in scored.utterances]
