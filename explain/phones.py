"""Which phones are attended: likelihood ratios, and attention around their onsets.

P(phone | attended) / P(phone), after Leygue et al., Interspeech 2025. Both are counted in frames:
tokens against frames would make long vowels salient by their duration alone.

What kind of sound a phone label stands for: its set, its class, its stress.

Three sets are known: ARPAbet (CMU dictionary, MFA's English models), IPA (espeak-ng, MFA's other
models) and SAMPA as the labellers of EMO-DB wrote it. Labels of another set stay what they are.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from explain.ragged import Bools, Floats, Ints
from heads.bootstrap import bootstrap, cluster_numbers, judge_clusters, known_speakers, t_interval

SILENCE = "(silence)"
UNKNOWN = "spn (unknown word or noise)"
# In lower case: MFA, HTK, Kaldi, MAUS, EMO-DB.
SILENT = frozenset({"", "sil", "sp", "<eps>", "pau", "silence", "_", "<p:>", "<p>", "#", ".", "("})
# MFA: a word that is not in the dictionary, or noise; laughter may be under it.
SPOKEN_NOISE = frozenset({"spn", "<unk>", "unk"})
STRESSES = ("primary stress", "secondary stress", "unstressed")
VOWELS = ("monophthong", "diphthong")
MANNERS = (*VOWELS, "plosive", "affricate", "fricative", "nasal", "approximant")
# A set is taken to be the corpus's where it explains so many of its labelled phones.
ENOUGH = 0.9


@dataclass(frozen=True)
class Phone:
    """What a label says.

    Attributes:
        name: as reports call it.
        manner: one of `MANNERS`; "" where it is not known, or there is no phone.
        stress: one of `STRESSES`; "" for what carries none.
    """

    name: str
    manner: str = ""
    stress: str = ""

    @property
    def kind(self) -> str:
        """`vowel`, `consonant` or ""."""
        if not self.manner:
            return ""
        return "vowel" if self.manner in VOWELS else "consonant"


@dataclass(frozen=True)
class PhoneSet:
    """The phones of a corpus.

    Attributes:
        name: `ARPAbet`, `IPA`, `SAMPA (EMO-DB)`, or "" where the labels belong to no known set.
    """

    name: str

    def phone(self, label: str) -> Phone:
        """What a label says in this set."""
        plain = label.strip()
        if plain.lower() in SILENT:
            return Phone(SILENCE)
        if plain.lower() in SPOKEN_NOISE:
            return Phone(UNKNOWN)
        read = _READERS.get(self.name)
        return (read(plain) if read else None) or Phone(plain)


def find_phone_set(labels: Iterable[str]) -> PhoneSet:
    """The set that explains a corpus's phone labels, tokens counted."""
    counts = Counter(label.strip() for label in labels)
    spoken = {s: count for s, count in counts.items() if s.lower() not in SILENT | SPOKEN_NOISE}
    if not spoken:
        return PhoneSet("")
    for name, read in _READERS.items():
        explained = sum(count for label, count in spoken.items() if read(label) is not None)
        if explained >= ENOUGH * sum(spoken.values()):
            return PhoneSet(name)
    return PhoneSet("")


_ARPABET = {
    "monophthong": "AA AE AH AO AX AXR EH ER IH IX IY UH UW UX",
    "diphthong": "AW AY EY OW OY",
    "plosive": "P B T D K G DX Q",
    "affricate": "CH JH",
    "fricative": "F V TH DH S Z SH ZH HH HV",
    "nasal": "M N NG NX EM EN ENG",
    "approximant": "L R W Y EL WH",
}
_ARPABET_MANNER = {name: manner for manner, names in _ARPABET.items() for name in names.split()}
_ARPABET_LABEL = re.compile(r"([A-Z]{1,3})([012]?)")
_DIGITS = {"1": STRESSES[0], "2": STRESSES[1], "0": STRESSES[2]}


def _arpabet(label: str) -> Phone | None:
    found = _ARPABET_LABEL.fullmatch(label)
    manner = _ARPABET_MANNER.get(found[1], "") if found else ""
    if not found or not manner or (found[2] and manner not in VOWELS):
        return None
    return Phone(label, manner, _DIGITS.get(found[2], ""))


