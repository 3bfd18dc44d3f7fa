"""`predict` as one call: which model, which recordings, what is said beside the answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cache.extraction import read_extraction
from corpora.base.errors import ManifestError, MissingStepError
from corpora.base.work import Work
from corpora.submission import LETTERS, write_submission
from corpora.utterance import Utterance
from finetune.building import build_model
from finetune.evaluation import caveats
from finetune.fitting import check_streams
from finetune.model import EmotionModel
from finetune.model_files import has_model
from finetune.predicting.answers import Answer, Prediction
from finetune.predicting.run import MAX_SECONDS, TOP_FRAMES, predict
from heads.results import BEST, load_head

Tell = Callable[[str], None]


@dataclass(frozen=True)
class PredictConfig:
    """What the user asks of a prediction.

    Attributes:
        models: directories or hub ids, or heads searched in the work folder; several are an
            ensemble; none is the work folder's model, else its search's best head.
        whisper: fills in missing texts; "" for none.
        language: that Whisper is told; "" lets it detect.
        top_frames: how many of the frames attended most are named.
        max_seconds: longer recordings are refused.
        for_submission: the answers go into a challenge's file, so labels have to be its own.
        device: `cpu` or `cuda`.
    """

    models: tuple[str | Path, ...] = ()
    whisper: str = ""
    language: str = ""
    top_frames: int = TOP_FRAMES
    max_seconds: float = MAX_SECONDS
    for_submission: bool = False
    device: str = "cpu"


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
    models = [open_predictor(work, name, config.device, tell) for name in _names(work, config)]
    if config.for_submission:
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
    if config.whisper and any(model.text_encoder for model in models):
        from finetune.predicting.hearing import Transcriber

        hears = Transcriber(
            config.whisper, language=config.language, device=config.device, tell=tell
        )
    elif config.whisper:
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
        check_streams(work, record, read_extraction(work))
        model, _ = build_model(work, path, device, "bf16" if device == "cuda" else "fp32")
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


def counts_text(answers: Sequence[Answer]) -> str:
    """How many recordings got which label, in one line."""
    counts: dict[str, int] = {}
    for one in answers:
        if isinstance(one, Prediction):
            counts[one.label] = counts.get(one.label, 0) + 1
    return ", ".join(f"{label} {n:,}" for label, n in sorted(counts.items(), key=lambda c: -c[1]))


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
