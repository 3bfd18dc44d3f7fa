"""Scoring on a split: the search's head, the fine-tuned model, others of either, or ensembles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from cache.encoders.device import choose_device
from cache.lookup import FrameCache
from corpora.base.errors import ConfigError, ManifestError
from corpora.base.report import require_matplotlib, write_figure
from corpora.base.work import Work
from corpora.label_map import likely
from corpora.manifest import Manifest, require_splits
from corpora.protocol import protocol_sentence
from corpora.utterance import Utterance, split_name
from finetune.config import EvaluateConfig
from finetune.evaluate.evaluation import (
    ENSEMBLE,
    MEMBER,
    Against,
    Evaluation,
    check_writable,
    encoders_text,
    evaluation_figures,
    evaluation_folder,
    write_evaluation,
)
from finetune.evaluate.scored import (
    Narrowed,
    Predictions,
    Scored,
    average,
    calibrate_on_dev,
    open_head,
    open_model,
    open_scored,
)
from finetune.evaluate.source import (
    Source,
    check_labels_equal,
    in_order,
    joint,
    training_rows,
)
from finetune.model_card import update_card
from finetune.model_files import has_model
from heads.attributes import AttributeScores, check_scales
from heads.bootstrap import Difference, Interval
from heads.dataset import Dataset
from heads.gold import Gold, objective_name
from heads.losses import vote_shares
from heads.metrics import Scores
from heads.votes import VoteScores, no_votes, vote_report

#: Of classes and of attributes, as far as there are any.
Report = tuple[Scores | None, AttributeScores | None]


def compare(
    own: tuple[Source, Predictions],
    others: Sequence[tuple[Source, Predictions]],
    notes: Sequence[str],
) -> tuple[Against, ...]:
    """Compare by the score of `Gold`; of several others p is corrected for their number.

    Args:
        own: what is compared.
        others: what others say about the same rows; of the same labels and attributes in any order.
        notes: one for each other (see `Against`).

    Raises:
        ConfigError: no utterance is common to all.
    """
    first, compared = own
    common = set.intersection(*({u.id for u in one.utterances} for _, one in (own, *others)))
    if not common:
        raise ConfigError("there is no utterance that both could use: nothing can be compared.")
    said = []
    for source, one in (own, *others):
        rows = [row for row, u in enumerate(one.utterances) if u.id in common]
        said.append(one.probabilities[rows][:, in_order(source, first)].double().numpy())
    kept = scored_set(first, [u for u in compared.utterances if u.id in common])
    gold = Gold.of(kept, torch.arange(len(kept)))
    found, reason = gold.differences(said[1:], said[0])
    scores = [gold.score(one) for one in said]
    return tuple(
        Against(
            kind=source.kind,
            source=source.path,
            n=len(kept),
            own=float(scores[0]),
            other=float(scores[number + 1]),
            difference=None if found is None else _negated(found[number]),
            reason=reason,
            note=note,
            objective=objective_name(first.labels, first.attributes),
        )
        for number, ((source, _), note) in enumerate(zip(others, notes, strict=True))
    )


def _negated(one: Difference) -> Difference:
    return Difference(-one.value, Interval(-one.interval.high, -one.interval.low), one.p)


def scored_set(source: Source, utterances: Sequence[Utterance]) -> Dataset:
    """Utterances with what they are scored on, without frames."""
    return Dataset(tuple(utterances), source.labels, {}, attributes=source.attributes)


def by_group(
    dataset: Dataset, probabilities: Tensor, group: Callable[[Utterance], str]
) -> dict[str, Report]:
    """Scores on each group of utterances, where there are several.

    Args:
        dataset: utterances.
        probabilities: `[n, C + A]` of them.
        group: the group's name; "" where it is not known.
    """
    named = [group(utterance) or "not given" for utterance in dataset.utterances]
    names = sorted(set(named))
    if len(names) < 2:
        return {}
    reports = {}
    for name in names:
        rows = [row for row, own in enumerate(named) if own == name]
        part = replace(dataset, utterances=tuple(dataset.utterances[row] for row in rows))
        reports[name] = report_on(part, probabilities[rows])
    return reports


def report_on(dataset: Dataset, probabilities: Tensor) -> Report:
    """Scores of a data set's utterances, of which `[n, C + A]` was said."""
    gold = Gold.of(dataset, torch.arange(len(dataset)))
    said = probabilities.double().numpy()
    return gold.class_scores(said), gold.attribute_scores(said)


