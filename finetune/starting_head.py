"""Which head a fine-tuning starts from, and its weights.

A head that was trained on train and dev is trained again on train alone.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from corpora.base.errors import FormatVersionError, MissingStepError
from corpora.base.files import read_json
from corpora.base.work import Work
from corpora.manifest import Manifest
from finetune.building import FOLDER
from finetune.retraining import retrain, trial_record
from heads.results import (
    BEST,
    FORMAT,
    STUDY_FILE,
    TRIALS_FOLDER,
    VERSION,
    HeadRecord,
    load_head,
    save_head,
)


def starting_head(
    work: Work, manifest: Manifest, head: Path | None = None, *, show_progress: bool = False
) -> Path:
    """The JSON file of a head with its weights, which are trained again where they were not kept.

    Args:
        work: the work folder of the search.
        manifest: the utterances, with their splits.
        head: a JSON file that the search wrote, or would have written for a trial that it did not
            keep; the search's best by default.
        show_progress: whether to draw a progress bar.

    Raises:
        MissingStepError: there is no such head or trial.
        ConfigError: the head has to be trained again, and its frames or rows have changed.
    """
    path = work.search / BEST if head is None else head
    again = work.finetune / FOLDER / path.name
    if path.is_file():
        record = _weightless(path)
        if record is None:
            whole = load_head(path)[1]  # says what is wrong with it
            if whole.trained_on == "train":
                return path
            # It learnt from dev, which phases are chosen by: dev would say nothing of them.
            record = replace(whole, trained_on="train", scores={})
    elif path.parent == work.search / TRIALS_FOLDER and path.stem.isdecimal():
        _check_study(work, path)
        record = trial_record(work, manifest, int(path.stem))
    else:
        load_head(path)  # says that it is missing
        return path
    title = f"Training the head of trial {record.trial} again" if show_progress else ""
    found = retrain(work, manifest, record, title=title)
    save_head(again, again.with_suffix(".safetensors"), found.head, record)
    return again


def _check_study(work: Work, head: Path) -> None:
    """Name the trials that were kept, where no study says how to train another (MissingStepError).

    There is none where the search was shared, in a database.
    """
    kept = sorted(path.stem for path in head.parent.glob("*.json"))
    if (work.search / STUDY_FILE).is_file() or not kept:
        return
    numbers = ", ".join(str(int(name)) for name in kept if name.isdecimal())
    raise MissingStepError(
        f"No head of trial {int(head.stem)} in {head.parent}, and no {STUDY_FILE} beside it to "
        f"train it again from: a search keeps its best ones only, here those of trials {numbers}. "
        "Name one of these."
    )


def _weightless(path: Path) -> HeadRecord | None:
    """The record of a head whose weights are not beside it."""
    value = read_json(path, kind=FORMAT, version=VERSION)
    try:
        if path.with_name(Path(value["weights"]["file"]).name).is_file():
            return None
        return HeadRecord.from_json(value)
    except (KeyError, TypeError, ValueError) as error:
        raise FormatVersionError(
            f"{path} was altered: {error!r}. Restore it, or run `search` again."
        ) from error
