"""What is seen along one axis of the input, and what an axis is counted in."""

from __future__ import annotations

from dataclasses import dataclass

from rfkeras.receptive_field.field import AxisField
from rfkeras.receptive_field.units import SpectrogramScale


@dataclass(frozen=True)
class Along:
    """Each position along a dimension sees a window of its own.

    Attributes:
        field: The windows.
        dim: The dimension of the tensor.
    """

    field: AxisField
    dim: int


@dataclass(frozen=True)
class Still:
    """All positions see one window: that of a single position which was kept.

    Attributes:
        field: The window, with a jump of 0.
    """

    field: AxisField


@dataclass(frozen=True)
class Pooled:
    """Everything is seen, as a mean or maximum over the positions of a map.

    Attributes:
        field: Of the map's positions.
        length: How many there were.
        by: The layer that pooled.
    """

    field: AxisField
    length: int | None
    by: str = ""

    @property
    def pooler(self) -> str:
        """The layer, for messages."""
        return repr(self.by) if self.by else "it"


@dataclass(frozen=True)
class Unlimited:
    """Everything is, or may be, seen.

    Attributes:
        why: What the layer does: "its state remembers what was before".
        by: The layer.
    """

    why: str
    by: str = ""


AxisState = Along | Still | Pooled | Unlimited


class Source:
    """What the receptive field is counted in: a model's input, or a spectrogram in it.

    Args:
        rank: Number of its axes, the batch left out.
        begun_by: What it is: the layer that computes it, or any object.
        scale: A spectrogram's units, where known.
        settled: Whether it is known which axis holds channels, if any does.
    """

    def __init__(
        self,
        rank: int,
        begun_by: object,
        scale: SpectrogramScale | None = None,
        settled: bool = True,
    ) -> None:
        self.rank = rank
        self.begun_by = begun_by
        self.scale = scale
        self.channels: int | None = None
        self.settled = settled

    def settle_channels(self, axis: int | None) -> None:
        """Take what the first layer that knows channels from other axes says of them."""
        if not self.settled:
            self.settled, self.channels = True, axis

    def again(self, begun_by: object, scale: SpectrogramScale | None) -> Source:
        """The same axes, one of them counted in other units from here on."""
        source = Source(self.rank, begun_by, scale, self.settled)
        source.channels = self.channels
        return source

    def same_as(self, other: Source) -> bool:
        """Whether pixels of the two can be counted together."""
        return self.begun_by is other.begun_by

    @property
    def axes(self) -> tuple[int, ...]:
        """Its axes other than channels: time, and then frequency if there is one."""
        channels = self.channels
        if not self.settled and self.rank > 2:
            channels = self.rank - 1
        return tuple(axis for axis in range(self.rank) if axis != channels)
