"""The search space: every axis, its values, and the published configurations in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from cache.keys import MODALITIES
from corpora.base.errors import ConfigError
from heads.axes import INPUT_NORMS, Axis, Choice, Range, choices, nearest, selections
from heads.dataset import Dataset
from heads.head import HeadConfig
from heads.losses import EMO_SUPERB_SMOOTHING, LossConfig, vote_shares
from heads.pooling import PoolingConfig, pooling_class, pooling_config, searched_kinds
from heads.runs import seed_from
from heads.search.layer_axes import TOP, WEIGHTED, layer_axis, weighable_kinds
from heads.speakers import SPEAKER
from heads.training import SCORER_RATE, TrainingConfig

if TYPE_CHECKING:
    from optuna.trial import BaseTrial


# What can be learnt from: labels, or the shares of the raters' votes (`heads.losses`).
LOSSES = {
    "focal": LossConfig("focal", gamma=2.0, class_weight=True),
    "weighted_cross_entropy": LossConfig("cross_entropy", class_weight=True),
    "cross_entropy": LossConfig("cross_entropy", class_weight=False),
    "adjusted_cross_entropy": LossConfig(
        "cross_entropy", class_weight=False, logit_adjustment=True
    ),
    "votes": LossConfig("kl", class_weight=False),
    "smoothed_votes": LossConfig("kl", class_weight=False, smoothing=EMO_SUPERB_SMOOTHING),
    "adjusted_votes": LossConfig(
        "kl", class_weight=False, logit_adjustment=True, smoothing=EMO_SUPERB_SMOOTHING
    ),
}
# The first kinds there were, in the order in which studies hold them; others follow by name.
FIRST_KINDS = ("average", "max", "statistics", "attentive", "vad_average", "average+vad_average")
# Its options are axes of the same names; those of other kinds bear the kind's name before them.
ATTENTIVE = "attentive"
# All others, beside `modalities`, whose values depend on what was extracted.
OTHER_AXES: dict[str, Axis] = {
    "input_norm": Choice(
        tuple(norm for norm in INPUT_NORMS if norm != SPEAKER), on_request=(SPEAKER,)
    ),
    "mlp_width": Choice((0, 64, 256)),
    "dropout": Range(0.0, 0.5),
    # On real frames and some 200 steps heads do best between 1e-3 and 1e-2 (docs/studies.md): there
    # is room on both sides. A protocol may fix lower ones.
    "learning_rate": Range(3e-4, 3e-2, log=True, least=1e-6, most=1.0),
    "scorer_rate": Range(1e-2, 1.0, log=True, least=0.0, most=10.0),
    "weight_decay": Range(1e-3, 10.0, log=True, least=0.0, most=100.0),
    "loss": Choice(tuple(LOSSES)),
}

# Of heads that learn classes and attributes: the share of the attributes in the loss. Starts have
# the middle.
ATTRIBUTE_WEIGHT = Range(0.1, 0.9, least=0.0, most=1.0)

# Leygue et al., Interspeech 2025, Table 2, and Hyeon et al. 2024 (the last two). Keys are axes.
PUBLISHED: dict[str, dict[str, Any]] = {
    "average": {"pooling": "average"},
    "max": {"pooling": "max"},
    "statistics": {"pooling": "statistics"},
    "AS": {"pooling": "attentive", "queries": 1, "heads": 1, "scorer_layers": 2, "hidden": 256},
    "SA": {"pooling": "attentive", "queries": 2, "heads": 1, "scorer_layers": 2, "hidden": 256},
    "MHA": {"pooling": "attentive", "queries": 1, "heads": 2, "scorer_layers": 1},
    "MQMHA 2/2": {"pooling": "attentive", "queries": 2, "heads": 2, "scorer_layers": 1},
    "MQMHA 2/4": {"pooling": "attentive", "queries": 2, "heads": 4, "scorer_layers": 1},
    "MQMHA 4/4": {"pooling": "attentive", "queries": 4, "heads": 4, "scorer_layers": 1},
    "vad_average": {"pooling": "vad_average"},
    "average+vad_average": {"pooling": "average+vad_average"},
}
# What the published poolings are tried with: what trained all of them well on real frames
# (docs/studies.md). Weight decay is Leygue et al.'s; MLP and dropout are not stated. Their rate of
# 1e-5, without input normalisation, is for a head whose encoders are trained next, over many more
# steps: at the few hundred of a search it stays near its start.
PUBLISHED_REST: dict[str, Any] = {
    "input_norm": "standardise",
    "mlp_width": 256,
    "dropout": 0.1,
    "learning_rate": 3e-3,
    "scorer_rate": SCORER_RATE,
    "weight_decay": 0.01,
    "loss": "weighted_cross_entropy",
}
# Linear classifiers of fixed poolings: what a probe is, so that a search contains it. They cost
# next to nothing, and are trained to the end whatever becomes of others. Which normalisation and
# which decay are the better ones changes with corpus and encoder (docs/studies.md).
PROBES: dict[str, dict[str, Any]] = {
    f"linear {pooling} {norm} decay {decay:g}": {
        "pooling": pooling,
        "input_norm": norm,
        "mlp_width": 0,
        "learning_rate": 2e-2,
        "weight_decay": decay,
    }
    for pooling in ("average", "statistics")
    for norm, decays in (("standardise", (0.01, 1.0, 10.0)), ("layernorm", (0.01, 1.0)))
    for decay in decays
}
# What a search begins with, in this order.
STARTS: dict[str, dict[str, Any]] = {**PROBES, **PUBLISHED}
# Keeps the seeds of trials apart from other numbers drawn from the study's seed.
_TRIAL_DOMAIN = 1


def pooling_axes() -> dict[str, Axis]:
    """The axes of pooling; with `--untied` each modality has its own, `audio_queries` and so on.

    `attentive` is mqmha with Q, H and n of its own: AS, SA and MHA are points of it. Where several
    layers are cached, `layers` says whether `average` and `statistics` weigh them; which one all
    others read is an axis of each modality, `audio_layer` and `text_layer`.
    """
    names = (*FIRST_KINDS, *(name for name in searched_kinds() if name not in FIRST_KINDS))
    options = {
        option_axis(name, option): axis
        for name in names
        for option, axis in searched_class(name).axes.items()
    }
    return {"pooling": Choice(names), **options, "layers": Choice((TOP, WEIGHTED))}


def other_poolings() -> dict[str, dict[str, Any]]:
    """Of each kind that is not among the first ones its configuration without options, as axes."""
    others = {name: kind for name, kind in searched_kinds().items() if name not in FIRST_KINDS}
    return {
        name: {
            "pooling": name,
            **{
                option_axis(name, option): getattr(pooling_config({"kind": kind}), option)
                for option in pooling_class(kind).axes
            },
        }
        for name, kind in others.items()
    }


def fitting_poolings(space: Space) -> dict[str, dict[str, Any]]:
    """Those of `other_poolings` that are worth a word: few data sets have words and surprisal."""
    return {
        name: start
        for name, start in other_poolings().items()
        if space.words or not searched_class(name).needs_words
    }


def option_axis(name: str, option: str) -> str:
    """The axis of an option of a pooling that a search draws under this name."""
    return option if name == ATTENTIVE else f"{name}_{option}"


def searched_class(name: str) -> type[PoolingConfig]:
    """The config class of a pooling by the name that a search has for it."""
    return pooling_class(searched_kinds()[name])


@dataclass(frozen=True)
class Space:
    """The axes as the data allows them, and as a file narrowed them (`heads.search.space_file`).

    Attributes:
        labels: the label order.
        dims: features per frame of each modality there is.
        speech: whether frames in time have a voice activity detector's output.
        words: whether words and their surprisal are known of audio frames.
        tied: all modalities are pooled in the same way; else each has its own axes,
            `audio_pooling`, `text_pooling` and so on.
        votes: whether there are raters' votes to learn from.
        layers: by modality the numbers of the cached layers, where they are several.
        usual: by modality the layer that published heads read, where there are several.
        weighable: pooling kinds that may weigh them (see `heads.search.layer_axes`).
        narrowed: axes that are narrower than the data would allow.
        attributes: those that are learnt, with the ends of their scales.
    """

    labels: tuple[str, ...]
    dims: Mapping[str, int]
    speech: bool
    tied: bool = True
    votes: bool = False
    layers: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    usual: Mapping[str, int] = field(default_factory=dict)
    weighable: tuple[str, ...] = ()
    narrowed: Mapping[str, Axis] = field(default_factory=dict)
    attributes: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    words: bool = False

    @classmethod
    def of(cls, dataset: Dataset, *, tied: bool = True) -> Space:
        """The space for a data set."""
        speech = any(frames.speech is not None for frames in dataset.frames.values())
        voted = any(vote_shares(u, dataset.labels) for u in dataset.utterances if u.split)
        layers = {
            name: numbers for name in dataset.frames if len(numbers := dataset.numbers(name)) > 1
        }
        return cls(
            dataset.labels,
            dataset.dims,
            speech,
            tied,
            voted,
            layers,
            {name: dataset.layers[name] for name in layers},
            weighable_kinds(dataset),
            attributes=dataset.attributes,
            words=any(frames.words is not None for frames in dataset.frames.values()),
        )

    @property
    def axes(self) -> dict[str, Axis]:
        """Every axis by name."""
        return {**self.allowed, **self.narrowed}

    @property
    def allowed(self) -> dict[str, Axis]:
        """Every axis with all values that the data allows."""
        present = [name for name in MODALITIES if name in self.dims]
        axes: dict[str, Axis] = {"modalities": Choice(tuple(map("+".join, selections(present))))}
        for prefix in dict.fromkeys(self.prefix(name) for name in present):
            axes |= {f"{prefix}{name}": axis for name, axis in pooling_axes().items()}
            axes[f"{prefix}pooling"] = Choice(self._kinds(prefix))
            axes |= {f"{prefix}{name}": axis for name, axis in self._fitting_options()}
            if not self.weighs(prefix, present):
                del axes[f"{prefix}layers"]
        axes |= {
            layer_axis(name): Choice(self.layers[name]) for name in present if name in self.layers
        }
        losses = tuple(name for name, loss in LOSSES.items() if self.votes or not loss.from_votes)
        axes |= {**OTHER_AXES, "loss": Choice(losses)}
        if not self.labels:
            del axes["loss"]  # of classes
        elif self.attributes:
            axes["attribute_weight"] = ATTRIBUTE_WEIGHT
        return axes

    def prefix(self, modality: str) -> str:
        """What the names of a modality's pooling axes begin with."""
        return "" if self.tied else f"{modality}_"

    def weighs(self, prefix: str, modalities: Sequence[str]) -> bool:
        """Whether poolings of axes with this prefix can weigh layers of one of these modalities."""
        own = [name for name in modalities if self.prefix(name) == prefix]
        return bool(self.weighable) and any(name in self.layers for name in own)

    def draw(self, trial: BaseTrial, name: str) -> Any:  # noqa: ANN401 - an axis has its own type
        """A value of an axis. One that is fixed is drawn too: tables then name it."""
        axis = self.axes[name]
        if isinstance(axis, Choice):
            return trial.suggest_categorical(name, axis.values)
        # 0, which a space file may name, has no logarithm.
        return trial.suggest_float(name, axis.low, axis.high, log=axis.log and axis.low > 0)

    def to_json(self) -> dict[str, Any]:
        """Each axis as plain JSON values, without options of later kinds that are not drawn.

        So a study from before there was a kind goes on where a space file leaves that out.
        """
        axes = self.axes
        prefixes = {self.prefix(name) for name in self.dims}
        drawn = {name for prefix in prefixes for name in choices(axes[f"{prefix}pooling"])}
        unused = {
            f"{prefix}{axis}"
            for name, start in other_poolings().items()
            if name not in drawn
            for axis in start
            for prefix in prefixes
            if axis != "pooling"
        }
        return {
            name: list(axis.values) if isinstance(axis, Choice) else asdict(axis)
            for name, axis in axes.items()
            if name not in unused
        }

    def _kinds(self, prefix: str) -> tuple[str, ...]:
        """The pooling kinds of an axis; text alone has no silence or words to leave out."""
        kinds = choices(pooling_axes()["pooling"])
        return tuple(
            kind
            for kind in kinds
            if not (_of_audio(searched_class(kind)) and prefix == "text_")
            and not self.lacking(searched_class(kind))
        )

    def lacking(self, kind: type[PoolingConfig]) -> str:
        """What a pooling needs and the data has not; "" where it has all."""
        if kind.needs_speech and not self.speech:
            return "audio with the detector's output"
        if kind.needs_words and not self.words:
            return (
                "audio with TextGrids (manifest column `alignment`, which `transcribe "
                "--word-times` fills in) and `extract --surprisal-model`"
            )
        return ""

    def _fitting_options(self) -> Iterator[tuple[str, Axis]]:
        """Listed options of poolings with those values that fit the features of every modality."""
        for name, kind in searched_kinds().items():
            for option, axis in pooling_class(kind).axes.items():
                if isinstance(axis, Choice):
                    fitting = (v for v in axis.values if self.fits(kind, {option: v}))
                    yield option_axis(name, option), Choice(tuple(fitting))

    def fits(self, kind: str, options: Mapping[str, Any]) -> bool:
        """Whether a pooling with these options can read every modality's frames."""
        axes = pooling_class(kind).axes
        # All others at their first values, which fit wherever any do.
        least = {name: values[0] for name, axis in axes.items() if (values := choices(axis))}
        config = pooling_config({"kind": kind, **least, **options})
        try:
            return all(config.out_dim(dim) > 0 for dim in self.dims.values())
        except ConfigError:
            return False


