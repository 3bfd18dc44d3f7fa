"""`finetune` as one call: from the searched head to a model directory and its scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from cache.encoders.device import choose_device
from cache.encoders.files import Kind
from cache.encoders.names import resolve_encoder
from cache.extraction import read_extraction
from corpora.errors import ConfigError, MissingStepError
from corpora.manifest import Manifest, require_splits
from corpora.work import Work
from finetune.assembly import assemble
from finetune.evaluate import evaluate_head, evaluate_model
from finetune.evaluation import Evaluation
from finetune.examples import gather_examples
from finetune.fitting import check_encoders, check_labels, check_streams, failed_at_extraction
from finetune.model import EmotionModel
from finetune.model_files import check_replaceable
from finetune.phases import LEARNING_RATES, PHASES
from finetune.report import FinetuneReport
from finetune.steps import EPOCHS, FRAME_BUDGET, PATIENCE, PhaseConfig, StepConfig
from finetune.training import PhaseResult, Tell, log_text, run_phase
from heads.origin import manifest_digest
from heads.results import TRIALS_FOLDER, HeadRecord, load_head

# The published rates are for encoders that know speech; at them, tiny ones do not move within some
# hundred steps. Measured on the sample corpus and on EMO-DB: at three times these rates the first
# epochs undo what the head had learnt.
TINY_LEARNING_RATES = {2: 1e-4, 3: 3e-5}


@dataclass(frozen=True)
class FinetuneConfig:
    """What the user asks of a fine-tuning.

    Attributes:
        phases: in this order.
        learning_rates: by phase; what is not given is the published rate, or, for tiny encoders,
            one of `TINY_LEARNING_RATES`.
        epochs: the most passes of a phase over the training rows.
        patience: evaluations without a better one that end a phase.
        unfreeze_layers: upper layers of each encoder trained in phase 2; None is a quarter of those
            the head reads.
        frame_budget: largest number of frames of a batch, padding included.
        seed: for batches and dropout.
        device: `auto`, `cpu` or `cuda`.
    """

    phases: tuple[int, ...] = PHASES
    learning_rates: Mapping[int, float] = field(default_factory=dict)
    epochs: int = EPOCHS
    patience: int = PATIENCE
    unfreeze_layers: int | None = None
    frame_budget: int = FRAME_BUDGET
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        unknown = [p for p in (*self.phases, *self.learning_rates) if p not in PHASES]
        if unknown or not self.phases or list(self.phases) != sorted(set(self.phases)):
            raise ConfigError(
                f"phases {', '.join(map(str, self.phases)) or 'none'} with learning rates for "
                f"{', '.join(map(str, self.learning_rates)) or 'none'}: expected 2, 3 or both, in "
                "this order. Phase 1, the head alone, is what `search` does."
            )
        if self.seed < 0 or self.frame_budget < 1:
            raise ConfigError(
                f"seed {self.seed} and frame budget {self.frame_budget}: expected a seed of 0 or "
                "more and a budget of 1 or more."
            )

    def phase(self, number: int, *, tiny: bool) -> PhaseConfig:
        """How one phase is trained, with the rate that holds for these encoders."""
        usual = TINY_LEARNING_RATES if tiny else LEARNING_RATES
        rate = self.learning_rates.get(number, usual[number])
        return PhaseConfig(number, rate, self.epochs, self.patience, self.unfreeze_layers)


def parse_phases(text: str) -> tuple[int, ...]:
    """Read phases such as `2,3`.

    Raises:
        ConfigError: something in it is not a number.
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f"--phases {text}: expected numbers such as 2,3.") from error


def run_finetune(
    work: Work,
    manifest: Manifest,
    config: FinetuneConfig | None = None,
    *,
    head: Path | None = None,
    tell: Tell | None = None,
    show_progress: bool = False,
) -> FinetuneReport:
    """Fine-tune a searched head with its encoders; the model goes to `WORK/model`.

    Args:
        work: the work folder of the extraction and the search.
        manifest: the utterances, with their splits.
        config: the options.
        head: the JSON file of the head to start from; the search's best by default.
        tell: called with a few lines of text at the start of each phase.
        show_progress: whether to draw progress bars.

    Raises:
        MissingStepError: nothing was extracted or searched, or that trial was not kept.
        ManifestError: no labelled utterance in train or dev.
        ConfigError: an option out of range, or the head was searched on other labels, streams or
            encoders than those at hand, or on other splits of the corpus while there is a test
            split, or `WORK/model` holds something else than a model, or nothing can be used.
        TrainingError: a loss is not finite.
        AudioError: a recording that extraction could read cannot be read any more.
    """
    config = config or FinetuneConfig()
    device = choose_device(config.device)
    source = work.search if head is None else head
    _check_kept(work, source)
    record = load_head(source)[1]
    check_labels(record, manifest)
    require_splits(manifest, ("train", "dev"))
    check_replaceable(work.model)
    scored = bool([u for u in manifest.in_split("test") if u.label])
    check_streams(work, record, read_extraction(work))
    before = evaluate_head(work, manifest, head=source) if scored else None
    results, notes = _train(work, manifest, config, source, device, tell, show_progress)
    after: Evaluation | None = None
    if scored:
        after = evaluate_model(work, manifest, device=device, show_progress=show_progress)
    return FinetuneReport(
        directory=work.model,
        record=record,
        synthetic=manifest.synthetic,
        phases=tuple(results),
        head=before,
        model=after,
        notes=(*_manifest_notes(record, manifest), *notes),
    )


