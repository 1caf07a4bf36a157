"""Receptive field of the positions of a map along one axis, and how layers widen it."""

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


Window = tuple[int, int]  # first pixel, and the one after the last


class RateError(ConfigError):
    """Two maps have differently many positions to a pixel, and so no common field."""


@dataclass(frozen=True)
class Taps:
    """Which positions of its input each position of a layer's output reads, on one axis.

    Attributes:
        reads: For the output positions of one period, from position 0 on: first position
            that is read, how many, and the step between them. Most layers have a period
            of 1.
        shift: Input positions by which the next period reads farther.
    """

    reads: tuple[tuple[int, int, int], ...]
    shift: int


@dataclass(frozen=True)
class AxisField:
    """Receptive field of every position of a map, along one axis, in input pixels.

    In most maps every position sees as many pixels as any other, and the same number
    farther. After up-sampling and transposed convolutions the windows are alike only every
    few positions: `windows` then holds one such period.

    Attributes:
        size: Pixels that one position sees; the most of any, where they differ.
        jump: Pixels between the windows of two neighbouring positions, on average: a
            fraction where up-sampling makes the map finer than the input. 0: all positions
            see the same window.
        start: First pixel that position 0 sees; negative where it reaches into padding.
        windows: (first pixel, the one after the last) of the positions of one period, from
            position 0 on; () where the other three say all. An empty window belongs to a
            position that sees nothing, as a transposed convolution with a kernel under its
            stride has.
    """

    size: int = 1
    jump: int | Fraction = 1
    start: int = 0
    windows: tuple[Window, ...] = ()

    @classmethod
    def repeating(cls, windows: Sequence[Window | None], shift: int) -> AxisField:
        """The field whose windows repeat, `shift` pixels farther, after those given.

        Args:
            windows: Of the positions of a period; None for a position that sees nothing.
            shift: Pixels between two periods.

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
        """Positions after which the windows repeat."""
        return len(self.windows) or 1

    @property
    def shift(self) -> int:
        """Pixels between a window and the one a period later."""
        return int(self.jump * self.period)

    def after(self, layer: AxisLayer) -> AxisField:
        """The field of the layer's output, where `self` is that of its input."""
        return self.read_by(Taps(((-layer.padding, layer.kernel, 1),), layer.stride))

    def read_by(self, taps: Taps) -> AxisField:
        """The field of the output of a layer that reads these positions of its input.

        Raises:
            ConfigError: No position of the output reads anything that sees the input.
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
        """Smallest window that holds those of `count` positions, `step` apart."""
        positions: Sequence[int] = range(first, first + count * step, step)
        if count > 2 * self.period:
            # Windows only move on from one period to the next: the ends tell all.
            positions = [*positions[: self.period], *positions[-self.period :]]
        return _hull([self.window(position) for position in positions])

    def joined(self, other: AxisField) -> AxisField:
        """The field of positions that see what those of two maps see.

        Raises:
            RateError: Neighbouring positions lie farther apart in one map than in the other.
        """
        if self.jump != other.jump:
            raise RateError(
                f"neighbouring positions lie {self.jump} pixels apart in one and "
                f"{other.jump} in the other"
            )
        period = math.lcm(self.period, other.period)
        windows = [_hull([self.window(p), other.window(p)]) for p in range(period)]
        return AxisField.repeating(windows, int(self.jump * period))

    def window(self, position: int) -> Window:
        """First pixel seen by that position and the one after the last it sees.

        Exact where no padding is read on the way. Near the map's ends the window may reach
        beyond the input; the part of it on the input may then be larger than what is read,
        as between the taps of a dilated kernel.
        """
        if not self.windows:
            first = self.start + position * int(self.jump)
            return first, first + self.size
        turn, phase = divmod(position, self.period)
        first, stop = self.windows[phase]
        return first + turn * self.shift, stop + turn * self.shift


def _hull(windows: Sequence[Window]) -> Window | None:
    seen = [window for window in windows if window[0] < window[1]]
    if not seen:
        return None
    return min(first for first, _ in seen), max(stop for _, stop in seen)


def _smallest_period(windows: Sequence[Window], jump: Fraction) -> int:
    for period in range(1, len(windows)):
        if len(windows) % period or (jump * period).denominator != 1:
            continue
        shift = int(jump * period)
        moved = [(first + shift, stop + shift) for first, stop in windows[:-period]]
        if moved == list(windows[period:]):
            return period
    return len(windows)
