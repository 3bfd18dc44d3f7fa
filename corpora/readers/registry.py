"""The corpora Emopool reads: one file each, joined here by name.

A new corpus is one file with one function under `@register(...)`, its name in `MODULES`, and a
fixture tree in the tests for the contract every reader has to pass.
"""

from __future__ import annotations

import gc
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from corpora.base.errors import CorpusError, ManifestError, did_you_mean
from corpora.protocol import OptionValue
from corpora.readers.options import Declared, Options, complete, parse_settings
from corpora.splits import NAME_SPEAKERS
from corpora.utterance import Utterance, is_missing

__all__ = [
    "CorpusReader",
    "Dropped",
    "Options",
    "ReadResult",
    "all_corpora",
    "corpora_text",
    "find_corpus",
    "parse_options",
    "read_corpus",
    "register",
]

# Imported when a corpus is asked for, not before: each registers itself.
MODULES = (
    "corpora.readers.audformat",
    "corpora.readers.cremad",
    "corpora.readers.emobox",
    "corpora.readers.emodb",
    "corpora.readers.folders",
    "corpora.readers.hf",
    "corpora.readers.iemocap",
    "corpora.readers.kaldi",
    "corpora.readers.kemdy19",
    "corpora.readers.lhotse",
    "corpora.readers.meld",
    "corpora.readers.msp_podcast",
    "corpora.readers.nkululeko",
    "corpora.readers.ravdess",
    "corpora.readers.sample",
    "corpora.readers.table",
)

WIDTH = 100  # columns of the list of corpora
# Names that are emptied where they say "missing", and what an utterance is without.
EMPTIED = {"label": "not labelled", "speaker": "of unknown speakers"}
Read = Callable[[Path, Options], "ReadResult"]

_READERS: dict[str, CorpusReader] = {}


@dataclass(frozen=True)
class Dropped:
    """Something in the corpus that did not become an utterance.

    Attributes:
        where: the file, or `table.csv:line`, relative to the root where it can be.
        reason: why; the same words for the same cause, so that a summary can count them.
    """

    where: str
    reason: str


@dataclass(frozen=True)
class ReadResult:
    """What a reader found.

    Attributes:
        utterances: in a stated, repeatable order; audio paths absolute; `split` empty in all of
            them where the corpus has no splits. Whether recordings exist is not the reader's
            business: `prepare` looks.
        labels: the label order of the corpus, which holds at least the labels that occur.
        dropped: what was left out, with reasons; the rest is kept.
        notes: sentences the user should read.
        tables: the files that list the utterances, never to be overwritten.
        shared_speakers: the corpus's own splits share speakers, by declaration.
        synthetic: not human speech.
        scales: the lowest and highest value of `valence`, `arousal` and `dominance`, where the
            corpus has them.
    """

    utterances: tuple[Utterance, ...]
    labels: tuple[str, ...]
    dropped: tuple[Dropped, ...] = ()
    notes: tuple[str, ...] = ()
    tables: tuple[Path, ...] = ()
    shared_speakers: bool = False
    synthetic: bool = False
    scales: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class CorpusReader:
    """How one corpus is read, and what a user must know to have it.

    Attributes:
        name: what is typed after `prepare`.
        title: the name in full, with language and kind.
        licence: as its makers state it.
        source: where to get it.
        needs: what the root folder must hold.
        speakers: how a user names speakers that are not known, a sentence without its end.
        find: the folder of a corpus that is named otherwise than by a path, or None.
        read: (root, options) to a `ReadResult`; raises `CorpusError` for a wrong root. The options
            it gets are checked and complete.
        options: those it knows, by name.
    """

    name: str
    title: str
    licence: str
    source: str
    needs: str
    read: Read
    options: Declared = field(default_factory=dict)
    speakers: str = NAME_SPEAKERS
    find: Callable[[str], Path | None] | None = None

    def root(self, given: str | Path) -> Path:
        """The absolute path of the folder or file that the user gives; it may not be there."""
        path = Path(given).expanduser().resolve()
        found = None if path.exists() or self.find is None else self.find(str(given))
        return found or path


def register(
    name: str,
    *,
    title: str,
    licence: str,
    source: str,
    needs: str,
    options: Declared | None = None,
    speakers: str = NAME_SPEAKERS,
    find: Callable[[str], Path | None] | None = None,
) -> Callable[[Read], Read]:
    """Register the decorated function as the reader of corpus `name`; see `CorpusReader`.

    Raises:
        ValueError: the name is taken.
    """

    def add(read: Read) -> Read:
        if name in _READERS:
            raise ValueError(
                f"corpus '{name}' is registered twice: by {_READERS[name].read.__module__} "
                f"and by {read.__module__}"
            )
        _READERS[name] = CorpusReader(
            name, title, licence, source, needs, read, options or {}, speakers, find
        )
        return read

    return add


