"""`predict` as one call: which model, which recordings, what is said beside the answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache.config import AUTO, TranscribeConfig
from cache.encoders.device import choose_device, usual_dtype
from cache.encoders.grid import SAMPLE_RATE
from cache.encoders.vad import load_detector
from cache.lookup import FrameCache
from cache.transcribe.listening import Listener, pieces_at_once
from cache.transcribe.model_files import find_whisper
from cache.transcribe.whisper import PIECE_SECONDS, load_whisper
from corpora.base.errors import ConfigError, ManifestError, MissingStepError
from corpora.base.work import Work
from corpora.manifest import Manifest
from corpora.readers.msp_podcast import BLIND, LETTERS, write_submission
from corpora.readers.tree import SUFFIXES, not_read, recordings_below
from corpora.utterance import SPLITS, Utterance, split_name
from finetune.assembly import build_model, check_streams
from finetune.config import PredictConfig
from finetune.evaluate.evaluation import caveats
from finetune.model import EmotionModel
from finetune.model_files import has_model
from finetune.predict.answering import Answer, Prediction, Unusable, predict
from heads.records import BEST, load_head

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


Waveform = NDArray[np.float32]


class Transcriber:
    """Hears what is said.

    Args:
        name: hub id or directory of a Whisper.
        language: of all recordings, such as de; "" or auto lets it detect.
        device: `cpu` or `cuda`.
        tell: for lines to be read while it runs.

    Raises:
        ConfigError: the model cannot be used or does not know the language.
        EmopoolError: a hub id is not on this machine and could not be downloaded.
    """

    def __init__(
        self,
        name: str,
        *,
        language: str = "",
        device: str = "cpu",
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        files = find_whisper(name)
        self.source = files.source
        self._language = "" if language == AUTO else files.code(language, "--language")
        model = load_whisper(files.directory, device=device)
        self._hear = Listener(
            model,
            load_detector(device),
            batch_size=pieces_at_once(model, device),
            speech_threshold=TranscribeConfig.speech_threshold,
            tell=tell,
        )

    def __call__(self, waveforms: Sequence[Waveform]) -> list[str]:
        """The text of each recording; "" where nobody speaks, or that does not fit the memory."""
        texts = [""] * len(waveforms)
        long = {
            number for number, one in enumerate(waveforms) if len(one) > PIECE_SECONDS * SAMPLE_RATE
        }
        # Long ones are alone: their language is that of their first speech.
        groups = [[number] for number in sorted(long)]
        groups.append([number for number in range(len(waveforms)) if number not in long])
        for group in groups:
            heard = self._hear([(self._language, waveforms[number]) for number in group])
            for number, one in zip(group, heard, strict=True):
                texts[number] = "" if one is None else one.text
        return texts


Tell = Callable[[str], None]
SHOWN_FAILURES = 10


def run_predict(
    work: Work, utterances: Sequence[Utterance], config: PredictConfig, tell: Tell
) -> Iterator[Answer]:
    """Load what is asked for, say what has to be known, and yield an answer for each utterance.

    Args:
        work: the work folder.
        utterances: in the order of the answers.
        config: what is asked.
        tell: for lines beside the answers.

    Raises:
        MissingStepError: there is no model and no searched head.
        ConfigError: a model cannot be used, or those of an ensemble have different labels.
        ManifestError: the answers are for a challenge whose classes the model does not know.
        EmopoolError: something could not be downloaded.
    """
    device = choose_device(config.device)
    models = [open_predictor(work, name, device, tell) for name in _names(work, config)]
    if config.submission is not None:
        challenge_labels(models[0].labels)
    encoders = {
        f"{kind} {number}": str(name)
        for number, model in enumerate(models)
        for kind, name in model.provenance.get("encoders", {}).items()
    }
    synthetic = any(bool(model.provenance.get("synthetic")) for model in models)
    for line in caveats(encoders, synthetic=synthetic):
        tell(line)
    hears = None
    if config.transcriber and any(model.text_encoder for model in models):
        hears = Transcriber(config.transcriber, language=config.language, device=device, tell=tell)
    elif config.transcriber:
        tell("This model does not read: nothing is transcribed.")
    missing = sum(not utterance.text for utterance in utterances)
    reads = any(model.text_encoder for model in models)
    if missing and reads and hears is None and any(model.audio_encoder for model in models):
        tell(
            f"Note: this model also reads what is said, and {missing:,} of {len(utterances):,} "
            "recordings come without text: they are judged by sound and an empty text, which "
            "lowers the scores. Give --text, or --transcribe."
        )
    return predict(
        models,
        utterances,
        top_frames=config.top_frames,
        hears=hears,
        max_seconds=config.max_seconds,
    )


def open_predictor(
    work: Work, name: str | Path, device: str, tell: Tell = lambda _: None
) -> EmotionModel:
    """A model by directory or hub id, or a head that was searched in the work folder.

    Args:
        work: the work folder, whose encoders a head is put on.
        name: see `PredictConfig.models`.
        device: `cpu` or `cuda`.
        tell: for a line that says it is a head.
    """
    path = Path(name)
    if path.suffix == ".json" or (path / BEST).is_file() or path == work.search:
        record = load_head(path)[1]
        cache = FrameCache(work)
        check_streams(cache, record)
        model, _ = build_model(cache, path, device, usual_dtype(device))
        model.provenance["synthetic"] = record.origin.synthetic
        tell(f"The head of trial {record.trial} on its encoders, as they were: not fine-tuned.")
        return model
    return EmotionModel.from_pretrained(name, device=device)


def submit(path: Path, answers: Iterable[Answer]) -> int:
    """Write predictions as MSP-Podcast's challenges take them; returns how many.

    Of each recording the most probable of the challenge's classes: a model may know others, which
    are trained on but never asked for.

    Raises:
        ManifestError: nothing was predicted, a file twice, or the model does not know the classes.
    """
    rows = []
    for one in answers:
        if isinstance(one, Prediction):
            known = challenge_labels(list(one.probabilities))
            rows.append((Path(one.audio).name, max(known, key=one.probabilities.__getitem__)))
    return write_submission(path, rows)


def challenge_labels(labels: Sequence[str]) -> list[str]:
    """Those of a model's labels that MSP-Podcast's challenges ask for.

    Raises:
        ManifestError: there are not two of them.
    """
    known = [label for label in labels if label in LETTERS]
    if len(known) < 2:
        raise ManifestError(
            f"the model tells {', '.join(labels)} apart; the challenge asks for "
            f"{', '.join(LETTERS)}. Train on these labels: prepare msp_podcast."
        )
    return known


def conclude(answers: Sequence[Answer], submission: Path | None) -> list[str]:
    """Write the challenge's file, where one was asked for, and say what was answered.

    Args:
        answers: of one run.
        submission: see `submit`.

    Returns:
        Lines for a person.
    """
    labels = Counter(one.label for one in answers if isinstance(one, Prediction))
    failed = [one for one in answers if isinstance(one, Unusable)]
    lines = []
    if labels.total() > 1:
        counts = ", ".join(f"{label} {count:,}" for label, count in labels.most_common())
        lines.append(f"{labels.total():,} recordings: {counts}.")
    if submission is not None:
        lines.append(f"Wrote {submission}: {submit(submission, answers):,} recordings.")
    if failed:
        lines.append(f"{len(failed):,} of {len(answers):,} recordings could not be used:")
        lines += [f"  {one.error}" for one in failed[:SHOWN_FAILURES]]
        if len(failed) > SHOWN_FAILURES:
            lines.append(f"  and {len(failed) - SHOWN_FAILURES:,} more (--json has them all)")
    return lines


def _names(work: Work, config: PredictConfig) -> tuple[str | Path, ...]:
    if config.models:
        return config.models
    if has_model(work.model):
        return (work.model,)
    if (work.search / BEST).is_file():
        return (work.search,)
    raise MissingStepError(
        f"{work.root} has neither a model nor a searched head to predict with. Name a model with "
        "--model, another folder with --work, or run `search` and `finetune` first."
    )
