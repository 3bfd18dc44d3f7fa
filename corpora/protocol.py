"""Published evaluations by name: which rows, folds and metrics, so that numbers can be compared.

They are data, in `protocols.toml`. The manifest keeps what a protocol chose (splits, folds, rows
left out), so every command uses the same rows; the training settings become the defaults of the
later commands.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from typing import Any

from corpora.base.command_options import Config, setting
from corpora.base.errors import ConfigError, did_you_mean
from corpora.base.terminal import wrapped
from corpora.manifest import Manifest

#: Of a reader's option (`corpora.readers.options`).
OptionValue = str | bool

# What a protocol's scores are called in reports.
METRICS = {
    "macro_f1": "macro-F1",
    "weighted_f1": "weighted F1",
    "uar": "UA (mean recall)",
    "accuracy": "WA (accuracy)",
    "mean_ccc": "mean CCC",
}


@dataclass(frozen=True)
class Scheme:
    """How a protocol divides one corpus.

    Attributes:
        folds: `own` (the corpus's splits), `session` or `speaker` (one fold each), `groups` (the
            published ones), or a number of seeded folds of whole speakers.
        groups: for `groups`, the speakers of each fold, or ranges of their numbers.
        labels: those kept, in order; none is the reader's default.
        options: the reader's options that the protocol implies.
    """

    folds: str | int
    groups: tuple[tuple[str, ...], ...] = ()
    labels: tuple[str, ...] = ()
    options: Mapping[str, OptionValue] = field(default_factory=dict)


@dataclass(frozen=True)
class Protocol:
    """A published evaluation.

    Attributes:
        name: what is typed after `--protocol`.
        title: what it is.
        source: where it was published.
        metrics: the scores it reports, keys of `METRICS`.
        corpora: how each corpus it is defined for is divided.
        max_imbalance: the training rows' largest ratio of two classes; None leaves them as they
            are.
        balanced_dev: the development set has as many rows of each class.
        shared_speakers: the published splits share speakers.
        refit: a head that was chosen by cross-validation is trained on train and dev.
        notes: what differs from the publication, or has to be known.
        defaults: by command, values that stand where the user gives none.
        targets: what heads learn where the user does not say, `emotion` or `attributes`.
    """

    name: str
    title: str
    source: str
    metrics: tuple[str, ...]
    corpora: Mapping[str, Scheme]
    max_imbalance: float | None = None
    balanced_dev: bool = False
    shared_speakers: bool = False
    refit: bool = False
    notes: tuple[str, ...] = ()
    defaults: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    targets: str = "emotion"

    def scheme(self, corpus: str) -> Scheme:
        """How it divides a corpus.

        Raises:
            ConfigError: it is not defined for it.
        """
        if corpus not in self.corpora:
            raise ConfigError(
                f"protocol {self.name} is defined for {', '.join(self.corpora)}, not for {corpus}. "
                "Another corpus takes --max-imbalance, --balanced-dev or `prepare split --folds`."
            )
        return self.corpora[corpus]


def all_protocols() -> dict[str, Protocol]:
    """Every protocol by name."""
    text = files("corpora").joinpath("protocols.toml").read_text(encoding="utf-8")
    return {name: _protocol(name, entry) for name, entry in tomllib.loads(text).items()}


def find_protocol(name: str) -> Protocol:
    """The protocol of this name.

    Raises:
        ConfigError: there is none; the message names the close matches.
    """
    known = all_protocols()
    if name not in known:
        raise ConfigError(
            f"There is no protocol '{name}'.{did_you_mean(name, known)} Known: {', '.join(known)}."
        )
    return known[name]


@dataclass(frozen=True)
class SplitConfig(Config):
    """What the user asks of the rows."""

    protocol: Protocol | None = setting(
        None,
        "A published evaluation (see --list): its rows, splits or folds, and defaults.",
        metavar="NAME",
        parse=find_protocol,
    )
    test_fold: str = setting("", "The fold to be tested on.  [default: the first]")
    max_imbalance: float | None = setting(
        None,
        "Leave training rows of frequent labels out at random, down to R times the rarest's.",
        metavar="R",
    )
    balanced_dev: bool = setting(
        False, "Leave development rows out at random until all labels have as many."
    )
    seed: int = setting(0, "For splits, folds and rows left out, where chance decides.", least=0)


def defaults(manifest: Manifest, command: str) -> Mapping[str, Any]:
    """What the manifest's protocol sets for a command; nothing where there is none.

    Args:
        manifest: one of an unknown protocol (a newer version's, or somebody's own) sets nothing.
        command: `search` (values of the search space's axes) or `finetune` (its options).
    """
    protocol = all_protocols().get(manifest.protocol)
    return {} if protocol is None else protocol.defaults.get(command, {})


def targets(manifest: Manifest) -> Mapping[str, str]:
    """What the manifest's protocol has heads learn, as a default; nothing where that is classes."""
    protocol = all_protocols().get(manifest.protocol)
    learnt = "emotion" if protocol is None else protocol.targets
    return {} if learnt == "emotion" else {"targets": learnt}


def allows_refit(manifest: Manifest) -> bool:
    """Whether a head may be trained on dev too, once it is chosen: where no protocol forbids it."""
    protocol = all_protocols().get(manifest.protocol)
    return protocol is None or protocol.refit


def protocol_sentence(manifest: Manifest) -> str:
    """A sentence on the protocol that a manifest's rows follow; "" where there is none."""
    if not manifest.protocol:
        return ""
    settings = manifest.settings
    fold = f", tested on fold {settings['test_fold']}" if settings.get("test_fold") else ""
    if fold and isinstance(settings.get("folds"), list):
        fold += f" of {len(settings['folds'])}"
    protocol = all_protocols().get(manifest.protocol)
    scores = "" if protocol is None else f"; it reports {metrics_text(protocol.metrics)}"
    return f"Protocol {manifest.protocol}{fold}{scores}."


def protocols_text() -> str:
    """Describe every protocol in plain text."""
    blocks = []
    for protocol in all_protocols().values():
        lines = [
            f"{protocol.name}: {protocol.title}",
            f"  for      {', '.join(protocol.corpora)}",
            f"  metrics  {metrics_text(protocol.metrics)}",
            *wrapped(f"  source   {protocol.source}", "           "),
        ]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def protocols_json() -> list[dict[str, Any]]:
    """Every protocol as plain JSON values."""
    return [asdict(protocol) for protocol in all_protocols().values()]


def metrics_text(metrics: tuple[str, ...]) -> str:
    """The names of metrics as reports write them."""
    return ", ".join(METRICS.get(metric, metric) for metric in metrics)


def _protocol(name: str, entry: Mapping[str, Any]) -> Protocol:
    schemes = {
        corpus: Scheme(
            folds=value["folds"],
            groups=tuple(tuple(group) for group in value.get("groups", ())),
            labels=tuple(value.get("labels", ())),
            options=dict(value.get("options", {})),
        )
        for corpus, value in entry["corpora"].items()
    }
    return Protocol(
        name=name,
        title=entry["title"],
        source=entry["source"],
        metrics=tuple(entry["metrics"]),
        corpora=schemes,
        max_imbalance=entry.get("max_imbalance"),
        balanced_dev=entry.get("balanced_dev", False),
        shared_speakers=entry.get("shared_speakers", False),
        refit=entry.get("refit", False),
        notes=tuple(entry.get("notes", ())),
        defaults=entry.get("defaults", {}),
        targets=entry.get("targets", "emotion"),
    )
