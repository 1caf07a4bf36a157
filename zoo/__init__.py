"""Ready architectures, by name: `list_models()` and `create_model(name, ...)`."""

from pathlib import Path

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
    "create_model",
    "list_models",
    "model_info",
    "register_alias",
    "register_model",
]
