"""A Whisper on disk: where it is, what it can hear, and what of it decides its texts.

Nothing here imports torch, so that a run with nothing to do ends at once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from cache.config import FASTER, TRANSFORMERS, WHISPER
from cache.encoders.files import (
    Hashes,
    hash_files,
    named_tokenizer_files,
    named_weight_files,
    tokenizer_files,
    weight_files,
    without_volatile,
)
from cache.encoders.grid import read_config
from cache.encoders.names import HUB_FILES, hub_directory
from cache.recipe import JSON, Recipe
from corpora.base.errors import ConfigError, MissingExtraError, did_you_mean

#: How this floor decodes, counted up when texts change by it.
DECODING_VERSION = 1
# transformers 5 writes the front end's settings into the first, earlier versions into the second.
_FRONT_ENDS = ("processor_config.json", "preprocessor_config.json")
_NEEDED = ("config.json", "generation_config.json")
#: Weights in the format of CTranslate2, which faster-whisper reads.
CONVERTED = "model.bin"
_VOCABULARIES = ("vocabulary.json", "vocabulary.txt")
# A Whisper that knows more than English has at least so many tokens; CTranslate2 goes by it, too.
_MULTILINGUAL_TOKENS = 51_865
# Whisper's codes where they are not the tag that corpora use (BCP 47 or ISO 639-3).
_CODES = {
    "arb": "ar", "cmn": "zh", "deu": "de", "eng": "en", "fil": "tl", "fra": "fr", "ita": "it",
    "iw": "he", "jpn": "ja", "jv": "jw", "kor": "ko", "nb": "no", "spa": "es", "zho": "zh",
}  # fmt: skip


@dataclass(frozen=True)
class WhisperFiles:
    """A Whisper that can be loaded.

    Attributes:
        source: its name as manifests give it: the hub id, or the name of its folder.
        directory: with everything.
        fingerprint: of all that decides its texts. Device, precision and batch size are not in it:
            they change the last bits of a probability, and seldom a word.
        languages: the codes it can be told, such as de; none for an English-only model.
    """

    source: str
    directory: Path
    fingerprint: str
    languages: tuple[str, ...]

    def code(self, tag: str, where: str) -> str:
        """The code of a language for this model; "" stays "": the model is to detect it.

        Args:
            tag: such as de, en-GB or kor.
            where: it comes from, for messages.

        Raises:
            ConfigError: the model does not know the language.
        """
        if not tag:
            return ""
        primary = tag.strip().lower().replace("_", "-").split("-")[0]
        primary = _CODES.get(primary, primary)
        if not self.languages:
            if primary == "en":
                return ""
            raise ConfigError(
                f"{where} is '{tag}', but {self.source} knows English only. Choose another model "
                "with --whisper, such as openai/whisper-large-v3."
            )
        if primary not in self.languages:
            hint = did_you_mean(primary, self.languages)
            raise ConfigError(
                f"{where} is '{tag}', which {self.source} does not know.{hint} It knows "
                f"{', '.join(self.languages)}. Correct the manifest's language column or give "
                "--language; --language auto detects it."
            )
        return primary


def find_whisper(
    name: str, hashes: Hashes = hash_files, engine: str = TRANSFORMERS
) -> WhisperFiles:
    """Find a Whisper; a hub id that is not on this machine is downloaded.

    Args:
        name: a hub id or a directory.
        hashes: how to hash the weight files; by default they are read every time.
        engine: of `ENGINES`; all but the first take one that was converted for CTranslate2, too.

    Raises:
        ConfigError: no such directory, or it holds no Whisper that can be used.
        EmopoolError: the hub id is not on this machine and could not be downloaded.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        directory, source = path.resolve(), path.resolve().name
    else:
        either = engine != TRANSFORMERS
        found = hub_directory(
            name,
            "Whisper model",
            lambda one: _is_complete(one) or (either and (one / CONVERTED).is_file()),
            files=(*HUB_FILES, CONVERTED) if either else HUB_FILES,
        )
        if found is None:
            raise ConfigError(
                f"Whisper model {name}: no such directory, and not a hub id. Expected a directory "
                f"or an id such as {WHISPER}."
            )
        directory, source = found, name
    if (directory / CONVERTED).is_file():
        if engine == TRANSFORMERS:
            raise ConfigError(
                f"{directory} is converted for CTranslate2 ({CONVERTED}): --engine {FASTER} hears "
                "with it. The times of words, and all else, need the original, such as "
                "openai/whisper-base."
            )
        return _converted(directory, source, hashes)
    config = read_config(directory, "config.json")
    if config.get("model_type") != "whisper":
        raise ConfigError(
            f"{directory} is not a Whisper model: its config.json has model_type "
            f"{config.get('model_type')!r}, expected 'whisper'. Name one, such as {WHISPER}."
        )
    weights = weight_files(directory)
    tokenizer = tokenizer_files(directory)
    generation = read_config(directory, "generation_config.json")
    front_end = _front_end(directory)
    digests = hashes(weights)
    found_files = hash_files(tokenizer)
    fields: dict[str, JSON] = {
        "weights": [digests[file] for file in weights],
        "config": without_volatile(config),
        "generation": without_volatile(generation),
        "front_end": without_volatile(read_config(directory, front_end)),
        "tokenizer": {file.name: found_files[file] for file in tokenizer},
        "decoding": DECODING_VERSION,
    }
    languages = _languages(directory, generation)
    return WhisperFiles(source, directory, Recipe("transcript", fields).fingerprint, languages)