def of_members(
    sources: Sequence[Source], each: Sequence[Predictions], together: Predictions
) -> dict[str, Report]:
    """The scores of each member on the utterances that all could use."""
    common = {u.id for u in together.utterances}
    reports = {}
    for source, one in zip(sources, each, strict=True):
        rows = [row for row, u in enumerate(one.utterances) if u.id in common]
        dataset = scored_set(source, [one.utterances[row] for row in rows])
        reports[str(source.path)] = report_on(dataset, one.probabilities[rows])
    return reports


def evaluate(
    work: Work,
    manifest: Manifest,
    split: str = "test",
    config: EvaluateConfig | None = None,
    *,
    show_progress: bool = False,
) -> Evaluation:
    """Score the fine-tuned model where there is one, else the search's best head.

    Args:
        work: the work folder; scores go there, and a head reads its cache. What failed at its
            extraction plays no part for a model: decoding says what cannot be read.
        manifest: whose utterances.
        split: train, dev, test, or all: every labelled utterance.
        config: what is asked.
        show_progress: whether to draw progress bars.

    Raises:
        MissingStepError: there is no head or model, or not the one asked for, or frames of a head
            are missing.
        ConfigError: what is scored does not fit the frames at hand or was altered; the manifest has
            changed since (see `Source.note`); nothing could be read; the scores cannot be
            written; or the members of an ensemble have different labels.
        ManifestError: the split has no labelled utterance, or a label is unknown.
        MissingExtraError: pictures were asked for, and matplotlib is not installed.
    """
    config = config or EvaluateConfig()
    config = replace(config, device=choose_device(config.device))
    if config.plots:
        require_matplotlib("evaluate without --plots")
    cache = FrameCache(work)
    named = [open_scored(cache, name, device=config.device) for name in config.models]
    scored: Sequence[Scored] = named or [_own(work, config)]
    others = [open_scored(cache, name, device=config.device) for name in config.against]
    scored, others = ([Narrowed.to(one, config.labels) for one in own] for own in (scored, others))
    first = scored[0].source
    for other in (*scored[1:], *others):
        check_labels_equal(first, other.source)
    rows = _labelled(manifest, split, first)
    if config.votes and not any(vote_shares(u, first.labels) for u in rows.utterances):
        raise ConfigError(no_votes(first.labels))

    def note(one: Scored) -> str:
        return one.source.note(cache, work.manifest, manifest, split, rows.utterances)

    notes = dict.fromkeys(map(note, scored))
    other_notes = [note(one) for one in others]
    folder = _folder(work, manifest, split, [one.source for one in scored])
    check_writable(folder)

    title = f"Score {split}" if show_progress else ""
    each = [one.score(rows, title=title) for one in scored]
    notes |= dict.fromkeys(one.note for one in each)
    said = average(each, [one.source for one in scored])
    if not said.utterances:
        raise ConfigError(
            f"no utterance of {split_name(split)} could be used, of "
            f"{len(said.skipped):,} in it. First: {next(iter(said.skipped.values()))}"
        )
    dataset = scored_set(first, said.utterances)
    calibration, reason = None, ""
    if config.calibration:
        calibration, reason = calibrate_on_dev(
            work.manifest, manifest, split, scored, said, show=show_progress
        )
    against: tuple[Against, ...] = ()
    if others:
        found = [(one.source, one.score(rows, title=title)) for one in others]
        against = compare((first, said), found, other_notes)
    source = joint([one.source for one in scored])
    report, rated = report_on(dataset, said.probabilities)
    groups = {
        "corpus": by_group(dataset, said.probabilities, lambda u: u.corpus),
        "sex": by_group(dataset, said.probabilities, lambda u: u.sex),
        MEMBER: of_members([one.source for one in scored], each, said) if len(scored) > 1 else {},
    }
    classes = {
        name: {own: found for own, (found, _) in each.items() if found}
        for name, each in groups.items()
    }
    described = Evaluation(
        subject=source.kind,
        source=source.path,
        sha256=source.sha256,
        split=split,
        corpus=manifest.corpus,
        synthetic=manifest.synthetic,
        encoders=source.encoders,
        layers=source.layers,
        classes=report,
        skipped=said.skipped,
        folder=folder,
        note=" ".join(note for note in notes if note),
        shared_speakers=manifest.shared_speakers,
        by_corpus=classes["corpus"],
        by_sex=classes["sex"],
        protocol=protocol_sentence(manifest),
        calibration=calibration,
        calibration_reason=reason,
        layer_weights=source.layer_weights,
        members=classes[MEMBER],
        against=against,
        only_labels=first.labels if first.narrowed else (),
        left_out=sum(bool(u.label) for u in manifest.in_split(split)) - len(rows.utterances)
        if first.narrowed
        else 0,
        votes=_votes(work, manifest, split, first, dataset, said) if config.votes else None,
        attributes=rated,
        attributes_by={
            name: {own: found for own, (_, found) in each.items() if found}
            for name, each in groups.items()
            if rated is not None and each
        },
    )
    described = _with_pictures(described) if config.plots else described
    written = write_evaluation(described, manifest, dataset, said.probabilities)
    if source.kind == "model" and source.path.resolve() == work.model.resolve():
        update_card(work.model, work.evaluation)
    return written


