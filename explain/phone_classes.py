"""What kind of sound a phone label stands for: its set, its class, its stress.

Three sets are known: ARPAbet (CMU dictionary, MFA's English models), IPA (espeak-ng, MFA's other
models) and SAMPA as the labellers of EMO-DB wrote it. Labels of another set stay what they are.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

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