def _converted(directory: Path, source: str, hashes: Hashes) -> WhisperFiles:
    """One in the format of CTranslate2."""
    config = read_config(directory, "config.json")
    words = next((directory / n for n in _VOCABULARIES if (directory / n).is_file()), None)
    if words is None:
        raise ConfigError(
            f"{directory} lacks {' or '.join(_VOCABULARIES)} beside {CONVERTED}. Copy it again."
        )
    try:
        text = words.read_text("utf-8")
        lines = text.removesuffix("\n").split("\n")
        tokens = json.loads(text) if words.suffix == ".json" else lines
        numbers = config["lang_ids"] if len(tokens) >= _MULTILINGUAL_TOKENS else ()
        languages = tuple(sorted(tokens[number].strip("<|>") for number in numbers))
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise ConfigError(
            f"{directory}: config.json and {words.name} do not say which languages it knows "
            f"({error}). Copy it again."
        ) from error
    weights = directory / CONVERTED
    read = [words, *tokenizer_files(directory), *directory.glob(_FRONT_ENDS[1])]
    found = hash_files(read)
    fields: dict[str, JSON] = {
        "weights": hashes([weights])[weights],
        "config": config,
        "files": {file.name: found[file] for file in read},
        "decoding": DECODING_VERSION,
    }
    return WhisperFiles(source, directory, Recipe("transcript", fields).fingerprint, languages)


def run_by(whisper: WhisperFiles, engine: str) -> WhisperFiles:
    """The same with what an engine adds to its name and its fingerprint.

    Raises:
        MissingExtraError: the engine is not installed.
    """
    if engine == TRANSFORMERS:
        return whisper
    try:
        number = version(FASTER)
    except PackageNotFoundError as error:
        raise MissingExtraError(
            f"--engine {engine} is an extra that is not installed: "
            f"pip install 'emopool[{FASTER}]', or leave --engine out."
        ) from error
    return replace(
        whisper,
        source=f"{whisper.source} ({engine})",
        fingerprint=f"{whisper.fingerprint}-{engine}-{number}",
    )


def _languages(directory: Path, generation: Mapping[str, JSON]) -> tuple[str, ...]:
    """Codes from the generation config.

    Raises:
        ConfigError: it is one of before 2023, which does not say.
    """
    if not isinstance(generation.get("no_timestamps_token_id"), int):
        raise ConfigError(
            f"{directory}/generation_config.json has no no_timestamps_token_id: it is from before "
            "languages and tasks were written there. Copy the file from the model that this one "
            "was made of, such as openai/whisper-small."
        )
    if generation.get("is_multilingual") is False:
        return ()
    known, tasks = generation.get("lang_to_id"), generation.get("task_to_id")
    if not isinstance(known, Mapping) or not isinstance(tasks, Mapping):
        raise ConfigError(
            f"{directory}/generation_config.json has no lang_to_id and task_to_id. Copy the file "
            "from the model that this one was made of, such as openai/whisper-small."
        )
    return tuple(sorted(token.strip("<|>") for token in known))


def _front_end(directory: Path) -> str:
    for file in _FRONT_ENDS:
        if (directory / file).is_file():
            return file
    raise ConfigError(
        f"{directory} holds no front end: expected {' or '.join(_FRONT_ENDS)}. "
        "Save the processor beside the model."
    )


def _is_complete(directory: Path) -> bool:
    """Whether a snapshot holds all that loading needs; loading says what is damaged."""
    try:
        named_weight_files(directory)
        named_tokenizer_files(directory)
        _front_end(directory)
    except ConfigError:
        return False
    return all((directory / file).is_file() for file in _NEEDED)
