"""What comes of a prediction beside its answers: a challenge's file, embeddings, what was found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import numpy as np

from corpora.base.errors import ManifestError
from corpora.base.files import atomic_path, write_text
from corpora.base.report import csv_text
from corpora.readers.msp_podcast import LETTERS, write_attribute_submission, write_submission
from corpora.utterance import ATTRIBUTES
from finetune.config import PredictConfig
from finetune.predict.prediction import Answer, Prediction, Unusable

SHOWN_FAILURES = 10


def conclude(answers: Sequence[Answer], config: PredictConfig) -> list[str]:
    """Write the challenge's file and the embeddings where they were asked for; say what was found.

    Args:
        answers: of one run.
        config: what was asked.

    Returns:
        Lines for a person.
    """
    submission, embeddings = config.submission, config.embeddings
    predictions = [one for one in answers if isinstance(one, Prediction)]
    labels = Counter(one.label for one in predictions if one.label)
    failed = [one for one in answers if isinstance(one, Unusable)]
    lines = []
    if labels.total() > 1:
        counts = ", ".join(f"{label} {count:,}" for label, count in labels.most_common())
        lines.append(f"{labels.total():,} recordings: {counts}.")
    if submission is not None:
        written = submit(submission, answers, config.task)
        lines.append(f"Wrote {submission}: {written:,} recordings.")
    if embeddings is not None and predictions:
        count, size = write_embeddings(embeddings, predictions)
        lines.append(f"Wrote {embeddings}: {count:,} embeddings of {size:,} numbers.")
    elif embeddings is not None:
        lines.append(f"{embeddings} was not written: there is no recording to put into it.")
    if failed:
        lines.append(f"{len(failed):,} of {len(answers):,} recordings could not be used:")
        lines += [f"  {one.error}" for one in failed[:SHOWN_FAILURES]]
        if len(failed) > SHOWN_FAILURES:
            lines.append(f"  and {len(failed) - SHOWN_FAILURES:,} more (--json has them all)")
    return lines


def submit(path: Path, answers: Iterable[Answer], task: int | None = None) -> int:
    """Write predictions as MSP-Podcast's challenges take them; returns how many.

    Of each recording the most probable of the challenge's classes: a model may know others, which
    are trained on but never asked for. Or, for task 2, its attributes.

    Raises:
        ManifestError: nothing was predicted, a file twice, or the model does not know the classes
            or attributes.
    """
    classes: list[tuple[str, str]] = []
    ratings: list[tuple[str, dict[str, float]]] = []
    for one in answers:
        if isinstance(one, Prediction):
            name = Path(one.audio).name
            if challenge_task(list(one.probabilities), one.attributes, task) == 2:
                ratings.append((name, dict(one.attributes)))
            else:
                known = challenge_labels(list(one.probabilities))
                classes.append((name, max(known, key=one.probabilities.__getitem__)))
    return write_attribute_submission(path, ratings) if ratings else write_submission(path, classes)


def challenge_task(labels: Sequence[str], attributes: Collection[str], asked: int | None) -> int:
    """Which task of the challenges a model answers: 1, classes, or 2, attributes.

    Args:
        labels: that the model knows.
        attributes: likewise.
        asked: None where nobody said: classes, where it knows any.

    Raises:
        ManifestError: the model does not know the attributes.
    """
    task = asked or (1 if labels else 2)
    missing = [name for name in ATTRIBUTES if name not in attributes]
    if task == 2 and missing:
        raise ManifestError(
            f"task 2 of the challenge asks for {', '.join(ATTRIBUTES)}, and the model does not "
            f"know {', '.join(missing)}. Search with --targets attributes."
        )
    return task


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


def write_embeddings(path: Path, predictions: Sequence[Prediction]) -> tuple[int, int]:
    """Write the embeddings of predictions, at least one, at once or not at all.

    An `.npz` holds `ids` `[n]`, `embeddings` `[n, D]` float32 and `columns` `[D]`, and is read
    without pickle; a CSV has the columns `id` and those. A column is `<modality>_<number>`, for the
    members of an ensemble `model2.<modality>_<number>`, and the modalities stand as the classifier
    reads them.

    Args:
        path: ends in `.npz` or `.csv`.
        predictions: made with `embeddings`.

    Returns:
        How many there are, and their dimension.
    """
    parts = predictions[0].embedding
    columns = [f"{name}_{number}" for name, own in parts.items() for number in range(len(own))]
    ids = [one.id for one in predictions]
    values = np.stack([np.concatenate(list(one.embedding.values())) for one in predictions])
    if path.suffix == ".csv":
        rows = ([name, *row] for name, row in zip(ids, values.tolist(), strict=True))
        write_text(path, csv_text(["id", *columns], list(rows)))
    else:
        with atomic_path(path) as temporary:
            np.savez(temporary, ids=np.array(ids), embeddings=values, columns=np.array(columns))
    count, size = values.shape
    return count, size
