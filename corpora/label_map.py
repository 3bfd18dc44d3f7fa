"""Label maps: `hap=happiness` renames a label, `emodb:L=` leaves its utterances out.

And some of a label set (`--labels`): what is asked of a model that tells more apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from corpora.base.errors import ConfigError, did_you_mean
from corpora.manifest import Manifest
from corpora.utterance import Utterance, plain_name

# Letters at the start of two labels by which they are taken for one, and the fewest of a short one.
SAME, SHORTEST = 4, 3


@dataclass(frozen=True)
class LabelMap:
    """What becomes of labels.

    Attributes:
        renamed: new name by (corpus, label); corpus "" is every corpus; the empty new name leaves
            out.
    """

    renamed: Mapping[tuple[str, str], str]

    def __bool__(self) -> bool:
        return bool(self.renamed)

    def label(self, corpus: str, label: str) -> str:
        """The new name of a corpus's label; "" leaves its utterances out."""
        return self.renamed.get((corpus, label), self.renamed.get(("", label), label))

    def apply(self, utterances: Iterable[Utterance]) -> list[Utterance]:
        """Utterances with their new labels and votes, without those left out.

        Votes of labels that become one are added up; those of labels left out are dropped.
        """
        mapped = []
        for utterance in utterances:
            if not utterance.label:
                mapped.append(utterance)
                continue
            label = self.label(utterance.corpus, utterance.label)
            if label:
                votes = self._votes(utterance)
                changed = label != utterance.label or votes != utterance.votes
                mapped.append(
                    replace(utterance, label=label, votes=votes) if changed else utterance
                )
        return mapped

    def order(self, labels: Sequence[str], corpora: Iterable[str]) -> tuple[str, ...]:
        """The new label order: that of the old one, with the new names."""
        names = [self.label(corpus, label) for label in labels for corpus in (*corpora, "")]
        return tuple(dict.fromkeys(name for name in names if name))

    def check(self, labels: Mapping[str, Iterable[str]]) -> None:
        """Refuse a map of something that there is not.

        Args:
            labels: those of each corpus.

        Raises:
            ConfigError: an unknown corpus or label.
        """
        for corpus, label in self.renamed:
            if corpus and corpus not in labels:
                raise ConfigError(
                    f"--map {corpus}:{label}=…: there is no corpus '{corpus}' here, only "
                    f"{', '.join(labels)}.{did_you_mean(corpus, labels)}"
                )
            known = dict.fromkeys(
                name for own, names in labels.items() if corpus in ("", own) for name in names
            )
            if label not in known:
                raise ConfigError(
                    f"--map {f'{corpus}:' if corpus else ''}{label}=…: there is no label "
                    f"'{label}'.{did_you_mean(label, known)} Labels: {', '.join(known)}."
                )

    def _votes(self, utterance: Utterance) -> Mapping[str, float] | None:
        if utterance.votes is None:
            return None
        votes: dict[str, float] = {}
        for label, count in utterance.votes.items():
            name = self.label(utterance.corpus, label)
            if name:
                votes[name] = votes.get(name, 0.0) + count
        return votes if any(votes.values()) else None


def likely(label: str, labels: Sequence[str]) -> str:
    """Which of the labels another corpus's label is likely to be; "" where none is clear.

    By its letters alone: the only one that begins as it does, in four letters or all of the
    shorter one (`hap`, `HAPPY` and `happiness`).
    """
    alike = [one for one in labels if _begin_alike(label.casefold(), one.casefold())]
    return alike[0] if len(alike) == 1 else ""


def _begin_alike(one: str, other: str) -> bool:
    count = min(len(one), len(other), SAME)
    return count >= SHORTEST and one[:count] == other[:count]


def parse_labels(text: str) -> tuple[str, ...]:
    """Read comma-separated labels."""
    return tuple(plain_name(part.strip()) for part in text.split(","))


def chosen_labels(known: Sequence[str], asked: Sequence[str], what: str) -> tuple[str, ...]:
    """The labels that are asked for, in the order of those known.

    Args:
        known: those that are told apart.
        asked: some of them.
        what: tells them apart, such as `the model`.

    Raises:
        ConfigError: an unknown label, or fewer than two.
    """
    unknown = [label for label in asked if label not in known]
    if unknown or len(set(asked)) < 2:
        names = " and ".join(f"'{label}'" for label in unknown)
        wrong = f"{what} does not know {names}" if unknown else "at least two are needed"
        raise ConfigError(
            f"--labels {','.join(asked)}: {wrong}. Known labels: {', '.join(known)}."
            f"{did_you_mean(unknown[0], known) if unknown else ''}"
        )
    return tuple(label for label in known if label in asked)


def parse_label_map(settings: Iterable[str]) -> LabelMap:
    """Read `[CORPUS:]OLD=NEW` settings; an empty NEW leaves the label out.

    Raises:
        ConfigError: not of that form, or one label twice.
    """
    renamed: dict[tuple[str, str], str] = {}
    for setting in settings:
        left, equals, new = map(plain_name, setting.rpartition("="))
        corpus, _, old = (part.strip() for part in left.rpartition(":"))
        if not (equals and old) or (corpus, old) in renamed:
            raise ConfigError(
                f"--map '{setting}' is not OLD=NEW or CORPUS:OLD=NEW with a label of its own (an "
                "empty NEW leaves the label's utterances out)."
            )
        renamed[corpus, old] = new
    return LabelMap(renamed)


def map_manifest(manifest: Manifest, labels: LabelMap) -> Manifest:
    """A manifest with other names of its labels.

    Raises:
        ConfigError: the map is of something that there is not.
    """
    if not labels:
        return manifest
    known: dict[str, dict[str, None]] = {}
    for utterance in manifest.utterances:
        own = known.setdefault(utterance.corpus, {})
        if utterance.label:
            own[utterance.label] = None
    labels.check(known)
    rows = tuple(labels.apply(manifest.utterances))
    occurring = {utterance.label for utterance in rows}
    order = tuple(label for label in labels.order(manifest.labels, known) if label in occurring)
    return replace(manifest, utterances=rows, labels=order)
