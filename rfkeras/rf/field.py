"""What `receptive_field(model)` returns: the field of every layer, and of the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rfkeras.frontend.presets import SpectrogramScale
from rfkeras.rf.axis import AxisField

Positions = tuple[int | None, int | None]

TIME, FREQUENCY = "time", "frequency"


@dataclass(frozen=True)
class LayerField:
    """What one position of a layer's output sees.

    Attributes:
        name: Of the layer; of one inside a nested model or layer "outer/inner"; of the
            second call of one called twice "name#2".
        kind: Its class.
        time: Along time, in spectrogram frames; None: without limit.
        frequency: Along frequency, in mel bands; None: without limit, or no such axis.
        note: What the figures alone do not tell, such as "pools over time and frequency";
            "" if nothing.
        positions: Lengths of its output along time and frequency, where pooled of the map
            that was pooled; None where unknown or gone.
        in_pixels: Whether the fields are counted like the model's. False for layers before
            the spectrogram: these count samples, or bins of a spectrum.
    """

    name: str
    kind: str
    time: AxisField | None
    frequency: AxisField | None
    note: str = ""
    positions: Positions = (None, None)
    in_pixels: bool = True


@dataclass(frozen=True)
class ReceptiveField:
    """The receptive field of a model.

    It is that of one position of the last map before the model pools over all positions:
    each tag's score is then an average over windows of this size.

    Attributes:
        time: Along time, in spectrogram frames; None: without limit.
        frequency: Along frequency, in mel bands; None: without limit, or, where `axes` has
            no "frequency", no such axis.
        layers: A row for each layer, in the order of computation.
        pooled_by: Name of the layer that pools over all positions of an axis and so ends
            the map; None where the model ends in a map.
        scale: The spectrogram's units, from the model's front-end; None if it has none.
        layer: The layer whose output is meant.
        axes: ("time", "frequency"), or ("time",) where the input has features only.
        positions: Lengths of the map along time and frequency; None where unknown.
        notes: Why an axis is without limit; then, unless both are, the notes of all layers
            that the output depends on, each after the layer's name.
    """

    time: AxisField | None
    frequency: AxisField | None
    layers: tuple[LayerField, ...]
    pooled_by: str | None = None
    scale: SpectrogramScale | None = None
    layer: str = ""
    axes: tuple[str, ...] = (TIME, FREQUENCY)
    positions: Positions = (None, None)
    notes: tuple[str, ...] = ()

    @property
    def time_ms(self) -> float | None:
        """Milliseconds of audio that one position hears; None: unknown, or without limit."""
        if self.scale is None or self.time is None:
            return None
        return self.scale.ms(self.time.size)

    @property
    def mel_bands(self) -> int | None:
        """Mel bands that one position's window is high; None: unknown, or without limit.

        There may be fewer bands than that.
        """
        if self.scale is None or self.frequency is None:
            return None
        return self.frequency.size

    def hz_span(self, position: int | None = None) -> tuple[float, float] | None:
        """Lowest and highest frequency that a position of the map hears.

        Args:
            position: Along frequency; None: the one in the middle.

        Returns:
            Both in Hz; None where the units, or the middle, are unknown.

        Raises:
            ConfigError: The position sees no band of the spectrogram.
        """
        return hz_span(self.scale, self.frequency, self.axes, self.positions[1], position)

    def table(self) -> str:
        """A line for each layer: what it is, what it sees, and how it is known."""

        return table(self)

    def to_dict(self) -> dict[str, Any]:
        """All of it in numbers, strings, lists and dicts, as for a JSON file."""
        return {
            "layer": self.layer,
            "pooled_by": self.pooled_by,
            "axes": list(self.axes),
            "time": field_dict(self.time),
            "frequency": field_dict(self.frequency),
            "positions": list(self.positions),
            "time_ms": self.time_ms,
            "mel_bands": self.mel_bands,
            "hz_span": None if (span := self.hz_span()) is None else list(span),
            "scale": None if self.scale is None else vars(self.scale).copy(),
            "notes": list(self.notes),
            "layers": [
                {
                    "name": row.name,
                    "kind": row.kind,
                    "time": field_dict(row.time),
                    "frequency": field_dict(row.frequency),
                    "positions": list(row.positions),
                    "in_pixels": row.in_pixels,
                    "note": row.note,
                }
                for row in self.layers
            ],
        }

    def __str__(self) -> str:

        return summary(self)


def hz_span(
    scale: SpectrogramScale | None,
    frequency: AxisField | None,
    axes: tuple[str, ...],
    positions: int | None,
    position: int | None = None,
) -> tuple[float, float] | None:
    """Lowest and highest frequency that a position hears; see `ReceptiveField.hz_span`."""
    if scale is None or FREQUENCY not in axes:
        return None
    if frequency is None:
        return scale.hz_span(0, scale.n_mels)
    if position is not None:
        return scale.hz_span(*frequency.window(position))
    if positions is None and frequency.jump:
        return None
    first, stop = frequency.window((positions or 0) // 2)
    heard = first < stop and first < scale.n_mels and stop > 0
    return scale.hz_span(first, stop) if heard else None


def field_dict(field: AxisField | None) -> dict[str, Any] | None:
    """A field's numbers; `windows` only where size, jump and start do not say all."""
    if field is None:
        return None
    jump = field.jump if isinstance(field.jump, int) else float(field.jump)
    numbers: dict[str, Any] = {"size": field.size, "jump": jump, "start": field.start}
    if field.windows:
        numbers["windows"] = [list(window) for window in field.windows]
    return numbers


# Layers that have windows, by a word of their class's name. They are shown even where their
# kernel is 1: that deep layers widen nothing is what rho is about.
_WINDOWED = ("Conv", "Pool", "Block", "DenseLayer", "STFT", "GRU", "LSTM", "RNN")
_MODELS = ("Functional", "Tagger", "Sequential", "Model")


def shown_layers(layers: Sequence[LayerField]) -> list[LayerField]:
    """The layers that widen the field or could, and those with something to tell.

    Left out are those that work on every pixel by itself, such as activations, and the
    parts of a layer, such as the branches of a residual block: its own row sums them up.
    Those of a model inside of the model stay.
    """
    whole = {layer.name for layer in layers if layer.kind not in _MODELS}
    shown: list[LayerField] = []
    before: object = None
    for layer in layers:
        if any(outer in whole for outer in _outer_names(layer.name)):
            continue
        reach = _reach(layer)
        windowed = any(word in layer.kind for word in _WINDOWED)
        if windowed or layer.note or (reach != before and before is not None):
            shown.append(layer)
        before = reach
    return shown


def _outer_names(name: str) -> list[str]:
    """Of "a/b/c": "a" and "a/b"."""
    parts = name.split("/")
    return ["/".join(parts[:end]) for end in range(1, len(parts))]


def map_layers(field: ReceptiveField) -> list[LayerField]:
    """The shown layers between the spectrogram and the pooling over all positions."""
    names = [layer.name for layer in field.layers]
    end = names.index(field.pooled_by) if field.pooled_by in names else len(names)
    return shown_layers([layer for layer in field.layers[:end] if layer.in_pixels])


def _reach(layer: LayerField) -> object:
    """Size and step on both axes, and in what they are counted; not where windows start."""
    fields = (layer.time, layer.frequency)
    return layer.in_pixels, *(field and (field.size, field.jump) for field in fields)


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
