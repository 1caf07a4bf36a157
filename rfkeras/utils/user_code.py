"""Python code of the user: the files and modules that `--import` names.

They define layers or models and register them, so that .keras files that contain them can be
loaded. They run once per process. The processes that this one starts inherit the list in the
environment, and `zoo.load_model` runs it there.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Iterator
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from rfkeras.errors import ConfigError, did_you_mean

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
    return f"--import {name}{where}: {type(error).__name__}: {error}."


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
