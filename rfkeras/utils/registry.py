"""Names of parts of one kind, such as losses: those of the library, and those of users.

A decorator registers a user's part under a name. Files and modules that `--import` names run
before the names are looked up, and so do the entry points of installed packages:

    [project.entry-points.rfkeras]
    my_losses = "my_package.losses"
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from rfkeras.errors import ConfigError, unknown_name

__all__ = [
    "AUGMENTATIONS",
    "LOSSES",
    "METRICS",
    "OPTIMIZERS",
    "Registry",
    "load_plugins",
    "register_augmentation",
    "register_loss",
    "register_metric",
    "register_optimizer",
]

Part = TypeVar("Part")

GROUP = "rfkeras"  # of entry points
_NAME = re.compile(r"[\w.+-]+")

_loaded_plugins: set[str] = set()


class Registry(Mapping[str, Part], Generic[Part]):
    """Parts of one kind by name.

    Args:
        kind: What they are, for messages: "loss".
        own: Parts of the library. Users cannot replace them.
    """

    def __init__(self, kind: str, own: Mapping[str, Part] | None = None):
        self.kind = kind
        self._own = dict(own or {})
        self._users: dict[str, Part] = {}
        self._origins: dict[str, str] = {}

    def register(self, name: str) -> Callable[[Part], Part]:
        """Return a decorator that registers a part.

        Args:
            name: Its name, of letters, digits and the characters . _ + -

        Raises:
            ConfigError: The name is not allowed, or another part has it. A part may be
                defined again, as in a notebook.
        """

        def add(part: Part) -> Part:
            self.add(name, part)
            return part

        return add

    def add(self, name: str, part: Part, origin: object = None) -> None:
        """Register a part.

        Args:
            name: See `register`.
            part: The part.
            origin: The user's class or function that it was made of, or a text; None for the
                part itself.

        Raises:
            ConfigError: See `register`.
        """
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ConfigError(
                f"The name of a {self.kind} consists of letters, digits and . _ + - only. "
                f"Received: {name!r}."
            )
        place = _origin(part if origin is None else origin)
        if name in self._own or self._origins.get(name, place) != place:
            raise ConfigError(f"A {self.kind} named {name!r} is already registered.")
        self._users[name], self._origins[name] = part, place

    def __getitem__(self, name: str) -> Part:
        """Return the part with a name.

        Raises:
            ConfigError: There is none; the message suggests the nearest name.
        """
        if name not in self._own and name not in self._users:
            load_plugins()
        if name in self._own:
            return self._own[name]
        if name in self._users:
            return self._users[name]
        raise ConfigError(unknown_name(self.kind, name, self))

    def __contains__(self, name: object) -> bool:
        if name not in self._own and name not in self._users:
            load_plugins()
        return name in self._own or name in self._users

    def __iter__(self) -> Iterator[str]:
        load_plugins()
        return iter([*self._own, *self._users])

    def __len__(self) -> int:
        load_plugins()
        return len(self._own) + len(self._users)


def load_plugins() -> None:
    """Import the entry points of installed packages in the group "rfkeras", once.

    Raises:
        ConfigError: One raises an error.
    """
    for entry in entry_points(group=GROUP):
        if entry.value in _loaded_plugins:
            continue
        _loaded_plugins.add(entry.value)
        try:
            entry.load()
        except Exception as error:
            package = "" if entry.dist is None else f" of the package {entry.dist.name}"
            raise ConfigError(
                f"The entry point {entry.name!r}{package} cannot be loaded: "
                f"{type(error).__name__}: {error}. Repair or uninstall the package."
            ) from error


def _origin(part: Any) -> str:
    """Return where a part was defined, to recognise one that is defined again."""
    if isinstance(part, str):
        return part
    owner = part if hasattr(part, "__qualname__") else type(part)
    return f"{owner.__module__}.{owner.__qualname__}"


# Parts of a training run. The library's own, here by name only, are made where they are used.
AUTO_LOSS = "auto"  # of the task
LOSSES: Registry[Any] = Registry("loss", {AUTO_LOSS: None})
KERAS_OPTIMIZERS = (
    "adadelta",
    "adafactor",
    "adagrad",
    "adam",
    "adamax",
    "adamw",
    "ftrl",
    "lamb",
    "lion",
    "nadam",
    "rmsprop",
    "sgd",
)
OPTIMIZERS: Registry[Any] = Registry("optimizer", dict.fromkeys(KERAS_OPTIMIZERS))
AUGMENTATIONS: Registry[Any] = Registry("augmentation")
METRICS: Registry[Any] = Registry("metric")


def register_loss(name: str) -> Callable[[Part], Part]:
    """Register the decorated loss, for --loss and `rfkeras.train`.

    Args:
        name: Its name.

    Returns:
        A decorator of a `keras.losses.Loss` class that can be created without arguments, or of
        a function of labels and logits, (batch, classes) each. The loss returns one value per
        tag, (batch, classes); rfkeras leaves out unknown labels and takes the mean. For
        single-label data it may return one value per clip, (batch,).

    Example:
        >>> @register_loss("focal")
        ... def focal(labels, logits):
        ...     p = keras.ops.sigmoid(logits)
        ...     missed = labels * (1 - p) + (1 - labels) * p
        ...     return missed**2 * keras.ops.binary_crossentropy(labels, logits, True)
    """
    return LOSSES.register(name)


def register_optimizer(name: str) -> Callable[[Part], Part]:
    """Register the decorated optimizer, for --optimizer and `rfkeras.train`.

    Args:
        name: Its name.

    Returns:
        A decorator of a `keras.optimizers.Optimizer` class whose first argument is the learning
        rate, or of a function of the learning-rate schedule that returns an optimizer.
    """
    return OPTIMIZERS.register(name)


def register_augmentation(name: str, on: str = "spectrogram") -> Callable[[Part], Part]:
    """Register the decorated augmentation, for --augment and `rfkeras.train`.

    Args:
        name: Its name.
        on: "spectrogram": the layer changes standardised spectrograms (batch, time, mel,
            channels), after the library's own augmentation. "waveform": it changes waveforms
            (batch, samples), or (batch, samples, channels) for stereo.

    Returns:
        A decorator of a `keras.layers.Layer` class that can be created without arguments, or of
        a function that returns a layer. The layer is called with `training=True`.

    Raises:
        ConfigError: `on` has another value.
    """
    if on not in ("spectrogram", "waveform"):
        raise ConfigError(unknown_name("value of on", on, ("spectrogram", "waveform")))

    def register(part: Part) -> Part:
        AUGMENTATIONS.add(name, (on, part), origin=part)
        return part

    return register


def register_metric(name: str) -> Callable[[Part], Part]:
    """Register the decorated validation metric, for --metrics and `rfkeras.train`.

    Args:
        name: Its name. log.csv shows it as "val_NAME", which --monitor accepts. Lower values
            are better if the name ends in "loss", higher ones otherwise.

    Returns:
        A decorator of a function of scores, labels and mask, NumPy arrays (clips, classes),
        that returns a number. The mask is 1 where the label is known.
    """
    return METRICS.register(name)
