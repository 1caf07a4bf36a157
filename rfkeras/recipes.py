"""Recipes: YAML tables of options, which may build on one another.

A recipe names another one under `extends` and then writes only what differs. Where a flag
takes a recipe it takes the path of a YAML file or the name of one in zoo/recipes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rfkeras.config import TrainConfig
from rfkeras.errors import ConfigError, unknown_name
from rfkeras.reading import MAX_OPTIONS_BYTES, malformed, read_text

EXTENDS = "extends"
# What belongs to one data set and says nothing of another.
DATA_SET_OPTIONS = (
    "data_dir",
    "audio_dir",
    "subset",
    "fold",
    "dataset_size",
    "sound_font",
    "test_share",
    "allow_absolute",
)

_LONGEST_PATH = 4096

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
    if len(name) < _LONGEST_PATH and path.is_file():
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


def adapt_recipe(chain: list[Recipe], flags: Mapping[str, Any]) -> list[Recipe]:
    """Leave out what recipes say of another data set or model than the flags name.

    Where a flag names another data set than the recipe, the recipe's subset, fold and
    folders are those of its own data set; where it names another model, options that this
    model has not are those of the recipe's own. A recipe that names no model speaks of the
    default one.

    Args:
        chain: As `read_recipe` returns it.
        flags: Options of the command line, which win over the recipe.

    Raises:
        ConfigError: The flags name an unknown model.
    """
    import zoo

    own: dict[str, Any] = {}
    for _, options in chain:
        own |= {name: options[name] for name in ("dataset", "model") if name in options}
    foreign: set[str] = set()
    if "dataset" in own and flags.get("dataset", own["dataset"]) != own["dataset"]:
        foreign.update(DATA_SET_OPTIONS)
    model = own.get("model", TrainConfig.model)
    if flags.get("model", model) != model:
        known = zoo.model_info(flags["model"]).options
        foreign.update(set(TrainConfig.model_option_names()) - set(known))
    return [
        (source, {name: value for name, value in options.items() if name not in foreign})
        for source, options in chain
    ]


def read_yaml(path: Path) -> dict[str, Any]:
    """Keys and values of a YAML table.

    Raises:
        ConfigError: The file is missing, is no YAML, or is not a table of options.
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
