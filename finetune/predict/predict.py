"""`predict` as one call: which model, which recordings, what is said beside the answers."""

from __future__ import annotations

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
from corpora.base.errors import AudioError, ConfigError, ManifestError, MissingStepError
from corpora.base.work import Work
from corpora.label_map import chosen_labels
from corpora.manifest import Manifest
from corpora.readers.msp_podcast import BLIND
from corpora.readers.tree import SUFFIXES, not_read, recordings_below
from corpora.utterance import SPLITS, Utterance, split_name
from finetune.assembly import build_model, check_streams
from finetune.config import PredictConfig
from finetune.evaluate.evaluation import caveats
from finetune.evaluate.scored import open_head
from finetune.model import EmotionModel
from finetune.model_files import has_model
from finetune.predict.answering import predict
from finetune.predict.conclude import challenge_labels, challenge_task
from finetune.predict.over_time import (
    VAD,
    WINDOW_SECONDS,
    choose_stretches,
    longest_stretch,
    over_time,
)
from finetune.predict.prediction import Answer, Unusable
from finetune.predict.timeline import Timeline, check_out
from finetune.utterance_seconds import seconds_trained_on
from heads.records import BEST, load_head
from heads.strength import Strength

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
        ConfigError: a model cannot be used or does not know a label that is asked for, or those of
            an ensemble have different labels.
        ManifestError: the answers are for a challenge whose classes the model does not know.
        EmopoolError: something could not be downloaded.
    """
    models, hears, strength = _opened(work, config, tell)
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
        labels=config.labels,
        embeddings=config.embeddings is not None,
        strength=strength,
    )


def _opened(
    work: Work, config: PredictConfig, tell: Tell
) -> tuple[list[EmotionModel], Transcriber | None, Strength | None]:
    """The models asked for, what fills in texts, and how strong emotions are, where asked for.

    Says what has to be known of them.
    """
    strength = _strength(work, config, tell) if config.strength else None
    device = choose_device(config.device)
    models = [open_predictor(work, name, device, tell) for name in model_names(work, config.models)]
    known = models[0].labels
    labels = chosen_labels(known, config.labels, "the model") if config.labels else known
    if config.submission is not None:
        known_attributes = models[0].head.config.attributes
        if challenge_task(labels, known_attributes, config.task) == 1:
            challenge_labels(labels)
    encoders = {
        f"{kind} {number}": str(name)
        for number, model in enumerate(models)
        for kind, name in model.provenance.get("encoders", {}).items()
    }
    synthetic = any(bool(model.provenance.get("synthetic")) for model in models)
    for line in caveats(encoders, synthetic=synthetic):
        tell(line)
    if config.labels:
        tell(f"Only {', '.join(labels)}: probabilities are renormalised over these labels.")
    hears = None
    if config.transcriber and any(model.text_encoder for model in models):
        hears = Transcriber(config.transcriber, language=config.language, device=device, tell=tell)
    elif config.transcriber:
        tell("This model does not read: nothing is transcribed.")
    return models, hears, strength


def _strength(work: Work, config: PredictConfig, tell: Tell) -> Strength:
    """How strong the emotions of the head asked for are; says what has to be known of it."""
    names = model_names(work, config.models)
    if len(names) > 1 or not is_head(work, names[0]):
        raise ConfigError(
            "--strength is told of one searched head, by the cached frames that it learnt from, "
            f"and not of {' and '.join(map(str, names))}. Give --model {work.search}."
        )
    head = open_head(FrameCache(work), Path(names[0]))
    strength = head.strength(work.manifest, config.reference)
    for line in strength.notes:
        tell(line)
    return strength


def run_over_time(
    work: Work,
    utterances: Sequence[Utterance],
    config: PredictConfig,
    tell: Tell,
    progress: Callable[[float], object] = lambda _: None,
) -> Iterator[Timeline | Unusable]:
    """Load what is asked for, say what has to be known, and yield each recording over time.

    Args:
        work: the work folder.
        utterances: whole recordings.
        config: what is asked, with `every` or `segments`.
        tell: for lines beside the answers.
        progress: see `over_time`.

    Raises:
        MissingStepError: see `run_predict`.
        ConfigError: likewise; no model listens, a window is longer than they take, or the file of
            segments cannot be read.
        MissingExtraError: the voice activity detector or matplotlib is not installed.
    """
    check_out(config.outs)
    models, hears, strength = _opened(work, config, tell)
    if not all(model.audio_encoder for model in models):
        raise ConfigError("over time a model has to listen, and this one reads text alone.")
    lengths = seconds_trained_on(work, models)
    longest = longest_stretch(models, config.max_seconds)
    window = config.window or (lengths.median if lengths else WINDOW_SECONDS)
    if config.every is not None:
        if window > longest:
            raise ConfigError(
                f"a window of {window:g} s is longer than the {longest:g} s that are heard at "
                "once. Give a shorter --window, or see --max-seconds."
            )
        whence = "" if config.window else " (the median utterance trained on)"
        if not (config.window or lengths):
            whence = " (how long the utterances trained on were is not known)"
        tell(f"A window of {window:g} s{whence} every {config.every:g} s, each heard by itself.")
    if lengths is None:
        tell("Whether segments are shorter than what was trained on is unknown: length says so.")
    else:
        tell(
            f"Of the utterances trained on 98 % are {lengths.shortest:g} to {lengths.longest:g} s "
            "long; segments beyond that are marked short or long: trust them less."
        )
    pick = choose_stretches(config, window, longest)
    if hears is None and any(model.text_encoder for model in models):
        tell(
            "Note: this model also reads what is said. Segments without a text of their own (a "
            "column `text` of the file of --segments, or --transcribe) are judged by sound and an "
            "empty text, which lowers the scores."
        )
    detector = load_detector(models[0].device) if config.segments == VAD else None
    for utterance in utterances:
        try:
            yield over_time(
                models,
                utterance,
                pick,
                detector=detector,
                lengths=lengths,
                hears=hears,
                max_seconds=config.max_seconds,
                labels=config.labels,
                strength=strength,
                progress=progress,
            )
        except AudioError as error:
            yield Unusable(utterance.id, str(utterance.audio), str(error))


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
    if is_head(work, name):
        path = Path(name)
        record = load_head(path)[1]
        cache = FrameCache(work)
        check_streams(cache, record)
        model, _ = build_model(cache, path, device, usual_dtype(device))
        model.provenance["synthetic"] = record.origin.synthetic
        model.provenance["trained_on"] = record.trained_on
        tell(f"The head of trial {record.trial} on its encoders, as they were: not fine-tuned.")
        return model
    return EmotionModel.from_pretrained(name, device=device)


def is_head(work: Work, name: str | Path) -> bool:
    """Whether a name is that of a searched head, and not of a model."""
    path = Path(name)
    return path.suffix == ".json" or (path / BEST).is_file() or path == work.search


def model_names(work: Work, asked: Sequence[str | Path] = ()) -> tuple[str | Path, ...]:
    """The models asked for; without any the one of the work folder, or its best head.

    Raises:
        MissingStepError: there is neither.
    """
    if asked:
        return tuple(asked)
    if has_model(work.model):
        return (work.model,)
    if (work.search / BEST).is_file():
        return (work.search,)
    raise MissingStepError(
        f"{work.root} has neither a model nor a searched head to predict with. Name a model with "
        "--model, another folder with --work, or run `search` and `finetune` first."
    )
