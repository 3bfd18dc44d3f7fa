"""The picture of one utterance: sound, attention, energy, speech, phones, words, text."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from cache.encoders.grid import SAMPLE_RATE
from corpora.base.report import Figure
from corpora.textgrid import Interval
from explain.item import Item, Sound
from explain.phone_classes import SILENT
from explain.ragged import Floats
from explain.spectrogram import HIGHEST, LOWEST, mel, mel_spectrogram
from explain.style import BLUE, GREEN, GREY, HEAT, LIGHT, ORANGE, PURPLE, RED
from explain.text_panel import draw_text, has_text, literal, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

WIDTH = 9.0
# Inches of each panel.
HEIGHTS = {
    "waveform": 0.8, "spectrogram": 1.5, "attention": 1.1, "heat": 0.25, "saliency": 1.0,
    "energy": 0.9, "words": 0.3, "phones": 0.3, "text": 0.9,
}  # fmt: skip
TICKS = (125, 250, 500, 1000, 2000, 4000, 8000)  # Hz
# Of a file, so that its suffixes and folders have room in 255 bytes.
LONGEST_NAME = 80
# Columns of attention drawn one by one; more are a smear.
MOST_COLUMNS = 16


def file_name(utterance_id: str) -> str:
    """A name for an utterance's files, whatever its id; other ids have other names."""
    plain = re.sub(r"[^\w.+-]+", "_", utterance_id)
    if plain == utterance_id and len(plain) <= LONGEST_NAME:
        return plain
    digest = hashlib.sha256(utterance_id.encode("utf-8")).hexdigest()[:8]
    return f"{plain[:LONGEST_NAME]}-{digest}"


def utterance_figure(item: Item, sound: Sound) -> Figure:
    """The picture; panels for which there is nothing are left out."""
    panels = [name for name in HEIGHTS if _has(name, item, sound)]
    height = sum(HEIGHTS[name] for name in panels) + 0.15 * len(panels) + 0.9
    said = f"label {item.utterance.label}" if item.utterance.label else "no label"
    title = (
        f"{item.utterance.id}: {said}, heard as {item.predicted} (probability "
        f"{item.confidence:.2f})"
    )
    return Figure(
        f"utterance-{file_name(item.utterance.id)}",
        lambda canvas: _draw(canvas, item, sound, panels, title),
        title,
        (WIDTH, height),
    )


def _has(panel: str, item: Item, sound: Sound) -> bool:
    there = {
        "waveform": sound.waveform is not None,
        "spectrogram": sound.waveform is not None,
        "attention": item.attention is not None,
        "heat": item.attention is not None,
        "saliency": bool(sound.saliency),
        "energy": item.energy is not None or item.speech is not None,
        "words": item.alignment is not None and bool(item.alignment.words),
        "phones": item.alignment is not None and bool(item.alignment.phones),
        "text": has_text(item),
    }
    return there[panel]


def _draw(canvas: Canvas, item: Item, sound: Sound, panels: list[str], title: str) -> None:
    canvas.suptitle(shortened(title, 90), fontsize=10)
    if not panels:
        axes = canvas.add_subplot()
        axes.set_axis_off()
        axes.text(0.5, 0.5, "nothing to show", ha="center")
        return
    grid = canvas.add_gridspec(len(panels), 1, height_ratios=[HEIGHTS[p] for p in panels])
    end = _end(item, sound)
    last = next((p for p in reversed(panels) if p != "text"), "")
    for row, panel in enumerate(panels):
        axes = canvas.add_subplot(grid[row])
        if panel == "text":
            draw_text(axes, item)
            continue
        axes.set_xlim(0, end)
        _PANELS[panel](axes, item, sound)
        axes.tick_params(labelbottom=panel == last)
        if panel == last:
            axes.set_xlabel("seconds")


def _end(item: Item, sound: Sound) -> float:
    own = 0.0 if sound.waveform is None else len(sound.waveform) / SAMPLE_RATE
    return max(own, item.seconds) or 1.0


def _draw_waveform(axes: Axes, item: Item, sound: Sound) -> None:
    assert sound.waveform is not None
    times = np.arange(len(sound.waveform)) / SAMPLE_RATE
    axes.plot(times, sound.waveform, color=GREY, lw=0.4, rasterized=True)
    axes.set_yticks([])
    axes.set_ylabel("wave", rotation=0, ha="right", va="center")


