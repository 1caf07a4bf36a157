"""Model zoo: list models by name and build them, with or without pretrained weights.

Names are imported on first use.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from rfkeras.utils.lazy import lazy_attributes

if TYPE_CHECKING:
    from zoo.pretrained import PretrainedWeights, list_weights
    from zoo.registry import (
        ModelInfo,
        create_model,
        list_models,
        model_info,
        register_alias,
        register_model,
    )

RECIPES = Path(__file__).parent / "recipes"  # options of experiments, in YAML

__all__ = [
    "RECIPES",
    "ModelInfo",
    "PretrainedWeights",
    "create_model",
    "list_models",
    "list_weights",
    "model_info",
    "register_alias",
    "register_model",
]

_OF_REGISTRY = (
    "ModelInfo",
    "create_model",
    "list_models",
    "model_info",
    "register_alias",
    "register_model",
)
__getattr__ = lazy_attributes(
    __name__,
    {
        **dict.fromkeys(("PretrainedWeights", "list_weights"), "zoo.pretrained"),
        **dict.fromkeys(_OF_REGISTRY, "zoo.registry"),
    },
)
