"""How good what a work folder holds is: head, fine-tuned model and regression on the same rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import numpy as np

from corpora.base.errors import EmopoolError
from corpora.base.files import file_sha256
from corpora.base.work import Work
from corpora.manifest import Manifest, speaker_key
from finetune.evaluate.evaluation import PREDICTIONS as EVALUATED
from finetune.evaluate.evaluation import REPORT, Evaluation, evaluation_folder, read_evaluation
from finetune.model_files import CONFIG
from heads.attributes import AttributeScores
from heads.bootstrap import Difference
from heads.gold import Gold, objective_name
from heads.metrics import Scores
from heads.records import (
    BEST,
    FOLD_PREDICTIONS,
    PREDICTIONS,
    REFERENCE,
    RIDGE,
    HeadRecord,
    as_learnt,
    load_head,
    manifest_digest,
    read_predictions,
)
from heads.reference import Reference
from heads.ridge import Ridge
from heads.search.score_tables import References

HEAD, MODEL, REGRESSION = "searched head", "fine-tuned model", "regression"
# What reading a file of another version, or a damaged one, can raise beside Emopool's own errors.
FAULTS = (EmopoolError, OSError, KeyError, TypeError, ValueError, AttributeError, IndexError)

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Known:
    """What is known of a head, a model or the regressions on some rows.

    Attributes:
        classes: scores on classes; None where there are none.
        attributes: likewise.
        said: by utterance id what was said, `[C + A]` (see `Gold`).
    """

    classes: Scores | None = None
    attributes: AttributeScores | None = None
    said: Mapping[str, Sequence[float]] = field(default_factory=dict)

    @property
    def value(self) -> float:
        """What is compared: macro-F1, the mean CCC, or the mean of both."""
        found = [self.classes.macro_f1] if self.classes else []
        found += [self.attributes.mean_ccc] if self.attributes else []
        return sum(found) / len(found)


@dataclass(frozen=True, eq=False)
class Standing:
    """A work folder, and what can be put beside one another there.

    Attributes:
        work: the folder.
        manifest: whose utterances.
        record: of the searched head; None without one that can be read.
        logistic: the regression of its search, where it is known.
        ridge: likewise, of attributes.
        rows: by split and name (`HEAD`, `MODEL`, `REGRESSION`) what has scores there.
    """

    work: Work
    manifest: Manifest
    record: HeadRecord | None = None
    logistic: Reference | None = None
    ridge: Ridge | None = None
    rows: Mapping[str, Mapping[str, Known]] = field(default_factory=dict)

    @property
    def split(self) -> str:
        """Test, or the rows that the head was chosen by."""
        return next((name for name in ("test", "folds", "dev") if name in self.rows), "test")

    @property
    def known(self) -> Mapping[str, Known]:
        """What has scores on these rows."""
        return self.rows.get(self.split, {})

    @property
    def objective(self) -> str:
        """The score that is compared, in words."""
        head = self.record.head if self.record else None
        return objective_name(head.labels, head.attributes) if head else "macro-F1"

    def ahead(self, one: str, other: str, split: str) -> tuple[Difference | None, str]:
        """The paired difference of two, where a bootstrap can say; why not, or what it lacks."""
        own, others = (self.rows[split][name].said for name in (one, other))
        rows = [u for u in self.manifest.utterances if u.id in own and u.id in others]
        if self.record is None or not rows:
            return None, "what both said of the manifest's utterances is not kept"
        labels, scales = self.record.head.labels, self.record.head.attributes
        rated = [[getattr(u, name) for name in scales] for u in rows]
        gold = Gold(
            labels,
            np.array([labels.index(u.label) if u.label in labels else -1 for u in rows]),
            scales,
            np.array(rated, dtype=np.float64).reshape(len(rows), len(scales)),  # None: no number
            ["/".join(speaker_key(u) or ()) for u in rows],
        )
        said = [np.array([one[u.id] for u in rows], dtype=np.float64) for one in (own, others)]
        found, reason = gold.differences(said[:1], said[1])
        return found[0] if found else None, reason

    def of_another(self, digest: str) -> list[str]:
        """A reason for being out of date where this is not the digest of the manifest's rows."""
        # As classes, attributes or both are learnt from them.
        scales = [{}, self.manifest.scales, self.record.head.attributes if self.record else {}]
        known = {
            manifest_digest(as_learnt(self.manifest, labels), attributes)
            for labels in (self.manifest.labels, ())
            for attributes in scales
        }
        return ["it was made of other rows than the manifest has now"] * (digest not in known)


def read_standing(work: Work, manifest: Manifest) -> Standing:
    """Read scores and answers that search and evaluate left; what cannot be read is left out."""
    rows: dict[str, dict[str, Known]] = {}
    model = attempt(lambda: _evaluated(work))
    if model is not None:
        said = attempt(lambda: read_predictions(model.folder / EVALUATED)) or {}
        rows["test"] = {MODEL: Known(model.classes, model.attributes, said.get("test", {}))}
    record = attempt(lambda: load_head(work.search)[1])
    if record is None:
        return Standing(work, manifest, rows=rows)
    if model is not None and model.classes and model.classes.labels != record.head.labels:
        del rows["test"]  # fine-tuned for another question
    logistic = attempt(lambda: Reference.read(work.search / REFERENCE, record.origin))
    ridge = attempt(lambda: Ridge.read(work.search / RIDGE, record.origin))
    answers = {
        split: own
        for name in (PREDICTIONS, FOLD_PREDICTIONS)
        for split, own in (attempt(partial(read_predictions, work.search / name)) or {}).items()
    }
    for split in {*record.scores, *record.attribute_scores}:
        here = answers.get(split, {})
        held = rows.setdefault(split, {})
        held[HEAD] = Known(record.scores.get(split), record.attribute_scores.get(split), here)
        classes = logistic.scores.get(split) if logistic else None
        attributes = ridge.scores.get(split) if ridge else None
        told = attempt(partial(References(logistic, ridge).said, split, len(record.head.labels)))
        if classes or attributes:
            # In the order of the head's answers: both are of the rows of one data set.
            same = [] if told is None or len(told) != len(here) else told.tolist()
            held[REGRESSION] = Known(classes, attributes, dict(zip(here, same, strict=False)))
    return Standing(work, manifest, record, logistic, ridge, rows)


def attempt(read: Callable[[], T]) -> T | None:
    """What can be read; None where it cannot: the section of its stage says why."""
    try:
        return read()
    except FAULTS:
        return None


def current(work: Work, evaluation: Evaluation) -> bool:
    """Whether it is of what is there now: the work folder's head or model, or another one."""
    source = evaluation.source
    if is_own(work, evaluation):
        source = work.model / CONFIG if evaluation.subject == "model" else work.search / BEST
    return not source.is_file() or file_sha256(source) == evaluation.sha256


def is_own(work: Work, evaluation: Evaluation) -> bool:
    """Whether it is of the work folder's own head or model, on its own corpus."""
    own = evaluation_folder(work.evaluation, evaluation.subject, evaluation.split)
    return evaluation.folder == own


def _evaluated(work: Work) -> Evaluation | None:
    """The fine-tuned model on test, as it is now and of all its labels."""
    path = evaluation_folder(work.evaluation, "model", "test") / REPORT
    if not path.is_file() or not (work.model / CONFIG).is_file():
        return None
    found = read_evaluation(path)
    return found if current(work, found) and not found.only_labels else None
