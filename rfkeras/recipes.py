"""Recipes: YAML tables of options, which may build on one another.

A recipe names another one under `extends` and then writes only what differs. Where a flag
takes a recipe it takes the path of a YAML file or the name of one in zoo/recipes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rfkeras.errors import ConfigError, unknown_name

EXTENDS = "extends"

Recipe = tuple[str, dict[str, Any]]  # where it stands, and its options


def list_recipes() -> dict[str, Path]:
    """Recipes that come with the library, by name."""
    from zoo import RECIPES

    return {path.stem: path for path in sorted(RECIPES.glob("*.yaml"))}


def find_recipe(name: str, beside: Path | None = None) -> Path:
    """The file of a recipe.

    Args:
        name: Path of a file, or name of a recipe of the library.
        beside: Folder that relative paths start from; None: the current one.

    Raises:
        ConfigError: There is neither such a file nor such a name.
    """
    path = Path(name) if beside is None else beside / name
    if path.is_file():
        return path
    known = list_recipes()
    if name not in known:
        raise ConfigError(f"No recipe file {path}, and {unknown_name('recipe', name, known)}")
    return known[name]


def read_recipe(name: str) -> list[Recipe]:
    """A recipe and those it extends, the most basic first, so that later ones win.

    Raises:
        ConfigError: A file is missing, is no table of options, or extends itself.
    """
    chain: list[Recipe] = []
    seen: list[Path] = []
    path = find_recipe(name)
    while True:
        if path.resolve() in seen:
            raise ConfigError(f"Recipe {path} extends itself, by way of others or directly.")
        seen.append(path.resolve())
        options = read_yaml(path)
        base = options.pop(EXTENDS, None)
        chain.append((str(path), options))
        if base is None:
            return chain[::-1]
        if not isinstance(base, str):
            raise ConfigError(f"{path}: {EXTENDS} must name a recipe. Received: {base!r}.")
        path = find_recipe(base, beside=path.parent)


def read_yaml(path: Path) -> dict[str, Any]:
    """Keys and values of a YAML table.

    Raises:
        ConfigError: The file is missing, is no YAML, or is not a table of options.
    """
    import yaml

    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"Recipe {path} cannot be read: {error}") from error
    if not isinstance(loaded, dict):
        raise ConfigError(f"Recipe {path} must be a table of options (key: value).")
    return loaded
