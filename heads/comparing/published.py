"""The published figures: macro-F1 of Leygue et al., Interspeech 2025, Tables 1 and 2.

They come from another corpus (MSP-Podcast, 8 classes) with full encoders and all three training
phases. They stand beside a comparison on frozen frames to be looked at, not to be beaten.
"""

from __future__ import annotations

from dataclasses import dataclass

#: What has to stand over the column of these figures.
CAVEAT = "another corpus, three-phase protocol"
SOURCE = "Leygue et al., Interspeech 2025 (MSP-Podcast, 8 classes; development and hidden test set)"


@dataclass(frozen=True)
class Figures:
    """Published macro-F1.

    Attributes:
        dev: on the published development set.
        test: on the published test set; None where it was not given.
    """

    dev: float
    test: float | None = None

    def __str__(self) -> str:
        both = [self.dev] if self.test is None else [self.dev, self.test]
        first, *rest = [f"{value:.4f}".removeprefix("0") for value in both]
        return first + "".join(f" ({value})" for value in rest)


#: Table 2, by the name of the pooling.
POOLINGS = {
    "average": Figures(0.3559),
    "max": Figures(0.3418),
    "statistics": Figures(0.3623),
    "AS": Figures(0.3884, 0.3649),
    "SA": Figures(0.3416),
    "MHA": Figures(0.3829),
    "MQMHA 2/2": Figures(0.3912),
    "MQMHA 2/4": Figures(0.3675),
    "MQMHA 4/4": Figures(0.3514),
}
#: Table 1, average pooling, by what is read.
MODALITIES = {
    "audio": Figures(0.2921),
    "text": Figures(0.3174),
    "audio+text": Figures(0.3559),
}