def trial_configs(trial: BaseTrial, space: Space, seed: int) -> tuple[HeadConfig, TrainingConfig]:
    """Draw a head and its training (or read them back, from a finished trial).

    Args:
        trial: an Optuna trial.
        space: the axes.
        seed: of the trial (see `trial_seed`).
    """
    modalities = space.draw(trial, "modalities").split("+")
    descriptions: dict[str, dict[str, Any]] = {}
    for modality in modalities:
        prefix = space.prefix(modality)
        if prefix not in descriptions:
            descriptions[prefix] = _draw_pooling(trial, space, prefix, modalities)
    pooling = {
        name: _fitting(name, descriptions[space.prefix(name)], len(space.layers.get(name, (0,))))
        for name in modalities
    }
    layer = {
        name: space.draw(trial, layer_axis(name))
        for name in modalities
        if name in space.layers and "layers" not in pooling[name]
    }
    head = HeadConfig(
        labels=space.labels,
        dims={name: space.dims[name] * pooling[name].get("layers", 1) for name in modalities},
        pooling=pooling,
        input_norm=space.draw(trial, "input_norm"),
        mlp_width=space.draw(trial, "mlp_width"),
        dropout=space.draw(trial, "dropout"),
        layer=layer,
        attributes=space.attributes,
    )
    scores = any(pooling_class(own["kind"]).learns_weights for own in descriptions.values())
    training = TrainingConfig(
        learning_rate=space.draw(trial, "learning_rate"),
        # Where there are no scorers an axis that changes nothing would mislead.
        scorer_rate=float(space.draw(trial, "scorer_rate")) if scores else SCORER_RATE,
        weight_decay=space.draw(trial, "weight_decay"),
        loss=LOSSES[space.draw(trial, "loss")] if space.labels else LossConfig(),
        seed=seed,
        attribute_weight=(
            float(space.draw(trial, "attribute_weight"))
            if "attribute_weight" in space.axes
            else attribute_weight(head)
        ),
    )
    return head, training


