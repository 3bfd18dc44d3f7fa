from __future__ import annotations

from pathlib import Path

import pytest

from corpora.base.errors import CorpusError
from corpora.readers.cremad import SENTENCES
from corpora.readers.options import leaders
from corpora.readers.registry import Options, ReadResult, read_corpus
from tests.corpora.field_trees import CREMAD_TABLE, cremad_rows
from tests.corpora.tree_parts import write_lines, write_wav

REAL = Path(__file__).parents[2].parent / "shared" / "data" / "crema-d-labels"
needs_data = pytest.mark.skipif(not REAL.is_dir(), reason=f"no tables at {REAL}")
NAME = "1001_TIE_ANG_HI"


def tables(root: Path, voice: str, both: str = "0,0,0,5,0,0", name: str = NAME) -> Path:
    """Write the votes on one clip."""
    lines = [CREMAD_TABLE, *cremad_rows(name, 1, voice, both)]
    write_lines(root / "processedResults" / "tabulatedVotes.csv", lines)
    return root


def read(root: Path, options: Options | None = None) -> ReadResult:
    return read_corpus("cremad", root, options)


def test_the_name_tells_actor_sentence_and_emotion(tmp_path: Path) -> None:
    wav = write_wav(tmp_path / "AudioWAV" / f"{NAME}.wav")
    (utterance,) = read(tmp_path).utterances
    assert (utterance.id, utterance.audio, utterance.speaker) == (NAME, wav, "1001")
    assert (utterance.label, utterance.language) == ("anger", "en")
    assert utterance.text == "That is exactly what happened."
    assert utterance.votes is None


@pytest.mark.parametrize(
    ("source", "label", "votes"),
    [
        ("intended", "anger", {"sad": 4.0, "disgust": 1.0}),
        ("voice", "sad", {"sad": 4.0, "disgust": 1.0}),
        ("multimodal", "happy", {"happy": 5.0}),
    ],
)
def test_the_source_chooses_label_and_votes(
    tmp_path: Path, source: str, label: str, votes: dict[str, float]
) -> None:
    (utterance,) = read(tables(tmp_path, "0,1,0,0,0,4"), {"label_source": source}).utterances
    assert (utterance.label, utterance.votes) == (label, votes)


def test_a_tied_vote_is_dropped_or_its_first_label_taken(tmp_path: Path) -> None:
    root = tables(tmp_path, "0,2,2,0,0,0")
    result = read(root, {"label_source": "voice"})
    assert result.utterances == ()
    assert "the voice vote ties" in result.dropped[0].reason
    (utterance,) = read(root, {"label_source": "voice", "ties": "first"}).utterances
    assert utterance.label == "disgust"


def test_without_recordings_the_clips_are_listed_and_said_to_be_absent(tmp_path: Path) -> None:
    result = read(tables(tmp_path, "1,0,0,0,0,0"))
    assert [u.audio for u in result.utterances] == [tmp_path / "AudioWAV" / f"{NAME}.wav"]
    assert any("1 of 1 clips have no recording" in note for note in result.notes)


def test_without_votes_a_vote_cannot_be_the_label(tmp_path: Path) -> None:
    write_wav(tmp_path / f"{NAME}.wav")
    with pytest.raises(CorpusError, match=r"no processedResults/tabulatedVotes\.csv.*intended"):
        read(tmp_path, {"label_source": "voice"})


def test_a_name_that_leads_outside_is_no_clip(tmp_path: Path) -> None:
    root = tables(tmp_path, "1,0,0,0,0,0", name="../../1001_TIE_ANG_HI")
    write_wav(root / f"{NAME}.wav")
    result = read(root)
    assert [u.audio.parent for u in result.utterances] == [root]
    assert result.dropped[0].reason.startswith("not named like")


def test_a_vote_that_is_no_number_names_its_line(tmp_path: Path) -> None:
    write_wav(tmp_path / f"{NAME}.wav")
    (dropped,) = read(tables(tmp_path, "1,0,x,0,0,0")).dropped
    assert dropped.where == "processedResults/tabulatedVotes.csv:2"


def test_the_twelve_sentences_are_known() -> None:
    assert len(SENTENCES) == 12


@needs_data
def test_the_real_votes_agree_with_the_acted_emotion_as_published() -> None:
    result = read(REAL)
    assert len(result.utterances) == 7442
    assert all(u.votes and u.text for u in result.utterances)
    best = [leaders(u.votes or {}, result.labels) for u in result.utterances]
    same = sum(b == (u.label,) for b, u in zip(best, result.utterances, strict=True))
    assert round(same / 7442, 3) == 0.416
    assert sum(len(labels) > 1 for labels in best) == 644
    assert any("in 41.6% of 7,442 clips; 644 ties" in note for note in result.notes)
    assert {u.sex for u in result.utterances} == {"female", "male"}
    assert len({u.speaker for u in result.utterances}) == 91


@needs_data
def test_the_real_votes_of_those_who_saw_agree_more() -> None:
    result = read(REAL, {"label_source": "multimodal"})
    assert len(result.utterances) == 7442 - 420
    assert any("in 72.2% of 7,442 clips; 420 ties" in note for note in result.notes)
