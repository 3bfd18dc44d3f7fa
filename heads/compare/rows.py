"""Which heads are compared: the published tables, and the grid that tells their axes apart.

Table 2 changes the depth of the scorer together with its queries and heads: AS and SA have a
two-layer scorer, MHA and MQMHA a linear one. The grid has every pair of Q and H with both depths.

The published figures: macro-F1 of Leygue et al., Interspeech 2025, Tables 1 and 2.

They come from another corpus (MSP-Podcast, 8 classes) with full encoders and all three training
phases. They stand beside a comparison on frozen frames to be looked at, not to be beaten.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from corpora.base.errors import ConfigError, did_you_mean
from heads.axes import Choice, choices
from heads.config import FIXABLE, CompareConfig, Tuning
from heads.head import HeadConfig
from heads.pooling import pooling_config
from heads.search.space import (
    PUBLISHED,
    PUBLISHED_REST,
    Space,
    fitting_poolings,
    option_axis,
    other_poolings,
    searched_class,
    start_params,
)

#: What has to stand over the column of these figures.
CAVEAT = "another corpus, three-phase protocol"
SOURCE = "Leygue et al., Interspeech 2025 (MSP-Podcast, 8 classes; development and hidden test set)"


@dataclass(frozen=True)
class Figures:
    """Published macro-F1.

    Attributes:
        dev: on the published development set.
        test: on the published test set; None where it was not given.
    """

    dev: float
    test: float | None = None

    def __str__(self) -> str:
        both = [self.dev] if self.test is None else [self.dev, self.test]
        first, *rest = [f"{value:.4f}".removeprefix("0") for value in both]
        return first + "".join(f" ({value})" for value in rest)


#: Table 2, by the name of the pooling.
POOLINGS = {
    "average": Figures(0.3559),
    "max": Figures(0.3418),
    "statistics": Figures(0.3623),
    "AS": Figures(0.3884, 0.3649),
    "SA": Figures(0.3416),
    "MHA": Figures(0.3829),
    "MQMHA 2/2": Figures(0.3912),
    "MQMHA 2/4": Figures(0.3675),
    "MQMHA 4/4": Figures(0.3514),
}
#: Table 1, average pooling, by what is read.
MODALITIES = {
    "audio": Figures(0.2921),
    "text": Figures(0.3174),
    "audio+text": Figures(0.3559),
}


#: The published hidden size of a two-layer scorer.
HIDDEN = 256
# How axes of `attentive` are written in a row's key, whose `hidden` follows from the depth.
LETTERS = {"queries": "q", "heads": "h", "scorer_layers": "n", "hidden": ""}
TITLES = {
    "poolings": "Poolings, with the published scorers",
    "modalities": "Modalities, average pooling",
    "grid": "Queries Q, heads H and depth n of the scorer, un-mixed",
    "layers": "Layers",
}


@dataclass(frozen=True)
class Row:
    """One head to be trained.

    Attributes:
        key: names its files; equal keys are equal heads.
        params: values of the search's axes, but for those that are tuned.
        head: its shape, but for the normalisation.
    """

    key: str
    params: Mapping[str, Any]
    head: HeadConfig


@dataclass(frozen=True)
class TableEntry:
    """One line of a table.

    Attributes:
        title: its name in this table.
        key: of its row, or of a reference.
        published: the published figures of the same configuration.
        layer: the hidden state it reads, in a sweep over layers.
    """

    title: str
    key: str
    published: Figures | None = None
    layer: int | None = None


@dataclass(frozen=True)
class TablePlan:
    """What stands in one table."""

    name: str
    title: str
    entries: tuple[TableEntry, ...]


@dataclass(frozen=True)
class Plan:
    """All that is compared.

    Attributes:
        rows: by key, each once, whatever number of tables it stands in.
        references: modalities of each regression, by its key.
        tables: in the order of the report.
        notes: what was left out, and why.
    """

    rows: Mapping[str, Row]
    references: Mapping[str, tuple[str, ...]]
    tables: tuple[TablePlan, ...]
    notes: tuple[str, ...] = field(default=())


def comparison_plan(space: Space, config: CompareConfig) -> Plan:
    """The rows of the tables asked for, as far as the data allows them.

    Args:
        space: of the data set (modalities, dimensions, whether there is a speech detector).
        config: which tables, which poolings.

    Raises:
        ConfigError: an unknown name of a pooling, or nothing is left to compare.
    """
    others = other_poolings() if config.poolings else fitting_poolings(space)
    named, notes = start_params(space, {**PUBLISHED, **others})
    modalities = space.axes["modalities"]
    assert isinstance(modalities, Choice)
    rest = shared_values(config)
    if "attribute_weight" in space.axes:
        rest["attribute_weight"] = 0.5
    if space.labels and rest["loss"] not in choices(space.axes["loss"]):
        raise ConfigError(
            f"The loss {rest['loss']} needs what this manifest has not (raters' votes). Known: "
            f"{', '.join(choices(space.axes['loss']))}."
        )
    chosen = _chosen_poolings(config.poolings)
    regression = "logistic regression" if space.labels else "ridge regression"
    if space.labels and space.attributes:
        regression = "regressions"
    rows: dict[str, Row] = {}
    references: dict[str, tuple[str, ...]] = {}
    tables = []

    def entry(title: str, own: Mapping[str, Any], figures: Figures | None) -> TableEntry:
        row = make_row(space, {**rest, **own})
        rows[row.key] = row
        return TableEntry(title, row.key, figures)

    def reference(title: str, combination: str) -> TableEntry:
        key = f"reference-{combination}"
        references[key] = tuple(combination.split("+"))
        return TableEntry(title, key)

    def control(row: Row) -> TableEntry:
        """The same on as many frames of random words."""
        pooling = {
            name: {**own, "random": True} if pooling_config(own).needs_words else own
            for name, own in row.head.pooling.items()
        }
        key = f"{row.key}-random"
        rows[key] = replace(row, key=key, head=replace(row.head, pooling=pooling))
        return TableEntry("random words", key)

    together = modalities.values[0]
    if "poolings" in config.tables:
        found = []
        for name, params in named.items():
            if name in chosen:
                found.append(entry(name, {**params, **rest}, POOLINGS.get(name)))
                if rows[found[-1].key].head.needs_words:
                    found.append(control(rows[found[-1].key]))
        found.append(reference(regression, together))
        tables.append(TablePlan("poolings", f"{TITLES['poolings']} ({together})", tuple(found)))
    if "modalities" in config.tables and len(modalities.values) > 1:
        found = []
        for combination in (*modalities.values[1:], together):
            own = {"modalities": combination, "pooling": "average"}
            found.append(entry(combination, own, MODALITIES.get(combination)))
            found.append(reference(f"{regression}, {combination}", combination))
        tables.append(TablePlan("modalities", TITLES["modalities"], tuple(found)))
    if "grid" in config.tables:
        found = [entry(*line) for line in _grid_lines(space, together)]
        found.append(reference(regression, together))
        tables.append(TablePlan("grid", f"{TITLES['grid']} ({together})", tuple(found)))
    if not rows:
        raise ConfigError(
            f"Nothing is left to compare: tables {', '.join(config.tables)}, poolings "
            f"{', '.join(config.poolings) or 'all'}. {' '.join(notes)}".rstrip()
        )
    wanted = tuple(note for note in notes if note.partition(" is left out")[0] in chosen)
    if "modalities" in config.tables and len(modalities.values) == 1:
        wanted += (f"There is no table of modalities: only {together} was extracted.",)
    return Plan(rows, references, tuple(tables), wanted)


def _grid_lines(space: Space, together: str) -> list[tuple[str, dict[str, Any], Figures | None]]:
    """Every Q, H and n, with the published figures where Table 2 has that point."""
    axes = {name: space.axes[name] for name in ("queries", "heads", "scorer_layers")}
    points = {
        tuple(own.get(axis) for axis in axes): POOLINGS.get(name) for name, own in PUBLISHED.items()
    }
    lines = []
    for n in choices(axes["scorer_layers"]):
        for q in choices(axes["queries"]):
            for h in choices(axes["heads"]):
                own = {
                    "modalities": together,
                    "pooling": "attentive",
                    "queries": q,
                    "heads": h,
                    "scorer_layers": n,
                    **({"hidden": HIDDEN} if n == 2 else {}),
                }
                lines.append((f"Q{q} H{h} n{n}", own, points.get((q, h, n))))
    return lines


def shared_values(config: CompareConfig) -> dict[str, Any]:
    """Values of the search's axes that all rows have: published, or set by a protocol."""
    fixed = {name: value for name, value in config.fixed.items() if name in FIXABLE}
    return {**PUBLISHED_REST, **fixed}