def attribute_weight(head: HeadConfig) -> float:
    """The share of attributes in the loss, where it is no axis: the half of classes and both."""
    return (0.5 if head.labels else 1.0) if head.attributes else 0.0


def _draw_pooling(
    trial: BaseTrial, space: Space, prefix: str, modalities: Sequence[str]
) -> dict[str, Any]:
    name = space.draw(trial, f"{prefix}pooling")
    description: dict[str, Any] = {"kind": searched_kinds()[name]}
    if name in space.weighable and space.weighs(prefix, modalities):
        description["layers"] = space.draw(trial, f"{prefix}layers")
    if _of_audio(searched_class(name)) and "audio" not in modalities:
        return description  # text is averaged: no option changes that
    options = searched_class(name).draw_options(
        lambda option: space.draw(trial, prefix + option_axis(name, option))
    )
    return {**description, **options}


def _fitting(modality: str, description: Mapping[str, Any], layers: int) -> Mapping[str, Any]:
    """The description for a modality: how many layers it weighs; and text has no silence."""
    if modality == "text" and _of_audio(pooling_class(description["kind"])):
        return {"kind": "average"}
    own = {name: value for name, value in description.items() if name != "layers"}
    weighed = description.get("layers") == WEIGHTED and layers > 1
    return {**own, "layers": layers} if weighed else own


