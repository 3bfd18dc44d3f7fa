"""The espeak-ng speech engine through ctypes: text in, samples and phone times out.

The engine is the shared library that the package `espeakng-loader` (extra `demo`, GPL-3) carries.
Its C interface is `speak_lib.h` of espeak-ng 1.52. The library holds one engine for the process and
what it says depends on what it said before, so a program that must repeat its sound bit by bit runs
it in a fresh process, in a fixed order.
"""

from __future__ import annotations

import ctypes
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from corpora.base.errors import EmopoolError, MissingExtraError

# Values of speak_lib.h.
_OUTPUT_SYNCHRONOUS = 2
_PHONEME_EVENTS, _PHONEME_IPA, _DONT_EXIT = 0x0001, 0x0002, 0x8000
_CHARS_UTF8, _POSITION_CHARACTER = 1, 1
_EVENT_LIST_END, _EVENT_WORD, _EVENT_PHONEME = 0, 1, 7
_RATE, _VOLUME, _PITCH, _RANGE, _WORD_GAP = 1, 2, 3, 4, 7

RATE_LIMITS = (80, 450)
"""Words per minute the engine accepts."""
PITCH_LIMITS = (0, 99)
"""Bounds of the settings `pitch` and `pitch_range`; 50 is the voice's own."""


@dataclass(frozen=True)
class Delivery:
    """How the engine is to say a text: its own four settings.

    Attributes:
        rate: words per minute, in `RATE_LIMITS`.
        pitch: height, in `PITCH_LIMITS`; one step is about 1 % of the voice's base frequency.
        pitch_range: liveliness of the intonation, in `PITCH_LIMITS`; 0 is monotone.
        word_gap: extra pause between words, in 10 ms at the normal rate.
    """

    rate: int = 175
    pitch: int = 50
    pitch_range: int = 50
    word_gap: int = 0


@dataclass(frozen=True)
class Event:
    """The start of a word or of a phone.

    Attributes:
        kind: "word" or "phone".
        seconds: time from the first sample, to a millisecond.
        position: index into the text of the word's first character.
        phone: the phone in IPA, stress mark included; "" is a pause, and for words.
    """

    kind: str
    seconds: float
    position: int
    phone: str


@dataclass(frozen=True)
class Speech:
    """What the engine said: `samples [samples]` int16 mono at `sample_rate` Hz, and its events."""

    samples: NDArray[np.int16]
    sample_rate: int
    events: tuple[Event, ...]


class _Identity(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Identity),
    )


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


