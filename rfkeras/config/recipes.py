"""Recipes: YAML files with the options of an experiment.

With `extends`, a recipe names another one and lists only the options that differ. Wherever a
recipe is expected, give the path of a YAML file or the name of a recipe in zoo/recipes.

The table `sweep` of a recipe has the defaults of `rfkeras sweep` for --rho, --seeds, --variants
and --also-test. Every command checks its keys; all but the sweep ignore its values, so that the
recipe of a sweep also trains a single network.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import zoo
from rfkeras.errors import ConfigError, unknown_name
from rfkeras.utils.files import MAX_OPTIONS_BYTES, malformed, read_text

EXTENDS = "extends"
SWEEP = "sweep"
SWEEP_KEYS = ("rho", "seeds", "variants", "also_test")
_LONGEST_PATH = 4096

Recipe = tuple[str, dict[str, Any]]  # its source, for messages, and its options


def list_recipes() -> dict[str, Path]:
    """Return the files of the recipes that come with the library, by name."""
    return {path.stem: path for path in sorted(zoo.RECIPES.glob("*.yaml"))}


def find_recipe(name: str, relative_to: Path | None = None) -> Path:
    """Return the file of a recipe.

    Args:
        name: Path of a file, or name of a recipe of the library.
        relative_to: Folder where relative paths start. None: the current folder.

    Raises:
        ConfigError: There is no such file and no such name.
    """
    path = Path(name) if relative_to is None else relative_to / name
    if len(name) < _LONGEST_PATH and path.is_file():
        return path
    known = list_recipes()
    if name not in known:
        raise ConfigError(
            f"There is no recipe file {path}. {unknown_name('recipe', name, known)}"
        )
    return known[name]


def read_recipe(name: str) -> list[Recipe]:
    """Read a recipe and those it extends.

    Args:
        name: As in `find_recipe`.

    Returns:
        The recipes, each overriding those before it: the recipe itself is the last. They are
        without the tables `sweep`, see `read_sweep_table`.

    Raises:
        ConfigError: A file is missing, is not a table of options, or extends itself, or its
            table `sweep` is wrong.
    """
    chain = _read_chain(name)
    for source, options in chain:
        _sweep_table(source, options)  # raises an error
        options.pop(SWEEP, None)
    return chain


def read_sweep_table(name: str) -> list[Recipe]:
    """Read the tables `sweep` of a recipe and those it extends, in the same order.

    Args:
        name: As in `find_recipe`.

    Raises:
        ConfigError: As in `read_recipe`.
    """
    return [(source, _sweep_table(source, options)) for source, options in _read_chain(name)]


def _sweep_table(source: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the table `sweep` of a recipe; empty if it has none."""
    table = options.get(SWEEP, {})
    if not isinstance(table, dict):
        raise ConfigError(
            f"{source}: {SWEEP} must be a table with {', '.join(SWEEP_KEYS)}. "
            f"Received: {table!r}."
        )
    for key in table:
        if key not in SWEEP_KEYS:
            raise ConfigError(
                f"{source}: {unknown_name(f'key of {SWEEP}', str(key), SWEEP_KEYS)}"
            )
    return table


def _read_chain(name: str) -> list[Recipe]:
    """Return a recipe after those it extends, with their tables `sweep`."""
    chain: list[Recipe] = []
    seen: list[Path] = []
    path = find_recipe(name)
    while True:
        if path.resolve() in seen:
            raise ConfigError(f"Recipe {path} extends itself, directly or through others.")
        seen.append(path.resolve())
        options = read_yaml(path)
        base = options.pop(EXTENDS, None)
        chain.append((str(path), options))
        if base is None:
            return chain[::-1]
        if not isinstance(base, str):
            raise ConfigError(f"{path}: {EXTENDS} must name a recipe. Received: {base!r}.")
        path = find_recipe(base, relative_to=path.parent)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read the keys and values of a YAML table.

    Raises:
        ConfigError: The file is missing, is not YAML, or is not a table of options.
    """
    import yaml

    try:
        with malformed():
            loaded = yaml.safe_load(read_text(path, MAX_OPTIONS_BYTES))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"Recipe {path} cannot be read: {error}") from error
    if not isinstance(loaded, dict):
        raise ConfigError(f"Recipe {path} must be a table of options (key: value).")
    return loaded
