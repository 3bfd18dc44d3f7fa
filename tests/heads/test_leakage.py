"""Recordings in two splits are refused by content; shared sentences are counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from cache.keys import shared_sentences
from cache.lookup import FrameCache
from corpora.base.errors import ManifestError
from corpora.base.work import Work
from corpora.manifest import Manifest
from corpora.utterance import Utterance
from heads.folds import refuse_shared_recordings
from heads.search.search import run_search


def recorded(folder: Path, splits: Sequence[str], contents: Sequence[bytes]) -> list[Utterance]:
    found = []
    for number, (split, content) in enumerate(zip(splits, contents, strict=True)):
        audio = folder / f"take{number}.wav"
        audio.write_bytes(content)
        found.append(
            Utterance(id=f"u{number}", audio=audio, label="anger", split=split, line=number + 2)
        )
    return found


def check(folder: Path, utterances: Sequence[Utterance]) -> None:
    refuse_shared_recordings(utterances, FrameCache(Work(folder)).keys(utterances))


def test_a_copy_in_another_split_is_refused_by_name(tmp_path: Path) -> None:
    utterances = recorded(tmp_path, ["train", "train", "dev"], [b"a", b"b", b"a"])
    with pytest.raises(ManifestError) as caught:
        check(tmp_path, utterances)
    for part in ("'u0' in train (line 2)", "'u2' in dev (line 4)", "take0.wav", "take2.wav"):
        assert part in str(caught.value)
    assert "'u1'" not in str(caught.value)


def test_copies_within_a_split_and_unused_ones_are_allowed(tmp_path: Path) -> None:
    utterances = recorded(tmp_path, ["train", "train", "", "dev"], [b"a", b"a", b"a", b"b"])
    check(tmp_path, utterances)
    utterances.append(replace(utterances[0], id="unlabelled", label="", split="test"))
    check(tmp_path, utterances)


def test_different_segments_of_a_recording_are_different_recordings(tmp_path: Path) -> None:
    first, second = recorded(tmp_path, ["train", "dev"], [b"a", b"a"])
    check(tmp_path, [replace(first, end=1.0), replace(second, start=1.0)])
    with pytest.raises(ManifestError):
        check(tmp_path, [replace(first, start=1.0), replace(second, start=1.0)])


def test_many_pairs_are_counted_and_the_first_are_shown(tmp_path: Path) -> None:
    utterances = recorded(
        tmp_path, ["train"] * 7 + ["test"] * 7, [b"%d" % (k % 7) for k in range(14)]
    )
    with pytest.raises(ManifestError, match=r"^7 recordings.*(?s:.*)and 2 more"):
        check(tmp_path, utterances)


def test_a_search_refuses_before_it_reads_frames_even_with_shared_speakers(tmp_path: Path) -> None:
    utterances = recorded(tmp_path, ["train", "dev"], [b"a", b"a"])
    manifest = Manifest(tuple(utterances), ("anger", "joy"), corpus="toy", shared_speakers=True)
    (tmp_path / "work").mkdir()
    with pytest.raises(ManifestError, match="two splits"):
        run_search(Work(tmp_path / "work"), manifest)


def test_shared_sentences_are_counted_whatever_their_spaces_and_case(tmp_path: Path) -> None:
    texts = ["Hello  there", "Nobody", "hello there ", "Somebody", ""]
    splits = ["train", "train", "dev", "test", "test"]
    utterances = [
        replace(u, text=text)
        for u, text in zip(
            recorded(tmp_path, splits, [b"%d" % k for k in range(5)]), texts, strict=True
        )
    ]
    note = shared_sentences(utterances).to_text()
    assert note.startswith("1 of 2 dev and test utterances")
    assert "one of 1 sentences" in note
    assert shared_sentences([u for u in utterances if u.split != "train"]).to_text() == ""