_IPA_VOWELS = frozenset("aeiouyæɐɑɒɔəɘɚɛɜɝɞɤɨɪʉʊʌʏøœɶᵻɯɵ")
_IPA = {
    "plosive": "pbtdkgɡcɟqɢʔʈɖɓɗɠ",
    "fricative": "fvθðszʃʒçʝxɣχʁħʕhɦβɸʂʐɕʑɬɮ",
    "nasal": "mnŋɲɳɴɱ",
    "approximant": "lɫrɹɾʀjwɥʋɭʎʟɻɰʍɽ",
}
_IPA_MANNER = {letter: manner for manner, letters in _IPA.items() for letter in letters}
_SIBILANTS = frozenset("szʃʒfɕʑʂʐçθð")
# Length, syllabicity, voicing, aspiration, tie bars and the like, which change no manner.
_IPA_MARKS = re.compile(r"[ːˑ:̩̯̃̊̚ʰʲʷˠˤ͜͡ʼ̥̪̬̈ⁿ˞\-]")


def _ipa(label: str) -> Phone | None:
    stress = STRESSES[0] if "ˈ" in label else STRESSES[1] if "ˌ" in label else STRESSES[2]
    bare = _IPA_MARKS.sub("", label.replace("ˈ", "").replace("ˌ", ""))
    if not bare or any(c not in _IPA_VOWELS and c not in _IPA_MANNER for c in bare):
        return None
    if bare[0] in _IPA_VOWELS:
        vowels = sum(c in _IPA_VOWELS for c in bare)
        return Phone(label, VOWELS[min(vowels, 2) - 1], stress)
    manner = _IPA_MANNER[bare[0]]
    if manner == "plosive" and len(bare) > 1 and bare[1] in _SIBILANTS:
        manner = "affricate"
    return Phone(label, manner)


_SAMPA_VOWELS = frozenset("aeiouyIEAOUYQ{@269&8")
_SAMPA = {
    "plosive": "pbtdkgq?",
    "fricative": "fvszSZCxXhHDBGT",
    "nasal": "mnNJFM",
    "approximant": "lrRjwLV4",
}
_SAMPA_MANNER = {letter: manner for manner, letters in _SAMPA.items() for letter in letters}
# EMO-DB: `!t` is a burst, `_t` a closure, `tasp` is aspirated, `+…` and `-…` change a feature.
_EMODB_LABEL = re.compile(r"[!_]?(?P<base>.+?)(?:asp)?(?:[+-].*)?")


def _sampa(label: str) -> Phone | None:
    """German SAMPA as in EMO-DB's label files; closure, burst and aspiration count as one phone."""
    found = _EMODB_LABEL.fullmatch(label)
    base = found["base"].replace(":", "") if found else ""
    # Longer ones are whole words or slips of the labellers.
    if not base or len(base) > 2:
        return None
    if base[0] in _SAMPA_VOWELS and all(c in _SAMPA_VOWELS for c in base):
        return Phone(base, VOWELS[len(base) - 1])
    if base[0] == base[-1] and base[0] in _SAMPA_MANNER:  # `nn`: a long one
        return Phone(base[0], _SAMPA_MANNER[base[0]])
    if base in ("pf", "ts", "tS", "dZ"):
        return Phone(base, "affricate")
    return None


# The order decides where labels fit several: ARPAbet has capitals alone, and before SAMPA's
# letters, which mean other sounds, IPA needs none of its capitals.
_READERS = {"ARPAbet": _arpabet, "IPA": _ipa, "SAMPA (EMO-DB)": _sampa}


# One second of a sound on the 20 ms grid: fewer frames say little, whoever spoke them.
MINIMUM_FRAMES = 50
DRAWS = 1000
AROUND_SECONDS = 0.15
# Shifted onsets: enough for a band of their 2.5th to 97.5th percentile.
SHIFTS = 200


@dataclass(frozen=True)
class Ratio:
    """How much more often a phone is attended than it occurs.

    Attributes:
        name: the phone, or a class of phones.
        frames: it has.
        attended: of those attended.
        ratio: P(name | attended) / P(name).
        low: of the 95 % interval over speakers; None where there is none.
        high: the same.
    """

    name: str
    frames: int
    attended: int
    ratio: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Ratios:
    """The ratios of all names with enough frames, the highest first.

    Attributes:
        ratios: highest first.
        rare: names with too few frames.
        note: what to say about the intervals; "" for nothing.
    """

    ratios: tuple[Ratio, ...]
    rare: tuple[str, ...]
    note: str


