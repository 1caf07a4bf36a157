"""The names under which architectures can be built.

A short function decorated with `@register_model` is an architecture; its keyword arguments
are the model's options. Listing names imports no framework.
"""

from __future__ import annotations

import fnmatch
import inspect
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from rfkeras.errors import CheckpointError, ConfigError, unknown_name
from rfkeras.receptive_field.arithmetic import LayerChain

ARCHITECTURES = (  # one module an architecture
    "zoo.resnet_rf",
    "zoo.resnet",
    "zoo.vgg_rf",
    "zoo.densenet_rf",
    "zoo.crnn",
)

Builder = Callable[..., Any]
Planner = Callable[..., LayerChain]


@dataclass(frozen=True)
class ModelInfo:
    """One name of the zoo.

    Attributes:
        name: Its name.
        summary: One line on what it is.
        options: Its options and their default values.
        builder: The function that builds it.
        plan: The function from its options to its chain of layers.
    """

    name: str
    summary: str
    options: dict[str, Any]
    builder: Builder
    plan: Planner

    def plan_for(self, **options: Any) -> LayerChain:
        """The layers that decide the receptive field, of a model with these options.

        Raises:
            ConfigError: One of the options that count here is out of its range.
        """
        values = {**self.options, **options}
        used = inspect.signature(self.plan).parameters
        return self.plan(**{name: values[name] for name in used if name in values})


_MODELS: dict[str, ModelInfo] = {}


def _register(info: ModelInfo) -> None:
    if info.name in _MODELS:
        raise ConfigError(f"A model named {info.name!r} is registered already.")
    _MODELS[info.name] = info


def register_model(plan: Planner) -> Callable[[Builder], Builder]:
    """Make a function an architecture of the zoo, under the function's own name.

    The function takes `num_classes`, and as keyword-only arguments `name`, `label_names`,
    `task` and its options with their defaults; it returns a Keras model. The first line of
    its docstring is the summary.

    Args:
        plan: Takes some of the options, by name, and returns the chain of layers that
            decides the receptive field; it imports no framework.

    Raises:
        ConfigError: The name is taken.
    """

    def register(builder: Builder) -> Builder:
        parameters = inspect.signature(builder).parameters.values()
        options = {
            p.name: p.default
            for p in parameters
            if p.kind is p.KEYWORD_ONLY and p.name not in ("name", "label_names", "task")
        }
        summary = (inspect.getdoc(builder) or "").partition("\n")[0]
        _register(ModelInfo(builder.__name__, summary, options, builder, plan))
        return builder

    return register


def register_alias(name: str, of: str, summary: str, **preset: Any) -> None:
    """Register a name for another architecture with other defaults.

    Raises:
        ConfigError: The name is taken.
    """
    target = _MODELS[of]
    _register(
        ModelInfo(name, summary, {**target.options, **preset}, target.builder, target.plan)
    )


def _models() -> dict[str, ModelInfo]:
    for module in ARCHITECTURES:
        import_module(module)
    return _MODELS


def list_models(pattern: str = "*") -> list[str]:
    """Names that match a shell pattern such as "resnet_rf*", in natural order."""
    names = fnmatch.filter(_models(), pattern)
    return sorted(
        names,
        key=lambda name: [int(p) if p.isdigit() else p for p in re.split(r"(\d+)", name)],
    )


def model_info(name: str) -> ModelInfo:
    """Summary, options and builder of that name.

    Raises:
        ConfigError: No such name; the message suggests the nearest.
    """
    models = _models()
    if name not in models:
        raise ConfigError(unknown_name("model", name, models))
    return models[name]


def create_model(
    name: str,
    num_classes: int | None = None,
    *,
    label_names: tuple[str, ...] | None = None,
    task: str = "multi_label",
    weights: str | Path | None = None,
    **options: Any,
) -> Any:
    """Build a model of the zoo.

    Args:
        name: One of `list_models()`.
        num_classes: Number of tags; may be left out where `label_names` tells it.
        label_names: Name of each tag, kept in the model.
        task: "multi_label", or "single_label" where each clip has exactly one class.
        weights: None for the initialisation; else a file written by `model.save`
            (.keras) or `model.save_weights` (.weights.h5), or a PyTorch checkpoint of the
            published networks (.npz, .pth, .pt).
        **options: The architecture's own, see `model_info(name).options`. Most have
            `rho`, `width`, `blocks`, `frontend` (a preset's name, a
            `rfkeras.frontend.Frontend`, or None for a model that takes spectrograms) and
            `input_channels`.

    Returns:
        A Keras model: waveforms (batch, samples), or spectrograms, in; logits
        (batch, num_classes) out.

    Raises:
        ConfigError: Unknown name or option, or a value out of its range.
        CheckpointError: The weights cannot be read or do not fit.

    Example:
        >>> model = create_model("resnet_rf", num_classes=20, rho=7, width=128)
    """
    info = model_info(name)
    for option in options:
        if option not in info.options:
            raise ConfigError(unknown_name(f"option of {name}", option, info.options))
    if num_classes is None and label_names is not None:
        num_classes = len(label_names)
    if not isinstance(num_classes, int) or isinstance(num_classes, bool) or num_classes < 1:
        raise ConfigError(
            f"num_classes must be a whole number of at least 1 (or give label_names). "
            f"Received: num_classes={num_classes!r}."
        )
    model = info.builder(
        num_classes,
        name=name,
        label_names=label_names,
        task=task,
        **{**info.options, **options},
    )
    if weights is not None:
        _load_weights(model, Path(weights))
    return model


def _load_weights(model: Any, path: Path) -> None:
    from rfkeras.interop import CHECKPOINT_SUFFIXES, load_torch_checkpoint

    if not path.exists():
        raise CheckpointError(f"There is no weights file {path}.")
    if path.suffix in CHECKPOINT_SUFFIXES:
        load_torch_checkpoint(model, path)
        return
    if path.suffix not in (".keras", ".h5"):
        raise CheckpointError(
            f"{path}: weights files end in .keras, .weights.h5, "
            f"{', '.join(CHECKPOINT_SUFFIXES)}."
        )
    try:
        model.load_weights(path)
    except (ValueError, OSError, KeyError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path} does not fit model {model.name!r}: {error}") from error
