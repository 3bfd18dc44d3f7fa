"""What lies in frames and vectors without having been asked for: emotions of a speaker, words.

Emotions of a speaker: k-means on each speaker's own pooled vectors, with as many clusters as the
speaker has emotions, and how well clusters and emotions agree: the adjusted Rand index (Hubert and
Arabie 1985), 1 where they are the same and 0 on average where they have nothing to do with one
another. The null deals each speaker's emotions out anew.

Words: over all occurrences of words, the mean of an occurrence's speech frames X, and of its tokens
in the text encoder Y, by linear CKA (Kornblith et al. 2019, eq. 4), with centred columns

    CKA = ‖Yᵀ X‖² / (‖Xᵀ X‖ ‖Yᵀ Y‖)        (Frobenius norms)

which is 1 where one is the other, turned or scaled, and never 0 in a finite sample: so words dealt
out anew stand beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score

from cache.frames import Frames
from cache.keys import normalise_text
from cache.lookup import FrameCache
from cache.mapped import MappedFrames
from corpora.alignments import Aligned, Alignment, frame_intervals, plain
from corpora.base.errors import MissingStepError
from corpora.base.report import Cell, Figure, Report, Table
from corpora.manifest import Manifest
from explain.finding import Finding, strength, strongest
from explain.picture import BLUE, GREY
from explain.ragged import Floats, Ints, floats
from explain.subject import SPECIAL, WORD_START, Subject
from heads.pretraining import FEWEST_EACH, cluster

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

TITLE = "Structure"
# Times that emotions, or words, are dealt out anew.
DRAWS = 199
# So many occurrences are compared in half a second a layer; more say nothing new.
MOST_WORDS = 1_000
FEWEST_WORDS = 50


@dataclass(frozen=True, eq=False)
class Agreement:
    """A measure, and what it is where nothing is to be found.

    Attributes:
        value: the measure.
        null: `[draws]`.
        count: speakers or words.
    """

    value: float
    null: Floats
    count: int

    @property
    def p(self) -> float:
        """The share of draws that are as high, this one included."""
        return float((1 + (self.null >= self.value).sum()) / (1 + len(self.null)))

    def to_text(self) -> str:
        """Such as `.42 (dealt out anew .00, at most .05; p = .005)`."""
        return (
            f"{self.value:.2f} (dealt out anew {self.null.mean():.2f}, at most "
            f"{self.null.max():.2f}; p = {self.p:.3f})"
        )


def speaker_clusters(
    vectors: Floats, emotions: Ints, speakers: Sequence[str], *, seed: int = 0, draws: int = DRAWS
) -> Agreement | None:
    """The mean adjusted Rand index over speakers; None where no speaker has enough utterances.

    Args:
        vectors: `[n, D]`; each number is scaled to deviation 1 within a speaker.
        emotions: `[n]`, -1 where it is not known.
        speakers: `[n]`, "" where not known.
        seed: of k-means and of the null.
        draws: of the null.
    """
    random = np.random.default_rng(seed)
    found, null = [], []
    for speaker in sorted(set(speakers) - {""}):
        rows = np.array([s == speaker for s in speakers]) & (emotions >= 0)
        _, own, counts = np.unique(emotions[rows], return_inverse=True, return_counts=True)
        kept = counts[own] >= FEWEST_EACH
        own, clusters = own[kept], int((counts >= FEWEST_EACH).sum())
        if clusters < 2:
            continue
        said = cluster(vectors[rows][kept], clusters, seed)
        found.append(adjusted_rand_score(own, said))
        null.append([adjusted_rand_score(random.permutation(own), said) for _ in range(draws)])
    if not found:
        return None
    return Agreement(float(np.mean(found)), np.mean(null, axis=0), len(found))


def _gram(x: Floats) -> Floats:
    """`[n, n]`, products of centred rows, divided by their norm: CKA is the sum of two, multiplied.

    ‖Yᵀ X‖² is the sum of X Xᵀ times Y Yᵀ, so rows dealt out anew need no product of their own.
    """
    x = x - x.mean(axis=0)
    products: Floats = x @ x.T
    norm = np.linalg.norm(products)
    return products / norm if norm > 0 else products


def word_agreement(heard: Floats, read: Floats, *, seed: int = 0, draws: int = DRAWS) -> Agreement:
    """CKA of word vectors in sound and in text, `[n, P]` and `[n, Q]`, and of words dealt anew.

    0 where one of them does not vary.
    """
    random = np.random.default_rng(seed)
    x, y = _gram(heard), _gram(read)
    orders = (random.permutation(len(read)) for _ in range(draws))
    null = [float((x * y[np.ix_(order, order)]).sum()) for order in orders]
    return Agreement(float((x * y).sum()), np.array(null), len(heard))


def structure_section(
    subject: Subject, aligned: Aligned, cache: FrameCache, manifest: Manifest, seed: int = 0
) -> Report:
    """Clusters within speakers, and words by layer.

    Args:
        subject: what is explained.
        aligned: its alignments.
        cache: of the work folder.
        manifest: of its corpus.
        seed: of draws.
    """
    emotions, speakers = subject.targets.numpy(), subject.speakers
    rows: list[list[Cell]] = []
    text: list[str] = []
    data: dict[str, Any] = {}
    findings: list[Finding] = []
    for name, vectors in {} if subject.attribute else subject.vectors.items():
        found = speaker_clusters(floats(vectors), emotions, speakers, seed=seed)
        if found is None:
            continue
        rows.append([name, found.value, float(found.null.mean()), found.p, found.count])
        data[f"{name}_clusters"] = found.value
        reach = 1.96 * float(found.null.std())
        away = strength(found.value, (-reach, reach), float(found.null.mean()))
        told = (
            f"Clusters of each speaker's {name} vectors, found without labels, agree with the "
            f"emotions in part: adjusted Rand index {found.value:.2f} of 1, 0 by chance."
        )
        findings.append(Finding(told, "speaker-clusters", away))
        text.append(
            f"K-means on each speaker's own pooled {name} vectors agrees with the "
            f"emotions by an adjusted Rand index of {found.to_text()}; {found.count} speakers."
        )
    if subject.attribute is not None:
        text.append("Clusters within a speaker are compared with emotions, not with an attribute.")
    elif not rows:
        text.append(
            f"Clusters within a speaker need one with two emotions of {FEWEST_EACH} utterances "
            "each, and there is none."
        )
    columns = ("vectors", "adjusted Rand index", "dealt out anew", "p", "speakers")
    title = "Clusters of each speaker's vectors against the emotions"
    tables = [Table("speaker-clusters", columns, rows, title, 3)] * bool(rows)
    words = _words(subject, aligned, cache, manifest, seed)
    data = {**strongest(findings), **data, **words.data}
    return Report(TITLE, (*text, *tables, *words.parts), data=data)


def _words(
    subject: Subject, aligned: Aligned, cache: FrameCache, manifest: Manifest, seed: int
) -> Report:
    """Words by layer, as a part of the section."""
    if subject.kind != "head" or subject.grid is None:
        return Report("", ())
    try:
        layers, read, skipped = _word_vectors(subject, aligned, cache, manifest, seed)
    except MissingStepError:
        return Report("", ("Words in sound and in text are not compared: the cache lacks one.",))
    count = len(read)
    if count < FEWEST_WORDS:
        return Report(
            "",
            (
                f"Words in sound and in text are not compared: {count} words of the TextGrids are "
                f"in the texts too, {FEWEST_WORDS} are the least.",
            ),
        )
    found = {layer: word_agreement(heard, read, seed=seed) for layer, heard in layers.items()}
    best = max(found, key=lambda layer: found[layer].value - found[layer].null.mean())
    rows: list[list[Cell]] = [
        [layer, one.value, float(one.null.mean()), float(one.null.max()), one.p]
        for layer, one in found.items()
    ]
    text = [
        f"Words in sound and in text: over {count:,} occurrences, means of a word's speech frames "
        f"and of its tokens are most alike in layer {best}, linear CKA {found[best].to_text()}."
    ]
    if skipped:
        text.append(
            f"Left out: {skipped:,} utterances whose TextGrid has other words than the text."
        )
    figures = [_figure(found)] * (len(found) > 1)
    columns = ("layer", "CKA", "dealt out anew", "at most", "p")
    table = Table("word-layers", columns, rows, "Word means of speech frames against text", 3)
    data = {"word_cka": {str(layer): one.value for layer, one in found.items()}}
    return Report("", (*text, *figures, table), data=data)


def _word_vectors(
    subject: Subject, aligned: Aligned, cache: FrameCache, manifest: Manifest, seed: int
) -> tuple[dict[int, Floats], Floats, int]:
    """By layer `[n, P]` of n words, of the same in text `[n, Q]`; and how many do not fit."""
    known = dict(zip((u.id for u in subject.utterances), aligned.alignments, strict=True))
    own = [u for u in subject.utterances if known[u.id] is not None and u.text]
    if not own:
        return {}, np.zeros((0, 1)), 0
    rows = replace(manifest, utterances=tuple(own))
    found = cache.find(rows, ("audio", "text"), others=True, speech=False)
    frames, _ = found.read()
    kinds = cache.companion("text", found)
    if kinds is None:
        return {}, np.zeros((0, 1)), 0
    audio = {**found.others.get("audio", {}), found.layers["audio"]: frames["audio"]}
    offsets = frames["text"].offsets.tolist()
    said: list[tuple[int, int, Ints, Ints]] = []  # utterance, word, frames, tokens
    skipped = 0
    lengths = frames["audio"].lengths.tolist()
    for row, u in enumerate(found.utterances):
        alignment = known[u.id]
        assert alignment is not None
        tokens = _token_words(kinds[offsets[row] : offsets[row + 1]].numpy())
        names = [plain(word) for word in normalise_text(u.text).split()]
        heard = _frame_words(alignment, subject, lengths[row])
        if [plain(one.label) for one in alignment.words] != names or tokens.max() >= len(names):
            skipped += 1
            continue
        for word in range(len(names)):
            places = np.flatnonzero(heard == word), np.flatnonzero(tokens == word)
            if all(map(len, places)):
                said.append((row, word, *places))
    drawn = np.random.default_rng(seed).permutation(len(said))[:MOST_WORDS]
    chosen = [said[k] for k in np.sort(drawn)]
    in_text = _means(frames["text"], [(row, tokens) for row, _, _, tokens in chosen])
    layers = {
        layer: _means(audio[layer], [(row, held) for row, _, held, _ in chosen])
        for layer in sorted(audio)
    }
    return layers, in_text, skipped


def _frame_words(alignment: Alignment, subject: Subject, count: int) -> Ints:
    """`[count]`, the word of each audio frame; -1 for none."""
    times = subject.centre_seconds + subject.hop_seconds * np.arange(count, dtype=np.float64)
    return frame_intervals(alignment.words, times)


def _token_words(kinds: NDArray[np.integer]) -> Ints:
    """`[tokens]`, the word of each token; -1 for a special one. Never none at all."""
    is_word = kinds != SPECIAL
    found = np.cumsum((kinds == WORD_START).astype(np.int64)) - 1
    return np.where(is_word, np.maximum(found, 0), -1) if len(kinds) else np.array([-1])


def _means(frames: Frames | MappedFrames, places: Sequence[tuple[int, Ints]]) -> Floats:
    """`[n, D]`, the mean of some frames of an utterance each; one utterance is read at a time."""
    found, last, values = [], -1, torch.zeros(0)
    for row, own in places:
        if row != last:
            last, values = row, frames.utterance(row).double()
        found.append(values[torch.from_numpy(own)].mean(dim=0))
    return floats(torch.stack(found)) if found else np.zeros((0, 1))


def _figure(found: dict[int, Agreement]) -> Figure:
    def draw(canvas: Canvas) -> None:
        axes = canvas.add_subplot()
        layers = list(found)
        axes.plot(layers, [one.value for one in found.values()], "o-", color=BLUE, label="as said")
        null = [float(one.null.mean()) for one in found.values()]
        axes.plot(layers, null, "o--", color=GREY, label="words dealt out anew")
        axes.set_xticks(layers)
        axes.set(xlabel="layer", ylabel="linear CKA", ylim=(0, None))
        axes.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, 1.14), ncols=2)

    return Figure("word-layers", draw, "Words in sound and in text, by layer", (6.0, 3.4))
