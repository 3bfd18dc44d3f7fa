"""Which analyses the report holds, in its order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from corpora.manifest import Manifest
from corpora.work import Work
from explain.alignments import Aligned
from explain.cues.section import CueConfig, cues_section
from explain.faithfulness.curves import CurveConfig
from explain.faithfulness.section import faithfulness_section
from explain.localisation_section import localisation_section
from explain.phones_section import phones_section
from explain.probing.section import ProbingConfig, probing_section
from explain.section import Section
from explain.subject import Subject
from explain.words_section import words_section


@dataclass(frozen=True, eq=False)
class Context:
    """What analyses may read.

    Attributes:
        subject: what is explained.
        aligned: the TextGrids of its utterances.
        manifest: all utterances of the corpus, other splits too.
        work: the work folder, with the cache.
        attended: share of the mass that attended frames hold; None is the top frame.
        seed: wherever chance decides.
        show_progress: whether to draw progress bars.
    """

    subject: Subject
    aligned: Aligned
    manifest: Manifest
    work: Work
    attended: float | None
    seed: int = 0
    show_progress: bool = False


def _localisation(context: Context) -> Section:
    return localisation_section(context.subject)


def _phones(context: Context) -> Section:
    return phones_section(context.subject, context.aligned, context.attended)


def _words(context: Context) -> Section:
    texts = [u.text for u in context.manifest.utterances]
    return words_section(context.subject, context.aligned, texts)


def _cues(context: Context) -> Section:
    config = CueConfig(share=context.attended, seed=context.seed, progress=context.show_progress)
    return cues_section(context.subject, context.work, config)


def _faithfulness(context: Context) -> Section:
    config = CurveConfig(seed=context.seed, progress=context.show_progress)
    return faithfulness_section(context.subject, config)


def _probing(context: Context) -> Section:
    config = ProbingConfig(seed=context.seed, progress=context.show_progress)
    return probing_section(context.subject, context.work, context.manifest, config)


ANALYSES: tuple[Callable[[Context], Section], ...] = (
    _localisation,
    _faithfulness,
    _phones,
    _words,
    _cues,
    _probing,
)
