"""What a search leaves in `WORK/search`, and reading a head back.

| file | holds |
|---|---|
| `study.db` | the Optuna study (`heads.search.study`), unless it is kept in a database |
| `study.json` | which study the files belong to |
| `best.json`, `head.safetensors` | the best head: configuration, origin and scores; its weights |
| `trials/00012.json`, `.safetensors` | the ten best, without scores; with folds the chosen one |
| `selection/00012.safetensors` | what each trial said in the end about the rows it is compared by |
| `trials.csv`, `predictions.csv` | every trial; the best head's probabilities |
| `fold_predictions.csv` | with folds, of each utterance by the head it was held out from |
| `ensemble.json`, `ensemble_predictions.csv` | with `--ensemble`: its scores and probabilities |
| `test_folds.json`, `test_fold_predictions.csv` | with `--test-folds`: all folds together |
| `test_folds/` | with `--test-folds`: a search's folder for each |
| `plots/` | with `--plots`: the study as pictures |
| `reference.json` | scores of the logistic regression (`heads.reference`) |
| `ridge.json` | with attributes: scores of the ridge regression (`heads.ridge`) |
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from cache.last_extraction import layer_name
from cache.recipe import LayersRead, layer_numbers, layers_from_json
from corpora.base.codec import Jsonable
from corpora.base.errors import CacheError, ConfigError, FormatVersionError, MissingStepError
from corpora.base.files import (
    LFS_SENTENCE,
    is_lfs_pointer,
    read_json,
    write_bytes,
    write_json,
    write_text,
)
from corpora.base.report import csv_text
from corpora.base.terminal import as_written
from corpora.manifest import Manifest
from corpora.utterance import format_number
from heads.attributes import AttributeScores
from heads.config import KEPT
from heads.dataset import Dataset
from heads.head import Head, HeadConfig
from heads.metrics import Scores
from heads.training import Schedule, TrainingConfig


@dataclass(frozen=True)
class Origin(Jsonable):
    """What a head was trained on, in names and digests; JSON both ways.

    Attributes:
        corpus: the manifest's name for it.
        synthetic: not human speech, which every result says.
        labels: the label order.
        encoders: by modality, as the user named them.
        layers: by modality, the hidden state read, or those that are weighed.
        streams: by kind (audio, text, speech), `<recipe's folder>/<stream>` in `features.zarr`; of
            several layers the highest one's.
        frames: by modality, how many were read: differs when utterances or recordings do.
        manifest_sha256: digest of the rows (see `manifest_digest`).
    """

    corpus: str
    synthetic: bool
    labels: tuple[str, ...]
    encoders: Mapping[str, str] = field(default_factory=dict)
    layers: Mapping[str, LayersRead] = field(default_factory=dict)
    streams: Mapping[str, str] = field(default_factory=dict)
    frames: Mapping[str, int] = field(default_factory=dict)
    manifest_sha256: str = ""

    @property
    def corpus_name(self) -> str:
        """The corpus in a sentence."""
        return f"{self.corpus or 'unnamed corpus'}{', synthetic speech' * self.synthetic}"

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Origin:
        """The inverse of `to_json`; entries of other names are left alone."""
        layers = {name: layers_from_json(read) for name, read in value["layers"].items()}
        return super().from_json({**value, "layers": layers})


def manifest_digest(
    manifest: Manifest, attributes: Mapping[str, tuple[float, float]] | None = None
) -> str:
    """SHA-256 (hex) of the rows and labels, wherever the recordings lie.

    Of each utterance: id, name of the recording, bounds, text, label, speaker and split, and its
    description where it has one; with attributes also their scales and its ratings.
    """
    digest = hashlib.sha256(json.dumps(manifest.labels).encode())
    if attributes:
        digest.update(json.dumps(dict(attributes)).encode())
    for u in manifest.utterances:
        row: tuple[object, ...] = (u.id, u.audio.name, u.start, u.end, u.text, u.label)
        row += (u.speaker, u.split)
        row += (u.description,) if u.description else ()
        row += tuple(getattr(u, name) for name in attributes or ())
        digest.update(json.dumps(row).encode() + b"\n")
    return digest.hexdigest()


def as_learnt(manifest: Manifest, labels: Sequence[str]) -> Manifest:
    """A manifest as what learnt these labels read it: without any, for attributes alone."""
    return manifest if labels else replace(manifest, labels=())


#: By modality the weights of a head's layers, lowest layer first, where it weighs several.
LayerWeights = Mapping[str, tuple[float, ...]]


def origin_of_head(origin: Origin, dataset: Dataset, head: HeadConfig) -> Origin:
    """Where a head's frames come from: of all that a study reads, the layers that are its own.

    Args:
        origin: with the usual layer of each modality.
        dataset: with the cached layers.
        head: which may read another one, or weigh them.
    """
    layers, streams = dict(origin.layers), dict(origin.streams)
    for name in head.modalities:
        if head.layers(name) > 1:
            others = dataset.others[name]
            layers[name] = tuple(sorted({*others, *layer_numbers(origin.layers[name])}))
        elif name in head.layer:
            layers[name] = head.layer[name]
        if name in layers and name in streams:
            folder, _, _ = streams[name].rpartition("/")
            streams[name] = f"{folder}/{layer_name(layer_numbers(layers[name])[-1])}"
    return replace(origin, layers=layers, streams=streams)


def layer_weights(head: Head) -> dict[str, tuple[float, ...]]:
    """What a head learnt about its layers; empty for one that reads a single one of each."""
    return {
        name: tuple(shares[0].tolist())
        for name in head.config.modalities
        if (shares := head.pooling(name).layer_shares) is not None
    }


def layer_weights_text(
    weights: Mapping[str, Sequence[float]], layers: Mapping[str, LayersRead]
) -> str:
    """Such as `audio 8: 0.312, 16: 0.266, 24: 0.422`; "" where nothing is weighed, or not known."""
    parts = []
    for name, shares in weights.items():
        if name not in layers:
            continue
        pairs = zip(layer_numbers(layers[name]), shares, strict=True)
        own = ", ".join(f"{layer}: {share:.3f}" for layer, share in pairs)
        parts.append(f"{name} {own}")
    return "; ".join(parts)


def write_predictions(
    path: Path, dataset: Dataset, probabilities: Mapping[str, tuple[Tensor, Tensor]]
) -> None:
    """Columns id, split, gold and `p_<label>`; by split the rows `[n]` and probabilities `[n, C]`.

    Probabilities have seven digits after the point. Of each attribute there are its name, what was
    said in the units of its scale, and `gold_<name>`; without labels there is no `gold`.
    """
    columns = ["id", "split", *["gold"] * bool(dataset.labels)]
    columns += [f"p_{label}" for label in dataset.labels]
    columns += [f"{of}{name}" for of in ("", "gold_") for name in dataset.attributes]
    rows = []
    for split, (numbers, values) in probabilities.items():
        for number, row in zip(numbers.tolist(), values.tolist(), strict=True):
            utterance = dataset.utterances[number]
            cells = [*[utterance.label] * bool(dataset.labels), *(f"{v:.7f}" for v in row)]
            rated = [format_number(getattr(utterance, name)) for name in dataset.attributes]
            rows.append([utterance.id, split, *cells, *rated])
    write_text(path, csv_text(columns, rows))


def read_predictions(path: Path) -> dict[str, dict[str, list[float]]]:
    """By split and utterance id what was said, `[C + A]`, in the order of the file."""
    found: dict[str, dict[str, list[float]]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            own, split = as_written(row.pop("id")), row.pop("split")
            said = [v for k, v in row.items() if k != "gold" and not k.startswith("gold_")]
            found.setdefault(split, {})[own] = [float(cell) for cell in said]
    return found


FORMAT, VERSION = "emopool-head", 1
NOTE_FORMAT = "emopool-study"
STUDY_FILE, STUDY_NOTE = "study.db", "study.json"
BEST, WEIGHTS = "best.json", "head.safetensors"
TRIALS, PREDICTIONS, REFERENCE = "trials.csv", "predictions.csv", "reference.json"
FOLD_PREDICTIONS, RIDGE = "fold_predictions.csv", "ridge.json"
ENSEMBLE, ENSEMBLE_PREDICTIONS = "ensemble.json", "ensemble_predictions.csv"
TEST_FOLDS, TEST_FOLD_PREDICTIONS = "test_folds.json", "test_fold_predictions.csv"
TEST_FOLDS_FOLDER = "test_folds"
TRIALS_FOLDER, SELECTION_FOLDER, PLOTS_FOLDER = "trials", "selection", "plots"
_DIGEST = "sha256"


@dataclass(frozen=True)
class HeadRecord(Jsonable):
    """All that is known about a kept head but its weights; JSON both ways.

    Attributes:
        trial: its number in the study.
        start: the name of the starting configuration it is; "" for a sampled one.
        params: the values of the search's axes.
        head: its shape.
        training: how it was trained.
        schedule: what it shared with all trials of the study.
        origin: what it was trained on.
        study_seed: of the search.
        versions: of the packages that decide its numbers.
        dev_macro_f1: what it was selected on; with folds their pooled macro-F1. Of a head with
            attributes the mean CCC, or the mean of both: its JSON calls that `dev_score`.
        scores: reports by split (dev, test where there is one, and folds where it was selected on
            them); for the best head only.
        selected_on: the rows behind `dev_macro_f1`, in words.
        trained_on: the splits that it learnt from, `train` or `train+dev`.
        layer_weights: by modality the weight of each layer, lowest first, where several are weighed
            (their numbers are the origin's); `save_head` writes them down.
        attribute_scores: as `scores`, of the attributes.
    """

    json_entries = (
        "trial start params head training schedule **origin study_seed versions dev_macro_f1 "
        "selected_on trained_on layer_weights scores attribute_scores"
    )
    json_optional = "attribute_scores"

    trial: int
    start: str
    params: Mapping[str, Any]
    head: HeadConfig
    training: TrainingConfig
    schedule: Schedule
    origin: Origin
    study_seed: int
    versions: Mapping[str, str]
    dev_macro_f1: float
    scores: Mapping[str, Scores] = field(default_factory=dict)
    selected_on: str = "dev"
    trained_on: str = "train"
    layer_weights: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    attribute_scores: Mapping[str, AttributeScores] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        found = super().to_json()
        if self.head.attributes:
            found["dev_score"] = found.pop("dev_macro_f1")
        return found

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> HeadRecord:
        """The inverse of `to_json`; raises KeyError, TypeError or ConfigError if it is none."""
        if "dev_score" in value:
            value = {**value, "dev_macro_f1": value["dev_score"]}
        return super().from_json({"start": value.get("published", ""), **value, "origin": value})


def package_versions() -> dict[str, str]:
    """The versions that decide a head's numbers."""
    return {name: version(name) for name in ("emopool", "torch", "optuna")}


def trial_file(folder: Path, number: int) -> Path:
    """The JSON file of a kept trial; its weights lie beside it."""
    return folder / TRIALS_FOLDER / f"{number:05}.json"


def save_head(path: Path, weights: Path, head: Head, record: HeadRecord) -> None:
    """Write a head: weights first, then the JSON that names them with their digest."""
    state = {name: value.detach().cpu().contiguous() for name, value in head.state_dict().items()}
    data = safetensors.torch.save(state)
    write_bytes(weights, data)
    record = replace(record, layer_weights=layer_weights(head))
    write_json(
        path,
        {
            "format": FORMAT,
            "version": VERSION,
            **record.to_json(),
            "weights": {"file": weights.name, "sha256": hashlib.sha256(data).hexdigest()},
        },
    )


def load_head(path: Path | str) -> tuple[Head, HeadRecord]:
    """Read a head back.

    Args:
        path: `best.json`, the JSON of another kept trial, or a folder that holds `best.json`.

    Raises:
        MissingStepError: the file or its weights are not there.
        FormatVersionError: the JSON is not what this version writes.
        CacheError: the weights are not those the JSON was written with.
    """
    path = Path(path)
    path = path / BEST if path.is_dir() else path
    if not path.is_file():
        raise MissingStepError(f"No head at {path}. Run `python cli.py search` first.")
    value = read_json(path, kind=FORMAT, version=VERSION)
    try:
        record = HeadRecord.from_json(value)
        if record.head.labels != record.origin.labels:
            raise ValueError(f"labels {record.origin.labels}, of its head {record.head.labels}")
        name, digest = Path(value["weights"]["file"]).name, value["weights"]["sha256"]
    except (KeyError, TypeError, ValueError) as error:
        raise FormatVersionError(
            f"{path} was altered: {error!r}. Restore it, or run `search` again."
        ) from error
    weights = path.with_name(name)
    if not weights.is_file():
        raise MissingStepError(
            f"{path} names its weights {name}, but {weights} is missing. "
            "Restore it, or run `search` again."
        )
    if is_lfs_pointer(weights):
        raise CacheError(f"{weights} {LFS_SENTENCE}")
    data = weights.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != digest:
        raise CacheError(
            f"{weights} does not belong to {path}: its SHA-256 begins with {found[:12]}, expected "
            f"{digest[:12]}. Restore both, or run `search` again."
        )
    try:
        head = Head.from_state(record.head, safetensors.torch.load(data))
    except (SafetensorError, ConfigError) as error:
        raise CacheError(
            f"{path} describes another head than {weights} holds ({error}). "
            "Restore both, or run `search` again."
        ) from error
    return head, record


def refuse_attributes(record: HeadRecord, what: str) -> None:
    """Refuse a head with attributes where classes alone are read.

    Raises:
        ConfigError: it has some.
    """
    if record.head.attributes:
        raise ConfigError(
            f"{what} reads classes alone, and the head of trial {record.trial} has attributes "
            f"({', '.join(record.head.attributes)}). Search with --targets emotion for it."
        )


def best_numbers(values: Mapping[int, float]) -> list[int]:
    """The trials to keep, by their values; the best first, of equals the earlier one."""
    return sorted(values, key=lambda number: (-values[number], number))[:KEPT]


def selection_file(folder: Path, number: int) -> Path:
    """What a trial said about the rows that it is compared by, when it left."""
    return folder / SELECTION_FOLDER / f"{number:05}.safetensors"


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors whose metadata holds a digest of them."""
    plain = {name: value.contiguous() for name, value in tensors.items()}
    write_bytes(path, safetensors.torch.save(plain, {_DIGEST: tensor_digest(plain)}))


def load_tensors(path: Path, remedy: str) -> dict[str, Tensor]:
    """Read back what `save_tensors` wrote.

    Raises:
        CacheError: they are not those that were written.
    """
    data = path.read_bytes()
    try:
        tensors: dict[str, Tensor] = safetensors.torch.load(data)
        with safetensors.safe_open(path, "pt") as file:
            expected = (file.metadata() or {}).get(_DIGEST)
    except SafetensorError as error:
        raise CacheError(f"{path} is damaged ({error}). {remedy}") from error
    if expected not in (None, tensor_digest(tensors)):
        raise CacheError(f"{path} is damaged: its tensors do not fit their digest. {remedy}")
    return tensors


def tensor_digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of tensors as safetensors writes them, without metadata."""
    return hashlib.sha256(safetensors.torch.save(dict(tensors))).hexdigest()


def save_probabilities(path: Path, probabilities: Tensor) -> None:
    """Write probabilities `[m, C]`."""
    save_tensors(path, {"probabilities": probabilities})


def load_probabilities(path: Path) -> Tensor | None:
    """Read probabilities `[m, C]` back; None where there is no such file.

    Raises:
        CacheError: they are not those that were written.
    """
    if not path.is_file():
        return None
    remedy = "Restore it, or search with --fresh."
    found = load_tensors(path, remedy)
    if set(found) != {"probabilities"}:
        raise CacheError(f"{path} is damaged: it holds {sorted(found)}. {remedy}")
    return found["probabilities"]


def claim_folder(folder: Path, study_id: str) -> None:
    """Note which study the folder's trials belong to: their numbers mean nothing in another.

    Raises:
        ConfigError: they belong to another study.
    """
    path = folder / STUDY_NOTE
    if not path.is_file():
        write_json(path, {"format": NOTE_FORMAT, "version": VERSION, "study": study_id})
    elif study_of(folder) != study_id:
        raise ConfigError(
            f"{folder} holds the heads of another study than the one to be searched in. "
            "Use another --work, or search with --fresh, which removes them."
        )


def study_of(folder: Path) -> str:
    """The study that the heads of a search's folder belong to; "" where none is noted."""
    path = folder / STUDY_NOTE
    if not path.is_file():
        return ""
    study = read_json(path, kind=NOTE_FORMAT, version=VERSION).get("study")
    if not isinstance(study, str):
        raise FormatVersionError(f"{path} names no study. Restore it, or search with --fresh.")
    return study


def remove_trials(folder: Path, numbers: Iterable[int]) -> None:
    """Remove the heads of these trials."""
    for number in numbers:
        path = trial_file(folder, number)
        path.unlink(missing_ok=True)
        path.with_suffix(".safetensors").unlink(missing_ok=True)


def clear(folder: Path) -> None:
    """Remove a search: all files of it, and no others."""
    for inner in (TRIALS_FOLDER, SELECTION_FOLDER, PLOTS_FOLDER):
        for path in (folder / inner).glob("*"):
            if path.suffix in (".json", ".safetensors", ".png", ".svg"):
                path.unlink()
    names = [STUDY_NOTE, BEST, WEIGHTS, TRIALS, PREDICTIONS, REFERENCE]
    names += [FOLD_PREDICTIONS, ENSEMBLE, ENSEMBLE_PREDICTIONS, RIDGE]
    for name in [*names, STUDY_FILE, f"{STUDY_FILE}-wal", f"{STUDY_FILE}-shm"]:
        (folder / name).unlink(missing_ok=True)
