"""`explain` as one call: from a work folder to a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cache.encoders.device import choose_device
from cache.keys import WHOLE_SECONDS
from cache.lookup import FrameCache
from corpora.alignments import Aligned, read_alignments
from corpora.base.codec import Jsonable
from corpora.base.errors import ConfigError, EmopoolError, MissingStepError, did_you_mean
from corpora.base.files import read_json, write_text
from corpora.base.report import Report, require_matplotlib
from corpora.base.work import Work
from corpora.manifest import Manifest
from corpora.utterance import Utterance, split_name
from explain.analyses import ANALYSES, Context, choose_examples, items_section, pictures_section
from explain.config import MODEL_LIMIT, ExplainConfig
from explain.evidence import Evidence, find_evidence
from explain.evidence_cues import cues_of
from explain.evidence_section import evidence_section, json_lines, told, untold
from explain.item import Item, collect_items
from explain.load import (
    LoadedRows,
    build_subject,
    cached_material,
    choose_rows,
    head_on_recordings,
    model_material,
)
from explain.over_time_section import over_time_section, recordings_over_time, telling_parts
from explain.pooled import answering_head
from explain.report.answers import Known, answers, known_scores
from explain.report.write import SUMMARY, Contents, write_report
from explain.subject import Subject, read_texts
from explain.trust import FAITHFULNESS, head_digest, judge, kept_verdict
from finetune.assembly import refuse_unheard
from finetune.evaluate.evaluation import SUBJECTS, caveats, encoders_text
from finetune.evaluate.scored import ScoredHead, ScoredModel, open_head, open_model
from finetune.model import EmotionModel
from finetune.model_files import has_model
from finetune.predict.over_time import longest_stretch
from finetune.utterance_seconds import seconds_trained_on
from heads.gold import objective_name
from heads.head import Head
from heads.pooling import pooling_config
from heads.records import (
    BEST,
    FORMAT,
    TRIALS_FOLDER,
    VERSION,
    HeadRecord,
    layer_weights,
    layer_weights_text,
)
from heads.speakers import SPEAKER
from heads.strength import Strength


@dataclass(frozen=True, eq=False)
class Explanation(Jsonable):
    """What `explain` found and wrote.

    Attributes:
        subject: what was explained.
        sections: of the report.
        intro: sentences that come first.
        written: files and folders.
        summary: JSON values.
    """

    json_entries = "**summary written"

    subject: Subject
    sections: tuple[Report, ...]
    intro: tuple[str, ...]
    written: tuple[Path, ...]
    summary: dict[str, Any]

    def to_text(self) -> str:
        """For a terminal: sentences, for tables and figures are to be looked at."""
        said = [Report(one.title, one.text) for one in self.sections if one.text]
        report = Report("", (*self.intro, *said), self.written)
        return f"{report.to_text()}\nOpen {self.written[0]} in a browser."


def introduction(subject: Subject, items: Sequence[Item]) -> list[str]:
    """Sentences on who is explained on what, and all that has to be said first."""
    labelled = [item for item in items if item.right is not None]
    right = sum(bool(item.right) for item in labelled)
    of = "labelled ones right" if subject.attribute is None else "rated ones on their side"
    where = f", {split_name(subject.split).removeprefix('the ')}" if subject.split else ""
    weights = layer_weights_text(layer_weights(subject.head), subject.layers)
    lines = [
        f"The {SUBJECTS[subject.kind]} ({subject.source}): {len(subject):,} "
        f"utterance{'' if len(subject) == 1 else 's'} of {subject.corpus or 'no corpus'}{where}"
        + (f", {right:,} of {len(labelled):,} {of}." if labelled else "."),
        f"Encoders: {encoders_text(subject.encoders, subject.layers)}.",
        *([f"Layer weights: {weights}."] if weights else []),
        *caveats(subject.encoders, synthetic=subject.synthetic),
        *([] if subject.attribute is None else subject.attribute.sentences(subject.speakers)),
    ]
    bare = [name for name in subject.frames if name not in subject.weights]
    if bare:
        lines.append(
            f"The pooling of {' and '.join(bare)} learns no attention: what is shown in its place "
            "is gradient saliency, gradient × (frame − the utterance's mean frame), of the frames "
            "that speak for the answer, scaled to sum to 1; those that speak against it get 0."
        )
    lines += subject.notes
    if subject.skipped:
        first = next(iter(subject.skipped.values()))
        lines.append(f"{len(subject.skipped):,} utterances could not be used. First: {first}")
    absent = [
        label for label in subject.labels if label not in {u.label for u in subject.utterances}
    ]
    if subject.split and labelled and absent:
        lines.append(f"No utterance is labelled {', '.join(absent)}.")
    return lines


def summarise(
    subject: Subject, items: Sequence[Item], sections: Sequence[Report], aligned: Aligned
) -> dict[str, Any]:
    """JSON values: what was explained, and each section's numbers."""
    return {
        "subject": subject.kind,
        "source": str(subject.source),
        "corpus": subject.corpus,
        "split": subject.split,
        "synthetic": subject.synthetic,
        "encoders": dict(subject.encoders),
        "methods": dict(subject.methods),
        "head_sha256": head_digest(subject),
        "utterances": len(subject),
        "aligned": aligned.count,
        "skipped": dict(subject.skipped),
        "notes": list(subject.notes),
        "items": [
            {
                "id": item.utterance.id,
                "label": item.utterance.label,
                "predicted": item.predicted,
                "probability": item.confidence,
                **({"strengths": dict(item.strengths)} if item.strengths else {}),
                **({"answer": item.answer} if item.answer else {}),
            }
            for item in items
        ]
        if not subject.split
        else [],
        "sections": {section.title: section.data for section in sections if section.data},
    }


