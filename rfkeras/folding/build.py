"""Layers of a folded model, made of layers of its source."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras

from rfkeras.errors import ConfigError
from rfkeras.folding.convolution import Chain


class Builder:
    """Makes the layers of one model, under names of their own.

    Args:
        names: That are taken: those of the source's layers, which keep them.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._taken = set(names)
        self._copies: dict[int, Any] = {}

    def convolve(self, x: Any, chain: Chain, name: str, taken: bool = False) -> Any:
        """The convolutions of a chain, applied.

        Args:
            x: A symbolic tensor.
            chain: The convolutions.
            name: Of the layer; of several, "_1" and so on is added.
            taken: The name is that of the layer that this one stands for.
        """
        for number, convolution in enumerate(chain, start=1):
            if len(chain) > 1:
                own = self.name(f"{name}_{number}")
            else:
                own = name if taken else self.name(name)
            layer = convolution.layer(own)
            x = layer(x)
            convolution.assign(layer)
        return x

    def relu(self, x: Any, name: str) -> Any:
        """A ReLU, applied."""
        return keras.layers.ReLU(dtype="float32", name=self.name(name))(x)

    def apply(self, layer: Any, *args: Any, name: str | None = None, **kwargs: Any) -> Any:
        """A copy of a layer with the same weights, applied; the same copy each time.

        Raises:
            ConfigError: The layer cannot be copied.
        """
        copy = self._copies.get(id(layer))
        if copy is not None:
            return copy(*args, **kwargs)
        copy = self._copies[id(layer)] = _copy(layer, name and self.name(name))
        outputs = copy(*args, **kwargs)
        _copy_weights(layer, copy)
        return outputs

    def has_copy(self, layer: Any) -> bool:
        """Whether `apply` has a copy of that layer already."""
        return id(layer) in self._copies

    def stand_in(self, layer: Any, copy: Any) -> None:
        """Let `apply` take this one as the copy of that layer, weights and all."""
        self._copies[id(layer)] = copy

    def name(self, wanted: str) -> str:
        """That name, or with a number where it is taken; taken from now on."""
        name, number = wanted, 1
        while name in self._taken:
            number += 1
            name = f"{wanted}_{number}"
        self._taken.add(name)
        return name


def _copy(layer: Any, name: str | None) -> Any:
    try:
        config = layer.get_config()
        if name is not None:
            config["name"] = name
        if type(layer) is keras.layers.Lambda:
            # Its function comes from this process, not from a file of unknown origin.
            return keras.layers.Lambda.from_config(config, safe_mode=False)
        return type(layer).from_config(config)
    except (NotImplementedError, TypeError, ValueError, KeyError) as error:
        raise ConfigError(
            f"Layer {layer.name!r} cannot be copied, so the model cannot be folded: give its "
            f"class {type(layer).__name__} a get_config that names all arguments of its "
            f"constructor. ({type(error).__name__})"
        ) from error


def _copy_weights(source: Any, copy: Any) -> None:
    if not isinstance(source, keras.layers.Layer):
        return  # an operation of keras.ops
    # As from a file: layers such as Normalization compute something of their weights then.
    parts = zip(source._flatten_layers(), copy._flatten_layers(), strict=True)
    for part, twin in parts:
        store: dict[str, Any] = {}
        part.save_own_variables(store)
        if store:
            twin.load_own_variables(store)
