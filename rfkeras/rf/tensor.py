"""Fields of the positions of tensors, which are the arguments and results of rules.

`TensorField` describes one tensor; its methods express what a layer does with each dimension.
The functions that return a `Reading` describe how layers read along one dimension, and `join`
combines tensors position by position.
"""

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
    """Each position along a dimension sees a separate window.

    Attributes:
        field: The windows.
        dim: The dimension of the tensor.
    """

    field: AxisField
    dim: int


@dataclass(frozen=True)
class Broadcast:
    """All positions see the same window, that of a single position.

    Attributes:
        field: The window, with a jump of 0.
    """

    field: AxisField


@dataclass(frozen=True)
class Pooled:
    """Everything is seen, through a mean or maximum over the positions of a map.

    Attributes:
        field: Field of the map's positions.
        length: Number of positions of the map.
        by: Name of the layer that pooled.
    """

    field: AxisField
    length: int | None
    by: str = ""

    @property
    def pooler(self) -> str:
        """Name of the layer for messages."""
        return repr(self.by) if self.by else "it"


@dataclass(frozen=True)
class Unlimited:
    """Everything is seen, or can be seen.

    Attributes:
        why: The reason, such as "its state depends on all earlier steps".
        by: Name of the layer.
    """

    why: str
    by: str = ""


AxisState = Along | Broadcast | Pooled | Unlimited


class Source:
    """The tensor whose pixels are counted: a model's input, or a spectrogram inside it.

    Args:
        rank: Number of axes without the batch.
        begun_by: Its identity: the layer that computes it, or any object.
        scale: Units of a spectrogram, if known.
        settled: True if it is known which axis holds channels, if any.
        waveform: For a spectrogram: what each sample of its waveform sees of the model's
            input; None if that is not a window.
    """

    def __init__(
        self,
        rank: int,
        begun_by: object,
        scale: SpectrogramScale | None = None,
        settled: bool = True,
        waveform: AxisField | None = None,
    ) -> None:
        self.waveform = waveform
        self.rank = rank
        self.begun_by = begun_by
        self.scale = scale
        self.channels: int | None = None
        self.settled = settled

    def settle_channels(self, axis: int | None) -> None:
        """Set the axis of channels, unless an earlier layer has set it."""
        if not self.settled:
            self.settled, self.channels = True, axis

    def again(self, begun_by: object, scale: SpectrogramScale | None) -> Source:
        """Return a source with the same axes, one of which is counted in new units."""
        source = Source(self.rank, begun_by, scale, self.settled)
        source.channels = self.channels
        return source

    def same_as(self, other: Source) -> bool:
        """Return whether the pixels of the two are the same."""
        return self.begun_by is other.begun_by

    @property
    def axes(self) -> tuple[int, ...]:
        """Axes other than channels: time, then frequency if there is one."""
        channels = self.channels
        if not self.settled and self.rank > 2:
            channels = self.rank - 1
        return tuple(axis for axis in range(self.rank) if axis != channels)


Length = int | None

# Number of input positions read on either side of an interpolated position.
INTERPOLATIONS = {"nearest": 0, "bilinear": 1, "bicubic": 2, "lanczos3": 3, "lanczos5": 5}


@dataclass(frozen=True)
class Reading:
    """The positions that a layer reads along one axis.

    Attributes:
        taps: The input positions that each output position reads.
        length: Length of the output.
        assumed_multiple: The number that the unknown input length was assumed to be a
            multiple of, if the place of the first window depends on it; else 1.
    """

    taps: Taps
    length: Length
    assumed_multiple: int = 1


def sliding(
    length: Length, kernel: int, stride: int = 1, dilation: int = 1, padding: str = "valid"
) -> Reading:
    """Return the reading of a sliding window: convolution or pooling.

    Raises:
        ConfigError: padding is not "valid", "same" or "causal".
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
    """Return the reading of a transposed convolution."""
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
    """Return the reading of up-sampling by an integer factor, with half-pixel centres.

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
        elif place.denominator == 1:  # on an input position: the others have weight 0
            reads.append((int(place), 1, 1))
        else:
            reads.append((math.floor(place) - radius + 1, 2 * radius, 1))
    return Reading(Taps(tuple(reads), 1), None if length is None else length * factor)