def start_params(
    space: Space, starts: Mapping[str, Mapping[str, Any]] | None = None
) -> tuple[dict[str, dict[str, Any]], tuple[str, ...]]:
    """Configurations as values of the axes, by name, and notes on those left out.

    All read every modality that the space has. A space that was narrowed keeps those whose pooling
    and classifier lie in it; what it fixes beside these holds for them too.

    Args:
        space: the axes.
        starts: which of `STARTS` and `other_poolings`; by default all that are worth a word.
    """
    starts = {**STARTS, **fitting_poolings(space)} if starts is None else starts
    axes = space.axes
    combination = choices(axes["modalities"])[0]
    chosen: dict[str, dict[str, Any]] = {}
    notes = []
    outside = []
    moved: dict[str, tuple[Any, Any]] = {}
    for name, start in starts.items():
        reason = _impossible(name, start, space)
        if reason:
            notes.append(reason)
            continue
        pooling = {axis: value for axis, value in start.items() if axis in pooling_axes()}
        rest = {**PUBLISHED_REST, "attribute_weight": 0.5}
        rest |= {a: v for a, v in start.items() if a not in pooling}
        near = {a: nearest(axes[a], value) for a, value in rest.items() if a in axes}
        if "mlp_width" in start and near["mlp_width"] != start["mlp_width"]:
            outside.append(name)
            continue
        params = {"modalities": combination, **near}
        for modality in combination.split("+"):
            prefix = space.prefix(modality)
            kinds = choices(space.allowed[f"{prefix}pooling"])
            own = pooling if pooling["pooling"] in kinds else {"pooling": "average"}
            params |= {f"{prefix}{axis}": value for axis, value in own.items()}
            if own["pooling"] in space.weighable and f"{prefix}layers" in axes:
                params[f"{prefix}layers"] = TOP
            if modality in space.layers:
                params[layer_axis(modality)] = space.usual[modality]
        if any(nearest(axes[axis], value) != value for axis, value in params.items()):
            outside.append(name)
        elif params not in chosen.values():
            chosen[name] = params
            if name in PUBLISHED:
                moved |= {a: (v, rest[a]) for a, v in near.items() if v != rest[a]}
    notes += [
        f"Published poolings take {axis} = {value} from the narrowed space, instead of {usual}."
        for axis, (value, usual) in moved.items()
    ]
    if outside:
        notes.append(f"Starting configurations outside the narrowed space: {', '.join(outside)}.")
    return chosen, tuple(notes)


def _impossible(name: str, pooling: Mapping[str, Any], space: Space) -> str:
    """Why the data does not allow a published configuration; "" where it does."""
    kind = searched_kinds()[pooling["pooling"]]
    axes = {option_axis(pooling["pooling"], option): option for option in pooling_class(kind).axes}
    options = {axes[axis]: value for axis, value in pooling.items() if axis in axes}
    if not space.fits(kind, options):
        dims = " and ".join(str(dim) for dim in space.dims.values())
        what = f"{pooling['heads']} heads do" if "heads" in pooling else "its options do"
        return f"{name} is left out: {what} not {'divide' if 'heads' in pooling else 'fit'} {dims}."
    lacking = space.lacking(pooling_class(kind))
    return f"{name} is left out: it needs {lacking}." if lacking else ""


def _of_audio(kind: type[PoolingConfig]) -> bool:
    """Whether a pooling reads what only audio frames have."""
    return kind.needs_speech or kind.needs_words


def trial_seed(study_seed: int, number: int) -> int:
    """The seed of a trial's first parameters and dropout: from its study's seed and its number."""
    return seed_from(study_seed, _TRIAL_DOMAIN, number)
