"""Measure how time grows with batch size, length, width, rho and replicas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.network import FRAMES, N_MELS
from benchmarks.suite import Row, Section, Settings
from benchmarks.turns import Side, take_turns
from rfkeras.utils.plotting import BLUE, ORANGE, new_figure, save_png, style_axes

BASE: Mapping[str, int] = {"batch": 10, "frames": FRAMES, "width": 32, "rho": 7, "replicas": 1}
AXES: Mapping[str, tuple[int, ...]] = {
    "batch": (1, 2, 5, 10, 20),
    "frames": (108, 216, 431, 862, 1723),
    "width": (8, 16, 32, 64, 128),
    "rho": (0, 3, 7, 12, 22),
    "replicas": (1, 2),
}
SHORT_BASE: Mapping[str, int] = {**BASE, "batch": 2, "frames": 43, "width": 4, "rho": 1}
PICTURE = "scaling.png"
PARTS = ("training", "inference")
COLOURS = {"training": BLUE, "inference": ORANGE}

TEXT = f"""
One setting at a time is varied, starting from width {BASE["width"]}, rho {BASE["rho"]}, batch
size {BASE["batch"]} and {BASE["frames"]} frames (10 s), in float32 and without the front-end.
"growth" is the exponent p in time ~ size^p between the previous row and this one: 1 means
proportional, 0 constant. Replicas are logical devices on the same processors that share one
batch.
"""


@dataclass
class Curve:
    """Times of training steps or of inference along one axis."""

    part: str
    axis: str
    values: list[int] = field(default_factory=list)
    milliseconds: list[float] = field(default_factory=list)
    peak_mb: list[float] = field(default_factory=list)


def measure(settings: Settings) -> Section:
    """Measure the curves of training and inference."""
    base = SHORT_BASE if settings.short else BASE
    axes = {"batch": (1, 2)} if settings.short else AXES
    parts = PARTS[:1] if settings.short else PARTS
    curves = [
        _curve(settings, part, axis, values, base)
        for axis, values in axes.items()
        for part in parts
        if part == "training" or axis != "replicas"
    ]
    rows = [row for curve in curves for row in _rows(curve)]
    plot_curves([c for c in curves if c.axis != "replicas"], settings.folder / PICTURE)
    caption = "Milliseconds of a training step and of inference along each axis"
    return Section("Scaling", TEXT.strip(), rows, pictures={PICTURE: caption})


def _curve(
    settings: Settings, part: str, axis: str, values: tuple[int, ...], base: Mapping[str, int]
) -> Curve:
    sides = {str(value): _side(part, {**base, axis: value}) for value in values}
    times = take_turns(sides, threads=settings.threads, rounds=settings.rounds, calls=2)
    curve = Curve(part, axis)
    for name, measured in times.items():
        curve.values.append(int(name))
        curve.milliseconds.append(measured.median)
        curve.peak_mb.append(measured.peak_mb)
    return curve


def _side(part: str, point: Mapping[str, int]) -> Side:
    arguments: dict[str, Any] = {
        "rho": point["rho"],
        "width": point["width"],
        "shape": [point["batch"], point["frames"], N_MELS],
    }
    if part == "training":
        arguments["replicas"] = point["replicas"]
    return Side(f"benchmarks.keras_sides:{part}", arguments)


def _rows(curve: Curve) -> list[Row]:
    return [
        {
            "what": curve.part,
            "varied": curve.axis,
            "value": value,
            "ms": curve.milliseconds[i],
            "growth": _growth(curve, i),
            "peak MB": round(curve.peak_mb[i]),
        }
        for i, value in enumerate(curve.values)
    ]


def _growth(curve: Curve, i: int) -> float | None:
    if i == 0 or curve.values[i - 1] == 0:
        return None
    ratio = curve.milliseconds[i] / curve.milliseconds[i - 1]
    return float(np.log(ratio) / np.log(curve.values[i] / curve.values[i - 1]))


def plot_curves(curves: list[Curve], path: Path) -> None:
    """Plot one panel per axis, logarithmic except for rho; dotted lines are proportional."""
    axes = list(dict.fromkeys(curve.axis for curve in curves))
    figure = new_figure(3.0 * len(axes), 3.0)
    panels = figure.subplots(1, len(axes), squeeze=False)[0]
    for panel, axis in zip(panels, axes, strict=True):
        style_axes(panel)
        for curve in (c for c in curves if c.axis == axis):
            colour, style = COLOURS[curve.part], {"linewidth": 1, "linestyle": ":"}
            panel.plot(
                curve.values, curve.milliseconds, "o-", color=colour, label=curve.part, ms=3
            )
            if axis != "rho":
                line = curve.milliseconds[-1] * np.array(curve.values) / curve.values[-1]
                panel.plot(curve.values, line, color=colour, **style)
        panel.set_yscale("log")
        panel.set_xlabel(axis)
        if axis != "rho":
            panel.set_xscale("log")
        panel.set_xticks(curve.values, [str(value) for value in curve.values])
        panel.minorticks_off()
    panels[0].set_ylabel("ms")
    panels[0].legend(frameon=False, fontsize=8)
    figure.tight_layout()
    save_png(figure, path)
