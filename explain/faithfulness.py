"""Faithfulness in the report: curves, what attention gains over its rivals, and a verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from corpora.base.report import Cell, Figure, Report, Table
from explain.curves import (
    ATTENTION,
    ENERGY,
    EXCHANGED,
    GRADIENTS,
    RANDOM,
    SHARES,
    UNTRAINED,
    CurveConfig,
    Curves,
    Gain,
    dropping_tells,
    find_gains,
    shown,
    verdict,
)
from explain.deletion import Attributions, frame_curves
from explain.occlusion import OcclusionConfig, occlude, occlusion_table, occlusion_text
from explain.picture import BLUE, GREEN, GREY, ORANGE, PURPLE, RED
from explain.pooled import has_captum
from explain.ragged import interval_note
from explain.subject import Subject
from explain.trust import FAITHFULNESS
from finetune.model import EmotionModel

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas


LOOKS = {
    ATTENTION: (BLUE, "-"),
    GRADIENTS: (PURPLE, "-"),
    ENERGY: (ORANGE, "-"),
    UNTRAINED: (GREEN, "--"),
    EXCHANGED: (RED, "--"),
    RANDOM: (GREY, ":"),
}
INTRODUCTION = (
    "Deletion drops the frames that an order puts first and watches the probability of the "
    "predicted class; insertion keeps only those. The area is the mean probability along the "
    "curve: good orders have a low one under deletion and a high one under insertion."
)


def faithfulness_section(
    subject: Subject,
    config: CurveConfig | None = None,
    model: EmotionModel | None = None,
    occlusion: OcclusionConfig | None = None,
) -> Report:
    """Curves and verdict for each modality the head reads; occlusion where encoders are at hand.

    Args:
        subject: what is explained.
        config: of the curves.
        model: the subject's, or its head on the encoders its frames came from; None leaves
            occlusion out.
        occlusion: its settings.
    """
    config = config or CurveConfig()
    name = subject.weighing
    text = [
        f"{INTRODUCTION} Exchanged {name} is that of another utterance, drawn at random, at the "
        f"same relative place within speech: it keeps how {name} follows itself in time and where "
        "in an utterance it lies, and loses what it points to."
    ]
    if subject.saliency:
        text.append(
            "Frames are in the order of signed saliency: first those that speak most for the "
            "answer, last those that speak most against it."
        )
    note = interval_note(subject.speakers)
    if note:
        text.append(note[0].upper() + note[1:] + ".")
    if not has_captum():
        text.append(
            "Integrated gradients are left out: captum is not installed "
            "(pip install 'emopool[explain]')."
        )
    tables: list[Table] = []
    figures: list[Figure] = []
    summary: dict[str, Any] = {}
    attributions: Attributions = {}
    for modality in subject.frames:
        curves = frame_curves(subject, modality, config, attributions)
        gains = find_gains(curves, [subject.speakers[row] for row in curves.rows])
        method = subject.methods[modality]
        text += _sentences(subject, curves, gains, note)
        tables += [_area_table(curves, method), _gain_table(modality, gains, method)]
        figures.append(_figure(curves, method))
        summary[modality] = {
            "utterances": len(curves.rows),
            "verdict": verdict(gains, method, note),
            "dropping_tells": dropping_tells(gains, method),
            "gains": [gain.to_json() for gain in gains],
        }
    if "audio" in subject.frames and model is None:
        text.append(
            "Audio occlusion is left out: it passes every recording through the encoder hundreds "
            "of times (--occlusion N does so for N utterances)."
        )
    elif "audio" in subject.frames and model is not None:
        found = occlude(subject, model, occlusion or OcclusionConfig())
        text += occlusion_text(subject, found)
        tables.append(occlusion_table(subject, found))
        summary["occlusion"] = {
            f"{fill} {seconds:g} s": float(np.nanmean(values)) if held else None
            for (seconds, fill), values in found.agreement.items()
            for held in [not np.isnan(values).all()]
        }
    return Report(FAITHFULNESS, (*text, *figures, *tables), data=summary)


def _sentences(subject: Subject, curves: Curves, gains: list[Gain], note: str) -> list[str]:
    name, method = curves.modality.capitalize(), subject.methods[curves.modality]
    lines = [f"{name}. {verdict(gains, method, note)}"]
    if len(curves.rows) < len(subject):
        lines.append(
            f"{name}: {len(curves.rows):,} of {len(subject):,} utterances, drawn at random, "
            "because this pooling has to be computed anew for every choice of frames."
        )
    if GRADIENTS in curves.deletion:
        count = int((~np.isnan(curves.deletion[GRADIENTS][:, 0])).sum())
        lines.append(
            f"{name}: integrated gradients on {count:,} utterances drawn at random, with "
            f"{method} compared on the same ones."
        )
    known = curves.agreement[~np.isnan(curves.agreement)]
    fresh = gains[-1]
    rank = f"{known.mean():.2f}" if len(known) else "not known"
    lines.append(
        f"{name}, parameter randomisation (Adebayo et al. 2018): the order of a head that was "
        f"never trained has a rank correlation of {rank} with the trained one's, and its gain "
        f"over {shown(EXCHANGED, method)} is {fresh.deletion} under deletion, {fresh.insertion} "
        "under insertion; one that is clearly above 0 would mean that such a gain says nothing "
        "about what was learnt."
    )
    lengths = subject.frames[curves.modality].lengths.numpy()[curves.rows]
    short = int((lengths * SHARES[0] < 1).sum())
    if short:
        lines.append(
            f"{name}: {short:,} utterances have fewer than {1 / SHARES[0]:.0f} frames; their "
            "curves have fewer steps, and at least one frame always stays."
        )
    return lines


def _area_table(curves: Curves, method: str) -> Table:
    rows: list[list[Cell]] = []
    for name in (name for name in LOOKS if name in curves.deletion):
        deletion, insertion = curves.deletion_area(name), curves.insertion_area(name)
        held = ~np.isnan(deletion)
        means = float(deletion[held].mean()), float(insertion[held].mean())
        rows.append([shown(name, method), int(held.sum()), *means])
    return Table(
        f"faithfulness-areas-{curves.modality}",
        ("order", "utterances", "deletion area (lower is better)", "insertion area (higher)"),
        rows,
        f"{curves.modality.capitalize()}: areas under the curves of the predicted class",
    )


def _gain_table(modality: str, gains: list[Gain], method: str) -> Table:
    rows: list[list[Cell]] = []
    for gain in gains:
        cells: list[Cell] = []
        for mean in (gain.deletion, gain.insertion):
            cells += [mean.value if mean.count else None, mean.low, mean.high]
        shares = [None if np.isnan(share) else share for share in gain.wins]
        names = shown(gain.order, method), shown(gain.rival, method)
        rows.append([*names, gain.deletion.count, *cells, *shares])
    return Table(
        f"faithfulness-gains-{modality}",
        (
            "order", "against", "utterances",
            "deletion", "low", "high", "insertion", "low ", "high ",
            "better in (deletion)", "better in (insertion)",
        ),
        rows,
        f"{modality.capitalize()}: how much better an order's area is (95 % over speakers)",
    )  # fmt: skip


def _figure(curves: Curves, method: str) -> Figure:
    return Figure(
        f"faithfulness-{curves.modality}",
        lambda canvas: draw_curves(canvas, curves, method),
        f"Deletion and insertion of {curves.modality} frames",
        (8.0, 3.8),
    )


def draw_curves(canvas: Canvas, curves: Curves, method: str = ATTENTION) -> None:
    """Both curves side by side, one line an order: means over the utterances that have it."""
    left, right = canvas.subplots(1, 2, sharey=True)
    for name, (colour, line) in LOOKS.items():
        if name not in curves.deletion:
            continue
        held = ~np.isnan(curves.deletion[name][:, 0])
        whole = float(curves.whole[held].mean())
        gone = [whole, *curves.deletion[name][held].mean(axis=0)]
        come = [*curves.insertion[name][held].mean(axis=0), whole]
        some = "" if held.all() else f" ({int(held.sum())} utterances)"
        label = f"{shown(name, method)}{some}"
        width = 2.2 if name == ATTENTION else 1.3
        percent = [100 * share for share in (0.0, *SHARES, 1.0)]
        left.plot(percent[:-1], gone, line, color=colour, lw=width, marker=".", label=label)
        right.plot(percent[1:], come, line, color=colour, lw=width, marker=".", label=label)
    left.set(
        xlabel="frames dropped, first in order (%)",
        ylabel="probability of the predicted class",
        title="Deletion (lower is better)",
    )
    right.set(xlabel="frames kept, first in order (%)", title="Insertion (higher is better)")
    canvas.legend(
        *right.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize="small"
    )
