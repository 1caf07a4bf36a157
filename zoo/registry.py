"""The names under which architectures can be built.

A short function decorated with `@register_model` is an architecture; its keyword arguments
are the model's options. Listing names imports no framework.
"""

from __future__ import annotations

import fnmatch
import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from rfkeras.errors import ConfigError, unknown_name
from rfkeras.rf.axis import LayerChain
from rfkeras.tasks import MULTI_LABEL
from zoo.transfer import open_start

ARCHITECTURES = (  # one module per architecture
    "zoo.resnet_rf",
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
    label_names: Sequence[str] | None = None,
    task: str | None = None,
    weights: str | Path | None = None,
    **options: Any,
) -> Any:
    """Build a model of the zoo.

    Args:
        name: One of `list_models()`.
        num_classes: Number of tags; may be left out where `label_names` or the weights tell
            it.
        label_names: Name of each tag, kept in the model.
        task: "multi_label" (the default), or "single_label" where each clip has exactly one
            class.
        weights: None for the initialisation; the name of ready weights, see
            `list_weights`; a file written by `model.save` (.keras) or
            `model.save_weights` (.weights.h5), or a PyTorch checkpoint of the published
            networks (.npz, .pth, .pt). Of ready weights and .keras files come the tags, the
            task and the front-end where they are not given; of ready weights also the
            architecture's options. Where the tags or the task are given and are others,
            the classifier keeps its initialisation, which a line on standard error tells.
        **options: The architecture's own, see `model_info(name).options`. Most have
            `rho`, `width`, `blocks`, `frontend` (a preset's name, a
            `rfkeras.frontend.Frontend`, or None for a model that takes spectrograms) and
            `input_channels`.

    Returns:
        A Keras model: waveforms (batch, samples), or spectrograms, in; logits
        (batch, num_classes) out.

    Raises:
        ConfigError: Unknown name or option, a value out of its range, or one that
            contradicts the weights.
        CheckpointError: The weights cannot be read or do not fit.

    Example:
        >>> model = create_model("resnet_rf", num_classes=20, rho=7, width=128)
        >>> model = create_model("resnet_rf_tiny", weights="gm_instruments")
    """
    info = model_info(name)
    for option in options:
        if option not in info.options:
            raise ConfigError(unknown_name(f"option of {name}", option, info.options))
    names = None if label_names is None else tuple(label_names)
    if num_classes is None and names is not None:
        num_classes = len(names)
    start = None if weights is None else open_start(weights, name, options)
    if start is not None:
        num_classes, names, task = start.tags(num_classes, names, task)
        options = {**start.options(), **options}
    if not isinstance(num_classes, int) or isinstance(num_classes, bool) or num_classes < 1:
        raise ConfigError(
            f"num_classes must be a whole number of at least 1 (or give label_names). "
            f"Received: num_classes={num_classes!r}."
        )

    def build(classes: int, names: tuple[str, ...] | None = None) -> Any:
        return info.builder(
            classes,
            name=name,
            label_names=names,
            task=task or MULTI_LABEL,
            **{**info.options, **options},
        )

    model = build(num_classes, names)
    if start is not None:
        start.load_into(model, build)
    return model
