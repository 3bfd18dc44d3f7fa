"""The model of a fine-tuning, built from a searched head and the encoders of its frames."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, cast

import torch

from cache.encoders.files import Kind
from cache.encoders.names import resolve_encoder
from cache.encoders.padding import recorded_padding
from cache.extraction import read_extraction
from corpora.base.work import Work
from finetune.assembly import assemble
from finetune.fitting import check_encoders
from finetune.model import EmotionModel
from heads.results import TRIALS_FOLDER, HeadRecord, load_head, study_of

# Under `WORK/finetune`: heads whose weights the search had not kept.
FOLDER = "heads"


def build_model(
    work: Work, source: Path, device: torch.device | str, precision: Literal["fp32", "bf16"]
) -> tuple[EmotionModel, HeadRecord]:
    """Put a searched head on the encoders that its frames came from.

    Args:
        work: the work folder of the extraction.
        source: the head's JSON file.
        device: where the model goes.
        precision: of the speech encoder.

    Raises:
        ConfigError: the encoders are not those of the search; each difference is named.
    """
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
        "study": _study(work, source),
        "study_seed": record.study_seed,
        "search_manifest_sha256": record.origin.manifest_sha256,
        "search_dev_macro_f1": record.dev_macro_f1,
        "versions": {n: version(n) for n in ("emopool", "torch", "transformers", "tokenizers")},
        "device": torch.device(device).type,
        "precision": precision,
    }
    layers = {name: record.origin.layers[name] for name in modalities}
    model = assemble(
        head,
        directories,
        layers,
        device=device,
        compute_dtype=precision,
        padding=recorded_padding(sources["audio"].recipe) if "audio" in sources else None,
        speech_dtype=speech_dtype,
        provenance=provenance,
    )
    return model, record


def _study(work: Work, source: Path) -> str:
    """The study that a head comes from; "" for a head of `compare`."""
    folder = source if source.is_dir() else source.parent
    if folder.name == TRIALS_FOLDER:
        folder = folder.parent
    elif folder == work.finetune / FOLDER:
        folder = work.search  # it was trained again
    return study_of(folder)