def attends(record: HeadRecord) -> bool:
    """Whether the pooling of every modality learns weights."""
    return all(pooling_config(one).learns_weights for one in record.head.pooling.values())


def other_head_note(record: HeadRecord, search: Path) -> str:
    """A sentence on the best kept head with attention; "" where this one has it or none has.

    Args:
        record: of the head that is explained.
        search: the search's folder.
    """
    if attends(record):
        return ""
    kept = [
        HeadRecord.from_json(read_json(path, kind=FORMAT, version=VERSION))
        for path in sorted((search / TRIALS_FOLDER).glob("*.json"))
    ]
    best = max(filter(attends, kept), key=lambda one: one.dev_macro_f1, default=None)
    if best is None:
        return ""
    score = objective_name(best.head.labels, best.head.attributes)
    return (
        f"The best kept head with attention is trial {best.trial} ({score} "
        f"{best.dev_macro_f1:.3f} on {best.selected_on}): --trial {best.trial} explains that one."
    )


Opened = ScoredHead | ScoredModel


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
    attribute = _attribute(_head(opened), config.attribute)
    if _head(opened).config.input_norm == SPEAKER:
        raise ConfigError(
            f"The head in {opened.source.path} reads frames normalised by each speaker's "
            "recordings: what it says of one recording depends on all others, and is not "
            "explained. Search a head without it (input_norm of --space)."
        )
    limit, notes = config.limit, []
    if isinstance(opened, ScoredModel) and limit is None and not config.ids:
        limit = MODEL_LIMIT
    rows = choose_rows(manifest, config.split, limit=limit, ids=config.ids, seed=config.seed)
    cache = FrameCache(work)
    note = opened.source.note(cache, work.manifest, manifest, config.split, rows.utterances)
    all_rows = len(manifest.in_split(config.split))
    if not config.ids and len(rows.utterances) < all_rows:
        notes.append(
            f"{len(rows.utterances):,} of the {all_rows:,} utterances of "
            f"{split_name(config.split)}, drawn at random (--limit)."
        )
    material = _material(opened, rows, config, show_progress=show_progress)
    other = other_head_note(opened.record, work.search) if isinstance(opened, ScoredHead) else ""
    strength, strength_notes = _strength(opened, work, config, attribute)
    subject = build_subject(
        _head(opened),
        material,
        kind=opened.source.kind,
        source=opened.source,
        manifest=manifest,
        split="" if config.ids else config.split,
        strength=strength,
        notes=[text for text in (note, *notes, other, *strength_notes) if text],
        attribute=attribute,
    )
    model = None
    if config.occlusion:
        model = _with_encoders(opened, config)
        model.head = answering_head(model.head, attribute)
    folder = work.explain / "items" if config.ids else work.explain
    known = known_scores(opened, work, manifest, config.split)
    return _report(
        cache, folder, manifest, subject, config, model, known, show_progress=show_progress
    )


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
        ConfigError: encoders are not there any more, or the head reads descriptions.
        MissingExtraError: matplotlib is not installed and figures are wanted.
    """
    _check_figures(config)
    opened = _open(work, config)
    attribute = _attribute(_head(opened), config.attribute)
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
    if isinstance(opened, ScoredHead):
        refuse_unheard(opened.cache, opened.record)
    model = _with_encoders(opened, config)
    limit = longest_stretch([model], WHOLE_SECONDS)
    timelines = recordings_over_time(model, utterances, seconds_trained_on(work, [model]), limit)
    parts = telling_parts(utterances, timelines, limit)
    material = model_material(model, parts, title="Encode" if show_progress else "")
    strength, notes = _strength(opened, work, config, attribute)
    if "text" in _head(opened).config.modalities and not text:
        notes = ("No text was given (--text): the head read an empty one.", *notes)
    subject = build_subject(
        _head(opened),
        material,
        kind=opened.source.kind,
        source=opened.source,
        strength=strength,
        notes=notes,
        attribute=attribute,
    )
    over_time = []
    if timelines:
        over_time = [over_time_section(timelines, limit, reads="text" in subject.frames)]
    manifest = Manifest(utterances, subject.labels, "")
    single = replace(config, ids=tuple(u.id for u in subject.utterances))
    folder = work.explain / "items"
    return _report(
        FrameCache(work),
        folder,
        manifest,
        subject,
        single,
        None,
        known_scores(opened, work, None, "test"),
        more=over_time,
        show_progress=show_progress,
    )


def _check_figures(config: ExplainConfig) -> None:
    if config.figures:
        require_matplotlib("explain with --no-plots")


def _open(work: Work, config: ExplainConfig) -> Opened:
    """The head, which takes seconds, unless there is none or the model is asked for."""
    there = (work.search / BEST).is_file(), has_model(work.model)
    if config.head is not None or config.subject == "head" or (not config.subject and there[0]):
        return open_head(FrameCache(work), config.head or work.search)
    if config.subject == "model" or there[1]:
        return open_model(work.model, device=choose_device(config.device))
    raise MissingStepError(
        f"{work.root} has neither a searched head nor a fine-tuned model. "
        "Run `python cli.py search` first."
    )


def _strength(
    opened: Opened, work: Work, config: ExplainConfig, attribute: str
) -> tuple[Strength | None, tuple[str, ...]]:
    """How strong a searched head's emotions are, and what has to be said of it."""
    if isinstance(opened, ScoredModel) or attribute:
        return None, ()
    try:
        strength = opened.strength(work.manifest, config.reference)
    except EmopoolError as error:
        return None, (f"No strength of emotion is told: {error}",)
    told = (
        "Strength says from 0 to 1 how strong the emotion is that was heard: .5 is as strong as "
        "the middle one of its training utterances. It is learnt by ranking these above "
        f"{config.reference} ones, by what the classifier reads."
    )
    return strength, (told, *strength.notes)


