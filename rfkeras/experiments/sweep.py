"""A sweep's folder: which runs it holds, and what was asked for."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rfkeras.config.recipes import DATA_SET_OPTIONS
from rfkeras.config.train_config import TrainConfig, differing_options, resolve
from rfkeras.errors import ConfigError, unknown_name
from rfkeras.training.run_dir import RunFolder, create_run_folder
from rfkeras.utils.files import write_text

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


Rho = int | tuple[int, int]

# What a variant sets; several may be joined by "+".
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "shake": {"shake": True},
    "fa": {"frequency_aware": True},
    "damped": {"damping": 0.01},
    "decomposed": {"decomposition": 4},
}
JOIN = "+"


@dataclass(frozen=True)
class Cell:
    """One run of a sweep.

    Attributes:
        variant: Name of the variant, such as "shake+fa".
        rho: The receptive field's rho, one number or (rho_time, rho_frequency).
        seed: Of initialisation, order and excerpts.
    """

    variant: str
    rho: Rho
    seed: int

    @property
    def rho_text(self) -> str:
        """rho as it is written: "7", or "7x5"."""
        return "x".join(map(str, self.rho)) if isinstance(self.rho, tuple) else str(self.rho)

    @property
    def name(self) -> str:
        """Name of its folder: "shake-rho7-seed0", "plain-rho7x5-seed1"."""
        return f"{self.variant}-rho{self.rho_text}-seed{self.seed}"

    def options(self) -> dict[str, Any]:
        """Options of the run that make it this one."""
        return {**variant_options(self.variant), "rho": self.rho, "seed": self.seed}


def make_grid(
    variants: Sequence[str], rhos: Sequence[Rho], seeds: int, first_seed: int = 0
) -> list[Cell]:
    """All runs, seed by seed, so that a sweep cut short still has every receptive field."""
    return [
        Cell(variant, rho, first_seed + seed)
        for seed in range(seeds)
        for rho in rhos
        for variant in variants
    ]


def parse_rhos(text: str) -> list[Rho]:
    """Values of rho from "0:22:2" (both ends included), "0,3,7" or, for axes, "7x5,7x7".

    Raises:
        ConfigError: Not of that form, or a value comes twice.
    """
    rhos = [rho for part in text.split(",") for rho in _rhos_of(part.strip(), text)]
    if len(set(rhos)) < len(rhos):
        raise ConfigError(f"rho: every value once. Received: {text!r}.")
    return rhos


def _rhos_of(part: str, text: str) -> list[Rho]:
    try:
        if ":" in part:
            start, stop, *step = (int(number) for number in part.split(":"))
            if len(step) > 1 or start > stop or min([start, *step]) < 0 or 0 in step:
                raise ValueError
            return list(range(start, stop + 1, *step))
        if "x" in part:
            time, frequency = (int(number) for number in part.split("x"))
            return [(time, frequency)]
        return [int(part)]
    except ValueError:
        raise ConfigError(
            'rho takes values such as "0,3,7", a range "0:22:2" (first, last, step), or '
            f'(rho_time)x(rho_frequency) such as "7x5". Received: {text!r}.'
        ) from None


def parse_variants(text: str) -> list[str]:
    """Variants from "plain,shake,shake+fa".

    Raises:
        ConfigError: An unknown one, or one that comes twice.
    """
    names = [name.strip() for name in text.split(",")]
    for name in names:
        variant_options(name)
    if len(set(names)) < len(names):
        raise ConfigError(f"variants: every one once. Received: {text!r}.")
    return names


def variant_options(name: str) -> dict[str, Any]:
    """Model options of a variant, several joined by "+".

    Raises:
        ConfigError: Unknown name.
    """
    options: dict[str, Any] = {}
    for part in name.split(JOIN):
        if part not in VARIANTS:
            raise ConfigError(unknown_name("variant", part, VARIANTS))
        options |= VARIANTS[part]
    return options


def check_free(source: str, options: Mapping[str, Any]) -> None:
    """Refuse recipes and models that set what variants are made of.

    Args:
        source: What sets the options, for the message.
        options: By name; those that are off (None or False) do not count.

    Raises:
        ConfigError: One of these options is set.
    """
    own = {name for values in VARIANTS.values() for name in values}
    given = sorted(name for name in own & set(options) if options[name] not in (None, False))
    if given:
        raise ConfigError(
            f"{source} sets {', '.join(given)}, so that the variants of a sweep would not be "
            "what they are called. Use one without (such as the model or recipe that it builds "
            f"on), and say by --variants what to compare: {', '.join(VARIANTS)}, or several "
            f"joined by {JOIN!r}."
        )


EXTRA_TESTS = "extra_tests.json"
TEST_RECORD = "test.json"  # beside the figures of a test: what they are of


@dataclass(frozen=True)
class Job:
    """One run of the sweep.

    Attributes:
        cell: Its place in the grid.
        folder: Its run folder, under DIR/runs.
        config: Its complete configuration.
        tests: What its model is tested on beside the run's own test split.
    """

    cell: Cell
    folder: RunFolder
    config: TrainConfig
    tests: tuple[ExtraTest, ...]

    @property
    def is_done(self) -> bool:
        """Whether it is trained and all of its tests are scored."""
        reports = [figures_of(self.folder, test) for test in self.tests]
        return self.folder.is_finished and all(path.exists() for path in reports)


def figures_of(folder: RunFolder, test: ExtraTest) -> Path:
    """The figures of a run on an extra test."""
    return folder.root / test.folder_name / "report.json"


def prepare(job: Job) -> None:
    """Make the folder of a run, or check that what lies there is this very run.

    Raises:
        ConfigError: A run with other options lies there.
    """
    if not job.folder.config.exists():
        create_run_folder(job.config, job.folder.root)
    differing = differing_options(job.folder.read_config(), job.config)
    if differing:
        raise ConfigError(
            f"{job.folder.root} holds a run with other options: {', '.join(differing)}. Go on "
            "with the options of before, or choose another --output."
        )
    _check_scored(job)
    entries = [dataclasses.asdict(test) for test in job.tests]
    write_text(job.folder.root / EXTRA_TESTS, json.dumps(entries, indent=2) + "\n")


def _check_scored(job: Job) -> None:
    """Refuse another test under the name of one that is scored.

    Raises:
        ConfigError: A test of that name was scored on other data.
    """
    for test in job.tests:
        record = figures_of(job.folder, test).with_name(TEST_RECORD)
        if record.exists() and ExtraTest(**json.loads(record.read_text("utf-8"))) != test:
            raise ConfigError(
                f"--also-test {test.name!r} was scored on other data in {record.parent}. Give "
                "the new test another name, or remove that folder."
            )


def read_extra_tests(folder: RunFolder) -> tuple[ExtraTest, ...]:
    """What `prepare` wrote down of a run's extra tests."""
    entries: Sequence[Mapping[str, Any]] = json.loads(
        (folder.root / EXTRA_TESTS).read_text(encoding="utf-8")
    )
    return tuple(ExtraTest(**entry) for entry in entries)
