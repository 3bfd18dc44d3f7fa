"""Small faithful corpus folders with invented rows: the real layout, a few files, no real data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.corpora.field_trees import cremad, iemocap, kemdy19, meld, msp_podcast
from tests.corpora.list_trees import audformat, emobox, hf, kaldi, lhotse, nkululeko
from tests.corpora.tree_parts import Expected, write_textgrid, write_wav

__all__ = ["TREES", "Expected", "write_textgrid", "write_wav"]


def emodb(root: Path) -> Expected:
    """Three speakers, all seven emotions, one recording with an alignment, two to be dropped."""
    names = [f"{speaker}a01{letter}a" for speaker in ("03", "08", "16") for letter in "WLEAFTN"]
    for name in names:
        write_wav(root / "wav" / f"{name}.wav")
    write_wav(root / "wav_more" / "11b10Nb.wav")
    write_wav(root / "wav" / "03a01Xa.wav")
    write_wav(root / "wav" / "test.wav")
    write_textgrid(root / "TextGrid" / "03a01Wa.TextGrid")
    (root / "erkennung.txt").write_text("Satz\tErkennung\n", encoding="utf-8")
    return Expected(
        utterances=22,
        labels=("anger", "boredom", "disgust", "fear", "happiness", "sadness", "neutral"),
        speakers=frozenset({"03", "08", "11", "16"}),
        dropped=2,
    )


def ravdess(root: Path) -> Expected:
    """Four actors, all eight emotions, one song and one unknown emotion to be dropped."""
    for actor in ("01", "02", "03", "04"):
        for emotion in range(1, 9):
            name = f"03-01-{emotion:02d}-01-{1 + emotion % 2:02d}-01-{actor}.wav"
            write_wav(root / f"Actor_{actor}" / name)
    write_wav(root / "Actor_01" / "03-02-01-01-01-01-01.wav")
    write_wav(root / "Actor_02" / "03-01-09-01-01-01-02.wav")
    return Expected(
        utterances=32,
        labels=("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised"),
        speakers=frozenset({"01", "02", "03", "04"}),
        dropped=2,
    )


def table(root: Path) -> Expected:
    """A table with the common columns, one foreign column, and one row to be dropped."""
    rows = ["audio,label,speaker,text,start,end,rater"]
    for speaker in ("anna", "ben", "cem"):
        for label in ("calm", "angry"):
            write_wav(root / "clips" / f"{speaker}_{label}.wav")
            rows.append(f'clips/{speaker}_{label}.wav,{label},{speaker},"Yes, {speaker}",0,0.05,7')
    rows.append("clips/anna_calm.wav,calm,anna,backwards,2,1,7")
    (root / "mine.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return Expected(
        utterances=6,
        labels=("angry", "calm"),
        speakers=frozenset({"anna", "ben", "cem"}),
        dropped=1,
    )


def sample(root: Path) -> Expected:
    """The folder of the sample-corpus generator."""
    rows = ["id,audio,label,speaker,sex,text,language,alignment"]
    for number in range(1, 4):
        for label in ("anger", "neutral"):
            name = f"spk0{number}_{label}"
            write_wav(root / "audio" / f"{name}.wav")
            write_textgrid(root / "alignments" / f"{name}.TextGrid")
            rows.append(
                f"{name},audio/{name}.wav,{label},spk0{number},{('male', 'female')[number % 2]},"
                f"It is late.,en,alignments/{name}.TextGrid"
            )
    (root / "metadata.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (root / "README.txt").write_text("SYNTHETIC SPEECH\n", encoding="utf-8")
    return Expected(
        utterances=6,
        labels=("anger", "neutral"),
        speakers=frozenset({"spk01", "spk02", "spk03"}),
    )


def folders(root: Path) -> Expected:
    """Three speakers' folders in two labels' folders, and one recording in no label's."""
    for speaker in ("anna", "ben", "cem"):
        for label in ("calm", "angry"):
            write_wav(root / label / speaker / f"{speaker}_{label}.wav")
    (root / "calm" / "anna" / "anna_calm.txt").write_text("Yes.\n", encoding="utf-8")
    write_textgrid(root / "calm" / "anna" / "anna_calm.TextGrid")
    write_wav(root / "stray.wav")
    return Expected(
        utterances=6,
        labels=("angry", "calm"),
        speakers=frozenset({"anna", "ben", "cem"}),
        dropped=1,
    )


TREES: dict[str, Callable[[Path], Expected]] = {
    "audformat": audformat,
    "cremad": cremad,
    "csv": table,
    "emobox": emobox,
    "emodb": emodb,
    "folders": folders,
    "hf": hf,
    "iemocap": iemocap,
    "kaldi": kaldi,
    "kemdy19": kemdy19,
    "lhotse": lhotse,
    "meld": meld,
    "msp_podcast": msp_podcast,
    "nkululeko": nkululeko,
    "ravdess": ravdess,
    "sample": sample,
}
"""The tree of each registered corpus; a new reader adds one."""