def padded(length: Length, before: int, after: int) -> Reading:
    """Return the reading of padding at both ends; negative numbers crop."""
    positions = None if length is None else length + before + after
    return Reading(Taps(((-before, 1, 1),), 1), positions)


def sliced(length: Length, part: slice) -> Reading | None:
    """Return the reading of a slice; None if it is reversed or needs an unknown length."""
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
    """Return the reading of grouped channels: each output group reads one input group.

    Args:
        parts: Number of groups.
        out_of: Input channels per group.
        each: Output channels per group.
    """
    return Reading(Taps(((0, out_of, 1),) * each, out_of), parts * each)


Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class TensorField:
    """The field of each position of a tensor. Rules take and return such objects.

    Dimensions are counted from 0 (the batch); negative numbers count from the end. Tensors
    are immutable: every method returns a new one. What a position sees along one axis does
    not depend on its place along the other dimensions.

    Attributes:
        shape: Lengths of the dimensions; None if unknown.
        source: The input or spectrogram that is seen; None if the tensor does not depend on
            it.
        axes: What is seen along each axis of the source.
        name: Name of the layer that computed the tensor.
        notes: Assumptions made since the layer's inputs.
    """

    shape: Shape
    source: Source | None = None
    axes: tuple[AxisState, ...] = ()
    name: str = ""
    notes: tuple[str, ...] = ()

    @property
    def rank(self) -> int:
        """Number of dimensions, including the batch."""
        return len(self.shape)

    def dim(self, dim: int) -> int:
        """Return the index of a dimension, counted from 0.

        Raises:
            ConfigError: There is no such dimension.
        """
        if not -self.rank <= dim < self.rank:
            raise ConfigError(f"A tensor of shape {self.shape} has no dimension {dim}.")
        return dim % self.rank

    def read(self, dim: int, reading: Reading) -> TensorField:
        """Apply a layer that reads these positions along one dimension."""
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
        """Slide a window along one dimension, as a convolution or pooling layer does.

        Args:
            dim: The dimension.
            kernel: Number of positions in the window.
            stride: Distance between windows.
            dilation: Distance between the positions that a window reads.
            padding: "valid", "same" (TensorFlow's rule) or "causal" (all at the start).
        """
        length = self.shape[self.dim(dim)]
        result = self.read(dim, sliding(length, kernel, stride, dilation, padding))
        return result._hardened() if kernel > 1 else result

    def pad(self, dim: int, before: int, after: int) -> TensorField:
        """Add positions at the ends of a dimension; negative numbers remove them."""
        return self.read(dim, padded(self.shape[self.dim(dim)], before, after))

    def contract(self, dim: int, length: int | None, why: str = "") -> TensorField:
        """Contract one dimension: each output reads all of its positions.

        The dimension then holds `length` features, as after a dense layer.
        """
        dim = self.dim(dim)
        why = why or "its positions are read as features"
        return self._map(dim, lambda _: Unlimited(why)).resized(dim, length)._hardened()

    def unlimited(self, dims: int | Iterable[int], why: str) -> TensorField:
        """Make what is seen along these dimensions unlimited.

        Args:
            dims: The dimensions, which keep their positions.
            why: The reason, for the notes, such as "its state depends on all earlier steps".
        """
        result = self
        for dim in (dims,) if isinstance(dims, int) else dims:
            if self._along(self.dim(dim)):
                result = result._hardened()._map(self.dim(dim), lambda _: Unlimited(why))
        return result

    def pool(self, dims: int | Iterable[int], keepdims: bool = False) -> TensorField:
        """Pool over all positions of these dimensions, by a mean or maximum."""
        gone = {self.dim(d) for d in ((dims,) if isinstance(dims, int) else dims)}
        result = self
        for dim in gone:
            result = result._map(dim, self._pooled).resized(dim, 1)
        return result if keepdims else result.dropped(gone)

    def _pooled(self, state: Along) -> Pooled:
        return Pooled(state.field, self.shape[state.dim])

    def as_channels(self, dim: int) -> TensorField:
        """Declare this dimension to hold channels, if that is not known yet."""
        if self.source is not None:
            along = self._along(self.dim(dim))
            self.source.settle_channels(along[0] if along else None)
        return self

    def resized(self, dim: int, length: int | None) -> TensorField:
        """Change the length of one dimension, and nothing else."""
        dim = self.dim(dim)
        return replace(self, shape=(*self.shape[:dim], length, *self.shape[dim + 1 :]))

    def dropped(self, dims: Iterable[int]) -> TensorField:
        """Remove these dimensions, keeping the first position of each."""
        gone = {self.dim(dim) for dim in dims}
        result = self
        for dim in gone:
            result = result._map(dim, lambda state: broadcast(state.field, 0))
        places = [dim for dim in range(self.rank) if dim not in gone]
        return result.permuted(places)

    def position(self, dim: int, position: int) -> TensorField:
        """Select one position of a dimension and remove the dimension."""
        dim = self.dim(dim)
        return self.read(dim, Reading(Taps(((position, 1, 1),), 1), 1)).dropped((dim,))

    def inserted(self, dim: int, length: int | None = 1) -> TensorField:
        """Insert a dimension at this place of the result; its positions are all the same."""
        dim = dim % (self.rank + 1)
        moved = {place: place + (place >= dim) for place in range(self.rank)}
        return self.placed(moved, (*self.shape[:dim], length, *self.shape[dim:]))

    def permuted(self, order: Sequence[int]) -> TensorField:
        """Reorder the dimensions: `order[i]` moves to place i."""
        order = [self.dim(dim) for dim in order]
        moved = {dim: place for place, dim in enumerate(order)}
        return self.placed(moved, tuple(self.shape[dim] for dim in order))

    def placed(self, moved: Mapping[int, int], shape: Shape) -> TensorField:
        """Change the shape; `moved` maps dimensions with an axis to their new places."""
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
        samples: int = 1,
    ) -> TensorField:
        """Start counting in the pixels of a spectrogram computed from this tensor.

        Args:
            shape: Shape of the spectrogram.
            time: Dimension of the frames.
            frequency: Dimension of the bands.
            begun_by: The layer. Spectrograms of different layers cannot be joined.
            scale: Units of the spectrogram, if known.
            samples: Dimension of this tensor that holds the samples. What they see goes into
                the source's `waveform`; if it has no limit, the frames have none.
        """
        if self.source is None:
            return TensorField(shape)
        seen = self._samples(samples % self.rank)
        waveform = seen.field if isinstance(seen, Along) else None
        source = Source(2, begun_by, scale, waveform=waveform)
        frames: AxisState = Along(AxisField(), time % len(shape))
        if isinstance(seen, Unlimited):
            frames = seen
        bands = Along(AxisField(), frequency % len(shape))
        return TensorField(shape, source, (frames, bands))

    def _samples(self, dim: int) -> Along | Unlimited:
        """Return what each position of a waveform along this dimension sees."""
        own = [self.axes[axis] for axis in self._along(dim)]
        whole = [state for state in self.axes if not isinstance(state, Along)]
        state = (own or whole or [Unlimited("its samples are not an axis of the input")])[0]
        if isinstance(state, Pooled):
            return Unlimited(f"the spectrogram depends on what {state.pooler} pooled")
        if isinstance(state, Broadcast):
            return Unlimited("all samples depend on the same fixed samples")
        return state

    def joined(self, *others: TensorField, concatenated: int | None = None) -> TensorField:
        """Combine with other tensors position by position; see `join`."""
        return join([self, *others], concatenated)

    def noted(self, note: str) -> TensorField:
        """Add a note for the layer's row of the table."""
        return self if note in self.notes else replace(self, notes=(*self.notes, note))

    def _along(self, dim: int) -> list[int]:
        """Return the axes of the source whose positions are along that dimension."""
        return [
            axis
            for axis, state in enumerate(self.axes)
            if isinstance(state, Along) and state.dim == dim
        ]

    def _map(self, dim: int, change: Callable[[Along], AxisState]) -> TensorField:
        """Change the state of the axes along that dimension."""
        states = tuple(
            change(state) if isinstance(state, Along) and state.dim == dim else state
            for state in self.axes
        )
        return replace(self, axes=states)

    def _hardened(self) -> TensorField:
        """Mark pooled axes as unlimited, because a layer with a kernel reads them.

        If no axis has positions left, the layer belongs to the head and nothing changes.
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


def broadcast(field: AxisField, position: int) -> Broadcast:
    """Return the state in which all positions see the window of this position."""
    first, stop = field.window(position)
    return Broadcast(AxisField(stop - first, 0, first))


def join(tensors: Sequence[TensorField], concatenated: int | None = None) -> TensorField:
    """Combine tensors position by position.

    Shapes are broadcast as in NumPy. If a tensor has a single position along a dimension
    and the result has more, all of them see what that position sees.

    Args:
        tensors: The tensors, at least one.
        concatenated: Dimension along which they are concatenated, where their lengths may
            differ; None if they are not.

    Raises:
        ConfigError: They see different spectrograms, or have different distances between
            positions.
    """
    rank = max(tensor.rank for tensor in tensors)
    aligned = [_of_rank(tensor, rank) for tensor in tensors]
    shape = tuple(_common(lengths) for lengths in zip(*(t.shape for t in aligned), strict=True))
    if concatenated is not None and len(aligned) > 1:
        dim = concatenated % rank
        lengths = [tensor.shape[dim] for tensor in aligned]
        total = None if None in lengths else sum(n for n in lengths if n is not None)
        shape = (*shape[:dim], total, *shape[dim + 1 :])
        why = "maps are concatenated along it"
        aligned = [tensor.unlimited(dim, why) for tensor in aligned]
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
    """Give all positions of a repeated dimension the same window."""
    states = tuple(
        broadcast(state.field, 0)
        if isinstance(state, Along) and tensor.shape[state.dim] == 1 != shape[state.dim]
        else state
        for state in tensor.axes
    )
    return replace(tensor, axes=states)


def _join_two(one: TensorField, other: TensorField) -> TensorField:
    if one.source is None or other.source is None or not one.source.same_as(other.source):
        raise ConfigError(
            f"{one.name!r} and {other.name!r} are computed from different spectrograms, "
            "whose pixels cannot be compared."
        )
    try:
        states = tuple(_joined(*pair) for pair in zip(one.axes, other.axes, strict=True))
    except RateError as error:
        raise RateError(
            f"{one.name!r} and {other.name!r} cannot be combined position by position: "
            f"{error}. Pool or up-sample one of them, so that both have the same rate."
        ) from error
    for note in other.notes:
        one = one.noted(note)
    return replace(one, axes=states)


def _joined(one: AxisState, other: AxisState) -> AxisState:
    """Combine what two tensors see along one axis.

    Raises:
        RateError: Two fields have no common field.
    """
    match one, other:
        case (Unlimited(), _):
            return one
        case (_, Unlimited()):
            return other
        case (Pooled(), Pooled()):
            return _joined_pools(one, other)
        case (Pooled() as pooled, _) | (_, Pooled() as pooled):
            return Unlimited(f"all positions receive what {pooled.pooler} pooled over them")
        case (Broadcast(), Broadcast()):
            return Broadcast(one.field.joined(other.field))
        case (Along(), Along()) if one.dim == other.dim:
            return replace(one, field=one.field.joined(other.field))
        case (Along(), Along()):
            return Unlimited("it is combined with another axis")
        case _:
            return Unlimited("all positions receive what a fixed position sees")


def _joined_pools(one: Pooled, other: Pooled) -> Pooled:
    try:
        return replace(one, field=one.field.joined(other.field))
    except RateError:
        # Averages over maps of different rates: the larger field is the upper bound.
        return max(one, other, key=lambda pooled: pooled.field.size)
