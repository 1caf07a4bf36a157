"""Ready architectures, by name: `list_models()` and `create_model(name, ...)`."""

from pathlib import Path

from zoo.pretrained import ReadyWeights, list_weights
from zoo.registry import (
    ModelInfo,
    create_model,
    list_models,
    model_info,
    register_alias,
    register_model,
)

RECIPES = Path(__file__).parent / "recipes"  # options of whole experiments, as YAML

__all__ = [
    "RECIPES",
    "ModelInfo",
    "ReadyWeights",
    "create_model",
    "list_models",
    "list_weights",
    "model_info",
    "register_alias",
    "register_model",
]