def _head(opened: Opened) -> Head:
    return opened.head if isinstance(opened, ScoredHead) else opened.model.head


def _attribute(head: Head, asked: str) -> str:
    """The attribute that is explained; "" for the classes."""
    known = list(head.config.attributes)
    if asked and asked not in known:
        raise ConfigError(
            f"--attribute {asked}: what is explained says {', '.join(known) or 'classes alone'}."
            f"{did_you_mean(asked, known)}"
        )
    return asked or ("" if head.config.labels else known[0])


def _material(
    opened: Opened, rows: Manifest, config: ExplainConfig, *, show_progress: bool
) -> LoadedRows:
    if isinstance(opened, ScoredModel):
        title = "Encode" if show_progress else ""
        return model_material(opened.model, rows.utterances, title=title)
    material = cached_material(opened, rows)
    if not material.utterances:
        raise ConfigError(
            f"none of the {len(rows.utterances):,} utterances has frames in the cache. First: "
            f"{next(iter(material.skipped.values()))}"
        )
    return material


def _with_encoders(opened: Opened, config: ExplainConfig) -> EmotionModel:
    """The model, or the searched head on the encoders that its frames came from."""
    if isinstance(opened, ScoredModel):
        return opened.model
    return head_on_recordings(opened, choose_device(config.device))


