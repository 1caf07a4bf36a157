"""Checks on a drawn figure: pixels of a colour, and overlapping text."""

from __future__ import annotations

import itertools

import matplotlib as mpl
import numpy as np


def has_colour(image: np.ndarray, colour: str) -> int:
    """Return the number of pixels with exactly this colour."""
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((np.round(image[..., :3] * 255) == wanted).all(axis=-1).sum())


def texts_overlap(figure) -> list[tuple[str, str]]:
    """Return the pairs of texts whose boxes overlap, and the texts that leave the figure."""
    renderer = figure.canvas.get_renderer()
    figure.draw(renderer)
    texts = [
        text
        for text in figure.findobj(mpl.text.Text)
        if text.get_visible() and text.get_text().strip()
    ]
    # Ticks beyond the ends of an axis exist but are not drawn.
    hidden = {
        label
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in axis.get_major_ticks()
        for label in (tick.label1, tick.label2)
        if not min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
    }
    boxes = [
        (text.get_text(), text.get_window_extent(renderer).padded(-0.5))
        for text in texts
        if text not in hidden
    ]
    frame = figure.bbox
    outside = [
        (name, "figure")
        for name, box in boxes
        if box.x0 < frame.x0 or box.y0 < frame.y0 or box.x1 > frame.x1 or box.y1 > frame.y1
    ]
    return outside + [
        (one, other)
        for (one, box), (other, second) in itertools.combinations(boxes, 2)
        if box.overlaps(second)
    ]
