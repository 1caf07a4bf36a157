"""Receptive fields on screen: the summary, the layers, and what each rho adds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from rfkeras.receptive_field.arithmetic import AxisField
from rfkeras.receptive_field.explain import RhoStep, mel_share
from rfkeras.receptive_field.result import LayerField, ReceptiveField
from rfkeras.receptive_field.units import SpectrogramScale

_PLACES_HZ = (250.0, 1000.0, 4000.0)  # where the height of the field is told in Hz


def summary_table(field: ReceptiveField) -> Table:
    """What one position sees, in pixels and in physical units, on both axes."""
    time, frequency, scale = field.time, field.frequency, field.scale
    table = _table("", *field.axes)
    columns = len(field.axes)

    def add(name: str, *cells: str) -> None:
        table.add_row(name, *cells[:columns])

    units = ("pixels", "pixels") if scale is None else ("frames", "mel bands")
    add("receptive field", _pixels(time, units[0]), _pixels(frequency, units[1]))
    if scale is not None:
        add(
            "in units",
            "" if time is None else f"{scale.ms(time.size):,.0f} ms of audio",
            f"{_percent(frequency, scale)} of the {scale.n_mels} bands",
        )
    if scale is not None and frequency is not None:
        for centre_hz in _PLACES_HZ:
            if centre_hz < scale.sample_rate_hz / 2:
                add("", "", _span_around(centre_hz, frequency.size, scale))
    if time is not None or frequency is not None:
        hop_ms = None if scale is None else scale.hop_ms
        add("step", _step(time, units[0], hop_ms), _step(frequency, units[1], None))
        add("first window", _first(time), _first(frequency))
    return table


def layer_table(
    layers: Sequence[LayerField], axes: Sequence[str], scale: SpectrogramScale | None
) -> Table:
    """A row for each layer: size, step and first pixel of its field, time x frequency."""
    units = () if scale is None else ("ms", "mel")
    table = _table("layer", "kind", "RF", *units, "step", "first", "note")
    for row in layers:
        fields = (row.time, row.frequency)[: len(axes)]
        physical: tuple[str, ...] = ()
        if scale is not None:
            physical = (_ms(row.time, scale), _percent(row.frequency, scale))
        table.add_row(
            row.name,
            row.kind,
            _joined("all" if f is None else str(f.size) for f in fields),
            *(physical if row.in_pixels else [""] * len(physical)),
            _joined("-" if f is None else str(f.jump) for f in fields),
            _joined("-" if f is None else str(f.start) for f in fields),
            row.note,
        )
    return table


def rho_table(
    steps: Sequence[RhoStep], scale: SpectrogramScale | None, chosen: Sequence[int]
) -> Table:
    """A row for each rho; those of the model at hand are marked."""
    units = () if scale is None else ("ms", "mel")
    table = _table("rho", "RF", *units, "added", "layer made wider", "parameters", "added")
    for step in steps:
        physical: tuple[str, ...] = ()
        if scale is not None:
            share = mel_share(step.frequency, scale)
            physical = (
                "all" if step.time is None else f"{scale.ms(step.time):,.0f}",
                f"{100 * share:.0f} %",
            )
        table.add_row(
            f"{step.rho}{' *' if step.rho in chosen else '  '}",
            "all" if step.time is None else str(step.time),
            *physical,
            f"+{step.added[0]}" if step.layers else "",
            ", ".join(step.layers),
            "" if step.parameters is None else f"{step.parameters:,}",
            "" if step.added_parameters is None else f"+{step.added_parameters:,}",
        )
    return table


def _table(*headings: str) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for heading in headings:
        right = heading in ("RF", "ms", "mel", "step", "first", "rho", "added", "parameters")
        table.add_column(
            heading, justify="right" if right else "left", no_wrap=right, overflow="fold"
        )
    return table


def _joined(cells: Iterable[str]) -> str:
    """One cell of both axes, "135 x 87", or of what they have in common."""
    different = list(cells)
    return different[0] if len(set(different)) == 1 else " x ".join(different)


def _pixels(field: AxisField | None, unit: str) -> str:
    return "without limit" if field is None else f"{field.size} {unit}"


def _ms(field: AxisField | None, scale: SpectrogramScale) -> str:
    return "all" if field is None else f"{scale.ms(field.size):,.0f}"


def _percent(field: AxisField | None, scale: SpectrogramScale) -> str:
    return f"{100 * mel_share(None if field is None else field.size, scale):.0f} %"


def _span_around(centre_hz: float, bands: int, scale: SpectrogramScale) -> str:
    low, high = scale.hz_span(*scale.bands_around(centre_hz, bands))
    return f"around {centre_hz:,.0f} Hz: {low:,.0f} to {high:,.0f} Hz"


def _step(field: AxisField | None, unit: str, hop_ms: float | None) -> str:
    if field is None:
        return ""
    ms = "" if hop_ms is None else f" ({float(field.jump) * hop_ms:,.0f} ms)"
    return f"{field.jump} {unit}{ms}"


def _first(field: AxisField | None) -> str:
    if field is None:
        return ""
    first, stop = field.window(0)
    return f"{first} to {stop - 1}"
