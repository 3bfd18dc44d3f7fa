"""What the tests of the explanations share: a searched work folder with alignments; made once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import soundfile

from cache.encoders.names import resolve_encoder
from corpora.base.work import Work
from corpora.manifest import Manifest, write_manifest
from corpora.textgrid import Interval, fill_gaps, write_textgrid
from tests.finetune.corpus import extract_tiny, make_corpus
from tests.finetune.searched import add_search

SCRIPT = "<script>document.title='stolen'</script> & more"


@dataclass(frozen=True, eq=False)
class Explained:
    """A work folder with a searched head; not to be changed by a test but below `explain`.

    Attributes:
        work: the folder.
        manifest: of tones; in `test` one utterance has no TextGrid, one a broken one, and one a
            text that is markup. No `test` utterance is labelled neutral.
    """

    work: Work
    manifest: Manifest


@pytest.fixture(scope="session")
def explained(tmp_path_factory: pytest.TempPathFactory) -> Explained:
    root = tmp_path_factory.mktemp("explained")
    for kind in ("audio", "text"):
        resolve_encoder("tiny", kind, root)
    plain = make_corpus(tmp_path_factory.mktemp("corpus"), 24)
    utterances = []
    for u in plain.utterances:
        split = "train" if u.split == "test" and u.label == "neutral" else u.split
        utterances.append(replace(u, split=split, alignment=_align(u.audio)))
    tested = [number for number, u in enumerate(utterances) if u.split == "test"]
    utterances[tested[0]] = replace(utterances[tested[0]], text=SCRIPT)
    utterances[tested[1]] = replace(utterances[tested[1]], alignment=None)
    broken = utterances[tested[2]].alignment
    assert broken is not None
    broken.write_text("no TextGrid at all", encoding="utf-8")
    manifest = replace(plain, utterances=tuple(utterances), shared_speakers=True)
    work = Work(root)
    write_manifest(manifest, work.manifest)
    extract_tiny(work, manifest, "float16")
    add_search(work, manifest, {"kind": "mqmha", "queries": 2, "heads": 2})
    return Explained(work, manifest)


def _align(audio: Path) -> Path:
    seconds = soundfile.info(audio).duration
    third = seconds / 3
    phones = [Interval(0.05, third, "AA1"), Interval(third, 2 * third, "spn")]
    phones.append(Interval(2 * third, seconds - 0.03, "S"))
    tiers = {
        "words": fill_gaps([Interval(0.05, 2 * third, "stop")], seconds, ""),
        "phones": fill_gaps(phones, seconds, "sil"),
    }
    path = audio.with_suffix(".TextGrid")
    write_textgrid(path, tiers, seconds)
    return path
