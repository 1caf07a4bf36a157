"""The registry of rules: functions from what a layer's inputs see to what its output sees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from rfkeras.errors import ConfigError
from rfkeras.rf.tensor import TensorField

PROTOCOL = "trace_receptive_field"

AnyRule = TypeVar("AnyRule", bound=Callable[..., Any])


class Call(Protocol):
    """One application of a layer, as passed to its rule.

    Attributes:
        name: Name of the layer; "outer/inner" for one inside another.
        args: All positional arguments, with tensors replaced by what they see.
        kwargs: All keyword arguments, with tensors replaced likewise.
        shapes: Shapes of the outputs as computed by Keras; () if not computed.
    """

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    shapes: tuple[Any, ...]

    def apply(self, layer: Any, *args: Any, **kwargs: Any) -> Any:
        """Return what the output of another layer sees when applied to these inputs."""

    def tensors(self) -> list[TensorField]:
        """Return what all tensor arguments see, including constants, in order."""


Rule = Callable[[Any, Any, Call], Any]

_RULES: dict[type | str, Rule] = {}


def register_rule(*classes: type | str) -> Callable[[AnyRule], AnyRule]:
    """Register a function as the rule of layer classes or `keras.ops` operations.

    Custom layers usually need no rule. Give the class a method with the same signature,
    `trace_receptive_field(self, inputs, call)`, which takes precedence over a rule.

    Rules and such methods also apply to subclasses, unless these override `call`. A new
    rule for a class replaces the previous one.

    Args:
        *classes: Layer classes, or their full names ("module.Class") to avoid importing
            them.

    Returns:
        A decorator. The decorated function takes the layer, its first argument (a
        `TensorField` or a list of them) and a `Call`, and returns the `TensorField` of the
        output, or a list of them. The methods of `TensorField` describe what a layer does
        with each dimension: `slide`, `contract`, `pool`, `unlimited`, `pad`, `permuted` and
        so on. `TensorField.joined` combines tensors, and `call.apply(layer, field)` applies
        the rule of another layer.

    Raises:
        ConfigError: An argument is neither a class nor a name.

    Example:
        >>> @register_rule(MyGatedConv)
        ... def gated_conv(layer, inputs, call):
        ...     return inputs.slide(1, layer.width, padding="same").contract(-1, layer.filters)
    """

    def register(rule: AnyRule) -> AnyRule:
        for known in classes:
            if not isinstance(known, type | str):
                raise ConfigError(
                    "register_rule needs layer classes or their full names. "
                    f"Received: {known!r}."
                )
            _RULES[known] = rule
        return rule

    return register


def find_rule(layer: Any, name: str) -> Rule:
    """Return the rule of a layer: its own method, or a registered rule.

    Raises:
        ConfigError: There is none.
    """
    kind = type(layer)
    why = ""
    described_by = _definer(kind, PROTOCOL)
    if described_by is not None:
        if not _is_below(kind, _definer(kind), described_by):
            return _method_rule
        why = (
            f"It overrides the `call` that the {PROTOCOL} of {described_by.__name__} describes."
        )
    for known in kind.__mro__:
        rule = _RULES.get(known, _RULES.get(full_name(known)))
        if rule is not None:
            if _definer(kind) is not _definer(known):
                raise _unknown(kind, name, f"It overrides the `call` of {known.__name__}.")
            return rule
    raise _unknown(kind, name, why)


def full_name(kind: type) -> str:
    """Return the module and name of a class."""
    return f"{kind.__module__}.{kind.__qualname__}"


def overrides_call(kind: type, base: type) -> bool:
    """Return whether a class overrides the `call` of one of its bases."""
    return _definer(kind) is not _definer(base)


def _method_rule(layer: Any, inputs: Any, call: Call) -> Any:
    return getattr(layer, PROTOCOL)(inputs, call)


def _definer(kind: type, method: str = "call") -> type | None:
    """Return the base class that defines a method of this class."""
    return next((base for base in kind.__mro__ if method in vars(base)), None)


def _is_below(kind: type, one: type | None, other: type) -> bool:
    """Return whether `one` comes before `other` in the method resolution order."""
    return one is not None and kind.__mro__.index(one) < kind.__mro__.index(other)


def _unknown(kind: type, name: str, why: str) -> ConfigError:
    if kind.__name__ == "Lambda":
        why = "A Lambda can do anything: use keras.ops or write a layer instead."
    return ConfigError(
        f"The receptive field of layer {name!r} is unknown: there is no rule for its class "
        f"{full_name(kind)}. {why}{' ' if why else ''}Give the class a method "
        f"{PROTOCOL}(self, inputs, call), or register a function (layer, inputs, call) with "
        f"@rfkeras.rf.register_rule({kind.__name__}). Either returns what the output sees; "
        "for a layer that works position by position that is `return inputs`."
    )