def _draw_spectrogram(axes: Axes, item: Item, sound: Sound) -> None:
    assert sound.waveform is not None
    low, high = float(mel(LOWEST)), float(mel(HIGHEST))
    extent = (0.0, len(sound.waveform) / SAMPLE_RATE, low, high)
    levels = mel_spectrogram(sound.waveform)
    axes.imshow(levels, aspect="auto", origin="lower", extent=extent, cmap="Greys")
    axes.set_yticks([float(mel(tick)) for tick in TICKS], [f"{tick:g}" for tick in TICKS])
    axes.tick_params(axis="y", labelsize=6)
    axes.set_xlim(0, _end(item, sound))
    axes.set_ylabel("Hz\n(mel scale)", rotation=0, ha="right", va="center")


def _draw_attention(axes: Axes, item: Item, sound: Sound) -> None:
    """1 is an even attention, so that utterances of any length compare."""
    assert item.attention is not None
    count = len(item.attention)
    if item.columns is not None and 1 < item.columns.shape[1] <= MOST_COLUMNS:
        for column in item.columns.T:
            axes.plot(item.times, column * count, color=LIGHT, lw=0.6)
    axes.plot(item.times, item.attention * count, color=BLUE, lw=1.2)
    axes.axhline(1, color=GREY, lw=0.6, ls="--")
    axes.set_ylim(bottom=0)
    axes.set_ylabel(f"{item.method.replace(' ', chr(10))}\n(1 = even)", rotation=0, ha="right")
    axes.yaxis.label.set_verticalalignment("center")


def _draw_heat(axes: Axes, item: Item, sound: Sound) -> None:
    assert item.attention is not None
    edges = (item.times[0] - item.hop / 2, item.times[-1] + item.hop / 2)
    axes.imshow(item.attention[None, :], aspect="auto", extent=(*edges, 0, 1), cmap=HEAT, vmin=0)
    axes.set_xlim(0, _end(item, sound))
    axes.set_yticks([])


def _draw_saliency(axes: Axes, item: Item, sound: Sound) -> None:
    """Each scaled to its own largest magnitude: their units differ."""
    for (name, values), colour in zip(sound.saliency.items(), (GREEN, RED, PURPLE), strict=False):
        largest = float(np.abs(values).max()) or 1.0
        axes.plot(item.times, values / largest, color=colour, lw=0.9, label=name)
    axes.axhline(0, color=GREY, lw=0.5)
    axes.set_ylim(-1.1, 1.1)
    axes.set_yticks([-1, 0, 1])
    axes.set_ylabel("saliency\n(scaled)", rotation=0, ha="right", va="center")
    axes.legend(fontsize=6, ncols=3, loc="lower right", framealpha=0.7)


def _draw_energy(axes: Axes, item: Item, sound: Sound) -> None:
    if item.speech is not None:
        # Seconds across, shares of the panel upwards.
        upwards = axes.get_xaxis_transform()
        axes.fill_between(
            item.times, 0, item.speech, transform=upwards, color=GREEN, alpha=0.25, lw=0
        )
    if item.energy is not None:
        axes.plot(item.times, item.energy, color=ORANGE, lw=1)
        axes.set_ylim(*_padded(item.energy))
    axes.set_ylabel("energy (dB)\nshade: speech", rotation=0, ha="right", va="center")


def _padded(values: Floats) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    return low - 2, high + 2


def _draw_words(axes: Axes, item: Item, sound: Sound) -> None:
    assert item.alignment is not None
    _draw_tier(axes, item.alignment.words, "words", 7, _end(item, sound))


def _draw_phones(axes: Axes, item: Item, sound: Sound) -> None:
    assert item.alignment is not None
    _draw_tier(axes, item.alignment.phones, "phones", 6, _end(item, sound))


def _draw_tier(
    axes: Axes, intervals: Sequence[Interval], name: str, size: float, end: float
) -> None:
    for number, interval in enumerate(intervals):
        if interval.label.lower() in SILENT:
            continue
        shade = ("0.93", "0.85")[number % 2]
        axes.axvspan(interval.start, interval.end, color=shade, lw=0)
        # About so many letters fit: fewer in a phone of 50 ms than in a word of half a second.
        room = int((interval.end - interval.start) / end * 150 * 6 / size)
        label = shortened(interval.label, max(room, 1))
        middle = (interval.start + interval.end) / 2
        written = axes.text(
            middle, 0.5, literal(label), ha="center", va="center", fontsize=size, clip_on=True
        )
        # A word wider than a very short utterance would leave no room for the panels.
        written.set_in_layout(False)
    axes.set_ylim(0, 1)
    axes.set_yticks([])
    axes.set_ylabel(name, rotation=0, ha="right", va="center")


_PANELS = {
    "waveform": _draw_waveform,
    "spectrogram": _draw_spectrogram,
    "attention": _draw_attention,
    "heat": _draw_heat,
    "saliency": _draw_saliency,
    "energy": _draw_energy,
    "words": _draw_words,
    "phones": _draw_phones,
}
