"""Models of reduced precision, in float32."""

from __future__ import annotations

from typing import Any

import keras


def computes_in_float32(model: keras.Model) -> bool:
    """Whether every layer of a model does."""
    return all(layer.compute_dtype in ("float32", None) for layer in model._flatten_layers())


def in_float32(model: keras.Model) -> keras.Model:
    """The model with every layer computing in float32.

    Inference on a CPU is slower in half precision than in float32, and rounds more.

    Args:
        model: Functional.

    Returns:
        The model itself where all layers do already; else a copy, with a copy of the weights.
    """
    if computes_in_float32(model):
        return model
    clone = model.__class__.from_config(_float32_policies(model.get_config()))
    clone.set_weights(model.get_weights())
    return clone


def _float32_policies(config: Any) -> Any:
    if isinstance(config, dict):
        if config.get("class_name") == "DTypePolicy":
            return {**config, "config": {**config["config"], "name": "float32"}}
        return {key: _float32_policies(value) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return type(config)(_float32_policies(value) for value in config)
    return config