def _own(work: Work, config: EvaluateConfig) -> Scored:
    """The work folder's model or head: the one asked for, else the model where there is one."""
    chosen = config.subject or ("model" if has_model(work.model) else "head")
    if chosen == "model":
        return open_model(work.model, device=config.device)
    return open_head(FrameCache(work), work.search)


def _votes(
    work: Work,
    manifest: Manifest,
    split: str,
    source: Source,
    dataset: Dataset,
    said: Predictions,
) -> VoteScores:
    """What was said, scored as votes."""
    unlabelled = [u for u in manifest.in_split(split) if not u.label]
    return vote_report(
        dataset.utterances,
        said.probabilities[:, : len(source.labels)].numpy(),
        source.labels,
        training_rows(work.manifest, manifest, source),
        dataset.speakers(torch.arange(len(dataset))),
        unlabelled=sum(vote_shares(u, source.labels) is not None for u in unlabelled),
    )


def _labelled(manifest: Manifest, split: str, source: Source) -> Manifest:
    """The annotated utterances of a split, once their labels are known to be the model's."""
    if not source.attributes:
        require_splits(manifest, (split,))
    rows, labels = source.annotated(manifest.in_split(split)), source.labels
    if not rows:
        wanted = [f"with one of the labels {', '.join(labels)}"] * bool(labels)
        wanted += [f"rated for {', '.join(source.attributes)}"] * bool(source.attributes)
        raise ManifestError(f"{split_name(split)} has no utterance {' or '.join(wanted)}.")
    check_scales(manifest, source.attributes)
    unknown = sorted({u.label for u in rows} - {"", *labels})
    if unknown and labels:
        meant = {name: likely(name, labels) for name in unknown}
        renamed = " ".join(f"--map {name}={meant[name] or 'NEW'}" for name in unknown)
        new = " (NEW: one of those that are told apart)" if not all(meant.values()) else ""
        raise ManifestError(
            f"{split_name(split)} has the labels {', '.join(unknown)}, which are not among those "
            f"that are told apart: {', '.join(labels)}. Rename them with {renamed}{new}, leave one "
            f"out with --map {unknown[0]}=, or search again."
        )
    return replace(manifest, utterances=rows)


def _folder(work: Work, manifest: Manifest, split: str, sources: Sequence[Source]) -> Path:
    """Where the scores go: what is not the work folder's own has its name in it."""
    first = sources[0]
    other = "" if first.corpus in ("", manifest.corpus) else manifest.corpus or "other"
    if first.narrowed:
        other = "-".join(filter(None, (other, "+".join(first.labels))))
    if len(sources) > 1:
        return evaluation_folder(work.evaluation, ENSEMBLE, split, other)
    path = first.path
    at_home = (work.model.resolve(), work.search.resolve())
    own = path.resolve() in at_home or path.resolve().parent.parent == at_home[1]
    generic = path.name in ("model", "search", "best.json")
    named = path.absolute().parent.name if generic else path.name.removesuffix(".json")
    name = "" if own else named
    return evaluation_folder(work.evaluation, first.kind, split, other, name=name)


def _with_pictures(evaluation: Evaluation) -> Evaluation:
    title = (
        f"{evaluation.subject} on {evaluation.corpus or 'the manifest'}, {evaluation.split}"
        f"{' (synthetic speech)' if evaluation.synthetic else ''}\n"
        f"{encoders_text(evaluation.encoders, evaluation.layers)}"
    )
    figures = evaluation_figures(evaluation, title)
    names = [name for one in figures for name in write_figure(evaluation.folder, one)]
    return replace(evaluation, pictures=tuple(names))
