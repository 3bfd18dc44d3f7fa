"""The embedded sample corpus: synthetic emotional speech, made on the spot by espeak-ng.

ROOT/metadata.csv           id, audio, label, speaker, sex, text, language, alignment
    ROOT/audio/<id>.wav         16 kHz mono, 16 bit
    ROOT/alignments/<id>.TextGrid   tiers `words` and `phones` (IPA; "sil" is silence)
    ROOT/README.txt, sample.json    how it was made

The sound is the same, byte for byte, for the same seed, size and engine: the engine keeps state
from one utterance to the next, so a fresh process (`python -m corpora.speech_synth`) says all of
them in one fixed order.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from corpora import espeak
from corpora.base.errors import ConfigError, CorpusError, EmopoolError
from corpora.base.files import (
    fsync_folder,
    new_stamp,
    read_json,
    sweep,
    under_way,
    write_json,
    write_text,
)
from corpora.espeak import Speech
from corpora.sample_design import LABELS, SPEAKERS, Line, Prosody, design
from corpora.textgrid import Interval, fill_gaps, write_textgrid

SAMPLE_RATE = 16_000

_NOISE = (-68.0, -58.0)
"""Bounds of the room noise, dB below full scale (RMS): no recording is digitally silent."""
_PEAK = 0.95
"""No sample goes above this part of full scale; a louder utterance is turned down as a whole."""


def record(
    speech: Speech,
    prosody: Prosody,
    before: float,
    after: float,
    chance: np.random.Generator,
) -> NDArray[np.int16]:
    """The recording of one utterance: `[samples]` int16 at 16 kHz, never clipped.

    Args:
        speech: what the engine said.
        prosody: level, loudness contour and vocal effort to give it.
        before: silence before it, seconds.
        after: silence after it, seconds.
        chance: draws the room noise and the phase of the tremor.
    """
    voice = soxr.resample(speech.samples / 32768.0, speech.sample_rate, SAMPLE_RATE)
    # Effort: a first difference mixed in (or out) tilts the spectrum by about half a dB a dB.
    tilt = float(np.clip(0.06 * prosody.effort, -0.6, 0.6))
    voice = voice - tilt * np.concatenate([[0.0], voice[:-1]])
    seconds = np.arange(len(voice)) / SAMPLE_RATE
    tremor = np.sin(2 * np.pi * (prosody.tremor_rate * seconds + chance.uniform()))
    contour = prosody.tremor * tremor - prosody.fall * (seconds / seconds[-1] - 0.5)
    voice = voice * 10 ** (contour / 20)
    voice *= 10 ** (prosody.level / 20) / np.sqrt(np.mean(voice**2))
    silence = [np.zeros(round(length * SAMPLE_RATE)) for length in (before, after)]
    samples = np.concatenate([silence[0], voice, silence[1]])
    noise = 10 ** (chance.uniform(*_NOISE) / 20)
    samples += noise * chance.standard_normal(len(samples))
    samples *= min(1.0, _PEAK / float(np.abs(samples).max()))
    return np.round(samples * 32767).astype(np.int16)


def align(text: str, speech: Speech, before: float, duration: float) -> dict[str, list[Interval]]:
    """The tiers `words` and `phones` of a recording whose speech starts at `before` seconds."""
    length = len(speech.samples) / speech.sample_rate
    starts = sorted({event.position for event in speech.events if event.kind == "word"})
    ends = dict(zip(starts, [*starts[1:], len(text)], strict=True))
    phones: list[Interval] = []
    words: list[Interval] = []
    word: Interval | None = None
    fresh, label = False, ""
    for index, event in enumerate(speech.events):
        if event.kind == "word":
            # A word reaches to the next one, because the engine says some pairs as one ("of the").
            label = re.sub(r"[^\w' ]", "", text[event.position : ends[event.position]]).strip()
            fresh = True
            continue
        later = (other.seconds for other in speech.events[index + 1 :] if other.kind == "phone")
        start, end = before + event.seconds, before + next(later, length)
        if not event.phone or end <= start:
            continue
        phones.append(Interval(start, end, event.phone))
        if fresh or word is None:
            word = Interval(start, end, label)
            words.append(word)
        else:
            word = Interval(word.start, end, label)
            words[-1] = word
        fresh = False
    return {
        "words": fill_gaps(words, duration, ""),
        "phones": fill_gaps(phones, duration, "sil"),
    }


COLUMNS = ("id", "audio", "label", "speaker", "sex", "text", "language", "alignment")
STAMP = "sample.json"
GENERATOR = 1
"""Raise it when the same seed gives another corpus: old folders are then made again."""

_SILENCE = (0.10, 0.35)
"""Bounds of the silence before and after the speech, seconds."""

_README = """The sample corpus of Emopool: SYNTHETIC SPEECH

Every recording here was made by the speech synthesiser espeak-ng {version}; no person speaks.
{utterances} utterances, {speakers} voices, labels: {labels}. Seed {seed}, generator {generator}.

A label moves rate, pitch, intonation range, loudness and its contour, and pauses on average, more
or less by speaker, with chance in every utterance. About half of the sentences say nothing about
the label, most others fit it, some belong to another emotion. Phone times are the engine's own.
The engine is free software under GPL-3; it is not part of Emopool.

