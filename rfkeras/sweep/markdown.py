"""The sweep's summary as Markdown tables."""

from __future__ import annotations

from collections.abc import Sequence

from rfkeras.sweep.results import Point


def markdown_tables(points: Sequence[Point]) -> str:
    """A table for each test: receptive fields down, variants across.

    Of each variant the mean over seeds, with the lowest and the highest of them, and the
    difference to its largest receptive field, with the 95 % interval.
    """
    return "\n".join(
        _table(test, [point for point in points if point.test == test])
        for test in dict.fromkeys(point.test for point in points)
    )


def _table(test: str, points: Sequence[Point]) -> str:
    variants = list(dict.fromkeys(point.variant for point in points))
    cells = {(point.variant, point.rho): point for point in points}
    head = ["rho", "RF (pixels)", "RF (s)"]
    for variant in variants:
        head += [f"{variant}: mAP (seeds)", f"{variant}: less largest RF (95 %)"]
    lines = [f"**{test}**", "", _row(head), _row(["---"] * len(head))]
    for rho in dict.fromkeys(point.rho for point in points):
        any_variant = next(point for point in points if point.rho == rho)
        sizes = dict.fromkeys((any_variant.rf_time_pixels, any_variant.rf_frequency_pixels))
        row = [rho, " x ".join(map(str, sizes)), f"{any_variant.rf_time_ms / 1000:.2f}"]
        for variant in variants:
            row += _cells(cells.get((variant, rho)))
        lines.append(_row(row))
    return "\n".join(lines) + "\n"


def _cells(point: Point | None) -> list[str]:
    if point is None:
        return ["", ""]
    figure = f"{point.mAP:.3f} ({point.seed_lowest:.3f}-{point.seed_highest:.3f})"
    if point.is_largest:
        return [figure, ""]
    low, high = point.difference_low, point.difference_high
    return [figure, f"{point.difference:+.3f} ({low:+.3f} to {high:+.3f})"]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
