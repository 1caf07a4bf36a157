"""Options of a training run: their defaults, a recipe over them, flags over both."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from rfkeras.errors import ConfigError, unknown_name

T = TypeVar("T")


def whole(minimum: int, maximum: int | None = None) -> Callable[[str, Any], int]:
    """Parser of whole numbers of at least `minimum` and at most `maximum`."""
    allowed = f"of at least {minimum}" if maximum is None else f"from {minimum} to {maximum}"

    def parse(name: str, value: Any) -> int:
        try:
            number = int(str(value))
        except ValueError:
            number = minimum - 1
        too_large = maximum is not None and number > maximum
        if number < minimum or too_large or isinstance(value, bool):
            raise ConfigError(f"{name} must be a whole number {allowed}. Received: {value!r}.")
        return number

    return parse


def number(minimum: float, maximum: float = float("inf")) -> Callable[[str, Any], float]:
    """Parser of finite numbers between two bounds, both included."""

    def parse(name: str, value: Any) -> float:
        try:
            result = float(str(value))
        except ValueError:
            result = float("nan")
        if not minimum <= result <= maximum or result == float("inf"):
            raise ConfigError(
                f"{name} must be a number from {minimum:g} to {maximum:g}. Received: {value!r}."
            )
        return result

    return parse


def text(name: str, value: Any) -> str:
    """Parser of strings."""
    if not isinstance(value, str | Path) or not str(value):
        raise ConfigError(f"{name} must be a text. Received: {value!r}.")
    return str(value)


def choice(*allowed: str) -> Callable[[str, Any], str]:
    """Parser of one of several names."""

    def parse(name: str, value: Any) -> str:
        if value not in allowed:
            raise ConfigError(unknown_name(name, str(value), allowed))
        return str(value)

    return parse


def switch(name: str, value: Any) -> bool:
    """Parser of yes and no."""
    if not isinstance(value, bool):
        raise ConfigError(f"{name} must be true or false. Received: {value!r}.")
    return value


def whole_numbers(*lengths: int) -> Callable[[str, Any], int | tuple[int, ...]]:
    """Parser of lists of whole numbers, "7,5" or [7, 5], of these lengths."""

    def parse(name: str, value: Any) -> int | tuple[int, ...]:
        parts = value.split(",") if isinstance(value, str) else value
        parts = list(parts) if isinstance(parts, Sequence) else [parts]
        if len(parts) not in lengths:
            raise ConfigError(
                f"{name} takes {' or '.join(map(str, lengths))} whole numbers, separated by "
                f"commas. Received: {value!r}."
            )
        numbers = tuple(whole(0)(name, part) for part in parts)
        return numbers[0] if len(numbers) == 1 else numbers

    return parse


def option(default: Any, parse: Callable[[str, Any], Any], help: str) -> Any:
    """A dataclass field with the parser and the help of its flag."""
    return field(default=default, metadata={"parse": parse, "help": help})


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides what a run computes.

    The field names are the keys of a recipe and, with dashes, the flags of train.py.
    """

    model: str = option("resnet_rf", text, "architecture, see `rfkeras models`")
    dataset: str = option("gm_instruments", text, "gm_instruments, openmic, folder or packed")
    data_dir: str | None = option(
        None, text, "where the data set lies (gm_instruments: where its cache is made)"
    )
    dataset_size: int | None = option(
        None, whole(40), "clips to render, for gm_instruments alone"
    )
    validation_share: float = option(
        0.15, number(0.01, 0.5), "share of the training clips held out for validation"
    )
    test_share: float = option(
        0.15, number(0.01, 0.9), "share of all clips that is tested, for folder alone"
    )
    allow_absolute: bool = option(
        False, switch, "admit paths outside the CSV's folder, for folder alone"
    )
    subset: str | None = option(
        None, text, "part of the data set, such as moodtheme (mtg_jamendo) or 2020-1b (dcase)"
    )
    fold: int | None = option(
        None, whole(0), "official split or fold of a data set that has several"
    )
    audio_dir: str | None = option(None, text, "where the audio lies, if not in --data-dir")
    rho: int | tuple[int, ...] | None = option(
        None, whole_numbers(1, 2), "receptive field, 0 to 22: RHO, or RHO_TIME,RHO_FREQUENCY"
    )
    width: int | None = option(None, whole(1), "channels of the first stage")
    blocks: tuple[int, ...] | None = option(
        None, whole_numbers(3), "blocks kept in each stage, such as 4,4,4"
    )
    allow_rf_change: bool | None = option(
        None, switch, "let blocks go that count for the receptive field"
    )
    initialization: str | None = option(
        None, choice("published", "he"), "initial weights: published (the default) or he"
    )
    frontend: str = option(
        "perceptual_mel_22k",
        choice("perceptual_mel_22k", "perceptual_mel_44k", "mel_32k"),
        "front-end preset",
    )
    fixed_floor: bool = option(
        False, switch, "absolute dB floor in the front-end instead of the clip's own"
    )
    input_channels: int = option(1, whole(1), "1 mono, 2 stereo")
    excerpt_seconds: float = option(10.0, number(0.1, 600.0), "length of the training excerpts")
    excerpts_per_clip: int = option(1, whole(1), "excerpts taken from each clip in an epoch")
    window_seconds: float = option(
        10.0, number(0.1, 600.0), "longer files are scored in windows of this length"
    )
    epochs: int = option(200, whole(1), "passes over the training set")
    batch_size: int = option(10, whole(1), "clips a step, over all devices together")
    learning_rate: float = option(1e-4, number(0.0, 10.0), "of Adam, at the start")
    hold_epochs: float = option(
        50, number(0.0), "epochs at the first learning rate, before the linear decay"
    )
    final_learning_rate: float = option(1e-6, number(0.0, 10.0), "at the end of the decay")
    prior_bias: bool = option(
        False, switch, "start from the tags' frequencies instead of the published zero logits"
    )
    seed: int = option(0, whole(0, 2**31 - 1), "of initialisation, order and excerpts")
    devices: str = option(
        "auto", text, "auto (all GPUs, else the CPU), cpu, gpu, cpu:N or gpu:N"
    )
    checkpoint_steps: int = option(50, whole(1), "steps between two checkpoints")
    max_bad_share: float = option(
        0.01, number(0.0, 1.0), "share of unusable files above which the run stops"
    )
    decoder: str = option("soundfile", choice("soundfile", "tfio"), "audio decoder")
    cache_gb: float = option(
        2.0, number(0.0), "memory for decoded audio, so that later epochs need not decode"
    )

    model_option_names: ClassVar[tuple[str, ...]] = (
        "rho",
        "width",
        "blocks",
        "allow_rf_change",
        "initialization",
    )

    def model_options(self) -> dict[str, Any]:
        """Options of the architecture that were set."""
        given = {name: getattr(self, name) for name in self.model_option_names}
        return {name: value for name, value in given.items() if value is not None}


