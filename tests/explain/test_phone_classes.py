"""Phone labels of the three known sets, and of others."""

from __future__ import annotations

import pytest

from explain.phones import SILENCE, UNKNOWN, PhoneSet, find_phone_set

ARPABET, IPA, SAMPA = "ARPAbet", "IPA", "SAMPA (EMO-DB)"


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        (ARPABET, ["AA1", "S", "T", "IY0", "spn", "sil"]),
        (IPA, ["ˈɑː", "s", "t", "ɪ", "", "spn"]),
        (SAMPA, ["a", "!t", "_d", "tasp", "I", "N", "aI", "6", "@", "("]),
        ("", ["x1", "#7", "k2k", "Ω"]),
        ("", []),
        ("", ["sil", "spn"]),
    ],
)
def test_the_set_is_told_by_its_labels(name: str, labels: list[str]) -> None:
    assert find_phone_set(labels).name == name


@pytest.mark.parametrize(
    ("name", "label", "manner", "stress"),
    [
        (ARPABET, "AW1", "diphthong", "primary stress"),
        (ARPABET, "AH0", "monophthong", "unstressed"),
        (ARPABET, "IY2", "monophthong", "secondary stress"),
        (ARPABET, "CH", "affricate", ""),
        (ARPABET, "NG", "nasal", ""),
        (IPA, "ˈaɪ", "diphthong", "primary stress"),
        (IPA, "ˌiː", "monophthong", "secondary stress"),
        (IPA, "ɚ", "monophthong", "unstressed"),
        (IPA, "tʃ", "affricate", ""),
        (IPA, "t͡ʃ", "affricate", ""),
        (IPA, "ŋ", "nasal", ""),
        (IPA, "pʰ", "plosive", ""),
        (IPA, "ɹ", "approximant", ""),
        (SAMPA, "!t", "plosive", ""),
        (SAMPA, "kasp", "plosive", ""),
        (SAMPA, "OY", "diphthong", ""),
        (SAMPA, "nn", "nasal", ""),
        (SAMPA, "S", "fricative", ""),
        (SAMPA, "I+:", "monophthong", ""),
    ],
)
def test_manner_and_stress(name: str, label: str, manner: str, stress: str) -> None:
    phone = PhoneSet(name).phone(label)
    assert (phone.manner, phone.stress) == (manner, stress)
    assert phone.kind == ("vowel" if "phthong" in manner else "consonant")


def test_closure_burst_and_aspiration_are_one_phone_in_emodb() -> None:
    names = {PhoneSet(SAMPA).phone(label).name for label in ("t", "!t", "_t", "tasp", "tasp+sth")}
    assert names == {"t"}


@pytest.mark.parametrize("name", [ARPABET, IPA, SAMPA, ""])
def test_silence_and_noise_are_no_phones(name: str) -> None:
    for label in ("", "sil", "SP", "<eps>"):
        assert PhoneSet(name).phone(label).name == SILENCE
    assert PhoneSet(name).phone("spn").name == UNKNOWN
    assert PhoneSet(name).phone("spn").kind == ""


def test_labels_of_no_known_set_stay_plain() -> None:
    phone = PhoneSet("").phone("k2k")
    assert (phone.name, phone.manner) == ("k2k", "")
