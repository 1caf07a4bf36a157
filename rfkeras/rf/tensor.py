"""What is seen where several tensors are combined position by position."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from rfkeras.errors import ConfigError, unknown_name
from rfkeras.frontend.presets import SpectrogramScale
from rfkeras.rf.axis import AxisField, RateError, Taps


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


Length = int | None

# Input positions on either side that count for one in between.
INTERPOLATIONS = {"nearest": 0, "bilinear": 1, "bicubic": 2, "lanczos3": 3, "lanczos5": 5}


@dataclass(frozen=True)
class Reading:
    """What a layer reads along one axis.

    Attributes:
        taps: The positions of its input that its output's positions read.
        length: Positions of its output.
        assumed_multiple: What the unknown input length was taken to be a multiple of,
            where the first window's place depends on it; else 1.
    """

    taps: Taps
    length: Length
    assumed_multiple: int = 1


def sliding(
    length: Length, kernel: int, stride: int = 1, dilation: int = 1, padding: str = "valid"
) -> Reading:
    """A window that slides: convolution or pooling.

    Raises:
        ConfigError: padding is none of "valid", "same" and "causal".
    """
    span = (kernel - 1) * dilation + 1
    before, after, assumed = 0, 0, 1
    if padding == "same":
        positions = _same_positions(length, stride)
        before = _same_before(length if length is not None else stride, span, stride)
        if length is None and any(
            _same_before(n, span, stride) != before for n in range(span, span + stride)
        ):
            assumed = stride
        return Reading(Taps(((-before, kernel, dilation),), stride), positions, assumed)
    if padding == "causal":
        before = span - 1
    elif padding != "valid":
        raise ConfigError(unknown_name("padding", padding, ("valid", "same", "causal")))
    positions = None if length is None else (length + before + after - span) // stride + 1
    return Reading(Taps(((-before, kernel, dilation),), stride), positions)


def _same_positions(length: Length, stride: int) -> Length:
    return None if length is None else math.ceil(length / stride)


def _same_before(length: int, span: int, stride: int) -> int:
    total = (math.ceil(length / stride) - 1) * stride + span - length
    return max(total, 0) // 2


def transposed(
    length: Length,
    kernel: int,
    stride: int = 1,
    dilation: int = 1,
    padding: str = "valid",
    output_padding: int | None = None,
) -> Reading:
    """A transposed convolution: the windows of a convolution from its output to its input."""
    span = (kernel - 1) * dilation + 1
    # Length of the output beyond (n - 1) * stride, as Keras defines it.
    if padding == "valid":
        rest = max(span, stride) if output_padding is None else span + output_padding
        before = 0
    else:
        rest = stride if output_padding is None else span % 2 + output_padding
        before = max(span - rest, 0) // 2
    reads = []
    for place in range(before, before + stride):
        # Input position p adds to the output positions p * stride + i * dilation - before.
        offsets = (place - i * dilation for i in reversed(range(kernel)))
        read = [offset // stride for offset in offsets if offset % stride == 0]
        step = read[1] - read[0] if len(read) > 1 else 1
        reads.append((read[0] if read else 0, len(read), step))
    positions = None if length is None else (length - 1) * stride + rest
    return Reading(Taps(tuple(reads), 1), positions)


def enlarged(length: Length, factor: int, interpolation: str = "nearest") -> Reading:
    """Up-sampling by a whole factor, pixels lying in the middles of their areas.

    Raises:
        ConfigError: Unknown interpolation.
    """
    if interpolation not in INTERPOLATIONS:
        raise ConfigError(unknown_name("interpolation", interpolation, INTERPOLATIONS))
    radius = INTERPOLATIONS[interpolation]
    reads = []
    for phase in range(factor):
        place = Fraction(2 * phase + 1 - factor, 2 * factor)
        if radius == 0:
            reads.append((0, 1, 1))
        elif place.denominator == 1:  # on an input position: all others weigh nothing
            reads.append((int(place), 1, 1))
        else:
            reads.append((math.floor(place) - radius + 1, 2 * radius, 1))
    return Reading(Taps(tuple(reads), 1), None if length is None else length * factor)


def padded(length: Length, before: int, after: int) -> Reading:
    """Positions added at both ends; negative numbers take some away."""
    positions = None if length is None else length + before + after
    return Reading(Taps(((-before, 1, 1),), 1), positions)


def sliced(length: Length, part: slice) -> Reading | None:
    """What a slice keeps; None where it turns the axis round or the length must be known."""
    step = 1 if part.step is None else part.step
    if length is not None:
        kept = range(length)[part]
        if step < 1 or not kept:
            return None
        return Reading(Taps(((kept.start, 1, 1),), step), len(kept))
    start = part.start or 0
    if step < 1 or start < 0:
        return None
    return Reading(Taps(((start, 1, 1),), step), None)


def grouped(parts: int, out_of: int, each: int) -> Reading:
    """Channels in groups: each group of the output reads one of the input whole.

    Args:
        parts: Number of groups.
        out_of: Input channels of a group.
        each: Output channels of a group.
    """
    return Reading(Taps(((0, out_of, 1),) * each, out_of), parts * each)


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

    def read(self, dim: int, reading: Reading) -> TensorField:
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
        result = self.read(dim, sliding(length, kernel, stride, dilation, padding))
        return result._hardened() if kernel > 1 else result

    def pad(self, dim: int, before: int, after: int) -> TensorField:
        """With positions added at the ends of a dimension; negative: taken away."""
        return self.read(dim, padded(self.shape[self.dim(dim)], before, after))

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
        return self.read(dim, Reading(Taps(((position, 1, 1),), 1), 1)).dropped((dim,))

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


def join(tensors: Sequence[TensorField], concatenated: int | None = None) -> TensorField:
    """What the positions of a tensor see that is computed from several, each from its like.

    Shapes are broadcast as NumPy does. Where a tensor has one position along a dimension
    and the result more, all of these see what that one sees.

    Args:
        tensors: The tensors, at least one.
        concatenated: Dimension along which they stand one behind the other, where they may
            differ in length; None: none.

    Raises:
        ConfigError: They see different spectrograms, or the positions of two of them lie
            differently far apart.
    """
    rank = max(tensor.rank for tensor in tensors)
    aligned = [_of_rank(tensor, rank) for tensor in tensors]
    shape = tuple(_common(lengths) for lengths in zip(*(t.shape for t in aligned), strict=True))
    if concatenated is not None and len(aligned) > 1:
        dim = concatenated % rank
        lengths = [tensor.shape[dim] for tensor in aligned]
        total = None if None in lengths else sum(n for n in lengths if n is not None)
        shape = (*shape[:dim], total, *shape[dim + 1 :])
        why = "maps stand one behind the other along it"
        aligned = [tensor.everywhere(dim, why) for tensor in aligned]
    seeing = [_spread(tensor, shape) for tensor in aligned if tensor.source is not None]
    if not seeing:
        return TensorField(shape)
    joined = seeing[0]
    for tensor in seeing[1:]:
        joined = _join_two(joined, tensor)
    return replace(joined, shape=shape)


def _of_rank(tensor: TensorField, rank: int) -> TensorField:
    while tensor.rank < rank:
        tensor = tensor.inserted(0)
    return tensor


def _common(lengths: Sequence[int | None]) -> int | None:
    known = {n for n in lengths if n is not None and n != 1}
    if known:
        return max(known)
    return None if None in lengths else 1


def _spread(tensor: TensorField, shape: Shape) -> TensorField:
    """With one window for all positions of a dimension along which it is repeated."""
    states = tuple(
        still(state.field, 0)
        if isinstance(state, Along) and tensor.shape[state.dim] == 1 != shape[state.dim]
        else state
        for state in tensor.axes
    )
    return replace(tensor, axes=states)


def _join_two(one: TensorField, other: TensorField) -> TensorField:
    if one.source is None or other.source is None or not one.source.same_as(other.source):
        raise ConfigError(
            f"{one.name!r} and {other.name!r} are computed from different spectrograms, "
            "whose pixels cannot be counted together."
        )
    try:
        states = tuple(_joined(*pair) for pair in zip(one.axes, other.axes, strict=True))
    except RateError as error:
        raise RateError(
            f"{one.name!r} and {other.name!r} cannot be combined position by position: "
            f"{error}. Bring them to the same rate by pooling or up-sampling."
        ) from error
    for note in other.notes:
        one = one.noted(note)
    return replace(one, axes=states)


def _joined(one: AxisState, other: AxisState) -> AxisState:
    """What is seen along one axis.

    Raises:
        RateError: Two fields have no common one.
    """
    match one, other:
        case (Unlimited(), _):
            return one
        case (_, Unlimited()):
            return other
        case (Pooled(), Pooled()):
            return _joined_pools(one, other)
        case (Pooled() as pooled, _) | (_, Pooled() as pooled):
            return Unlimited(f"what {pooled.pooler} pooled over all positions is given to each")
        case (Still(), Still()):
            return Still(one.field.joined(other.field))
        case (Along(), Along()) if one.dim == other.dim:
            return replace(one, field=one.field.joined(other.field))
        case (Along(), Along()):
            return Unlimited("it is laid across another axis")
        case _:
            return Unlimited("what a fixed position sees is given to each")


def _joined_pools(one: Pooled, other: Pooled) -> Pooled:
    try:
        return replace(one, field=one.field.joined(other.field))
    except RateError:
        # Averages over maps of different rates: no window is larger than the larger one's.
        return max(one, other, key=lambda pooled: pooled.field.size)
