"""Model zoo: list models by name and build them, with or without pretrained weights."""

from pathlib import Path

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
