"""The errors a user can cause: each says what was found, where, what was expected, what to do.

Every class also is the builtin it refines, so that library users can catch either. The command
line prints these without a traceback and exits with status 1.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class EmopoolError(Exception):
    """Base of all errors with a message meant for the user."""


class ManifestError(EmopoolError, ValueError):
    """A manifest, or what would become one, is wrong: column, label, id, split, segment."""


class CorpusError(EmopoolError, ValueError):
    """A corpus folder does not look as its layout says."""


class AudioError(EmopoolError, ValueError):
    """One recording cannot be used: missing, empty, corrupt, not finite, out of bounds."""


class CacheError(EmopoolError, RuntimeError):
    """The frame cache is damaged, locked, or does not hold what was asked for."""


class FormatVersionError(CacheError):
    """Something on disk was written by another version of its format."""


class ConfigError(EmopoolError, ValueError):
    """An option or a configuration file has a value that cannot be used."""


class UnreadableLayersError(ConfigError):
    """An encoder's layers below the last cannot be read."""


class MissingStepError(EmopoolError, FileNotFoundError):
    """A command needs the output of an earlier one."""


class ObjectStoreError(EmopoolError, RuntimeError):
    """An object store does not answer, refuses, or holds no cache."""


class TrainingError(EmopoolError, ArithmeticError):
    """Training went wrong: a loss or a gradient is not finite."""


class MissingExtraError(EmopoolError, ImportError):
    """An optional package is not installed; the message says how to install it."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" with the closest known word, or "" when none is close."""
    by_lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1)
    return f" Did you mean '{by_lower[close[0]]}'?" if close else ""
