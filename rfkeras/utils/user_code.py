"""Code of the user: the files and modules that `--import` names, and the parts they register.

They define layers, losses, models or data sets and register them, so that they can be named on
the command line, and .keras files that contain them can be loaded. Each runs once per process.
The processes that this one starts inherit the list in the environment, and `zoo.load_model`
runs it there. Installed packages register their parts with entry points:

    [project.entry-points.rfkeras]
    my_losses = "my_package.losses"
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

from rfkeras.errors import ConfigError, did_you_mean, unknown_name

VARIABLE = "RFKERAS_IMPORT"  # JSON list, for child processes
_FILE_SUFFIX = ".py"
_MISSING = re.compile(r"Could not locate (class|function) '([^']+)'")
_REGISTER = "@keras.saving.register_keras_serializable(package='mine')"

_modules: dict[str, ModuleType] = {}  # by name as in the list


def import_user_code(names: Iterable[str] = ()) -> list[str]:
    """Run files or modules of the user, each once per process.

    This executes their code with the rights of the user.

    Args:
        names: Paths of .py files, or names of modules. Those inherited from a parent process
            are run first.

    Returns:
        All names so far, as a process in another folder would have to name them.

    Raises:
        ConfigError: A file or module is missing or raises an error.
    """
    wanted = [*_inherited(), *(_absolute(name) for name in names)]
    for name in dict.fromkeys(wanted):
        if name not in _modules:
            _modules[name] = _run_file(Path(name)) if _is_file(name) else _run_module(name)
    if _modules:
        os.environ[VARIABLE] = json.dumps(list(_modules))
    return list(_modules)


def _inherited() -> list[str]:
    """Return the names in the environment.

    Raises:
        ConfigError: The variable is not a list of names.
    """
    text = os.environ.get(VARIABLE) or "[]"
    try:
        names = json.loads(text)
    except ValueError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{VARIABLE} must be a JSON list of names. Received: {text!r}.")
    return names


def _is_file(name: str) -> bool:
    return name.endswith(_FILE_SUFFIX) or os.sep in name or "/" in name


def _absolute(name: str) -> str:
    """Return a name that is independent of the current folder."""
    return os.path.realpath(name) if _is_file(name) else name


def _run_file(path: Path) -> ModuleType:
    """Run a file as a module with the name of the file.

    Raises:
        ConfigError: The file is missing or raises an error.
    """
    if not path.is_file():
        folder = path.parent
        near = (
            [each.name for each in folder.glob(f"*{_FILE_SUFFIX}")] if folder.is_dir() else []
        )
        raise ConfigError(f"--import: no such file: {path}.{did_you_mean(path.name, near)}")
    name = path.stem if path.stem not in sys.modules else f"rfkeras_user_{path.stem}"
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"--import takes a {_FILE_SUFFIX} file. Received: {path}.")
    module = module_from_spec(spec)
    sys.modules[name] = module
    _find_modules_in(path.parent)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise ConfigError(_failure(str(path), error)) from error
    return module


def _run_module(name: str) -> ModuleType:
    """Import a module.

    Raises:
        ConfigError: The module is missing or raises an error.
    """
    _find_modules_in(Path.cwd())
    try:
        return import_module(name)
    except (Exception, SystemExit) as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == name
        hint = f" Name a file as FILE{_FILE_SUFFIX}." if missing else ""
        raise ConfigError(_failure(name, error) + hint) from error


def _find_modules_in(folder: Path) -> None:
    """Let the user's code import modules of its own folder."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))  # last, so that it hides no other module


def _failure(name: str, error: BaseException) -> str:
    """Describe the error of a user's file, with the last line of it that was running."""
    line = error.lineno if isinstance(error, SyntaxError) else None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == name:
            line = trace.tb_lineno
        trace = trace.tb_next
    where = "" if line is None else f", line {line}"
    return f"--import {name}{where}: {type(error).__name__}: {str(error).removesuffix('.')}."


def explain_missing_class(message: str) -> str:
    """Return a shorter message, with advice, for a model file with an unknown class.

    Args:
        message: Message of the error that Keras raised.

    Returns:
        The message itself if the error has another cause.
    """
    found = _MISSING.search(message)
    if found is None:
        return message
    kind, name = found.groups()
    unregistered = dict(_unregistered())
    reason = f"it contains the {kind} {name!r}, which is neither Keras' nor rfkeras'."
    if name in unregistered:
        return (
            f"{reason} {unregistered[name]} defines it but does not register it: put "
            f"{_REGISTER} above it, and save the model again."
        )
    if _modules:
        return (
            f"{reason} {', '.join(_modules)} (--import) does not register it. Import the file "
            "that does."
        )
    return (
        f"{reason} Name the file that defines and registers it with --import FILE.py. (In "
        "Python, import it before loading.)"
    )


def _unregistered() -> Iterator[tuple[str, str]]:
    """Yield (class, file or module) of the user's Keras classes that are not registered."""
    import keras

    for name, module in _modules.items():
        for kind in vars(module).values():
            if (
                isinstance(kind, type)
                and kind.__module__ == module.__name__
                and issubclass(kind, keras.Layer | keras.Loss | keras.Metric)
                and ">" not in keras.saving.get_registered_name(kind)
            ):
                yield kind.__name__, name


# Parts by name

Part = TypeVar("Part")

GROUP = "rfkeras"  # of entry points
_NAME = re.compile(r"[\w.+-]+")

_loaded_plugins: set[str] = set()


_REGISTERED_BY = (
    "If it is your own, name the file that registers it with --import FILE.py. (In Python, "
    "import the file first.)"
)


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
        hint = "" if did_you_mean(name, self) else f" {_REGISTERED_BY}"
        raise ConfigError(f"{unknown_name(self.kind, name, self)}{hint}")

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
    from importlib.metadata import entry_points  # slow to import

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
        A decorator for a `keras.losses.Loss` class that can be created without arguments, or of
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
        A decorator for a `keras.optimizers.Optimizer` class whose first argument is the
        learning rate, or for a function that takes the learning-rate schedule and returns an
        optimizer.
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
        A decorator for a `keras.layers.Layer` class that can be created without arguments, or
        for a function that returns a layer. The layer is called with `training=True`.

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
        A decorator for a function of scores, labels and mask, NumPy arrays (clips, classes),
        that returns a number. The mask is 1 where the label is known.
    """
    return METRICS.register(name)