def loader() -> ModuleType:
    """The package that carries the engine.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import espeakng_loader
    except ImportError as error:
        raise MissingExtraError(
            "The sample corpus is spoken by the espeak-ng engine, and the package espeakng-loader "
            'that carries it is not installed. Run: pip install "emopool[demo]" '
            '(in a checkout: pip install -e ".[demo]").'
        ) from error
    module: ModuleType = espeakng_loader
    return module


@contextmanager
def short_link(folder: Path) -> Iterator[Path]:
    """Yield a short path whose entry `espeak-ng-data` is `folder`; removed afterwards.

    The engine keeps the path in a fixed buffer and fails above about 160 characters, which a
    virtual environment in a deep folder exceeds.
    """
    parents = [path for path in ("/tmp", tempfile.gettempdir()) if os.access(path, os.W_OK)]
    parent = min(parents, key=len, default=None)
    with tempfile.TemporaryDirectory(prefix="espeak-", dir=parent) as temporary:
        link = Path(temporary) / "espeak-ng-data"
        link.symlink_to(folder.resolve(), target_is_directory=True)
        yield Path(temporary)


class Engine:
    """The engine of this process. Make one with `open_engine`."""

    def __init__(self, library: ctypes.CDLL, sample_rate: int, seed: int) -> None:
        self.sample_rate = sample_rate
        self._library = library
        self._pieces: list[bytes] = []
        self._events: list[Event] = []
        self._callback = _Callback(self._receive)  # kept: the library calls it as long as it lives
        library.espeak_Info.restype = ctypes.c_char_p
        library.espeak_SetSynthCallback(self._callback)
        # Breath and flutter draw from a generator that is otherwise seeded with the clock.
        library.espeak_ng_SetRandSeed(ctypes.c_long(seed))

    @property
    def version(self) -> str:
        """The engine's version, such as 1.52.0."""
        return str(self._library.espeak_Info(None).decode("ascii"))

    def say(self, text: str, voice: str, delivery: Delivery) -> Speech:
        """Speak `text` (plain, no markup).

        Args:
            text: what to say.
            voice: a voice and its variant, such as en-us+f3.
            delivery: rate, pitch, range and pauses.

        Raises:
            EmopoolError: the engine does not know the voice, or says nothing.
        """
        self._pieces.clear()
        self._events.clear()
        if self._library.espeak_SetVoiceByName(voice.encode("ascii")) != 0:
            raise EmopoolError(f"The espeak-ng engine {self.version} has no voice named {voice}.")
        settings = {
            _RATE: delivery.rate,
            _VOLUME: 100,
            _PITCH: delivery.pitch,
            _RANGE: delivery.pitch_range,
            _WORD_GAP: delivery.word_gap,
        }
        for parameter, value in settings.items():
            self._library.espeak_SetParameter(parameter, value, 0)
        data = text.encode("utf-8")
        status = self._library.espeak_Synth(
            data, ctypes.c_size_t(len(data) + 1), 0, _POSITION_CHARACTER, 0, _CHARS_UTF8, None, None
        )
        samples = np.frombuffer(b"".join(self._pieces), dtype=np.int16)
        if status != 0 or not samples.any():
            raise EmopoolError(
                f"The espeak-ng engine {self.version} said nothing for {text!r} with the voice "
                f"{voice} (status {status})."
            )
        return Speech(samples, self.sample_rate, tuple(self._events))

    def _receive(self, samples: object, count: int, events: ctypes.Array[_Event]) -> int:
        """Take one block of sound and its events; 0 tells the engine to go on."""
        if samples and count > 0:
            self._pieces.append(ctypes.string_at(samples, 2 * count))  # type: ignore[arg-type]
        index = 0
        while events[index].type != _EVENT_LIST_END:
            event = events[index]
            if event.type in (_EVENT_WORD, _EVENT_PHONEME):
                phone = ""
                if event.type == _EVENT_PHONEME:
                    # A name of 8 bytes has no zero behind it and may be cut within a character.
                    raw = ctypes.string_at(ctypes.addressof(event.id), 8).split(b"\0")[0]
                    phone = raw.decode("utf-8", errors="ignore")
                kind = "word" if event.type == _EVENT_WORD else "phone"
                seconds, position = event.audio_position / 1000, event.text_position - 1
                self._events.append(Event(kind, seconds, position, phone))
            index += 1
        return 0


@contextmanager
def open_engine(*, seed: int = 0) -> Iterator[Engine]:
    """Start the engine of this process; its random generator starts from `seed`.

    Raises:
        MissingExtraError: the package that carries the engine is missing, or does not load here.
        EmopoolError: the engine does not find its data.
    """
    package = loader()
    try:
        library = ctypes.CDLL(package.get_library_path())
    except OSError as error:
        raise MissingExtraError(
            f"The espeak-ng library {package.get_library_path()} does not load ({error}). "
            "Install espeakng-loader again: pip install --force-reinstall espeakng-loader."
        ) from error
    data = Path(package.get_data_path())
    with short_link(data) as folder:
        options = _PHONEME_EVENTS | _PHONEME_IPA | _DONT_EXIT
        rate = library.espeak_Initialize(_OUTPUT_SYNCHRONOUS, 0, os.fsencode(folder), options)
        if rate <= 0:
            raise EmopoolError(
                f"The espeak-ng engine does not start with its data in {data} (status {rate}). "
                "Install espeakng-loader again: pip install --force-reinstall espeakng-loader."
            )
        yield Engine(library, rate, seed)
        library.espeak_Terminate()