It shows that the pipeline works. A score on it says nothing about human emotion.
"""


def write_sample_corpus(
    root: Path,
    *,
    utterances: int = 400,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Make the sample corpus in the folder `root`; do nothing if it is already there.

    The folder appears complete or not at all. One made with other parameters is replaced.

    Args:
        root: the corpus folder.
        utterances: how many; at least one a speaker.
        seed: decides sentences, prosody and noise.
        progress: called with (utterances made, utterances in all).

    Returns:
        `root`.

    Raises:
        MissingExtraError: the package that carries the engine is not installed.
        ConfigError: too few utterances, or a negative seed.
        CorpusError: `root` holds something else.
        EmopoolError: the engine fails.
    """
    if seed < 0:
        raise ConfigError(f"The seed of the sample corpus is {seed}; give 0 or more.")
    design(utterances, seed)
    if _is_made(root, utterances, seed):
        return root
    espeak.loader()
    root.parent.mkdir(parents=True, exist_ok=True)
    sweep(root.parent)
    building = under_way(root, new_stamp())
    try:
        _run_generator(building, utterances, seed, progress)
        _replace(root, building)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return root


def _parameters(utterances: int, seed: int) -> dict[str, int]:
    return {"utterances": utterances, "seed": seed, "generator": GENERATOR}


def _is_made(root: Path, utterances: int, seed: int) -> bool:
    """Whether `root` holds this corpus; a folder of something else is refused."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    stamp = root / STAMP
    if not stamp.is_file():
        raise CorpusError(
            f"{root} exists and is not a sample corpus (it has no {STAMP}). "
            "Name a new or empty folder for the sample corpus."
        )
    found = read_json(stamp, kind="emopool-sample-corpus", version=1)
    complete = len(list((root / "audio").glob("*.wav"))) == utterances
    return complete and found.get("parameters") == _parameters(utterances, seed)


def _replace(root: Path, building: Path) -> None:
    """Put the finished folder in its place; an older one is moved aside first."""
    if root.exists():
        old = building.with_suffix(".old")
        os.rename(root, old)
        os.rename(building, root)
        shutil.rmtree(old)
    else:
        os.rename(building, root)
    fsync_folder(root.parent)


def _run_generator(
    folder: Path, utterances: int, seed: int, progress: Callable[[int, int], None] | None
) -> None:
    """Run this module in a fresh process; it writes a line to its standard output an utterance."""
    command = [sys.executable, "-m", "corpora.speech_synth", str(folder.absolute())]
    command += ["--utterances", str(utterances), "--seed", str(seed)]
    house = str(Path(__file__).resolve().parents[1])
    paths = [house, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    with tempfile.TemporaryFile(mode="w+", encoding="utf-8", errors="replace") as problems:
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=problems, text=True, env=environment
        ) as process:
            assert process.stdout is not None
            for done, _ in enumerate(process.stdout, start=1):
                if progress is not None:
                    progress(done, utterances)
        if process.returncode != 0:
            problems.seek(0)
            said = problems.read().strip()[-2000:] or "it said nothing"
            raise EmopoolError(
                f"Making the sample corpus failed (status {process.returncode}): {said}"
            )


def generate(folder: Path, *, utterances: int, seed: int) -> None:
    """Speak the corpus into `folder`, in this process; one line to standard output an utterance."""
    lines = design(utterances, seed)
    for name in ("audio", "alignments"):
        (folder / name).mkdir(parents=True)
    rows = []
    with espeak.open_engine(seed=seed) as engine:
        version = engine.version
        for index, line in enumerate(lines):
            speech = engine.say(line.text, line.speaker.voice, line.prosody.delivery)
            chance = np.random.default_rng([seed, index])
            before, after = chance.uniform(*_SILENCE, size=2)
            samples = record(speech, line.prosody, before, after, chance)
            duration = len(samples) / SAMPLE_RATE
            audio, alignment = f"audio/{line.id}.wav", f"alignments/{line.id}.TextGrid"
            soundfile.write(folder / audio, samples, SAMPLE_RATE, subtype="PCM_16")
            tiers = align(line.text, speech, before, duration)
            write_textgrid(folder / alignment, tiers, duration)
            rows.append(_row(line, audio, alignment))
            sys.stdout.write(f"{line.id}\n")
            sys.stdout.flush()
    with (folder / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([COLUMNS, *rows])
    about = {"version": version, "speakers": len(SPEAKERS), "labels": ", ".join(LABELS)}
    parameters = _parameters(utterances, seed)
    write_text(folder / "README.txt", _README.format(**about, **parameters))
    stamp = {"format": "emopool-sample-corpus", "version": 1, "parameters": parameters}
    write_json(folder / STAMP, stamp | {"engine": f"espeak-ng {version}", "synthetic": True})


def _row(line: Line, audio: str, alignment: str) -> tuple[str, ...]:
    speaker = line.speaker
    return (line.id, audio, line.label, speaker.name, speaker.sex, line.text, "en", alignment)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command of the fresh process; problems go to standard error as one message."""
    parser = argparse.ArgumentParser(prog="corpora.speech_synth", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--utterances", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    options = parser.parse_args(arguments)
    try:
        generate(options.folder, utterances=options.utterances, seed=options.seed)
    except (EmopoolError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
