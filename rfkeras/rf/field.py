"""The result of `receptive_field(model)`: the fields of the model and of every layer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rfkeras.frontend.presets import SpectrogramScale
from rfkeras.rf.axis import AxisField
from rfkeras.utils.table import Table

Positions = tuple[int | None, int | None]

TIME, FREQUENCY = "time", "frequency"


@dataclass(frozen=True)
class LayerField:
    """The input range that one position of a layer's output sees.

    Attributes:
        name: Name of the layer; "outer/inner" for one inside a nested model or layer;
            "name#2" for the second call of a layer called twice.
        kind: Name of its class.
        time: Field along time, in spectrogram frames; None: unlimited.
        frequency: Field along frequency, in mel bands; None: unlimited, or no such axis.
        note: What the numbers do not show, such as "pools over time and frequency"; "" if
            nothing.
        positions: Lengths of the output along time and frequency, or of the map that was
            pooled; None if unknown or removed.
        in_pixels: False for layers before the spectrogram, whose fields are counted in
            samples or bins of a spectrum.
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

    This is the field of one position of the last map before the model pools over all
    positions. Each tag's score is then an average over windows of this size.

    Attributes:
        time: Field along time, in spectrogram frames; None: unlimited.
        frequency: Field along frequency, in mel bands; None: unlimited, or no such axis if
            `axes` has no "frequency".
        layers: One entry per layer, in the order of computation.
        pooled_by: Name of the layer that pools over all positions of an axis, which ends
            the map; None if the model's output is a map.
        scale: Units of the spectrogram, from the model's front-end; None if it has none.
        layer: Name of the layer whose output this is.
        axes: ("time", "frequency"), or ("time",) if the input is a sequence of features.
        positions: Lengths of the map along time and frequency; None if unknown.
        waveform: What each sample of the waveform that the spectrogram is computed from sees
            of the model's input, in samples; None if it sees everything, or without a
            spectrogram. Layers before the front-end shift or widen it.
        notes: Reasons why an axis is unlimited. Unless both are, also the notes of all
            layers that the output depends on, each after the name of its layer.
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
    waveform: AxisField | None = None

    @property
    def time_ms(self) -> float | None:
        """Milliseconds of audio that one position covers; None: unknown or unlimited."""
        if self.scale is None or self.time is None:
            return None
        audio_ms = self.scale.ms(self.time.size)
        if self.waveform is None:
            return audio_ms
        # A window of n samples before the front-end sees (n - 1) jumps and one window.
        jump, size = float(self.waveform.jump), self.waveform.size
        return jump * audio_ms + 1000 * (size - jump) / self.scale.sample_rate_hz

    @property
    def mel_bands(self) -> int | None:
        """Height of one position's window in mel bands; None: unknown or unlimited.

        It can be larger than the number of bands.
        """
        if self.scale is None or self.frequency is None:
            return None
        return self.frequency.size

    def hz_span(self, position: int | None = None) -> tuple[float, float] | None:
        """Return the lowest and highest frequency that a position of the map covers.

        Args:
            position: Position along frequency; None: the middle.

        Returns:
            Both in Hz; None if the units or the middle are unknown.

        Raises:
            ConfigError: The position sees no band of the spectrogram.
        """
        scale, frequency = self.scale, self.frequency
        if scale is None or FREQUENCY not in self.axes:
            return None
        if frequency is None:
            return scale.hz_span(0, scale.n_mels)
        if position is not None:
            return scale.hz_span(*frequency.window(position))
        positions = self.positions[1]
        if positions is None and frequency.jump:
            return None
        first, stop = frequency.window((positions or 0) // 2)
        visible = first < stop and first < scale.n_mels and stop > 0
        return scale.hz_span(first, stop) if visible else None

    def table(self) -> str:
        """Return a text table with one line per layer, a summary and the notes."""
        title = "time x frequency" if FREQUENCY in self.axes else "time"
        rows = layer_table(self.layers, self.axes, self.scale).to_text()
        notes = "".join(f"\n- {note}" for note in self.notes)
        return f"{title}, in pixels\n{rows}\n{self}{notes}"

    def to_dict(self) -> dict[str, Any]:
        """Return everything as numbers, strings, lists and dicts, ready for JSON."""
        return {
            "layer": self.layer,
            "pooled_by": self.pooled_by,
            "axes": list(self.axes),
            "time": _field_dict(self.time),
            "frequency": _field_dict(self.frequency),
            "positions": list(self.positions),
            "time_ms": self.time_ms,
            "waveform": _field_dict(self.waveform),
            "mel_bands": self.mel_bands,
            "hz_span": None if (span := self.hz_span()) is None else list(span),
            "scale": None if self.scale is None else vars(self.scale).copy(),
            "notes": list(self.notes),
            "layers": [
                {
                    "name": row.name,
                    "kind": row.kind,
                    "time": _field_dict(row.time),
                    "frequency": _field_dict(row.frequency),
                    "positions": list(row.positions),
                    "in_pixels": row.in_pixels,
                    "note": row.note,
                }
                for row in self.layers
            ],
        }

    def __str__(self) -> str:
        """Return one line with the sizes, their units and the layer."""
        fields = (self.time, self.frequency)[: len(self.axes)]
        sizes = " x ".join("all" if field is None else str(field.size) for field in fields)
        parts = [f"{sizes} pixels"]
        span = self.hz_span()
        if self.time_ms is not None:
            parts.append(f"{self.time_ms:.0f} ms")
        if span is not None:
            bands = "all" if self.mel_bands is None else str(self.mel_bands)
            parts.append(f"{bands} mel bands, {span[0]:.0f} to {span[1]:.0f} Hz in the middle")
        pools = f"at {self.pooled_by!r}, which pools"
        parts.append(pools if self.pooled_by else f"at {self.layer!r}")
        return f"receptive field {'; '.join(parts)}"


def _field_dict(field: AxisField | None) -> dict[str, Any] | None:
    """Return a field as a dict; with `windows` only if size, jump and start are not enough."""
    if field is None:
        return None
    jump = field.jump if isinstance(field.jump, int) else float(field.jump)
    numbers: dict[str, Any] = {"size": field.size, "jump": jump, "start": field.start}
    if field.windows:
        numbers["windows"] = [list(window) for window in field.windows]
    return numbers


# Words in the names of layer classes that have windows. These layers are shown even if their
# kernel is 1, because rho decides which of them widen the field.
_WINDOWED = ("Conv", "Pool", "Block", "DenseLayer", "STFT", "GRU", "LSTM", "RNN")
_MODELS = ("Functional", "Tagger", "Sequential", "Model")


def shown_layers(layers: Sequence[LayerField]) -> list[LayerField]:
    """Return the layers that have windows, widen the field, or have a note.

    Layers that work on each pixel separately, such as activations, are left out. So are
    parts of a layer, such as the branches of a residual block, because the layer's own row
    includes them. Layers of a nested model stay.
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
    """Return the names of the enclosing layers: "a" and "a/b" for "a/b/c"."""
    parts = name.split("/")
    return ["/".join(parts[:end]) for end in range(1, len(parts))]


def map_layers(field: ReceptiveField) -> list[LayerField]:
    """Return the shown layers between the spectrogram and the pooling over all positions."""
    names = [layer.name for layer in field.layers]
    end = names.index(field.pooled_by) if field.pooled_by in names else len(names)
    return shown_layers([layer for layer in field.layers[:end] if layer.in_pixels])


def _reach(layer: LayerField) -> object:
    """Return size and jump on both axes and their unit, without the start."""
    fields = (layer.time, layer.frequency)
    return layer.in_pixels, *(field and (field.size, field.jump) for field in fields)


def layer_table(
    layers: Sequence[LayerField], axes: Sequence[str], scale: SpectrogramScale | None
) -> Table:
    """Return a table with one row per layer: size, jump and start of its field.

    A cell with two values, "135 x 87", is for time x frequency; equal values are shown once.
    With a scale there are two more columns: milliseconds of audio, and percent of the mel
    bands.
    """
    units = () if scale is None else ("ms", "mel")
    numbers = ("RF", *units, "jump", "start")
    table = Table(("layer", "kind", *numbers, "note"), right=numbers)
    for row in layers:
        fields = (row.time, row.frequency)[: len(axes)]
        physical = [""] * len(units)
        if scale is not None and row.in_pixels:
            time_ms = "all" if row.time is None else f"{scale.ms(row.time.size):,.0f}"
            physical = [time_ms, mel_percent(row.frequency, scale)]
        table.add_row(
            row.name,
            row.kind,
            _both_axes("all" if field is None else str(field.size) for field in fields),
            *physical,
            _both_axes("-" if field is None else str(field.jump) for field in fields),
            _both_axes("-" if field is None else str(field.start) for field in fields),
            row.note,
        )
    return table


def mel_percent(frequency: AxisField | None, scale: SpectrogramScale) -> str:
    """Return the part of the mel bands that a field covers, as in "53 %"."""
    return f"{100 * scale.mel_share(None if frequency is None else frequency.size):.0f} %"


def _both_axes(values: Iterable[str]) -> str:
    """Return the values of two axes as "135 x 87"; equal values are shown once."""
    different = list(values)
    return different[0] if len(set(different)) == 1 else " x ".join(different)
