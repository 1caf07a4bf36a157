"""What is seen where several tensors are combined position by position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rfkeras.errors import ConfigError
from rfkeras.receptive_field.field import RateError
from rfkeras.receptive_field.states import Along, AxisState, Pooled, Still, Unlimited
from rfkeras.receptive_field.tensor import Shape, TensorField, still


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
