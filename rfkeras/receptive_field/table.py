"""A receptive field in words: one line, and a table of all layers."""

from __future__ import annotations

from collections.abc import Sequence

from rfkeras.receptive_field.field import AxisField
from rfkeras.receptive_field.result import (
    FREQUENCY,
    LayerField,
    ReceptiveField,
    hz_span,
)
from rfkeras.receptive_field.units import SpectrogramScale

NUMBERS = ("size", "jump", "start")
UNLIMITED, ABSENT, UNKNOWN = "all", "-", ""


def summary(rf: ReceptiveField) -> str:
    """One line: sizes, units, and of what."""
    parts = [f"{_pair(rf.axes, rf.time, rf.frequency, 'size')} pixels"]
    span = rf.hz_span()
    if rf.time_ms is not None:
        parts.append(f"{rf.time_ms:.0f} ms")
    if span is not None:
        bands = "all" if rf.mel_bands is None else str(rf.mel_bands)
        parts.append(f"{bands} mel bands, {span[0]:.0f} to {span[1]:.0f} Hz in the middle")
    where = f"at {rf.pooled_by!r}, which pools" if rf.pooled_by else f"at {rf.layer!r}"
    return f"receptive field {'; '.join(parts)}; {where}"


def table(rf: ReceptiveField) -> str:
    """A line for each layer, under headings; then a line for the model, and its notes."""
    headings = ["layer", "kind", "RF", "jump", "start"]
    rows = [
        [
            row.name,
            row.kind,
            *(_pair(rf.axes, row.time, row.frequency, what) for what in NUMBERS),
        ]
        for row in rf.layers
    ]
    if rf.scale is not None:
        headings += ["ms", "Hz"]
        for row, cells in zip(rf.layers, rows, strict=True):
            cells += _units(row, rf.scale, rf.axes)
    headings.append("note")
    for row, cells in zip(rf.layers, rows, strict=True):
        cells.append(row.note)
    title = "time x frequency" if FREQUENCY in rf.axes else "time"
    lines = [f"{title}, in pixels", *_aligned([headings, *rows]), "", str(rf)]
    return "\n".join([*lines, *(f"- {note}" for note in rf.notes)])


def _pair(
    axes: Sequence[str], time: AxisField | None, frequency: AxisField | None, name: str
) -> str:
    fields = (time, frequency) if FREQUENCY in axes else (time,)
    return " x ".join(
        (UNLIMITED if name == "size" else ABSENT) if f is None else str(getattr(f, name))
        for f in fields
    )


def _units(row: LayerField, scale: SpectrogramScale, axes: tuple[str, ...]) -> list[str]:
    """Milliseconds, and the frequencies of the position in the middle."""
    if not row.in_pixels:
        return [UNKNOWN, UNKNOWN]
    span = hz_span(scale, row.frequency, axes, row.positions[1])
    return [
        ABSENT if row.time is None else f"{scale.ms(row.time.size):.1f}",
        UNKNOWN if span is None else f"{span[0]:.0f} to {span[1]:.0f}",
    ]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines in columns; the last is as wide as it needs to be."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
