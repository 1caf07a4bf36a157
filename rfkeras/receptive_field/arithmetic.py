"""Receptive field of a chain of sliding-window layers, on one axis.

A layer with kernel k and stride s that reads a map whose neighbouring positions lie
`jump` input pixels apart widens the receptive field by (k - 1) * jump pixels and makes
the positions of its own map jump * s pixels apart. Pooling layers count like
convolutions. Each axis (time, frequency) follows this recurrence by itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rfkeras.errors import ConfigError
from rfkeras.receptive_field.field import AxisField

__all__ = ["AxisField", "AxisLayer", "FiniteChain", "LayerChain", "compose"]


@dataclass(frozen=True)
class AxisLayer:
    """One sliding-window layer as seen along one axis.

    Attributes:
        name: For tables and error messages.
        kernel: Window length in positions of the layer's input, at least 1.
        stride: Step of the window in positions of the layer's input, at least 1.
        padding: Positions added before the first one.
    """

    name: str
    kernel: int
    stride: int = 1
    padding: int = 0

    def __post_init__(self) -> None:
        if self.kernel < 1 or self.stride < 1 or self.padding < 0:
            raise ConfigError(
                f"Layer {self.name!r} needs kernel >= 1, stride >= 1 and padding >= 0. "
                f"Received: kernel={self.kernel}, stride={self.stride}, "
                f"padding={self.padding}."
            )


def compose(layers: Iterable[AxisLayer]) -> AxisField:
    """Field of the last layer's output, the layers applied in the given order."""
    field = AxisField()
    for layer in layers:
        field = field.after(layer)
    return field


class LayerChain(ABC):
    """A network whose receptive field follows from a chain of layers on each axis.

    Where branches run side by side, the chain is the one that sees most.
    """

    @abstractmethod
    def axis_layers(self, axis: int) -> Iterator[AxisLayer]:
        """Sliding-window layers along one axis (0 time, 1 frequency), in order."""

    @property
    @abstractmethod
    def time(self) -> AxisField | None:
        """Receptive field along time, in spectrogram frames; None: without limit."""

    @property
    @abstractmethod
    def frequency(self) -> AxisField | None:
        """Receptive field along frequency, in mel bands; None: without limit."""

    @property
    def minimum_frames(self) -> int:
        """Fewest spectrogram frames that leave one position after the last stride."""
        strided = [layer for layer in self.axis_layers(0) if layer.stride > 1]
        positions = 1
        for layer in reversed(strided):
            positions = (positions - 1) * layer.stride + layer.kernel - 2 * layer.padding
        return positions


class FiniteChain(LayerChain):
    """A chain of sliding windows alone: it sees so far and no farther."""

    @property
    def time(self) -> AxisField:
        """Receptive field along time, in spectrogram frames."""
        return compose(self.axis_layers(0))

    @property
    def frequency(self) -> AxisField:
        """Receptive field along frequency, in mel bands."""
        return compose(self.axis_layers(1))
