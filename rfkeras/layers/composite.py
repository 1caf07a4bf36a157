"""Base class of layers made of other layers: `trainable` reaches every part.

Also checks of arguments and inputs that the layers share.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import keras

from rfkeras.errors import ConfigError

PARTS = "trainable_parts"


class CompositeLayer(keras.layers.Layer):
    """A layer made of other layers, which `trainable` reaches at any time.

    In Keras, `trainable` reaches only the sublayers that exist when it is set, and the config
    of a layer does not contain that of its sublayers. Here a sublayer that is created later,
    in `build` for example, takes the value of its parent. If some sublayers differ from their
    parent, the config records them under "trainable_parts", so that they also stay frozen
    in saved, loaded and cloned models.
    """

    #: (path of a sublayer that does not exist yet, its `trainable`), parents first.
    _awaited: tuple[tuple[str, bool], ...] = ()

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "trainable":
            # TensorFlow skips assignments of an equal value, but sublayers can differ.
            keras.layers.Layer.trainable.fset(self, value)
            self._awaited = ()
            return
        super().__setattr__(name, value)
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, keras.layers.Layer):
                self._adopt(part)

    def _adopt(self, part: Any) -> None:
        """Give a new sublayer the value of its parent, or the recorded one."""
        if not self.trainable:
            part.trainable = False
        own = {p: v for p, v in self._awaited if p.split("/")[0] == part.name}
        self._awaited = tuple(each for each in self._awaited if each[0] not in own)
        self._set_parts(own)

    def _set_parts(self, states: dict[str, bool]) -> None:
        """Set `trainable` of sublayers by path; keep those that do not exist yet."""
        for path, value in sorted(states.items(), key=lambda item: item[0].count("/")):
            part = dict(_parts(self)).get(path)
            if part is None:
                self._awaited = (*self._awaited, (path, value))
            else:
                part.trainable = value

    def get_config(self) -> dict[str, Any]:
        different = {
            path: part.trainable
            for path, part in _parts(self)
            if part.trainable != _parent(self, path).trainable
        }
        different |= dict(self._awaited)
        return {**super().get_config(), **({PARTS: different} if different else {})}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        layer = super().from_config({k: v for k, v in config.items() if k != PARTS})
        layer._set_parts(config.get(PARTS, {}))
        return layer


def _parts(layer: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (path, sublayer) for all levels, parents before their sublayers."""
    for part in layer._flatten_layers(include_self=False, recursive=False):
        yield prefix + part.name, part
        yield from _parts(part, f"{prefix}{part.name}/")


def _parent(layer: Any, path: str) -> Any:
    return dict(_parts(layer)).get(path.rpartition("/")[0], layer)


def check_whole(layer: str, **values: Any) -> None:
    """Reject arguments of a layer that are not whole numbers of at least 1.

    Raises:
        ConfigError: One is not; the message names layer and argument.
    """
    for name, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ConfigError(
                f"{layer}: {name} must be a whole number of at least 1. Received: "
                f"{_with_type(value)}."
            )


def check_kernel(layer: str, kernel_size: Any, *, odd: bool = False) -> tuple[int, int]:
    """Return a kernel as (time, frequency); one number stands for both, as in Keras.

    Args:
        layer: Class of the layer, for the message.
        kernel_size: What was given.
        odd: Reject even sizes, for layers that see the same distance on both sides.

    Raises:
        ConfigError: It is neither a whole number nor two of them.
    """
    pair = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
    is_pair = isinstance(pair, Sequence) and not isinstance(pair, str) and len(pair) == 2
    if not is_pair or any(
        not isinstance(k, int) or isinstance(k, bool) or k < 1 or (odd and k % 2 == 0)
        for k in pair
    ):
        kind = "an odd number, or two odd numbers" if odd else "a whole number, or two of them"
        raise ConfigError(
            f"{layer}: kernel_size must be {kind} (time, frequency), at least 1. "
            f"Received: {_with_type(kernel_size)}."
        )
    return pair[0], pair[1]


def _with_type(value: Any) -> str:
    """Return a value for a message; NumPy's numbers, which look like Python's, with type."""
    numpy_type = type(value).__module__ == "numpy"
    return (
        f"{value!r} ({type(value).__name__}; int() makes it one)" if numpy_type else repr(value)
    )


def check_map(layer: Any, shape: Any) -> None:
    """Reject inputs of a layer that are not maps with a known number of channels.

    Raises:
        ConfigError: The shape is not (batch, time, frequency, channels).
    """
    dimensions = tuple(shape)
    if len(dimensions) != 4 or dimensions[-1] is None:
        raise ConfigError(
            f"{type(layer).__name__} {layer.name!r} needs maps (batch, time, frequency, "
            "channels) with a known number of channels (channels last). Received: shape "
            f"{dimensions}."
        )
