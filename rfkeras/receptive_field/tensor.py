"""What the positions of one tensor inside a model see of the model's input."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from rfkeras.errors import ConfigError
from rfkeras.receptive_field import taps
from rfkeras.receptive_field.field import AxisField, Taps
from rfkeras.receptive_field.states import (
    Along,
    AxisState,
    Pooled,
    Source,
    Still,
    Unlimited,
)
from rfkeras.receptive_field.units import SpectrogramScale

Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class TensorField:
    """What the positions of a tensor see: what rules take and return.

    Dimensions are counted from 0, the batch; negative numbers count from the end. A tensor
    is never changed: every method returns another one. One position along a dimension
    stands for all positions along the others.

    Attributes:
        shape: Lengths of the dimensions, None where unknown.
        source: The input, or the spectrogram, that is seen; None where the tensor does not
            depend on it.
        axes: For each axis of the source what is seen along it.
        name: Of the layer that computed it.
        notes: What was assumed since the layer's inputs.
    """

    shape: Shape
    source: Source | None = None
    axes: tuple[AxisState, ...] = ()
    name: str = ""
    notes: tuple[str, ...] = ()

    @property
    def rank(self) -> int:
        """Number of dimensions, the batch included."""
        return len(self.shape)

    def dim(self, dim: int) -> int:
        """The dimension counted from 0.

        Raises:
            ConfigError: There is none of that number.
        """
        if not -self.rank <= dim < self.rank:
            raise ConfigError(f"A tensor of shape {self.shape} has no dimension {dim}.")
        return dim % self.rank

    def read(self, dim: int, reading: taps.Reading) -> TensorField:
        """After a layer that reads these positions along one dimension."""
        dim = self.dim(dim)
        result = self._map(
            dim, lambda state: replace(state, field=state.field.read_by(reading.taps))
        )
        if reading.assumed_multiple > 1 and self._along(dim):
            result = result.noted(
                f"unknown length of dimension {dim} taken as a multiple of "
                f"{reading.assumed_multiple}, for padding='same'"
            )
        return result.resized(dim, reading.length)

    def slide(
        self,
        dim: int,
        kernel: int,
        stride: int = 1,
        dilation: int = 1,
        padding: str = "valid",
    ) -> TensorField:
        """After a window sliding along one dimension: a convolution or pooling layer.

        Args:
            dim: The dimension.
            kernel: Positions in the window.
            stride: Positions from one window to the next.
            dilation: Positions from one that is read to the next.
            padding: "valid", "same" as TensorFlow pads, or "causal": all in front.
        """
        length = self.shape[self.dim(dim)]
        result = self.read(dim, taps.sliding(length, kernel, stride, dilation, padding))
        return result._hardened() if kernel > 1 else result

    def pad(self, dim: int, before: int, after: int) -> TensorField:
        """With positions added at the ends of a dimension; negative: taken away."""
        return self.read(dim, taps.padded(self.shape[self.dim(dim)], before, after))

    def mix(self, dim: int, length: int | None, why: str = "") -> TensorField:
        """After a layer each output of which reads all positions of one dimension.

        The dimension then holds `length` features.
        """
        dim = self.dim(dim)
        why = why or "its positions are read as features"
        return self._map(dim, lambda _: Unlimited(why)).resized(dim, length)._hardened()

    def everywhere(self, dims: int | Iterable[int], why: str) -> TensorField:
        """After a layer each position of which sees all positions along these dimensions.

        Args:
            dims: The dimensions; their positions stay.
            why: What the layer does, for the note: "its state remembers what was before".
        """
        result = self
        for dim in (dims,) if isinstance(dims, int) else dims:
            if self._along(self.dim(dim)):
                result = result._hardened()._map(self.dim(dim), lambda _: Unlimited(why))
        return result

    def pool(self, dims: int | Iterable[int], keepdims: bool = False) -> TensorField:
        """After a mean or maximum over all positions of these dimensions."""
        gone = {self.dim(d) for d in ((dims,) if isinstance(dims, int) else dims)}
        result = self
        for dim in gone:
            result = result._map(dim, self._pooled).resized(dim, 1)
        return result if keepdims else result.dropped(gone)

    def _pooled(self, state: Along) -> Pooled:
        return Pooled(state.field, self.shape[state.dim])

    def as_channels(self, dim: int) -> TensorField:
        """The same; but if its source's channels are not known yet, they lie here."""
        if self.source is not None:
            along = self._along(self.dim(dim))
            self.source.settle_channels(along[0] if along else None)
        return self

    def resized(self, dim: int, length: int | None) -> TensorField:
        """The same with another length of one dimension."""
        dim = self.dim(dim)
        return replace(self, shape=(*self.shape[:dim], length, *self.shape[dim + 1 :]))

    def dropped(self, dims: Iterable[int]) -> TensorField:
        """Without these dimensions, of each of which the first position is kept."""
        gone = {self.dim(dim) for dim in dims}
        result = self
        for dim in gone:
            result = result._map(dim, lambda state: still(state.field, 0))
        places = [dim for dim in range(self.rank) if dim not in gone]
        return result.permuted(places)

    def position(self, dim: int, position: int) -> TensorField:
        """One position of a dimension, without the dimension."""
        dim = self.dim(dim)
        return self.read(dim, taps.Reading(Taps(((position, 1, 1),), 1), 1)).dropped((dim,))

    def inserted(self, dim: int, length: int | None = 1) -> TensorField:
        """With another dimension, there in the result; all its positions are alike."""
        dim = dim % (self.rank + 1)
        moved = {place: place + (place >= dim) for place in range(self.rank)}
        return self.placed(moved, (*self.shape[:dim], length, *self.shape[dim:]))

    def permuted(self, order: Sequence[int]) -> TensorField:
        """With its dimensions in another order: `order[i]` comes to place i."""
        order = [self.dim(dim) for dim in order]
        moved = {dim: place for place, dim in enumerate(order)}
        return self.placed(moved, tuple(self.shape[dim] for dim in order))

    def placed(self, moved: Mapping[int, int], shape: Shape) -> TensorField:
        """With another shape: `moved` tells the new place of each dimension with an axis."""
        states = tuple(
            replace(state, dim=moved[state.dim]) if isinstance(state, Along) else state
            for state in self.axes
        )
        return replace(self, shape=tuple(shape), axes=states)

    def spectrogram(
        self,
        shape: Shape,
        time: int,
        frequency: int,
        begun_by: object,
        scale: SpectrogramScale | None = None,
    ) -> TensorField:
        """A spectrogram computed from this: pixels are counted from here on.

        Args:
            shape: Its shape.
            time: Its dimension of frames.
            frequency: Its dimension of bands.
            begun_by: The layer. Spectrograms of different layers cannot be joined.
            scale: Its units, where known.
        """
        if self.source is None:
            return TensorField(shape)
        source = Source(2, begun_by, scale)
        states = tuple(Along(AxisField(), dim % len(shape)) for dim in (time, frequency))
        return TensorField(shape, source, states)

    def joined(self, *others: TensorField, concatenated: int | None = None) -> TensorField:
        """Combined with others position by position; see `joining.join`."""
        from rfkeras.receptive_field.joining import join

        return join([self, *others], concatenated)

    def noted(self, note: str) -> TensorField:
        """The same with a note for the layer's row of the table."""
        return self if note in self.notes else replace(self, notes=(*self.notes, note))

    def _along(self, dim: int) -> list[int]:
        """Axes of the source whose positions lie along that dimension."""
        return [
            axis
            for axis, state in enumerate(self.axes)
            if isinstance(state, Along) and state.dim == dim
        ]

    def _map(self, dim: int, change: Callable[[Along], AxisState]) -> TensorField:
        """With another state for the axes that lie along that dimension."""
        states = tuple(
            change(state) if isinstance(state, Along) and state.dim == dim else state
            for state in self.axes
        )
        return replace(self, axes=states)

    def _hardened(self) -> TensorField:
        """After a layer with a kernel: what was pooled before is no average of windows now.

        Unless no axis has positions left: then the layer belongs to the head.
        """
        if not any(isinstance(state, Along) for state in self.axes):
            return self
        states = tuple(
            Unlimited(f"it reads what {state.pooler} pooled")
            if isinstance(state, Pooled)
            else state
            for state in self.axes
        )
        return replace(self, axes=states)


def still(field: AxisField, position: int) -> Still:
    """What all positions see that are given what this one sees."""
    first, stop = field.window(position)
    return Still(AxisField(stop - first, 0, first))
