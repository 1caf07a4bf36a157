"""The receptive field of a map along one axis, and how layers widen it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from rfkeras.errors import ConfigError

__all__ = ["AxisField", "AxisLayer", "FiniteChain", "LayerChain", "compose"]


@dataclass(frozen=True)
class AxisLayer:
    """One axis of a sliding-window layer.

    Attributes:
        name: Name for tables and error messages.
        kernel: Length of the window in positions of the layer's input, at least 1.
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
    """Return the field of the output after applying the layers in the given order."""
    field = AxisField()
    for layer in layers:
        field = field.after(layer)
    return field


class LayerChain(ABC):
    """A network whose receptive field follows from a chain of layers on each axis.

    With parallel branches, the chain is that of the branch with the largest field.
    """

    @abstractmethod
    def axis_layers(self, axis: int) -> Iterator[AxisLayer]:
        """Yield the sliding-window layers along one axis (0 time, 1 frequency), in order."""

    @property
    @abstractmethod
    def time(self) -> AxisField | None:
        """Receptive field along time, in spectrogram frames; None: unlimited."""

    @property
    @abstractmethod
    def frequency(self) -> AxisField | None:
        """Receptive field along frequency, in mel bands; None: unlimited."""

    @property
    def minimum_frames(self) -> int:
        """Minimum number of spectrogram frames that leave one position at the output."""
        strided = [layer for layer in self.axis_layers(0) if layer.stride > 1]
        positions = 1
        for layer in reversed(strided):
            positions = (positions - 1) * layer.stride + layer.kernel - 2 * layer.padding
        return positions


class FiniteChain(LayerChain):
    """A chain of sliding windows only, so that its receptive field is limited."""

    @property
    def time(self) -> AxisField:
        """Receptive field along time, in spectrogram frames."""
        return compose(self.axis_layers(0))

    @property
    def frequency(self) -> AxisField:
        """Receptive field along frequency, in mel bands."""
        return compose(self.axis_layers(1))


Window = tuple[int, int]  # first pixel, end pixel (exclusive)


class RateError(ConfigError):
    """Two maps have different numbers of positions per pixel, so they have no common field."""


@dataclass(frozen=True)
class Taps:
    """The input positions that each position of a layer's output reads, on one axis.

    Attributes:
        reads: For each output position of one period, starting at position 0: the first
            input position read, the number read, and the step between them. Most layers
            have a period of 1.
        shift: Number of input positions by which the next period's reads are shifted.
    """

    reads: tuple[tuple[int, int, int], ...]
    shift: int


