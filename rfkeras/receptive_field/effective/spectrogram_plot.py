"""A spectrogram as the ground of a picture."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap

from rfkeras.plot_style import INK, bare
from rfkeras.receptive_field.effective.field import FloatArray
from rfkeras.receptive_field.units import SpectrogramScale

_TICKS_HZ = (50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000)
_SHOWN_PERCENTILES = (25, 99.5)  # of the spectrogram's pixels, from white to the darkest
_LOUDEST = "#5A5A5A"  # not black, so that what is drawn over it is seen


def draw_spectrogram(axes: Axes, pixels: FloatArray, scale: SpectrogramScale | None) -> None:
    """Draw a spectrogram in grey, pixel i from i - 0.5 to i + 0.5 on both axes.

    Args:
        axes: To draw on; ticks are seconds and Hz where the units are known.
        pixels: (frames, mel bands), in dB or standardised.
        scale: The spectrogram's units; None if they are not known.
    """
    bare(axes)
    low, high = np.percentile(pixels, _SHOWN_PERCENTILES)
    axes.imshow(
        pixels.T,
        origin="lower",
        aspect="auto",
        cmap=LinearSegmentedColormap.from_list("loudness", ["white", _LOUDEST]),
        vmin=low,
        vmax=max(high, low + 1e-6),
    )
    frames, bands = pixels.shape
    axes.set_xlim(-0.5, frames - 0.5)
    axes.set_ylim(-0.5, bands - 0.5)
    if scale is None:
        axes.set_xlabel("frame", fontsize=9.5, color=INK)
        axes.set_ylabel("band", fontsize=9.5, color=INK)
        return
    seconds = _round_steps(scale.time_s(frames - 1), 10)
    axes.set_xticks([s * 1000 / scale.hop_ms for s in seconds], [f"{s:g}" for s in seconds])
    shown: dict[int, float] = {}
    for hz in reversed(_TICKS_HZ):
        at = scale.band_of_hz(hz)
        if 0 <= at <= bands - 1 and at < min(shown.values(), default=2 * bands) - bands / 30:
            shown[hz] = at
    axes.set_yticks(list(shown.values()), [f"{hz:,}" for hz in shown])
    axes.set_xlabel("time (s)", fontsize=9.5, color=INK)
    axes.set_ylabel("frequency (Hz, mel scale)", fontsize=9.5, color=INK)


def _round_steps(end: float, most: int) -> FloatArray:
    """Multiples of 1, 2 or 5 times a power of ten from 0 to the end, at most that many."""
    power = 10.0 ** math.floor(math.log10(end / most))
    step = next(power * s for s in (1, 2, 5, 10) if end / (power * s) <= most)
    return np.arange(0.0, end + 1e-9 * end, step)
