"""Options of a corpus, checked in one place, and the label sets that they choose between."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from corpora.base.errors import ConfigError, did_you_mean
from corpora.protocol import OptionValue

Options = Mapping[str, OptionValue]
SWITCHES: Mapping[str, bool] = {"true": True, "yes": True, "false": False, "no": False}


@dataclass(frozen=True)
class Option:
    """One option of a corpus.

    Attributes:
        help: what it does, in one line.
        default: its value where it is not given; True or False makes it a switch.
        choices: the values it may have; none is any text.
        many: several choices, separated by commas; the empty text is none of them.
    """

    help: str
    default: OptionValue = ""
    choices: tuple[str, ...] = ()
    many: bool = False

    def describe(self, name: str) -> str:
        """One line for a list of options: its values, default and help."""
        if isinstance(self.default, bool):
            values, default = "true|false", str(self.default).lower()
        else:
            values, default = "|".join(self.choices) or "TEXT", self.default
        several = ", several by commas" if self.many else ""
        return f"{name}={values}: {self.help} (default: {default or 'none'}{several})"


Declared = Mapping[str, Option]

ALLOW_OUTSIDE = Option("true lets recordings lie outside the folder of the corpus", False)
SHARED_SPEAKERS = Option("true declares that the corpus's own splits share speakers", False)
CORPUS = Option("the name of the corpus, where a row has none of its own; else the folder's name")
COLUMN = Option("audio=path takes the column path as audio; several by commas")
RECORDINGS = Option("the folder that embedded recordings are written into; else WORK/recordings")
AUDIO = Option(
    "the folder that the recordings lie in, where that is not where the list says: they are found "
    "below it by name"
)
LANGUAGE = Option("a tag such as en or de, for recordings whose row has none of its own")


def parse_settings(settings: Iterable[str]) -> dict[str, OptionValue]:
    """Read `NAME=VALUE` settings; `-` in a name is `_`.

    Raises:
        ConfigError: not of that form, or an option twice.
    """
    options: dict[str, OptionValue] = {}
    for setting in settings:
        option, equals, value = (part.strip() for part in setting.partition("="))
        option = option.replace("-", "_")
        if not (option and equals and value) or option in options:
            raise ConfigError(f"'{setting}' is not NAME=VALUE with a name of its own.")
        options[option] = value
    return options


def cells_of(values: Iterable[str], option: str) -> tuple[str, ...]:
    """The comma-separated cells of `option`'s values; one with a comma stands in quotes.

    Raises:
        ConfigError: quotation marks that do not pair up.
    """
    values = tuple(values)
    try:
        rows = list(csv.reader(values, skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise ConfigError(f"{option} {', '.join(values)}: {error}.") from error
    return tuple(cell.strip() for row in rows for cell in row if cell.strip())


def joined(cells: Sequence[str]) -> str:
    """One value of which `cells_of` makes these cells."""
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow(cells)
    return out.getvalue() if cells else ""


def complete(corpus: str, declared: Declared, options: Options) -> dict[str, OptionValue]:
    """Check options against what the corpus declares, and add the defaults.

    The words true/yes and false/no set switches, and are words elsewhere (`no` is Norwegian).

    Raises:
        ConfigError: an option that is not declared, or a value that it does not take.
    """
    for name in options:
        if name not in declared:
            raise ConfigError(
                f"corpus '{corpus}' has no option '{name}'.{did_you_mean(name, declared)} "
                f"It knows: {', '.join(declared) or 'none'}."
            )
    known = {
        name: SWITCHES.get(value.lower(), value)
        if isinstance(value, str) and isinstance(declared[name].default, bool)
        else value
        for name, value in options.items()
    }
    for name, value in known.items():
        _check(name, declared[name], value)
    return {name: known.get(name, option.default) for name, option in declared.items()}


def chosen(options: Options, name: str) -> tuple[str, ...]:
    """The choices that the completed option `name` holds, in the order given."""
    parts = (part.strip() for part in str(options[name]).split(","))
    return tuple(dict.fromkeys(part for part in parts if part))


def _check(name: str, option: Option, value: OptionValue) -> None:
    if isinstance(option.default, bool):
        if not isinstance(value, bool):
            raise ConfigError(f"option {name} is '{value}', expected true or false.")
        return
    given = chosen({name: value}, name) if option.many else (str(value),)
    for part in given if option.choices else ():
        if part not in option.choices:
            raise ConfigError(
                f"option {name} is '{value}', expected one of {', '.join(option.choices)}"
                f"{', or several by commas' if option.many else ''}."
                f"{did_you_mean(part, option.choices)}"
            )


DROP, FIRST = "drop", "first"
TIES = Option(
    "votes that tie: leave the utterance out, or take the first of the tied in label order",
    DROP,
    (DROP, FIRST),
)


@dataclass(frozen=True)
class LabelSet:
    """The classes of a study on one corpus.

    Attributes:
        labels: the classes, in label order.
        merged: codes of the corpus that count as one of the labels under another name.
    """

    labels: tuple[str, ...]
    merged: Mapping[str, str] = field(default_factory=dict)

    def label(self, code: str) -> str | None:
        """The class of a code, or None where the set has none for it."""
        name = self.merged.get(code, code)
        return name if name in self.labels else None

    def votes(self, counts: Mapping[str, float]) -> Mapping[str, float] | None:
        """Votes with merged codes added up; codes outside the set stay under their names.

        They tell how much of the vote went elsewhere; what learns from votes reads its own labels.
        """
        summed: dict[str, float] = {}
        for code, count in counts.items():
            name = self.merged.get(code, code)
            summed[name] = summed.get(name, 0.0) + count
        return summed if any(summed.values()) else None


def leaders(votes: Mapping[str, float], order: Sequence[str]) -> tuple[str, ...]:
    """The labels with the most votes, in label order; several are a tie, none no vote."""
    most = max(votes.values(), default=0.0)
    return tuple(label for label in order if most and votes.get(label, 0.0) == most)
