"""What `receptive_field(model)` returns: the field of every layer, and of the model."""

from __future__ import annotations

from dataclasses import dataclass

from rfkeras.receptive_field.arithmetic import AxisField
from rfkeras.receptive_field.units import SpectrogramScale


@dataclass(frozen=True)
class LayerField:
    """What one position of a layer's output sees.

    Attributes:
        name: Of the layer; of one inside a nested model "model/layer".
        kind: Its class.
        time: Along time, in spectrogram frames; None: without limit.
        frequency: Along frequency, in mel bands; None: without limit.
        note: What the figures alone do not tell, such as "averages over time and
            frequency"; "" if nothing.
    """

    name: str
    kind: str
    time: AxisField | None
    frequency: AxisField | None
    note: str = ""


@dataclass(frozen=True)
class ReceptiveField:
    """The receptive field of a model.

    It is that of one position of the last map before the model pools over all positions:
    each tag's score is then an average over windows of this size.

    Attributes:
        time: Along time, in spectrogram frames; None: without limit.
        frequency: Along frequency, in mel bands; None: without limit.
        layers: A row for each layer, in the order of computation.
        pooled_by: Name of the layer that pools over all positions of an axis and so ends
            the map; None where the model ends in a map.
        scale: The spectrogram's units, from the model's front-end; None if it has none.
    """

    time: AxisField | None
    frequency: AxisField | None
    layers: tuple[LayerField, ...]
    pooled_by: str | None = None
    scale: SpectrogramScale | None = None
