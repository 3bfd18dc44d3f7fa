"""The utterance: one labelled stretch of speech, the noun that everything above is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path

from corpora.names import is_plain, is_unknown, plain_name

SPLITS = ("train", "dev", "test")
# In place of a split's name: every utterance, those in no split too.
ALL = "all"
SEXES = ("female", "male")
# What tells utterances, people and classes apart. Paths and texts stay as they are written.
NAMES = ("id", "label", "speaker", "split", "fold", "session", "sex", "language", "corpus")
_names = attrgetter(*NAMES)


@dataclass(frozen=True, slots=True)
class Utterance:
    """One labelled stretch of speech; its names are kept as `corpora.names.plain_name` has them.

    Attributes:
        id: unique within its manifest.
        audio: the recording; absolute in memory, relative to the CSV on disk.
        label: the emotion; "" is unlabelled: it can be predicted, not trained on or scored.
        start: where the utterance begins in the recording, seconds; None is the file's own start.
        end: where it ends, seconds; None is the file's own end.
        text: what is said; "" is an empty text, which is encoded as its special tokens.
        text_source: who wrote the text: "" is the corpus (or a person), else the recogniser's name.
        speaker: "" (or "Unknown", "nan", …) is not known, and never counts as one speaker.
        split: train, dev or test; "" is not used.
        fold: the fold of a cross-validation protocol.
        session: the recording session, where the corpus has such.
        sex: female, male or "".
        language: a BCP-47 tag such as en or de.
        corpus: the corpus it comes from; speakers of different corpora are different people.
        alignment: a TextGrid with its words and phones.
        valence: the mean rating, on the corpus's own scale.
        arousal: the same for arousal (activation).
        dominance: the same for dominance.
        votes: how many raters gave each label.
        line: where it stands in its table (1 is the header), for messages; 0 is nowhere.
    """

    id: str
    audio: Path
    label: str
    start: float | None = None
    end: float | None = None
    text: str = ""
    text_source: str = ""
    speaker: str = ""
    split: str = ""
    fold: str = ""
    session: str = ""
    sex: str = ""
    language: str = ""
    corpus: str = ""
    alignment: Path | None = None
    valence: float | None = None
    arousal: float | None = None
    dominance: float | None = None
    votes: Mapping[str, float] | None = field(default=None, hash=False)
    line: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        """Give every name its one spelling, whoever made the utterance and of whatever."""
        together = "".join(_names(self))
        if not is_plain(together):  # one look at most utterances, of which a corpus has 270,000
            for attribute in NAMES:
                object.__setattr__(self, attribute, plain_name(getattr(self, attribute)))
        if self.votes and not all(map(is_plain, self.votes)):
            votes: dict[str, float] = {}
            for label, count in self.votes.items():
                votes[plain_name(label)] = votes.get(plain_name(label), 0.0) + count
            object.__setattr__(self, "votes", votes)


def split_name(split: str) -> str:
    """Return what a split is called in a sentence: `the test split`, `the whole manifest`."""
    return "the whole manifest" if split == ALL else f"the {split} split"


def speaker_key(utterance: Utterance) -> tuple[str, str] | None:
    """Return what tells speakers apart, (corpus, speaker), or None where the speaker is unknown."""
    if is_unknown(utterance.speaker):
        return None
    return utterance.corpus, utterance.speaker