def make_row(space: Space, params: Mapping[str, Any], prefix: str = "") -> Row:
    """The head that these values of the axes describe.

    Args:
        space: the data set's.
        params: values of the axes, those that are tuned among them.
        prefix: put before the key, where several data sets have the same axes.
    """
    from optuna.trial import FixedTrial

    from heads.search.space import trial_configs

    head, _ = trial_configs(FixedTrial(dict(params)), space, 0)
    name = str(params["pooling"])
    parts = [str(params["modalities"]), name]
    for option in searched_class(name).axes:
        axis = option_axis(name, option)
        letter = LETTERS.get(axis, option)
        parts += [f"{letter}{params[axis]}"] if axis in params and letter else []
    tuned = [field.name for field in fields(Tuning)]
    own = {name: value for name, value in params.items() if name not in tuned}
    return Row(prefix + "-".join(parts), own, head)


def _chosen_poolings(names: Sequence[str]) -> tuple[str, ...]:
    """The names that are meant; upper or lower case makes no difference."""
    every = (*PUBLISHED, *other_poolings())
    known = {name.lower(): name for name in every}
    for name in names:
        if name.lower() not in known:
            raise ConfigError(
                f"Unknown pooling {name!r}.{did_you_mean(name, every)} Known: {', '.join(every)}."
            )
    return tuple(known[name.lower()] for name in names) or every
