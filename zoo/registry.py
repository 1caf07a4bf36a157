"""Names of models, and `create_model`, which builds a model from its name.

A short function decorated with `@register_model` is an architecture; its keyword arguments
are the options of the model. Listing names imports no framework.
"""

from __future__ import annotations

import fnmatch
import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from rfkeras.errors import ConfigError, unknown_name
from rfkeras.rf.axis import AxisField, AxisLayer, LayerChain
from rfkeras.tasks import MULTI_LABEL
from rfkeras.utils.user_code import Registry
from zoo.transfer import InitialWeights

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
    """A model of the zoo.

    Attributes:
        name: Its name.
        summary: One line that describes it.
        options: Its options and their defaults.
        builder: Function that builds it.
        plan: Function from some of the options to the layers that decide the receptive field;
            None if only the model itself shows it.
    """

    name: str
    summary: str
    options: dict[str, Any]
    builder: Builder
    plan: Planner | None

    def plan_for(self, **options: Any) -> LayerChain:
        """Return the layers that decide the receptive field of a model with these options.

        Without a plan, the model is built, and only the fields of the result are known.

        Raises:
            ConfigError: An option that affects the receptive field has a value that is not
                allowed.
        """
        values = {**self.options, **options}
        if self.plan is None:
            from rfkeras.rf import receptive_field

            field = receptive_field(create_model(self.name, 1, **options))
            return BuiltField(field.time, field.frequency)
        used = inspect.signature(self.plan).parameters
        return self.plan(**{name: values[name] for name in used if name in values})


@dataclass(frozen=True)
class BuiltField(LayerChain):
    """The receptive field of a model without a plan.

    Attributes:
        time: See `LayerChain`.
        frequency: See `LayerChain`.
    """

    time: AxisField | None
    frequency: AxisField | None

    def axis_layers(self, axis: int) -> Iterator[AxisLayer]:
        raise ConfigError(
            "Only models that are registered with a plan show the layers of their receptive "
            "field without being built."
        )


MODELS: Registry[ModelInfo] = Registry("model")


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
        name: Name of the model, see `list_models`.
        num_classes: Number of tags. Not needed if `label_names` or the weights give it.
        label_names: Name of each tag, saved in the model.
        task: "multi_label" (default), or "single_label" if each clip has exactly one class.
        weights: None for random initial weights. Otherwise the name of pretrained weights (see
            `list_weights`), the folder of a finished run, a file that `model.save` (.keras) or
            `model.save_weights` (.weights.h5) wrote, or a PyTorch checkpoint of the published
            networks (.npz, .pth, .pt). Pretrained weights and .keras files also set the tags,
            the task and the front-end unless these are given; pretrained weights set all
            options of the architecture. If you give other tags or another task, the
            classifier stays untrained; a note on standard error lists its layers.
        **options: Options of the architecture, see `model_info(name).options`. Most have
            `rho`, `width`, `blocks`, `frontend` (name of a preset, a
            `rfkeras.frontend.Frontend`, or None for a model that takes spectrograms) and
            `input_channels`.

    Returns:
        A Keras model: waveforms (batch, samples) or spectrograms in, logits
        (batch, num_classes) out.

    Raises:
        ConfigError: A name, an option or its value is not allowed, or contradicts the weights.
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
    start = None if weights is None else InitialWeights.open(weights, name, options)
    if start is not None:
        if start.entry and model_info(start.entry.model).builder is not info.builder:
            raise ConfigError(
                f"The weights {start.entry} do not fit model {name!r}, which is a different "
                "architecture."
            )
        num_classes, names, task = start.tags(num_classes, names, task)
        options = {**start.options(), **options}
    if not isinstance(num_classes, int) or isinstance(num_classes, bool) or num_classes < 1:
        raise ConfigError(
            "num_classes must be a whole number of at least 1, unless you give label_names. "
            f"Received: num_classes={num_classes!r}."
        )

    def build(classes: int, names: tuple[str, ...] | None = None) -> Any:
        given = {"name": name, "label_names": names, "task": task or MULTI_LABEL}
        accepted = {key: given[key] for key in given if _accepts(info.builder, key)}
        return info.builder(classes, **accepted, **{**info.options, **options})

    model = build(num_classes, names)
    if start is not None:
        start.load_into(model, build)
    return model


def list_models(pattern: str = "*") -> list[str]:
    """Return the names that match a shell pattern such as "resnet_rf*", in natural order."""
    names = fnmatch.filter(_models(), pattern)
    return sorted(
        names,
        key=lambda name: [int(p) if p.isdigit() else p for p in re.split(r"(\d+)", name)],
    )


def model_info(name: str) -> ModelInfo:
    """Return summary, options and builder of a model.

    Raises:
        ConfigError: There is no such model; the message suggests the nearest name.
    """
    return _models()[name]


def _models() -> Registry[ModelInfo]:
    for module in ARCHITECTURES:
        import_module(module)
    return MODELS


def _accepts(builder: Builder, argument: str) -> bool:
    parameters = inspect.signature(builder).parameters
    return argument in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def register_model(
    name: str | None = None, *, plan: Planner | None = None, summary: str = ""
) -> Callable[[Builder], Builder]:
    """Register the decorated function as an architecture.

    The function takes `num_classes` and, as keyword-only arguments, its options with their
    defaults. It returns a Keras model from waveforms or spectrograms to logits. If it has
    arguments named `name`, `label_names` and `task`, it gets the name of the model, the tags
    (or None) and the task, which `ClipLogits` saves. In a training run, an argument `frontend`
    is the layer that --frontend names; without it, the model creates its own front-end, and
    --frontend, --fixed-floor and --input-channels have no effect.

    Args:
        name: Name of the model; None for the name of the function.
        plan: Function that takes some of the options by name and returns the layers that
            decide the receptive field. It must not import a framework. None: the model is
            built to show its receptive field.
        summary: One line for `rfkeras models`; "" for the first line of the docstring.

    Raises:
        ConfigError: The name is taken.

    Example:
        >>> @register_model("two_branch")
        ... def two_branch(num_classes, *, label_names=None, width=16):
        ...     ...
        ...     return rfkeras.Tagger(waveform, logits)
    """

    def register(builder: Builder) -> Builder:
        info = info_of(builder, name, plan, summary)
        MODELS.add(info.name, info, origin=builder)
        return builder

    return register


def info_of(
    builder: Builder, name: str | None = None, plan: Planner | None = None, summary: str = ""
) -> ModelInfo:
    """Return the description of a function that builds a model; see `register_model`."""
    parameters = inspect.signature(builder).parameters.values()
    options = {
        p.name: p.default
        for p in parameters
        if p.kind is p.KEYWORD_ONLY and p.name not in ("name", "label_names", "task")
    }
    line = summary or (inspect.getdoc(builder) or "").partition("\n")[0]
    return ModelInfo(name or builder.__name__, line, options, builder, plan)


def register_alias(name: str, of: str, summary: str, **preset: Any) -> None:
    """Register another name for an architecture, with other defaults.

    Raises:
        ConfigError: The name is taken.
    """
    target = MODELS[of]
    options = {**target.options, **preset}
    info = ModelInfo(name, summary, options, target.builder, target.plan)
    MODELS.add(name, info, origin=f"{of} with {preset}")