def likelihood_ratios(
    codes: Ints,
    names: Sequence[str],
    attended: Bools,
    speaker_of: Ints,
    speakers: Sequence[str],
    *,
    minimum: int = MINIMUM_FRAMES,
    draws: int = DRAWS,
) -> Ratios:
    """P(name | attended) / P(name), with a bootstrap over speakers.

    Args:
        codes: `[N]`, numbers into the names; frames at -1 count nowhere.
        names: of phones or classes.
        attended: `[N]`.
        speaker_of: `[N]`, the utterance number of each frame.
        speakers: of each utterance; "" where unknown.
        minimum: names with fewer frames are left out.
        draws: of the bootstrap.
    """
    known = known_speakers(speakers)
    clusters = cluster_numbers(known)[speaker_of]
    used = codes >= 0
    size, count = len(names), int(clusters.max()) + 1
    cells = clusters[used] * size + codes[used]
    every = np.bincount(cells, minlength=count * size).reshape(count, size)
    chosen = np.bincount(cells[attended[used]], minlength=count * size).reshape(count, size)
    tables = np.stack([chosen, every], axis=1)  # [speakers, 2, names]
    tables = tables[tables.sum(axis=(1, 2)) > 0]
    if not len(tables):
        return Ratios((), (), "")
    total = tables.sum(axis=0)
    values = _ratios(total[None].astype(np.float64))[0]
    in_use = sorted({known[i] or f"?{i}" for i in np.unique(speaker_of[used]).tolist()})
    note, worth = judge_clusters([name for name in known if name in in_use or not name])
    low, high = np.full((2, size), np.nan)
    if worth:
        drawn = bootstrap(tables, _ratios, draws=draws)
        for k in range(size):
            # A phone that is missing from a resample says nothing in it.
            if not np.isnan(drawn[:, k]).all():
                low[k], high[k] = t_interval(
                    float(values[k]), drawn[:, k], len(tables), bounds=(0, math.inf)
                )
    found = [
        Ratio(
            names[k],
            int(total[1, k]),
            int(total[0, k]),
            float(values[k]),
            _known(low[k]),
            _known(high[k]),
        )
        for k in range(size)
        if total[1, k] >= max(minimum, 1)
    ]
    rare = tuple(names[k] for k in range(size) if 0 < total[1, k] < minimum)
    return Ratios(tuple(sorted(found, key=lambda r: -r.ratio)), rare, note)


def _ratios(tables: Floats) -> Floats:
    """`[d, 2, P]` counts of attended and of all frames to `[d, P]` ratios."""
    totals = np.maximum(tables.sum(axis=2, keepdims=True), 1.0)
    shares = tables / totals
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio: Floats = shares[:, 0] / shares[:, 1]
    return ratio


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


@dataclass(frozen=True, eq=False)
class Onsets:
    """Attention around phone onsets.

    Attributes:
        lags: `[L]` seconds from the onset.
        observed: `[L]`, mean attention relative to an even one (1).
        low: `[L]`, 2.5th percentile with shifted onsets.
        high: `[L]`, 97.5th percentile.
        count: onsets.
    """

    lags: Floats
    observed: Floats
    low: Floats
    high: Floats
    count: int


def around_onsets(
    weights: Floats,
    offsets: Ints,
    onsets: Sequence[Floats],
    hop: float,
    centre: float,
    *,
    shifts: int = SHIFTS,
    seed: int = 0,
) -> Onsets | None:
    """Average attention within ±150 ms of phone onsets, against shifted onsets.

    All onsets of an utterance are shifted together and around its end, by a random time each draw:
    their number and distances stay. Lags run around the end too, so that every shift is the same
    sum over the circular cross-correlation of onsets and attention. None without onsets.

    Args:
        weights: `[N]`, summing to 1 over each utterance.
        offsets: of the utterances.
        onsets: for each utterance, seconds from its start.
        hop: seconds from one frame to the next.
        centre: of the first frame, seconds.
        shifts: draws.
        seed: of the shifts.
    """
    reach = max(1, int(AROUND_SECONDS / hop + 1e-9))
    lags: Ints = np.arange(-reach, reach + 1)
    sums: list[Floats] = []
    total = 0
    for own, start, end in zip(onsets, offsets[:-1], offsets[1:], strict=True):
        count = int(end - start)
        frames = np.round((np.asarray(own) - centre) / hop).astype(np.int64)
        frames = frames[(frames >= 0) & (frames < count)]
        if len(frames):
            train = np.bincount(frames, minlength=count)
            product = np.conj(np.fft.rfft(train)) * np.fft.rfft(weights[start:end] * count)
            # At k: attention summed over all frames k behind an onset.
            sums.append(np.fft.irfft(product, count))
            total += len(frames)
    if not total:
        return None
    sizes = np.array([len(part) for part in sums])
    starts = np.cumsum(sizes) - sizes
    laid = np.concatenate(sums)

    def mean(shift: Ints) -> Floats:
        at = starts[:, None] + (shift[:, None] + lags[None, :]) % sizes[:, None]
        averaged: Floats = laid[at].sum(axis=0) / total
        return averaged

    random = np.random.default_rng(seed)
    drawn = np.stack([mean(random.integers(0, sizes)) for _ in range(shifts)])
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    observed = mean(np.zeros_like(sizes))
    return Onsets(lags.astype(np.float64) * hop, observed, low, high, total)
