"""`transcribe` as one call: plan, hear what is not known yet, fill in the manifest, compare."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cache.config import TRANSFORMERS, TranscribeConfig
from cache.lookup import FrameCache
from cache.transcribe.journal import Journal, Transcript
from cache.transcribe.model_files import find_whisper, run_by
from cache.transcribe.texts import Plan, fill, heard_as, make_plan
from cache.transcribe.transcription import (
    NORMALISER,
    TranscribeReport,
    WordErrors,
    normalised_words,
    require_rapidfuzz,
    word_errors,
)
from corpora.base.errors import AudioError
from corpora.base.work import Work
from corpora.manifest import read_manifest
from corpora.utterance import Utterance


def transcribe(
    work: Work,
    path: Path,
    config: TranscribeConfig,
    *,
    tell: Callable[[str], None] | None = None,
    show_progress: bool = False,
) -> TranscribeReport:
    """Fill in the texts that a manifest lacks, and where it is asked for the times of words.

    Args:
        work: the work folder, which keeps the transcripts.
        path: of the manifest, which is replaced; the old one is kept beside it.
        config: what the user asks.
        tell: for lines to be read while it runs.
        show_progress: a bar on standard error.

    Raises:
        ConfigError: the model cannot be used or does not know a language.
        AudioError: not one of the recordings could be used.
        MissingExtraError: the engine, or what counts errors, is not installed.
    """
    tell = tell or (lambda line: None)
    if config.reference:
        require_rapidfuzz()
    work.root.mkdir(parents=True, exist_ok=True)
    report = _fill_in(work, path, config, tell=tell, show_progress=show_progress)
    if config.word_times:
        from cache.transcribe.word_times import write_word_times  # imports torch, transformers

        times = write_word_times(work, path, config, tell=tell, show_progress=show_progress)
        report = replace(report, word_times=times)
    return report


def _fill_in(
    work: Work,
    path: Path,
    config: TranscribeConfig,
    *,
    tell: Callable[[str], None],
    show_progress: bool,
) -> TranscribeReport:
    """The texts."""
    manifest = read_manifest(path)
    cache = FrameCache(work)
    with Journal(work.transcripts) as journal:
        plan = make_plan(cache, manifest, config, journal)
        report = TranscribeReport(path, work.root, human=plan.human, edited=plan.edited)
        if not plan.write and not plan.compare:
            return report
        model = find_whisper(config.model, cache.hashes, config.engine)
        if config.word_times and config.engine != TRANSFORMERS:
            find_whisper(config.model, cache.hashes)  # a converted one cannot give them
        whisper = run_by(model, config.engine)
        heard = heard_as(plan, config, whisper)
        # Which recordings are taken for silent decides texts, too.
        fingerprint = f"{whisper.fingerprint}-{config.speech_threshold:g}"
        whisper = replace(whisper, fingerprint=fingerprint)
        found = journal.known(fingerprint, heard)
        lacking = {one: item for one, item in heard.items() if one not in found}
        report = replace(report, source=whisper.source, known=len(found))
        failures = dict(plan.absent)
        if lacking:
            if config.engine != TRANSFORMERS:
                from cache.transcribe.faster import converted  # imports torch and transformers

                whisper = replace(whisper, directory=converted(model, work.root))
            from cache.transcribe.listening import listen  # imports torch and transformers

            done = listen(
                lacking,
                whisper,
                config,
                journal,
                tell=tell,
                show_progress=show_progress,
            )
            found |= done.transcripts
            for one, reason in done.failures.items():
                failures |= {utterance.id: reason for utterance in heard[one].utterances}
            report = replace(
                report,
                device=done.device,
                heard=len(done.transcripts),
                seconds_of_audio=done.seconds_of_audio,
                seconds=done.seconds,
            )
    if failures and not found:
        raise AudioError(
            f"none of the {len(failures)} recordings could be used. "
            f"The first: {next(iter(failures.values()))}"
        )
    by_id = {u.id: found[one] for one in heard if one in found for u in heard[one].utterances}
    planned = {u.id: u for u in plan.write}
    texts = {
        name: {"text": one.text, "text_source": whisper.source}
        for name, one in by_id.items()
        if name in planned
    }
    filled = fill(path, planned, texts)
    languages = Counter(one.language for one in by_id.values() if one.language)
    return replace(
        report,
        silent=sum(one.silent for one in by_id.values()),
        changed=filled.changed,
        skipped=filled.skipped,
        languages=dict(languages.most_common()),
        failures=failures,
        kept_as=filled.kept_as,
        lost_columns=filled.lost_columns,
        errors=_errors(plan, by_id, manifest.labels),
        normaliser=NORMALISER if config.reference else None,
    )


def _errors(
    plan: Plan, found: Mapping[str, Transcript], labels: Sequence[str]
) -> dict[str, WordErrors]:
    """Of the utterances with a human text: by label, and of all."""
    by_label: dict[str, WordErrors] = {}
    for utterance in plan.compare:
        if utterance.id in found:
            name = utterance.label or "(unlabelled)"
            errors = _utterance_errors(utterance, found[utterance.id])
            by_label[name] = by_label.get(name, WordErrors()) + errors
    if not by_label:
        return {}
    order = [name for name in (*labels, "(unlabelled)") if name in by_label]
    return {
        **{name: by_label[name] for name in order},
        "all": sum(by_label.values(), WordErrors()),
    }


def _utterance_errors(utterance: Utterance, transcript: Transcript) -> WordErrors:
    # Both sides in the same units, by the language that was heard, or else the manifest's.
    language = transcript.language or utterance.language.split("-")[0].lower()
    return word_errors(
        normalised_words(utterance.text, language),
        normalised_words(transcript.text, language),
    )
