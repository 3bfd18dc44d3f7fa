"""Looking through a corpus folder in a repeatable order, and saying what is there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile
from pathlib import Path

from corpora import containers
from corpora.base.errors import CorpusError, ManifestError
from corpora.utterance import Utterance, format_number, look_alike, plain_name


def ids_of_paths(audio: Sequence[str], utterances: Sequence[Utterance]) -> list[str]:
    """Ids from the audio paths: the shortest form that tells all rows apart.

    In this order: file name without suffix, the same with the segment, path without suffix, the
    same with the segment, whole path with the segment (which may still hold one row twice).
    """
    whole = [plain_name(os.path.normpath(path)) for path in audio]
    bare = [os.path.splitext(path)[0] for path in whole]
    names = [os.path.basename(path) for path in bare]
    segments = [
        ""
        if u.start is None and u.end is None
        else f"_{format_number(u.start) or 0}-{format_number(u.end) or 'end'}"
        for u in utterances
    ]
    for stems, marks in ((names, None), (names, segments), (bare, None), (bare, segments)):
        ids = stems if marks is None else [a + b for a, b in zip(stems, marks, strict=True)]
        if len(set(ids)) == len(ids):
            return list(ids)
    return [a + b for a, b in zip(whole, segments, strict=True)]


#: Names of recordings that are read: every format whose header says how long the sound is.
SUFFIXES = (
    *(".wav", ".wave", ".rf64", ".w64", ".flac", ".ogg", ".oga", ".opus", ".mp3"),
    *(".aif", ".aiff", ".aifc", ".au", ".snd", ".caf", ".sph", ".nist", ".voc"),
)
#: Names of recordings, and of video with sound, that nothing here reads.
UNREADABLE = (".amr", ".ac3", ".ape", ".wv", ".mpg", ".mpeg", ".flv", ".ra", ".dss")
CONVERT = "Convert it to WAV or FLAC (ffmpeg -i IN OUT.wav)."


def recordings_below(root: Path) -> tuple[list[Path], list[Path]]:
    """Recordings below a folder: those that are read, and those of formats that are not, sorted.

    What lies beside a recording of the same name that is read was converted already. Containers
    are read where the package for it is installed (`corpora.containers`).
    """
    read = sorted(files_below(root, SUFFIXES))
    converted = {path.with_suffix("") for path in read}
    others = [
        path
        for path in sorted(files_below(root, (*containers.SUFFIXES, *UNREADABLE)))
        if path.with_suffix("") not in converted
    ]
    more = containers.SUFFIXES if containers.available() else ()
    read += [path for path in others if path.suffix.lower() in more]
    return sorted(read), [path for path in others if path.suffix.lower() not in more]


def not_read(path: Path) -> str:
    """Why an unreadable one of `recordings_below` is left out, and what to do; no full stop."""
    suffix, also = path.suffix.lower(), ""
    if suffix in containers.SUFFIXES:
        also = f"install the package av ({containers.INSTALL}), or "
    return f"{suffix} is not read: {also}convert it to WAV or FLAC (ffmpeg -i IN OUT.wav)"


def files_below(root: Path, suffix: str | tuple[str, ...]) -> Iterator[Path]:
    """Yield the files below `root` with this suffix (any case), folder by folder, sorted.

    Hidden files and folders are passed over (`._x.wav` is macOS's, not a recording). Links to
    folders are followed, each real folder once.
    """
    visited: set[str] = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in visited:
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if name.lower().endswith(suffix) and not name.startswith("."):
                yield Path(folder, name)


def inside(path: Path, root: Path) -> str:
    """`path` as seen from `root`, for messages."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def names_in(folder: Path) -> frozenset[str]:
    """The names in a folder, none where it is absent: one listing, no look at each file."""
    return frozenset(os.listdir(folder)) if folder.is_dir() else frozenset()


class Spellings:
    """Files whose path is written otherwise than on disk: in upper case or in Unicode form alone.

    A table made on another system says `A.WAV` or a composed é; each folder is listed once.
    """

    def __init__(self) -> None:
        """Start with no folder listed."""
        self._listed: dict[Path, dict[str, list[str]]] = {}

    def of(self, path: Path) -> list[Path]:
        """The paths on disk that differ from an absolute `path` in spelling alone."""
        known = path
        while not os.path.isdir(known):
            known = known.parent
        found = [known]
        for name in path.relative_to(known).parts:
            key = look_alike(name)
            found = [one / own for one in found for own in self._names(one).get(key, ())]
        return found

    def _names(self, folder: Path) -> dict[str, list[str]]:
        """The names in a folder by what look-alikes share."""
        if folder not in self._listed:
            names: dict[str, list[str]] = {}
            for name in sorted(names_in(folder)):
                names.setdefault(look_alike(name), []).append(name)
            self._listed[folder] = names
        return self._listed[folder]


def locator(folder: Path, fence: Path, *, allow_outside: bool = False) -> Callable[[str], Path]:
    r"""What makes a path of a table absolute and, unless allowed, keeps it inside `fence`.

    Tables written on Windows say a\b.wav: \ is read as /. What is returned raises `ManifestError`
    for a path that leads outside; the message is the reason alone.
    """
    base = str(folder)
    inner = str(fence).rstrip(os.sep) + os.sep

    def locate(cell: str) -> Path:
        path = os.path.normpath(os.path.join(base, cell.replace("\\", "/")))
        if not allow_outside and not path.startswith(inner):
            raise ManifestError(
                f"'{cell}' leads outside {fence} (--set allow_outside=true permits it)"
            )
        return Path(path)

    return locate


def found_below(folder: Path) -> Callable[[str], Path]:
    """What finds recordings below `folder` by their names, whatever folders they were listed in.

    Of several of one name that is meant whose folders are most like those listed. What is returned
    raises `ManifestError` where two are as like; the message is the reason alone.
    """
    known: dict[str, list[Path]] = {}
    for path in files_below(folder, (*SUFFIXES, *UNREADABLE)):
        known.setdefault(path.name, []).append(path)

    def locate(cell: str) -> Path:
        parts = Path(os.path.normpath(cell.replace("\\", "/"))).parts

        def shared(path: Path) -> int:
            own = zip(reversed(path.parts), reversed(parts), strict=False)
            return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], own))

        alike = known.get(parts[-1], [])
        best = max(map(shared, alike), default=0)
        meant = [path for path in alike if shared(path) == best]
        if len(meant) > 1:
            raise ManifestError(f"{len(meant)} recordings of this name below {folder}")
        return meant[0] if meant else folder / parts[-1]

    return locate


def wrong_root(root: Path, corpus: str, looked_for: str) -> CorpusError:
    """The error for a root that does not hold the corpus: looked for this, found that."""
    if not root.is_dir():
        return CorpusError(f"{root} is a file. {corpus} needs a folder with {looked_for}.")
    names = sorted(
        entry.name + ("/" if entry.is_dir() else "")
        for entry in os.scandir(root)
        if not entry.name.startswith(".")
    )
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return CorpusError(
        f"{root} does not look like {corpus}. Looked for {looked_for}; "
        f"found {shown or 'nothing: the folder is empty'}. Give the folder that holds them."
    )
