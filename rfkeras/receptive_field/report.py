"""From what a walk found to the receptive field that is returned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from rfkeras.errors import ConfigError
from rfkeras.receptive_field.field import AxisField
from rfkeras.receptive_field.result import FREQUENCY, TIME, LayerField, ReceptiveField
from rfkeras.receptive_field.states import Along, AxisState, Pooled, Source, Unlimited
from rfkeras.receptive_field.tensor import TensorField

if TYPE_CHECKING:
    from rfkeras.receptive_field.walk import Row

AXES = (TIME, FREQUENCY)

Value = TypeVar("Value")


def report(rows: Sequence[Row], output: TensorField) -> ReceptiveField:
    """The receptive field of one tensor, with a row for each layer that was walked through.

    Raises:
        ConfigError: The tensor does not depend on the input, or the input has no time axis.
    """
    source = output.source
    if source is None:
        raise ConfigError(f"The output of {output.name!r} does not depend on the input.")
    if not source.axes:
        raise ConfigError(
            "The input has features and no time axis: the first layer reads all of it at once."
        )
    states = _states(output, source)
    order = [row.name for row in rows]
    pools = [state.by for state in states if isinstance(state, Pooled)]
    layers = tuple(_layer_field(row, source) for row in rows)
    assumed = [f"{row.name!r}: {note}" for row in rows for note in row.seen.notes]
    notes = [
        f"{axis} is without limit: {state.by!r}: {state.why}"
        for axis, state in zip(AXES, states, strict=False)
        if isinstance(state, Unlimited)
    ]
    time, frequency = _pair([_field(state) for state in states])
    return ReceptiveField(
        time=time,
        frequency=frequency,
        layers=layers,
        pooled_by=min(pools, key=order.index, default=None),
        scale=source.scale,
        layer=output.name,
        axes=AXES[: len(states)],
        positions=_positions(output, states),
        notes=(*notes, *([] if time is frequency is None else assumed)),
    )


def _layer_field(row: Row, source: Source) -> LayerField:
    seen = row.seen
    if seen.source is None:
        return LayerField(row.name, row.kind, None, None, "does not depend on the input")
    in_pixels = seen.source.same_as(source)
    states = _states(seen, seen.source)
    notes = list(seen.notes)
    if row.outputs > 1:
        notes.insert(0, f"the first of {row.outputs} outputs")
    if not in_pixels:
        notes.insert(0, "counted in positions of what comes before the spectrogram")
    time, frequency = _pair([_field(state) for state in states])
    return LayerField(
        row.name,
        row.kind,
        time,
        frequency,
        "; ".join([*_new_limits(states, row.name), *notes]),
        _positions(seen, states),
        in_pixels,
    )


def _states(seen: TensorField, source: Source) -> list[AxisState]:
    """What is seen along time and, if there is such an axis, frequency."""
    return [seen.axes[axis] for axis in source.axes[:2]]


def _field(state: AxisState) -> AxisField | None:
    return None if isinstance(state, Unlimited) else state.field


def _new_limits(states: Sequence[AxisState], name: str) -> list[str]:
    """What this layer did to whole axes."""
    pooled = [
        axis
        for axis, state in zip(AXES, states, strict=False)
        if isinstance(state, Pooled) and state.by == name
    ]
    notes = [f"pools over {' and '.join(pooled)}"] if pooled else []
    return notes + [
        f"{axis} without limit: {state.why}"
        for axis, state in zip(AXES, states, strict=False)
        if isinstance(state, Unlimited) and state.by == name
    ]


def _positions(seen: TensorField, states: Sequence[AxisState]) -> tuple[int | None, int | None]:
    lengths: list[int | None] = []
    for state in states:
        if isinstance(state, Along):
            lengths.append(seen.shape[state.dim])
        else:
            lengths.append(state.length if isinstance(state, Pooled) else None)
    return _pair(lengths)


def _pair(values: Sequence[Value]) -> tuple[Value | None, Value | None]:
    first, *rest = values
    return first, rest[0] if rest else None
