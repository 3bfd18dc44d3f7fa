"""Fixture trees of the field's corpora: the real layouts, invented rows."""

from __future__ import annotations

from pathlib import Path

from tests.corpora.tree_parts import Expected, write_lines, write_textgrid, write_wav

ATTRIBUTES = ("valence", "arousal", "dominance")
CREMAD_TABLE = '"","A","D","F","H","N","S","fileName","numResponses","agreement","emoVote"'
MELD_HEADER = (
    "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,"
    "StartTime,EndTime"
)
MSP_HEADER = "FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set"
# Ten raters in the published tables; two are enough to count.
KEMDY19_UPPER = "Numb,Wav,,ECG,,E4-EDA,,E4-TEMP,,Segment ID,Total Evaluation,,,Eval01F,,,Eval02M,,"
KEMDY19_LOWER = (
    ",start,end,start,end,start,end,start,end,,Emotion,Valence,Arousal,Emotion,Valence,Arousal,"
    "Emotion,Valence,Arousal"
)


def cremad_rows(name: str, number: int, voice: str, both: str) -> list[str]:
    """Return the rows of one clip: votes on voice, face and both, as six counts each."""
    return [
        f'"{digit}{number:05d}",{votes},"{name}",10,0.5,"A"'
        for digit, votes in (("1", voice), ("2", "0,0,0,0,9,1"), ("3", both))
    ]


def cremad(root: Path) -> Expected:
    """Three actors with six emotions; the table has one row that cannot be read."""
    rows = [CREMAD_TABLE]
    for speaker in ("1001", "1002", "1003"):
        for number, emotion in enumerate(("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")):
            name = f"{speaker}_IEO_{emotion}_XX"
            write_wav(root / "AudioWAV" / f"{name}.wav")
            rows += cremad_rows(name, number, "4,3,0,0,1,0", "0,0,0,9,1,0")
    rows.append('"100099",1,2,3')
    write_lines(root / "processedResults" / "tabulatedVotes.csv", rows)
    people = ["ActorID,Age,Sex,Race,Ethnicity", "1001,51,Male,?,?", "1002,21,Female,?,?"]
    write_lines(root / "VideoDemographics.csv", people)
    return Expected(
        utterances=18,
        labels=("anger", "disgust", "fear", "happy", "neutral", "sad"),
        speakers=frozenset({"1001", "1002", "1003"}),
        dropped=1,
    )


def iemocap_turn(turn: str, code: str, *raters: str) -> list[str]:
    """Return what EmoEvaluation says of one turn."""
    return [
        f"[1.0000 - 2.5000]\t{turn}\t{code}\t[2.5000, 3.0000, 3.5000]",
        *(f"C-E{n}:\t{names}\t()" for n, names in enumerate(raters, 2)),
        "C-F1:\tFear;\t()",
        "A-E3:\tval 3; act 2; dom  2;\t()",
        "",
    ]


def iemocap(root: Path) -> Expected:
    """Three sessions of two speakers with five turns each; one turn without agreement each."""
    for session in (1, 2, 3):
        dialog = f"Ses{session:02d}F_impro01"
        base = root / f"Session{session}"
        lines = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]", ""]
        spoken = []
        for sex in "FM":
            for number, code in enumerate(("ang", "hap", "exc", "sad", "neu")):
                turn = f"{dialog}_{sex}{number:03d}"
                lines += iemocap_turn(turn, code, "Anger; Frustration;", "Excited;")
                spoken.append(f"{turn} [001.0000-002.5000]: Some words {number}.")
                write_wav(base / "sentences" / "wav" / dialog / f"{turn}.wav")
        lines += iemocap_turn(f"{dialog}_M009", "xxx", "Anger;", "Sadness;")
        spoken += ["M: a remark", f"{dialog}_MXX0 [002.0000-002.5000]: Hm."]
        write_lines(base / "dialog" / "EmoEvaluation" / f"{dialog}.txt", lines)
        write_lines(base / "dialog" / "EmoEvaluation" / f"._{dialog}.txt", ["\0"])
        rated = base / "dialog" / "EmoEvaluation" / "Categorical" / f"{dialog}_e2_cat.txt"
        write_lines(rated, [f"{dialog}_F000 :Anger; ()"])
        write_lines(base / "dialog" / "transcriptions" / f"{dialog}.txt", spoken)
    return Expected(
        utterances=30,
        labels=("ang", "hap", "sad", "neu"),
        speakers=frozenset(f"Ses0{session}{sex}" for session in (1, 2, 3) for sex in "FM"),
        dropped=3,
        scales=dict.fromkeys(ATTRIBUTES, (1.0, 5.0)),
    )


