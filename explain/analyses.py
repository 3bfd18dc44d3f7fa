"""Which analyses the report holds, in its order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from corpora.base.report import Section
from corpora.base.work import Work
from corpora.manifest import Manifest
from explain.alignments import Aligned
from explain.config import ExplainConfig
from explain.cues.section import CueConfig, cues_section
from explain.faithfulness.curves import CurveConfig
from explain.faithfulness.occlusion import OcclusionConfig
from explain.faithfulness.section import faithfulness_section
from explain.localisation_section import localisation_section
from explain.phones_section import phones_section
from explain.probing.section import ProbingConfig, probing_section
from explain.subject import Subject
from explain.words_section import words_section
from finetune.model import EmotionModel


@dataclass(frozen=True, eq=False)
class Context:
    """What analyses may read.

    Attributes:
        subject: what is explained.
        aligned: the TextGrids of its utterances.
        manifest: all utterances of the corpus, other splits too.
        work: the work folder, with the cache.
        config: the options.
        model: for occlusion: the subject's encoders with its head; None leaves it out.
        show_progress: whether to draw progress bars.
    """

    subject: Subject
    aligned: Aligned
    manifest: Manifest
    work: Work
    config: ExplainConfig
    model: EmotionModel | None = None
    show_progress: bool = False


def _localisation(context: Context) -> Section:
    return localisation_section(context.subject)


def _phones(context: Context) -> Section:
    return phones_section(context.subject, context.aligned, context.config.attended)


def _words(context: Context) -> Section:
    texts = [u.text for u in context.manifest.utterances]
    return words_section(context.subject, context.aligned, texts)


def _cues(context: Context) -> Section:
    asked = context.config
    config = CueConfig(asked.cues, asked.attended, asked.seed, context.show_progress)
    return cues_section(context.subject, context.work, config)


def _faithfulness(context: Context) -> Section:
    asked = context.config
    config = CurveConfig(seed=asked.seed, progress=context.show_progress)
    occlusion = OcclusionConfig(
        limit=asked.occlusion, seed=asked.seed, progress=context.show_progress
    )
    return faithfulness_section(context.subject, config, context.model, occlusion)


def _probing(context: Context) -> Section:
    asked = context.config
    config = ProbingConfig(asked.cues, seed=asked.seed, progress=context.show_progress)
    return probing_section(context.subject, context.work, context.manifest, config)


#: By name, in the report's order.
ANALYSES: Mapping[str, Callable[[Context], Section]] = {
    "localisation": _localisation,
    "faithfulness": _faithfulness,
    "phones": _phones,
    "words": _words,
    "cues": _cues,
    "probing": _probing,
}
