"""Rules: functions that tell what a layer's output sees, from what its inputs see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from rfkeras.errors import ConfigError
from rfkeras.rf.tensor import TensorField

PROTOCOL = "trace_receptive_field"

AnyRule = TypeVar("AnyRule", bound=Callable[..., Any])


class Call(Protocol):
    """One application of a layer, as its rule is told of it.

    Attributes:
        name: Of the layer; of one inside of another "outer/inner".
        args: All positional arguments, tensors replaced by what they see.
        kwargs: All keyword arguments, likewise.
        shapes: Shapes of the outputs as Keras gives them; () where it was not asked.
    """

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    shapes: tuple[Any, ...]

    def apply(self, layer: Any, *args: Any, **kwargs: Any) -> Any:
        """What the output of another layer sees that is applied to these inputs."""

    def tensors(self) -> list[TensorField]:
        """What all arguments that are tensors see, constants included, in order."""


Rule = Callable[[Any, Any, Call], Any]

_RULES: dict[type | str, Rule] = {}


def register_rule(*classes: type | str) -> Callable[[AnyRule], AnyRule]:
    """Make a function the rule of layer classes, or of `keras.ops` operations.

    Most layers of one's own need no rule: a method of the same signature is enough,
    `trace_receptive_field(self, inputs, call)`, and wins over a rule.

    A rule or such a method counts for subclasses too, unless they override `call`: then
    nobody knows what they do. The last rule registered for a class replaces those before.

    Args:
        *classes: Layer classes, or their full names ("module.Class") where they should not
            be imported for this.

    Returns:
        A decorator. The function takes the layer, its first argument (a `TensorField`, or
        a list of them), and a `Call`; it returns the `TensorField` of the output, or a
        list. The fields' methods say what a layer does with each dimension: `slide`,
        `mix`, `pool`, `everywhere`, `pad`, `permuted` and so on; `join` combines several;
        `call.apply(layer, field)` applies another layer's rule.

    Example:
        >>> @register_rule(MyGatedConv)
        ... def gated_conv(layer, inputs, call):
        ...     return inputs.slide(1, layer.width, padding="same").mix(-1, layer.filters)
    """

    def register(rule: AnyRule) -> AnyRule:
        for known in classes:
            if not isinstance(known, type | str):
                raise ConfigError(
                    "register_rule takes layer classes or their full names. "
                    f"Received: {known!r}."
                )
            _RULES[known] = rule
        return rule

    return register


def find_rule(layer: Any, name: str) -> Rule:
    """The rule of that layer: its own method, or the one registered.

    Raises:
        ConfigError: There is none.
    """
    kind = type(layer)
    why = ""
    told_by = _definer(kind, PROTOCOL)
    if told_by is not None:
        if not _is_below(kind, _definer(kind), told_by):
            return _method_rule
        why = f"It overrides the `call` that the {PROTOCOL} of {told_by.__name__} describes."
    for known in kind.__mro__:
        rule = _RULES.get(known, _RULES.get(full_name(known)))
        if rule is not None:
            if _definer(kind) is not _definer(known):
                raise _unknown(kind, name, f"It overrides the `call` of {known.__name__}.")
            return rule
    raise _unknown(kind, name, why)


def full_name(kind: type) -> str:
    """Module and name of a class."""
    return f"{kind.__module__}.{kind.__qualname__}"


def overrides_call(kind: type, base: type) -> bool:
    """Whether a class has another `call` than one of its bases."""
    return _definer(kind) is not _definer(base)


def _method_rule(layer: Any, inputs: Any, call: Call) -> Any:
    return getattr(layer, PROTOCOL)(inputs, call)


def _definer(kind: type, method: str = "call") -> type | None:
    """The class that a class has that method from."""
    return next((base for base in kind.__mro__ if method in vars(base)), None)


def _is_below(kind: type, one: type | None, other: type) -> bool:
    """Whether, among a class's bases, one comes before another."""
    return one is not None and kind.__mro__.index(one) < kind.__mro__.index(other)


def _unknown(kind: type, name: str, why: str) -> ConfigError:
    if kind.__name__ == "Lambda":
        why = "A Lambda may do anything: write it with keras.ops, or as a layer."
    return ConfigError(
        f"The receptive field of layer {name!r} is not known: no rule says what its class "
        f"{full_name(kind)} reads. {why}{' ' if why else ''}Register one: "
        f"@rfkeras.rf.register_rule({kind.__name__}) before a function "
        "(layer, inputs, call) that returns what the output sees, such as "
        "`return inputs` for a layer that works position by position; or give the class a "
        f"method {PROTOCOL}(self, inputs, call)."
    )