def _report(
    cache: FrameCache,
    folder: Path,
    manifest: Manifest,
    subject: Subject,
    config: ExplainConfig,
    model: EmotionModel | None,
    known: Known,
    *,
    more: Sequence[Report] = (),
    show_progress: bool,
) -> Explanation:
    """Analyse a split, or show single items, and write; `more` sections stand behind the items."""
    aligned = read_alignments(subject.utterances)
    items = collect_items(subject, aligned, read_texts(subject))
    intro = introduction(subject, items)
    sections: list[Report] = []
    if config.ids:
        chosen = list(range(len(items)))
        sections = [items_section(items), *more]
        # Of a split's utterances, which lie above those of items.
        trust, neutral = kept_verdict(folder.parent / SUMMARY, subject)
    else:
        chosen = choose_examples(items)
        context = Context(subject, aligned, manifest, cache, config, model, show_progress)
        sections = [analysis(context) for analysis in ANALYSES.values()]
        faithful = next(one.data for one in sections if one.title == FAITHFULNESS)
        trust, neutral = judge(faithful, subject.split), None
    single = bool(config.ids)
    evidence: list[Evidence] = []
    if subject.attribute is None:
        cues = cues_of(subject, None if single else cache, config.cues, neutral, show_progress)
        evidence, neutral = find_evidence(subject, aligned, cues, neutral, progress=show_progress)
        sections.append(evidence_section(subject, evidence, trust, neutral, single=single))
    if evidence:
        said = [told(one, trust) for one in evidence]
        items = [
            replace(
                item,
                evidence=text,
                stretches=()
                if untold(one, trust)
                else [(part.start, part.end) for part in one.stretches],
            )
            for item, text, one in zip(items, said, evidence, strict=True)
        ]
    if config.figures:
        sections.append(pictures_section(subject, items, chosen))
    summary = summarise(subject, items, sections, aligned)
    contents = Contents(
        title=f"What the {subject.kind} hears: {subject.corpus or 'recordings'}"
        + (f", {split_name(subject.split).removeprefix('the ')}" if subject.split else ""),
        intro=intro,
        cards=answers(subject, sections, trust, known),
        sections=sections,
        items=items,
        embedded=_embedded(len(items), config.embedded, chosen),
        summary=summary,
        caution="" if trust.tells else f"It is not shown that {subject.weighing} decides.",
    )
    title = "Draw" if show_progress else ""
    written = write_report(folder, contents, figures=config.figures, title=title)
    if config.evidence is not None:
        write_text(config.evidence, json_lines(evidence, trust))
        written.append(config.evidence)
    return Explanation(subject, tuple(sections), tuple(intro), tuple(written), summary)


def _embedded(count: int, most: int, first: Sequence[int]) -> list[int]:
    """Numbers of the utterances whose sound is embedded: pictured ones first."""
    return list(dict.fromkeys([*first, *range(count)]))[:most]