def kemdy19_row(segment: str, emotion: str, first: str = "angry", second: str = "sad") -> str:
    """Return one row of an annotation table."""
    signals = "1.0,2.0," * 4
    return f"1,{signals}{segment},{emotion},2.5,3.1,{first},2,3,{second},3,4"


def kemdy19(root: Path) -> Expected:
    """Three sessions; each table lists both speakers, one segment ties, one is named wrongly."""
    for session in ("01", "02", "03"):
        dialog = f"Sess{session}_impro01"
        rows = []
        for sex in "FM":
            for number, emotion in enumerate(("angry", "happy", "disqust"), 1):
                name = f"{dialog}_{sex}{number:03d}"
                rows.append(kemdy19_row(name, emotion))
                wav = write_wav(root / "wav" / f"Session{session}" / dialog / f"{name}.wav")
                encoding = "cp949" if sex == "F" else "utf-8"
                write_lines(wav.with_suffix(".txt"), [f"괜찮아 {number}"], encoding)
        rows += [kemdy19_row(f"{dialog}_F009", "angry;sad"), kemdy19_row("nowhere", "sad")]
        for sex in "FM":
            table = root / "annotation" / f"Session{session}_{sex}_res.csv"
            write_lines(table, [KEMDY19_UPPER, KEMDY19_LOWER, *rows], "utf-8-sig")
    return Expected(
        utterances=18,
        labels=("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise"),
        speakers=frozenset(f"Sess0{session}{sex}" for session in (1, 2, 3) for sex in "FM"),
        dropped=9,
        scales=dict.fromkeys(("valence", "arousal"), (1.0, 5.0)),
    )


def meld(root: Path) -> Expected:
    """The same dialogue numbers in each split, one speaker in all; one row cannot be read."""
    folders = {"train": "train_splits", "dev": "dev_splits_complete", "test": "output_splits_test"}
    emotions = ("anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise")
    for split, folder in folders.items():
        rows = [MELD_HEADER]
        for number, emotion in enumerate(emotions):
            speaker = "Monica" if number else f"Waiter {split}"
            rows.append(
                f'{number},"Oh, it\x92s {number}!",{speaker},{emotion},negative,0,{number},'
                '8,21,"00:16:16,059","00:16:21,731"'
            )
            write_wav(root / folder / f"dia0_utt{number}.wav")
        rows.append("8,No numbers,Monica,joy,positive,x,y,8,21,a,b")
        write_lines(root / f"{split}_sent_emo.csv", rows)
    return Expected(
        utterances=21,
        labels=emotions,
        speakers=frozenset({"Monica", *(f"Waiter {split}" for split in folders)}),
        dropped=3,
    )


def msp_podcast(root: Path) -> Expected:
    """Three sets with two speakers each, all eight emotions, O and X, and a blind Test3."""
    rows = [MSP_HEADER]
    ratings = ["FileName,WorkerID,EmoClass_Major,EmoClass_Second,EmoAct,EmoVal,EmoDom"]
    for number, part in enumerate(("Train", "Development", "Test1", "Test2")):
        for index, code in enumerate("ASHUFDCNOX"):
            name = f"MSP-PODCAST_900{number}_{index:04d}"
            speaker = "Unknown" if index == 7 else 10 * number + index % 2
            sex = "Unknown" if index == 7 else "Male"
            rows.append(f"{name}.wav,{code},3.2,4.777778,5.0,{speaker},{sex},{part}")
            ratings.append(f'{name}.wav,WORKER1,Angry,"Angry,Concerned",4,3,4')
            write_wav(root / "Audios" / f"{name}.wav")
            write_lines(root / "Transcripts" / f"{name}.txt", [f"Well, {part}."])
            write_textgrid(root / "ForceAligned" / f"{name}.TextGrid")
    rows.append("MSP-PODCAST_9000_0099.wav,Q,3,3,3,1,Male,Train")
    partitions = []
    for index in range(2):
        name = f"MSP-PODCAST_test3_{index:04d}"
        write_wav(root / "Audios" / f"{name}.wav")
        partitions.append(f"Test3; {name}.wav")
    write_lines(root / "Labels" / "labels_consensus.csv", rows)
    write_lines(root / "Labels" / "labels_detailed.csv", ratings)
    write_lines(root / "Partitions.txt", partitions)
    return Expected(
        utterances=26,
        labels=("angry", "sad", "happy", "surprise", "fear", "disgust", "contempt", "neutral"),
        speakers=frozenset({"", *(str(10 * n + k) for n in range(3) for k in range(2))}),
        dropped=17,
        scales=dict.fromkeys(ATTRIBUTES, (1.0, 7.0)),
    )
