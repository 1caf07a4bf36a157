"""What `receptive_field(model)` returns: the field of every layer, and of the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rfkeras.receptive_field.arithmetic import AxisField
from rfkeras.receptive_field.units import SpectrogramScale

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
        from rfkeras.receptive_field.table import table

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
        from rfkeras.receptive_field.table import summary

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