def _train(
    work: Work,
    manifest: Manifest,
    config: FinetuneConfig,
    source: Path,
    device: str,
    tell: Tell | None,
    show_progress: bool,
) -> tuple[list[PhaseResult], list[str]]:
    """Run the phases and save the model, which is let go of then: it is large."""
    model, record = _build(work, source, device)
    rows = {split: manifest.in_split(split) for split in ("train", "dev")}
    known = failed_at_extraction(
        work, record, read_extraction(work), [u for split in rows.values() for u in split]
    )
    train, lost = gather_examples(model, rows["train"], known)
    dev, lost_too = gather_examples(model, rows["dev"], known)
    lost |= lost_too
    notes = []
    if lost:
        notes = [f"{len(lost)} utterances could not be used. First: {next(iter(lost.values()))}"]
    if not (len(train) and len(dev)):
        raise ConfigError(
            f"{len(train)} training and {len(dev)} development utterances can be used; "
            f"fine-tuning needs both. {' '.join(notes)}"
        )
    tiny = set(model.provenance["encoders"].values()) == {"tiny"}
    if tiny and not set(config.phases) <= set(config.learning_rates):
        notes.append(
            "Learning rates are those for tiny encoders; full ones get the published "
            f"{' and '.join(f'{LEARNING_RATES[p]:g} (phase {p})' for p in config.phases)}."
        )
    steps = StepConfig(config.frame_budget, loss=record.training.loss, seed=config.seed)
    results = []
    for number in config.phases:
        phase = config.phase(number, tiny=tiny)
        results.append(
            run_phase(model, phase, steps, train, dev, tell=tell, show_progress=show_progress)
        )
    model.provenance |= {
        "corpus": manifest.corpus,
        "synthetic": manifest.synthetic,
        "manifest_sha256": manifest_digest(manifest),
        "steps": asdict(steps),
        "phases": [result.to_json() for result in results],
        "dev_macro_f1": results[-1].best.macro_f1,
    }
    model.save_pretrained(work.model, training=log_text(results))
    return results, notes


def _check_kept(work: Work, head: Path) -> None:
    """Name the trials that were kept, where another one is asked for (MissingStepError)."""
    kept = sorted(path.stem for path in (work.search / TRIALS_FOLDER).glob("*.json"))
    if head.parent == work.search / TRIALS_FOLDER and not head.is_file() and kept:
        numbers = ", ".join(str(int(name)) for name in kept if name.isdecimal())
        raise MissingStepError(
            f"No head of trial {head.stem.lstrip('0') or '0'} in {head.parent}: a search keeps its "
            f"best ones only, here those of trials {numbers}. Name one of these."
        )


def _build(work: Work, source: Path, device: str) -> tuple[EmotionModel, HeadRecord]:
    """The head on the encoders that its frames came from."""
    head, record = load_head(source)
    extraction = read_extraction(work)
    modalities = record.head.modalities
    sources = {name: extraction.source(name) for name in modalities}
    directories = {
        name: resolve_encoder(entry.encoder, cast(Kind, name), work.root)
        for name, entry in sources.items()
    }
    check_encoders(record, extraction, directories)
    speech_dtype = "float32"
    if record.head.needs_speech:
        speech_dtype = str(extraction.source("speech").recipe.fields["stored_dtype"])
    provenance: dict[str, Any] = {
        "encoders": {name: entry.encoder for name, entry in sources.items()},
        "recipes": {name: dict(entry.recipe.fields) for name, entry in sources.items()},
        "streams": {name: record.origin.streams[name] for name in modalities},
        "trial": record.trial,
        "study_seed": record.study_seed,
        "search_manifest_sha256": record.origin.manifest_sha256,
        "search_dev_macro_f1": record.dev_macro_f1,
        "versions": {n: version(n) for n in ("emopool", "torch", "transformers", "tokenizers")},
        "device": device,
    }
    layers = {name: record.origin.layers[name] for name in modalities}
    model = assemble(
        head, directories, layers, device=device, speech_dtype=speech_dtype, provenance=provenance
    )
    return model, record


def _manifest_notes(record: HeadRecord, manifest: Manifest) -> list[str]:
    if record.origin.manifest_sha256 == manifest_digest(manifest):
        return []
    return [
        "The manifest has changed since the search: if utterances changed their split, the scores "
        "flatter the model. Search again to be sure."
    ]
