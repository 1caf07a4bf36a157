"""More data that the models of a sweep are tested on, beside the test split."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from rfkeras.config import TrainConfig, resolve
from rfkeras.errors import ConfigError, unknown_name
from rfkeras.recipes import DATA_SET_OPTIONS

TEST = "test"  # what the run's own test split is called in tables and plots
# Options of the data that may differ from those of the training run.
OPTIONS = ("dataset", *DATA_SET_OPTIONS, "window_seconds")
SPLITS = ("train", "validation", "test")
_FORM = (
    'Write NAME:option=value,option=value, such as "other font:dataset_size=1600,'
    'sound_font=FluidR3_GM.sf2" or "training clips:split=train", each option once, and no '
    "commas in values."
)


@dataclass(frozen=True)
class ExtraTest:
    """Further data for a trained model.

    Attributes:
        name: In tables and plots.
        split: "train", "validation" or "test".
        options: Options of the data that differ from the run's.
    """

    name: str
    split: str
    options: dict[str, Any]

    @property
    def folder_name(self) -> str:
        """Name of its report's folder inside a run's."""
        return f"report-{re.sub(r'[^0-9A-Za-z]+', '_', self.name)}"

    def config_for(self, trained: TrainConfig) -> TrainConfig:
        """The configuration of the evaluation of a run.

        Raises:
            ConfigError: Options that do not go together.
        """
        if self.options.get("dataset", trained.dataset) != trained.dataset:
            defaults = {name: getattr(TrainConfig, name) for name in DATA_SET_OPTIONS}
            trained = replace(trained, **defaults)
        return replace(trained, **self.options)


def parse_extra_test(text: str) -> ExtraTest:
    """An extra test from NAME:option=value,option=value.

    Raises:
        ConfigError: Not of that form, an unknown option, or a value not allowed.
    """
    name, colon, rest = text.partition(":")
    name = name.strip()
    pairs = [part.partition("=")[::2] for part in rest.split(",")]
    values = {key.strip(): value.strip() for key, value in pairs}
    if not name or not colon or not all(values.values()) or len(values) < len(pairs):
        raise ConfigError(f"--also-test: {_FORM} Received: {text!r}.")
    if name == TEST:
        raise ConfigError(f"--also-test: {TEST!r} is the run's own test split.")
    split = values.pop("split", "test")
    if split not in SPLITS:
        raise ConfigError(f"--also-test {name}: {unknown_name('split', split, SPLITS)}")
    for key in values:
        if key not in OPTIONS:
            known = ("split", *OPTIONS)
            raise ConfigError(f"--also-test {name}: {unknown_name('option', key, known)}")
    config = resolve(TrainConfig, values)
    return ExtraTest(name, split, {key: getattr(config, key) for key in values})


def check_names(tests: Sequence[ExtraTest]) -> None:
    """Refuse tests whose reports would lie in one folder.

    Raises:
        ConfigError: Two have names that differ in letters and digits of ASCII nowhere.
    """
    folders = [test.folder_name for test in tests]
    for test in tests:
        if folders.count(test.folder_name) > 1:
            raise ConfigError(
                "--also-test: names must differ in their letters a-z and digits. Received more "
                f"than one like {test.name!r}."
            )
