"""`explain` as one call: from a work folder to a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cache.encoders.device import choose_device
from corpora.base.errors import ConfigError, MissingStepError
from corpora.base.plots import require_matplotlib
from corpora.base.report import Section
from corpora.base.work import Work
from corpora.manifest import Manifest
from corpora.utterance import Utterance, split_name
from explain.alignments import read_alignments
from explain.analyses import ANALYSES, Context
from explain.attention import read_texts
from explain.config import MODEL_LIMIT, ExplainConfig
from explain.examples import choose_examples, items_section, pictures_section
from explain.explanation import Explanation, introduction, summarise
from explain.item import collect_items
from explain.load import (
    Material,
    build_subject,
    cached_material,
    choose_rows,
)
from explain.other_head import other_head_note
from explain.recordings import head_on_recordings, model_material
from explain.report.write import Contents, write_report
from explain.subject import Subject
from finetune.evaluating.subjects import HeadSubject, ModelSubject, open_head, open_model
from finetune.evaluation import SUBJECTS
from finetune.model import EmotionModel
from finetune.model_files import has_model
from heads.results import BEST
from heads.speakers import SPEAKER

Opened = HeadSubject | ModelSubject


def explain_split(
    work: Work, manifest: Manifest, config: ExplainConfig, *, show_progress: bool = False
) -> Explanation:
    """Explain the utterances of a split, or those named one by one.

    Args:
        work: the work folder.
        manifest: whose utterances.
        config: the options.
        show_progress: whether to draw progress bars.

    Raises:
        MissingStepError: there is no head or model, or frames are missing.
        ConfigError: what is explained does not fit what is at hand, or an unknown option.
        ManifestError: no such split or utterance.
        MissingExtraError: matplotlib is not installed and figures are wanted.
    """
    _check_figures(config)
    opened = _open(work, config)
    if _head(opened).config.input_norm == SPEAKER:
        raise ConfigError(
            f"The head in {opened.source.path} reads frames normalised by each speaker's "
            "recordings: what it says of one recording depends on all others, and is not "
            "explained. Search a head without it (input_norm of --space)."
        )
    limit, notes = config.limit, []
    if isinstance(opened, ModelSubject) and limit is None and not config.ids:
        limit = MODEL_LIMIT
    rows = choose_rows(manifest, config.split, limit=limit, ids=config.ids, seed=config.seed)
    note = opened.source.note(work, manifest, config.split, rows.utterances)
    all_rows = len(manifest.in_split(config.split))
    if not config.ids and len(rows.utterances) < all_rows:
        notes.append(
            f"{len(rows.utterances):,} of the {all_rows:,} utterances of "
            f"{split_name(config.split)}, drawn at random (--limit)."
        )
    material = _material(work, opened, rows, config, show_progress=show_progress)
    other = other_head_note(opened.record, work.search) if isinstance(opened, HeadSubject) else ""
    subject = build_subject(
        _head(opened),
        material,
        kind=opened.source.kind,
        source=opened.source,
        manifest=manifest,
        split="" if config.ids else config.split,
        notes=[text for text in (note, *notes, other) if text],
    )
    model = _with_encoders(work, opened, config) if config.occlusion else None
    return _report(work, manifest, subject, config, model, show_progress=show_progress)


def explain_recordings(
    work: Work,
    recordings: Sequence[Path],
    config: ExplainConfig,
    *,
    text: str = "",
    show_progress: bool = False,
) -> Explanation:
    """Explain recordings that need not be in any manifest.

    Args:
        work: the work folder.
        recordings: audio files; a TextGrid of the same name beside one is used.
        config: the options.
        text: what is said in all of them, for a head that reads.
        show_progress: whether to draw progress bars.

    Raises:
        MissingStepError: there is no head or model.
        AudioError: none of them can be read.
        ConfigError: encoders are not there any more.
        MissingExtraError: matplotlib is not installed and figures are wanted.
    """
    _check_figures(config)
    opened = _open(work, config)
    names = [path.stem for path in recordings]
    utterances = tuple(
        Utterance(
            id=path.stem if names.count(path.stem) == 1 else str(path),
            audio=path.absolute(),
            label="",
            text=text,
            alignment=beside if (beside := path.with_suffix(".TextGrid")).is_file() else None,
        )
        for path in dict.fromkeys(recordings)
    )
    material = _encoded(work, opened, utterances, config, show_progress=show_progress)
    subject = build_subject(_head(opened), material, kind=opened.source.kind, source=opened.source)
    if "text" in subject.frames and not text:
        note = "No text was given (--text): the head read an empty one."
        subject = replace(subject, notes=(note,))
    manifest = Manifest(utterances, subject.labels, "")
    single = replace(config, ids=tuple(u.id for u in subject.utterances))
    return _report(work, manifest, subject, single, None, show_progress=show_progress)


def _check_figures(config: ExplainConfig) -> None:
    if config.figures:
        require_matplotlib("explain with --no-plots")


def _open(work: Work, config: ExplainConfig) -> Opened:
    """The head, which takes seconds, unless there is none or the model is asked for."""
    if config.subject not in ("", *SUBJECTS):
        raise ConfigError(f"expected {' or '.join(SUBJECTS)} to explain, got {config.subject!r}.")
    there = (work.search / BEST).is_file(), has_model(work.model)
    if config.head is not None or config.subject == "head" or (not config.subject and there[0]):
        return open_head(work, config.head or work.search)
    if config.subject == "model" or there[1]:
        return open_model(work.model, device=choose_device(config.device))
    raise MissingStepError(
        f"{work.root} has neither a searched head nor a fine-tuned model. "
        "Run `python cli.py search` first."
    )


def _head(opened: Opened) -> Any:  # noqa: ANN401 - heads.head.Head
    return opened.head if isinstance(opened, HeadSubject) else opened.model.head


def _material(
    work: Work, opened: Opened, rows: Manifest, config: ExplainConfig, *, show_progress: bool
) -> Material:
    if isinstance(opened, ModelSubject):
        return _encoded(work, opened, rows.utterances, config, show_progress=show_progress)
    material = cached_material(work, opened, rows)
    if not material.utterances:
        raise ConfigError(
            f"none of the {len(rows.utterances):,} utterances has frames in the cache. First: "
            f"{next(iter(material.skipped.values()))}"
        )
    return material


def _encoded(
    work: Work,
    opened: Opened,
    utterances: Sequence[Utterance],
    config: ExplainConfig,
    *,
    show_progress: bool,
) -> Material:
    model = _with_encoders(work, opened, config)
    return model_material(model, utterances, title="Encode" if show_progress else "")


def _with_encoders(work: Work, opened: Opened, config: ExplainConfig) -> EmotionModel:
    """The model, or the searched head on the encoders that its frames came from."""
    if isinstance(opened, ModelSubject):
        return opened.model
    return head_on_recordings(work, opened, choose_device(config.device))


def _report(
    work: Work,
    manifest: Manifest,
    subject: Subject,
    config: ExplainConfig,
    model: EmotionModel | None,
    *,
    show_progress: bool,
) -> Explanation:
    """Analyse and write: a split into `WORK/explain`, single items into `WORK/explain/items`."""
    aligned = read_alignments(subject.utterances)
    items = collect_items(subject, aligned, read_texts(subject))
    intro = introduction(subject, items)
    sections: list[Section] = []
    if config.ids:
        chosen = list(range(len(items)))
        folder = work.explain / "items"
        sections = [items_section(items)]
    else:
        chosen = choose_examples(items)
        folder = work.explain
        context = Context(subject, aligned, manifest, work, config, model, show_progress)
        sections = [analysis(context) for analysis in ANALYSES.values()]
    if config.figures:
        sections.append(pictures_section(subject, items, chosen))
    summary = summarise(subject, items, sections, aligned)
    contents = Contents(
        title=f"What the {subject.kind} hears: {subject.corpus or 'recordings'}"
        + (f", {split_name(subject.split).removeprefix('the ')}" if subject.split else ""),
        intro=intro,
        sections=sections,
        items=items,
        embedded=_embedded(len(items), config.embedded, chosen),
        summary=summary,
    )
    title = "Draw" if show_progress else ""
    written = write_report(folder, contents, figures=config.figures, title=title)
    return Explanation(subject, tuple(sections), tuple(intro), tuple(written), summary)


def _embedded(count: int, most: int, first: Sequence[int]) -> list[int]:
    """Numbers of the utterances whose sound is embedded: pictured ones first."""
    return list(dict.fromkeys([*first, *range(count)]))[:most]
