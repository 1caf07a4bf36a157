"""Which positions of its input a layer reads, along one axis, and how long its output is.

Lengths are None where they are unknown. TensorFlow's "same" padding depends on the length:
it adds max((ceil(n / s) - 1) * s + k - n, 0) positions, the smaller half of them in front.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from rfkeras.errors import ConfigError, unknown_name
from rfkeras.receptive_field.field import Taps

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
