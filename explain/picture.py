"""The picture of one utterance: sound, attention, energy, speech, phones, words, text."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cache.encoders.grid import FBANK_HOP, FBANK_WINDOW, SAMPLE_RATE
from corpora.base.report import Figure
from corpora.textgrid import Interval
from explain.item import Item, Sound
from explain.phones import SILENT
from explain.ragged import Floats
from explain.subject import Reading

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas


# Told apart by people with any colour vision (Okabe and Ito 2008).
BLUE, ORANGE, GREEN, RED, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7"
GREY, LIGHT = "0.45", "0.85"
BY_MODALITY = {"audio": BLUE, "text": ORANGE, "video": PURPLE}
HEAT = "magma"


BANDS = 64
LOWEST, HIGHEST = 50.0, 8000.0  # Hz
RANGE_DB = 70.0
_FFT = 512


def mel(hertz: Floats | float) -> Floats:
    """Hz to mel (O'Shaughnessy 1987)."""
    converted: Floats = 2595.0 * np.log10(1.0 + np.asarray(hertz, dtype=np.float64) / 700.0)
    return converted


def mel_spectrogram(waveform: NDArray[np.float32]) -> Floats:
    """`[bands, T]` in dB below the loudest, not below −70; 25 ms windows every 10 ms.

    A recording shorter than a window is filled up with zeros.
    """
    padded = np.pad(waveform, (0, max(0, FBANK_WINDOW - len(waveform))))
    windows = np.lib.stride_tricks.sliding_window_view(padded, FBANK_WINDOW)[::FBANK_HOP]
    power = np.abs(np.fft.rfft(windows * np.hanning(FBANK_WINDOW), _FFT)) ** 2
    levels = 10 * np.log10(np.maximum(power @ _filters().T, 1e-12)).T
    shown: Floats = np.maximum(levels - levels.max(), -RANGE_DB)
    return shown


def _filters() -> Floats:
    """`[bands, bins]`, triangles that are evenly spaced in mel."""
    bins = np.arange(_FFT // 2 + 1) * SAMPLE_RATE / _FFT
    at = mel(bins)[None, :]
    edges = np.linspace(float(mel(LOWEST)), float(mel(HIGHEST)), BANDS + 2)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (at - low) / (middle - low), (high - at) / (high - middle)
    triangles: Floats = np.clip(np.minimum(rising, falling), 0, None)
    # A narrow band between two bins would be empty: it takes the nearest bin.
    empty = np.flatnonzero(triangles.sum(axis=1) == 0)
    triangles[empty, np.abs(at - middle[empty]).argmin(axis=1)] = 1.0
    return triangles


SHADES = (ORANGE, "#B97A00")
LONGEST_LABEL = 40
# Labels that stand side by side; more are turned.
SIDE_BY_SIDE = 14


def has_text(item: Item) -> bool:
    """Whether there is something to draw."""
    return bool(item.reading.words) if item.reading is not None else item.tokens is not None


def draw_text(axes: Axes, item: Item) -> None:
    """A bar for each token, 1 = even, those of a word side by side and the word below.

    Where it is not known which tokens are words, their positions stand below.
    """
    if item.reading is not None:
        _draw_text_words(axes, item.reading)
    elif item.tokens is not None:
        _draw_positions(axes, item.tokens)
    axes.axhline(1, color=GREY, lw=0.6, ls="--")
    axes.yaxis.label.set(rotation=0, horizontalalignment="right", verticalalignment="center")


def _draw_text_words(axes: Axes, reading: Reading) -> None:
    tokens = [t for word in reading.words for t in word.tokens]
    total = sum(tokens) or 1.0
    left = 0
    ticks = []
    for number, word in enumerate(reading.words):
        count = len(word.tokens)
        places = np.arange(left, left + count)
        heights = np.array(word.tokens) / total * len(tokens)
        axes.bar(places, heights, 0.9, color=SHADES[number % 2])
        ticks.append((left + (count - 1) / 2, literal(shortened(word.text, LONGEST_LABEL))))
        left += count
    axes.set_xticks([t for t, _ in ticks], [n for _, n in ticks], fontsize=7)
    if left > SIDE_BY_SIDE:
        axes.tick_params(axis="x", labelrotation=45)
    axes.set_xlim(-0.6, left - 0.4)
    axes.set_ylabel(f"tokens\n(1 = even;\n{reading.special:.0%} on\nspecial)")


def _draw_positions(axes: Axes, tokens: Floats) -> None:
    axes.bar(np.arange(1, len(tokens) + 1), tokens * len(tokens), 0.9, color=ORANGE)
    axes.set_xlim(0.4, len(tokens) + 0.6)
    axes.set_xlabel("position of the token: which word it is of is not in the cache", fontsize=7)
    axes.set_ylabel("tokens\n(1 = even)")


def literal(text: str) -> str:
    """Text as it is: a dollar sign would begin mathematics."""
    return text.replace("$", r"\$")


def shortened(text: str, most: int) -> str:
    """A text of at most so many letters, an ellipsis for the rest."""
    return text if len(text) <= most else f"{text[: max(most - 1, 1)]}…"


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
    if item.answer:
        title = f"{item.utterance.id}: {item.answer}"
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
    for name, (times, own) in item.beside.items():
        axes.plot(times, own * len(own), color=BY_MODALITY[name], lw=1.0, label=name)
    if item.beside:
        _legend_above(axes)
    axes.axhline(1, color=GREY, lw=0.6, ls="--")
    axes.set_ylim(bottom=0)
    axes.set_ylabel(f"{item.method.replace(' ', chr(10))}\n(1 = even)", rotation=0, ha="right")
    axes.yaxis.label.set_verticalalignment("center")


def _draw_heat(axes: Axes, item: Item, sound: Sound) -> None:
    assert item.attention is not None
    edges = np.append(item.times - item.hop / 2, item.times[-1] + item.hop / 2)
    axes.pcolormesh(edges, [0, 1], item.attention[None, :], cmap=HEAT, vmin=0, rasterized=True)
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
    _legend_above(axes)


def _legend_above(axes: Axes) -> None:
    """A legend that covers no curve."""
    place = {"loc": "lower right", "bbox_to_anchor": (1.0, 0.97), "borderaxespad": 0.0}
    axes.legend(fontsize=6, ncols=3, frameon=False, **place)


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
