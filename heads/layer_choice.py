"""Which hidden state of an encoder carries emotion: layers ranked by the training data.

The last layer of an encoder that was trained for something else is seldom the best for emotion
(Pasad et al. 2021; the weights of SUPERB, Yang et al. 2021, peak in the middle; for Whisper see
docs/studies.md). Means and deviations of all layers are kept for a sample of the training
utterances, and a logistic regression that never hears a speaker twice ranks them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from corpora.base.codec import Jsonable
from corpora.base.errors import ManifestError
from corpora.base.files import read_json, write_json
from corpora.base.report import Figure, Table
from corpora.base.terminal import aligned, progress_bar
from corpora.manifest import Utterance, speaker_key

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

FORMAT, VERSION = "emopool-layers", 1
#: Utterances that layers are ranked by, at most: more move no layer past another.
SAMPLE = 2_000
#: Inverse strength of the L2 penalty on standardised vectors. Of .001, .01, .1 and 1 on both
#: Whispers, EMO-DB and RAVDESS, the layer it ranks first is within .01 of the best one at any
#: strength; and it converges in a tenth of the steps that 1 takes.
STRENGTH = 0.01

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class LayerScore:
    """How well one layer's means and deviations tell the emotions apart.

    Attributes:
        layer: hidden-state number.
        macro_f1: over all utterances, each predicted where its speaker was held out.
        interval: 95 %, over speakers; None where there are too few of them.
    """

    layer: int
    macro_f1: float
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class LayerChoice(Jsonable):
    """Layers of an encoder ranked by training utterances.

    Attributes:
        kind: `audio` or `text`.
        encoder: as the user named it.
        recipe: the folder of its features.
        sample: digest of the utterances, their labels and their speakers.
        utterances: how many.
        speakers: how many of them are known.
        folds: how many groups were held out in turn.
        chance: macro-F1 of saying one class always, or the best that guessing gives.
        scores: of every layer, lowest first.
    """

    kind: str
    encoder: str
    recipe: str
    sample: str
    utterances: int
    speakers: int
    folds: int
    chance: float
    scores: tuple[LayerScore, ...]

    def best(self, count: int = 1) -> tuple[int, ...]:
        """The numbers of the best layers, the best first; of equals the lower one."""
        ranked = sorted(self.scores, key=lambda one: (-one.macro_f1, one.layer))
        return tuple(one.layer for one in ranked[:count])

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**super().to_json(), "best": self.best()[0]}

    def to_text(self, chosen: Sequence[int]) -> str:
        """The curve, with a mark at what was chosen."""
        found = self.table(chosen)
        rows = aligned([found.columns, *found.shown], found.right)
        return "\n".join([f"{found.title}:", *rows, *found.notes])

    def figure(self, chosen: Sequence[int]) -> Figure:
        """Macro-F1 over layers, with those that heads read."""
        title = f"How well each layer of {self.encoder} tells the emotions apart"
        return Figure(f"layers-{self.kind}", partial(_draw, self, chosen), title, (7.0, 3.2))

    def table(self, chosen: Sequence[int]) -> Table:
        """The same as a table."""
        rows = []
        for one in self.scores:
            interval = "" if one.interval is None else "{:.3f} to {:.3f}".format(*one.interval)
            mark = "chosen" if one.layer in chosen else ""
            rows.append((str(one.layer), f"{one.macro_f1:.3f}", interval, mark))
        top = max(self.scores, key=lambda one: one.macro_f1)
        notes = []
        if (top.interval or (top.macro_f1, 0.0))[0] <= self.chance:
            notes.append(
                f"No layer is surely better than guessing ({self.chance:.3f}): the {self.kind} "
                "may tell nothing about the emotion here."
            )
        title = (
            f"Layers of the {self.kind} encoder {self.encoder}, by {self.utterances:,} training "
            f"utterances of {self.speakers or 'unknown'} speakers in {self.folds} folds"
        )
        columns = ("layer", "macro-F1", "95 % interval", "")
        return Table("", columns, rows, title, right=(0, 1), notes=notes)


def _draw(choice: LayerChoice, chosen: Sequence[int], canvas: Canvas) -> None:
    axes = canvas.add_subplot()
    layers = [one.layer for one in choice.scores]
    scores = {one.layer: one.macro_f1 for one in choice.scores}
    held = {one.layer: one.interval for one in choice.scores if one.interval}
    if held:
        low, high = ([ends[side] for ends in held.values()] for side in (0, 1))
        axes.fill_between([*held], low, high, alpha=0.2, label="95 % interval")
    axes.plot(layers, [*scores.values()], "o-", ms=4, label="macro-F1, speakers held out")
    read = [scores[one] for one in chosen]
    axes.plot(chosen, read, "o", ms=9, mfc="none", label="read by heads")
    axes.axhline(choice.chance, color="0.5", ls=":", label="guessing")
    axes.set(xlabel="layer (hidden state)", ylabel="macro-F1", ylim=(0, 1))
    axes.set_xticks(layers[:: 1 + len(layers) // 25])
    canvas.legend(loc="outside upper center", ncols=4, fontsize="small")


def draw_sample(
    utterances: Sequence[Utterance], keys: Mapping[str, Mapping[str, str]]
) -> list[Utterance]:
    """The training utterances that layers are ranked by; never any other split's.

    Those with the smallest content keys: a draw that stays the same when rows come or go.

    Args:
        utterances: of the manifest.
        keys: content keys by utterance id and kind; an utterance with none is left out.
    """
    usable = [u for u in utterances if u.split == "train" and u.label and keys.get(u.id)]
    ordered = sorted(usable, key=lambda u: (min(keys[u.id].values()), u.id))
    return ordered[:SAMPLE]


def sample_digest(sample: Sequence[Utterance], keys: Mapping[str, Mapping[str, str]]) -> str:
    """SHA-256 of what a ranking depends on: contents, labels, speakers."""
    rows = sorted(
        [keys[u.id].get("audio", ""), keys[u.id].get("text", ""), u.label, str(speaker_key(u))]
        for u in sample
    )
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def rank_layers(
    layers: Sequence[int],
    vectors: Callable[[int], Vectors],
    sample: Sequence[Utterance],
    *,
    title: str = "",
) -> tuple[tuple[LayerScore, ...], int, float]:
    """Score every layer by utterances whose speakers were held out.

    Args:
        layers: hidden-state numbers.
        vectors: from a number to `[n, 2 D]`, mean and deviation of each utterance.
        sample: the utterances.
        title: of the progress bar; "" for none.

    Returns:
        The scores, the number of folds, and macro-F1 of guessing.

    Raises:
        ManifestError: fewer than two labels or two speakers, or where one is held out: there is
            nothing to rank by.
    """
    from heads.folds import GROUPED, speaker_groups
    from heads.metrics import classification_report
    from heads.reference import fit_logistic

    labels = sorted({u.label for u in sample})
    gold = np.array([labels.index(u.label) for u in sample])
    keys = [speaker_key(u) for u in sample]
    units = len(set(keys) - {None}) + keys.count(None)
    if len(labels) < 2 or units < 2:
        raise ManifestError(
            f"{len(sample)} labelled training utterances of {units} speakers with "
            f"{len(labels)} labels: expected at least two of each"
        )
    folds = min(GROUPED, units)
    numbers = np.array(speaker_groups(sample, folds))
    if any(len(set(gold[numbers != fold])) < 2 for fold in range(folds)):
        raise ManifestError(
            f"without the speakers of one fold, {len(sample)} labelled training utterances of "
            f"{units} speakers have one label left"
        )
    speakers = ["" if key is None else "/".join(key) for key in keys]
    scores = []
    with progress_bar(title, len(layers) * folds, "fit", show=bool(title)) as bar:
        for layer in layers:
            x = vectors(layer)
            predicted = np.empty(len(gold), dtype=np.int64)
            for fold in range(folds):
                out = numbers == fold
                model, _ = fit_logistic(x[~out], gold[~out], STRENGTH)
                predicted[out] = model.predict(x[out])
                bar.update()
            report = classification_report(gold, predicted, labels, speakers)
            found = None if report.intervals is None else report.intervals["macro_f1"]
            scores.append(LayerScore(layer, report.macro_f1, found and (found.low, found.high)))
    shares = np.bincount(gold) / len(gold)
    majority = 2 * shares.max() / (1 + shares.max()) / len(labels)
    return tuple(scores), folds, float(max(majority, 1 / len(labels)))


@dataclass(frozen=True)
class Choices(Jsonable):
    """What `WORK/layers.json` holds.

    Attributes:
        rankings: by the folder of the recipe.
        temporary: streams of frames that were made for a ranking, and are to be removed after it.
    """

    json_entries = "choices=rankings temporary"

    rankings: Mapping[str, LayerChoice]
    temporary: tuple[str, ...] = ()


def read_choices(path: Path) -> Choices:
    """Read `WORK/layers.json`; empty where there is none.

    Raises:
        FormatVersionError: the file is of another version, or damaged.
    """
    if not path.is_file():
        return Choices({})
    value = read_json(path, kind=FORMAT, version=VERSION)
    return Choices.from_json({**value, "rankings": value["choices"]})


def write_choices(path: Path, choices: Choices) -> None:
    """Write `WORK/layers.json`, unless it says all that already."""
    if choices == read_choices(path):
        return
    write_json(path, {"format": FORMAT, "version": VERSION, **choices.to_json()})
