"""What descriptions of cues bring: texts, descriptions and audio through one logistic regression.

Rows are what goes into it: means and deviations of the frames of the text encoder's last layer, of
the audio encoder's usual one, or of both. Every utterance is answered by a regression that never
heard its speaker (`heads.layer_choice.rank_layers`). As a control descriptions are dealt out anew
among the utterances, several times.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import mean

import numpy as np
import torch

from cache.encoders.names import resolve_encoder
from cache.encoders.text_encoder import TextEncoder, load_text_encoder
from cache.keys import text_read
from cache.lookup import FrameCache
from cache.moments import frame_moments
from corpora.base.terminal import aligned
from corpora.manifest import Manifest, Utterance
from heads.layer_choice import LayerScore, Vectors, rank_layers


def description_scores(
    cache: FrameCache, manifest: Manifest, encoder: str, seeds: Sequence[int]
) -> dict[str, tuple[LayerScore, ...]]:
    """Macro-F1 over held-out speakers by what is read; of the control one score a seed.

    Args:
        cache: with audio frames.
        manifest: with texts and descriptions.
        encoder: the text encoder, see `resolve_encoder`.
        seeds: of the control.
    """
    rows = [u for u in manifest.utterances if u.label]
    text = load_text_encoder(resolve_encoder(encoder, "text", cache.root))
    layer = cache.extraction.source("audio").usual_layer
    audio = torch.cat(cache.moments(rows, "audio", layer), dim=1).numpy()
    anew = [dealt_anew(rows, seed) for seed in seeds]
    inputs: dict[str, list[Sequence[Vectors]]] = {"text": [(_read(text, rows, ""),)]}
    for name, describe in (("text + description", "append"), ("description", "only")):
        inputs[name] = [(_read(text, rows, describe),)]
        inputs[f"{name}, dealt anew"] = [(_read(text, own, describe),) for own in anew]
    inputs["audio"] = [(audio,)]
    for name, of in (("audio + text", "text"), ("all", "text + description")):
        inputs[name] = [(audio, *own) for own in inputs[of]]
    dealt = inputs["text + description, dealt anew"]
    inputs["all, dealt anew"] = [(audio, *own) for own in dealt]
    found = {}
    for name, several in inputs.items():
        columns = [np.concatenate(own, axis=1) for own in several]
        found[name] = rank_layers(range(len(columns)), columns.__getitem__, rows)[0]
    return found


def score_lines(found: Mapping[str, tuple[LayerScore, ...]]) -> list[str]:
    """A table."""
    table = [("reads", "macro-F1", "95 %, over speakers")]
    for name, scores in found.items():
        bounds = scores[0].interval if len(scores) == 1 else None
        interval = "" if bounds is None else "{:.3f} to {:.3f}".format(*bounds)
        table.append((name, f"{mean(one.macro_f1 for one in scores):.3f}", interval))
    return aligned(table, right=(1,))


def dealt_anew(rows: Sequence[Utterance], seed: int) -> list[Utterance]:
    """The same with every description at an utterance drawn by chance."""
    order = np.random.default_rng(seed).permutation(len(rows))
    said = [rows[k].description for k in order]
    return [replace(u, description=own) for u, own in zip(rows, said, strict=True)]


def _read(encoder: TextEncoder, rows: Sequence[Utterance], describe: str) -> Vectors:
    """`[n, 2 D]`, mean and deviation of what the encoder makes of each utterance's text."""
    texts = [text_read(u, describe) for u in rows]
    with torch.no_grad():
        one = {t: frame_moments(encoder([t], [encoder.layers])[encoder.layers]) for t in set(texts)}
    return torch.cat([one[text].flatten(1) for text in texts]).numpy()