def _parse(config_class: type, values: Mapping[str, Any], source: str) -> dict[str, Any]:
    fields = {f.name: f for f in dataclasses.fields(config_class)}
    parsed: dict[str, Any] = {}
    for name, value in values.items():
        if name not in fields:
            raise ConfigError(f"{source}: {unknown_name('option', str(name), fields)}")
        if value is None and fields[name].default is None:
            parsed[name] = None
        else:
            parsed[name] = fields[name].metadata["parse"](f"{source}: {name}", value)
    return parsed


def read_yaml(path: Path) -> dict[str, Any]:
    """Keys and values of a recipe.

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


def resolve(
    config_class: type[T],
    flags: Mapping[str, Any],
    recipes: Sequence[tuple[str, Mapping[str, Any]]] = (),
) -> T:
    """Defaults, then each recipe (its source, its options) in turn, then the flags.

    Raises:
        ConfigError: An unknown option (the nearest is suggested), or a value not allowed.
    """
    values: dict[str, Any] = {}
    for source, recipe in recipes:
        values |= _parse(config_class, recipe, source)
    values |= _parse(config_class, flags, "command line")
    return config_class(**values)


def add_flags(parser: argparse.ArgumentParser, config_class: type) -> None:
    """One flag a field; flags that are not given leave no trace in the namespace."""
    for f in dataclasses.fields(config_class):
        shown = "" if f.default is None else f" (default: {f.default})"
        settings: dict[str, Any] = {
            "help": f.metadata["help"] + shown,
            "default": argparse.SUPPRESS,
        }
        if f.metadata["parse"] is switch:
            settings["action"] = argparse.BooleanOptionalAction
        else:
            settings["metavar"] = f.name.upper()
        parser.add_argument("--" + f.name.replace("_", "-"), **settings)


def to_json(config: Any) -> str:
    """The configuration as JSON text; `from_json` reads it back."""
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def from_json(config_class: type[T], path: Path) -> T:
    """The configuration written by `to_json`.

    Raises:
        ConfigError: The file is missing or not such a configuration.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} is no configuration: it must be a JSON object.")
    return config_class(**_parse(config_class, values, str(path)))