@dataclass(frozen=True)
class AxisField:
    """Receptive field of every position of a map along one axis, in input pixels.

    In most maps all positions have windows of the same size, at regular distances. After
    up-sampling and transposed convolutions, the windows repeat only every few positions;
    `windows` then holds one period.

    Attributes:
        size: Number of pixels that one position sees; the maximum if positions differ.
        jump: Distance in pixels between the windows of neighbouring positions, on average.
            A fraction if up-sampling makes the map finer than the input. 0 if all positions
            see the same window.
        start: First pixel that position 0 sees; negative if it is in the padding.
        windows: (first pixel, end pixel) of each position of one period, starting at
            position 0; () if size, jump and start describe all windows. An empty window
            belongs to a position that sees nothing, which happens after a transposed
            convolution whose kernel is smaller than its stride.
    """

    size: int = 1
    jump: int | Fraction = 1
    start: int = 0
    windows: tuple[Window, ...] = ()

    @classmethod
    def repeating(cls, windows: Sequence[Window | None], shift: int) -> AxisField:
        """Create the field of windows that repeat after one period.

        Args:
            windows: Windows of the positions of one period; None for a position that sees
                nothing.
            shift: Distance in pixels between two periods.

        Raises:
            ConfigError: No position sees anything.
        """
        if not any(windows):
            raise ConfigError("No position of the map sees any pixel of the input.")
        jump = Fraction(shift, len(windows))
        filled = [
            (place := math.floor(index * jump), place) if window is None else window
            for index, window in enumerate(windows)
        ]
        size = max(stop - first for first, stop in filled)
        period = _smallest_period(filled, jump)
        start = filled[0][0]
        whole = jump.numerator if jump.denominator == 1 else jump
        if period == 1:
            return cls(size, whole, start)
        return cls(size, whole, start, tuple(filled[:period]))

    @property
    def period(self) -> int:
        """Number of positions after which the windows repeat."""
        return len(self.windows) or 1

    @property
    def shift(self) -> int:
        """Distance in pixels between a window and the window one period later."""
        return int(self.jump * self.period)

    def after(self, layer: AxisLayer) -> AxisField:
        """Return the field of a layer's output, given the field of its input."""
        return self.read_by(Taps(((-layer.padding, layer.kernel, 1),), layer.stride))

    def read_by(self, taps: Taps) -> AxisField:
        """Return the field after a layer that reads these positions of its input.

        Raises:
            ConfigError: No position of the output sees any input pixel.
        """
        if not self.windows and len(taps.reads) == 1:  # the common case, in closed form
            ((first, count, step),) = taps.reads
            size = self.size + (count - 1) * step * int(self.jump)
            start = self.start + first * int(self.jump)
            if count:
                return AxisField(size, int(self.jump) * taps.shift, start)
        rounds = self.period // math.gcd(self.period, taps.shift)
        windows = [
            self._hull(first + turn * taps.shift, count, step)
            for turn in range(rounds)
            for first, count, step in taps.reads
        ]
        return AxisField.repeating(windows, rounds * taps.shift * self.shift // self.period)

    def _hull(self, first: int, count: int, step: int) -> Window | None:
        """Return the smallest window that contains those of `count` positions."""
        positions: Sequence[int] = range(first, first + count * step, step)
        if count > 2 * self.period:
            # Windows only shift from one period to the next, so the ends are enough.
            positions = [*positions[: self.period], *positions[-self.period :]]
        return _hull([self.window(position) for position in positions])

    def joined(self, other: AxisField) -> AxisField:
        """Return the field of positions that see the windows of two maps.

        Raises:
            RateError: The two maps have different distances between positions.
        """
        if self.jump != other.jump:
            raise RateError(
                f"neighbouring positions are {self.jump} pixels apart in one and "
                f"{other.jump} in the other"
            )
        period = math.lcm(self.period, other.period)
        windows = [_hull([self.window(p), other.window(p)]) for p in range(period)]
        return AxisField.repeating(windows, int(self.jump * period))

    def window(self, position: int) -> Window:
        """Return the window of a position: its first pixel and its end pixel (exclusive).

        The window is exact if no padding is read on the way. Near the ends of the map it
        can extend beyond the input. The part on the input can then contain pixels that are
        not read, such as those between the taps of a dilated kernel.
        """
        if not self.windows:
            first = self.start + position * int(self.jump)
            return first, first + self.size
        turn, phase = divmod(position, self.period)
        first, stop = self.windows[phase]
        return first + turn * self.shift, stop + turn * self.shift


def _hull(windows: Sequence[Window]) -> Window | None:
    """Return the smallest window that contains all of these; None if all are empty."""
    seen = [window for window in windows if window[0] < window[1]]
    if not seen:
        return None
    return min(first for first, _ in seen), max(stop for _, stop in seen)


def _smallest_period(windows: Sequence[Window], jump: Fraction) -> int:
    """Return the smallest number of positions after which the windows repeat."""
    for period in range(1, len(windows)):
        if len(windows) % period or (jump * period).denominator != 1:
            continue
        shift = int(jump * period)
        moved = [(first + shift, stop + shift) for first, stop in windows[:-period]]
        if moved == list(windows[period:]):
            return period
    return len(windows)