def all_corpora() -> tuple[CorpusReader, ...]:
    """Every reader, sorted by name."""
    for module in MODULES:
        import_module(module)
    return tuple(_READERS[name] for name in sorted(_READERS))


def find_corpus(name: str) -> CorpusReader:
    """The reader of this name.

    Raises:
        CorpusError: there is none; the message names the close matches.
    """
    readers = {reader.name: reader for reader in all_corpora()}
    if name not in readers:
        raise CorpusError(
            f"There is no corpus '{name}'.{did_you_mean(name, readers)} "
            f"Known: {', '.join(readers)}. Any other corpus: list it in a table for `prepare csv`."
        )
    return readers[name]


def corpora_text() -> str:
    """Describe every corpus in plain text: what it needs, its licence, where to get it."""
    blocks = []
    for reader in all_corpora():
        facts = [("needs", reader.needs), ("licence", reader.licence), ("source", reader.source)]
        facts += [("option", option.describe(n)) for n, option in reader.options.items()]
        lines = [f"{reader.name}: {reader.title}"]
        for name, text in facts:
            lines += textwrap.wrap(
                text,
                WIDTH,
                initial_indent=f"  {name:<8} ",
                subsequent_indent=" " * 11,
                break_long_words=False,
                break_on_hyphens=False,
            )
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def corpora_json() -> list[dict[str, Any]]:
    """The same as plain JSON values."""
    return [
        {
            "name": reader.name,
            "title": reader.title,
            "needs": reader.needs,
            "licence": reader.licence,
            "source": reader.source,
            "options": {name: asdict(option) for name, option in reader.options.items()},
        }
        for reader in all_corpora()
    ]


def parse_options(name: str, settings: Iterable[str]) -> dict[str, OptionValue]:
    """Read `NAME=VALUE` settings for corpus `name`; only those given are returned.

    Raises:
        CorpusError: an unknown corpus.
        ConfigError: not of that form, an option twice, one the corpus does not know, or a value
            that it does not take.
    """
    options = parse_settings(settings)
    completed = complete(name, find_corpus(name).options, options)
    return {option: completed[option] for option in options}


def read_corpus(name: str, root: str | Path, options: Options | None = None) -> ReadResult:
    """Read a corpus folder.

    Args:
        name: a registered corpus.
        root: its folder; a table also by its file.
        options: only those the reader knows.

    Raises:
        CorpusError: an unknown name, or the root does not look as the corpus's layout says.
        ConfigError: an unknown option, or a value that it does not take.
        ManifestError: two utterances have one id.
    """
    reader = find_corpus(name)
    options = complete(name, reader.options, options or {})
    root = reader.root(root)
    if not root.exists():
        raise CorpusError(f"{root} does not exist. `prepare {name}` needs {reader.needs}.")
    with _collector_paused():
        result = _without_missing(reader.read(root, options))
    _refuse_duplicates(result, root)
    return result


def _without_missing(result: ReadResult) -> ReadResult:
    """Empty the names of classes and people that say "missing", and warn of them."""
    notes = list(result.notes)
    utterances = result.utterances
    for what, consequence in EMPTIED.items():
        empty: dict[str, Any] = {what: ""}
        counts = Counter(getattr(u, what) for u in utterances)
        missing = {name for name in counts if is_missing(name)}
        if missing:
            utterances = tuple(
                replace(u, **empty) if getattr(u, what) in missing else u for u in utterances
            )
        notes += [
            f"WARNING: the {what} '{name}' of {counts[name]:,} utterances is read as missing: "
            f"they are {consequence}. If it is a {what}, give it another name."
            for name in sorted(missing)
        ]
    labels = tuple(label for label in result.labels if not is_missing(label))
    return replace(result, utterances=utterances, labels=labels, notes=tuple(notes))


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Pause the search for cycles: what a reader makes stays, and is walked again and again.

    On 270,000 utterances that is a fifth of the time.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _refuse_duplicates(result: ReadResult, root: Path) -> None:
    """Raise for two utterances of one id: which of them is meant cannot be guessed."""
    seen: dict[str, Utterance] = {}
    for utterance in result.utterances:
        first = seen.setdefault(utterance.id, utterance)
        if first is not utterance:
            places = " and ".join(
                f"{u.audio}" + (f" (line {u.line})" if u.line else "") for u in (first, utterance)
            )
            raise ManifestError(
                f"{root}: the id '{utterance.id}' is used twice: {places}. "
                "Remove or rename one of them."
            )
