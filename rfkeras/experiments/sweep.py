"""A sweep over receptive fields: its runs, its extra tests and their folders.

A sweep trains every variant of a model at every rho with every seed. `make_grid` lists these
runs; a `Job` is one of them with its folder and its complete configuration.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rfkeras.config.parsing import whole
from rfkeras.config.recipes import SWEEP, Recipe, read_sweep_table
from rfkeras.config.resolve import (
    DATA_SET_OPTIONS,
    check_initial_weights,
    complete,
    merge_options,
    option_sources,
    recipe_in_use,
    resolve,
)
from rfkeras.config.train_config import TrainConfig, differing_options
from rfkeras.errors import ConfigError, located, unknown_name
from rfkeras.training.run_dir import RunFolder, create_run_folder
from rfkeras.utils.files import write_text

Rho = int | tuple[int, int]

# The options that a variant sets. Several variants can be joined with "+".
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "shake": {"shake": True},
    "fa": {"frequency_aware": True},
    "damped": {"damping": 0.01},
    "decomposed": {"decomposition": 4},
}
JOIN = "+"

TEST = "test"  # name of the run's own test split in tables and plots
SPLITS = ("train", "validation", "test")
# Data options that may differ between an extra test and the training run.
EXTRA_TEST_OPTIONS = ("dataset", *DATA_SET_OPTIONS, "window_seconds")
_EXTRA_TEST_FORM = (
    'Write NAME:option=value,option=value, such as "other font:dataset_size=1600,'
    'sound_font=FluidR3_GM.sf2" or "training clips:split=train". Give each option once, and '
    "use no commas in values."
)

EXTRA_TESTS_FILE = "extra_tests.json"  # in a run's folder
TEST_RECORD = "test.json"  # in the folder of an extra test's report: the test itself


@dataclass(frozen=True)
class SweepRun:
    """One run of a sweep.

    Attributes:
        variant: Name of the variant, such as "shake+fa".
        rho: rho of the receptive field, one number or (rho_time, rho_frequency).
        seed: Seed of initialisation, order and excerpts.
    """

    variant: str
    rho: Rho
    seed: int

    @property
    def rho_text(self) -> str:
        """rho as text: "7" or "7x5"."""
        return "x".join(map(str, self.rho)) if isinstance(self.rho, tuple) else str(self.rho)

    @property
    def name(self) -> str:
        """Name of the run's folder: "shake-rho7-seed0" or "plain-rho7x5-seed1"."""
        return f"{self.variant}-rho{self.rho_text}-seed{self.seed}"

    def options(self) -> dict[str, Any]:
        """Return the training options in which this run differs from the others."""
        return {**variant_options(self.variant), "rho": self.rho, "seed": self.seed}


def make_grid(
    variants: Sequence[str], rhos: Sequence[Rho], seeds: int, first_seed: int = 0
) -> list[SweepRun]:
    """List all runs, seed by seed.

    Every receptive field comes before the second seed, so that a sweep that is stopped early
    has results for all of them.
    """
    return [
        SweepRun(variant, rho, first_seed + seed)
        for seed in range(seeds)
        for rho in rhos
        for variant in variants
    ]


def parse_rhos(text: str) -> list[Rho]:
    """Read values of rho from "0:22:2" (both ends included), "0,3,7" or "7x5,7x7".

    Raises:
        ConfigError: The text has another form, or a value occurs twice.
    """
    rhos = [rho for part in text.split(",") for rho in _rhos_of(part.strip(), text)]
    if len(set(rhos)) < len(rhos):
        raise ConfigError(f"--rho: give each value once. Received: {text!r}.")
    return rhos


def _rhos_of(part: str, text: str) -> list[Rho]:
    """Read one part of the text between commas."""
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
            '--rho takes values such as "0,3,7", a range "0:22:2" (first, last, step), or '
            f'(rho_time)x(rho_frequency) such as "7x5". Received: {text!r}.'
        ) from None


def parse_variants(text: str) -> list[str]:
    """Read variants from "plain,shake,shake+fa".

    Raises:
        ConfigError: A variant is unknown or occurs twice.
    """
    names = [name.strip() for name in text.split(",")]
    for name in names:
        variant_options(name)
    if len(set(names)) < len(names):
        raise ConfigError(f"--variants: give each variant once. Received: {text!r}.")
    return names


def variant_options(name: str) -> dict[str, Any]:
    """Return the model options of a variant, or of several joined with "+".

    Raises:
        ConfigError: The name is unknown.
    """
    options: dict[str, Any] = {}
    for part in name.split(JOIN):
        if part not in VARIANTS:
            raise ConfigError(unknown_name("variant", part, VARIANTS))
        options |= VARIANTS[part]
    return options


def check_no_variant_options(source: str, options: Mapping[str, Any]) -> None:
    """Check that a recipe or model does not set the options that variants set.

    Args:
        source: Where the options come from, for the message.
        options: Values by name. Options that are off (None or False) do not count.

    Raises:
        ConfigError: One of these options is set.
    """
    own = {name for values in VARIANTS.values() for name in values}
    given = sorted(name for name in own & set(options) if options[name] not in (None, False))
    if given:
        raise ConfigError(
            f"{source} sets {', '.join(given)}, so the variants of a sweep would not match "
            "their names. Use a recipe or model without these options, and choose what to "
            f"compare with --variants: {', '.join(VARIANTS)}, or several joined with {JOIN!r}."
        )


@dataclass(frozen=True)
class ExtraTest:
    """Further data on which every trained model is tested.

    Attributes:
        name: Name in tables and plots.
        split: "train", "validation" or "test".
        options: Data options that differ from those of the run.
    """

    name: str
    split: str
    options: dict[str, Any]

    @property
    def folder_name(self) -> str:
        """Name of the report's folder inside the run's folder."""
        return f"report-{re.sub(r'[^0-9A-Za-z]+', '_', self.name)}"

    @property
    def is_training_clips(self) -> bool:
        """Return whether these are the clips on which the run itself was trained."""
        return self.split == "train" and set(self.options) <= {"window_seconds"}

    def config_for(self, trained: TrainConfig) -> TrainConfig:
        """Return the configuration for testing a run on this data.

        Raises:
            ConfigError: The options do not go together.
        """
        if self.options.get("dataset", trained.dataset) != trained.dataset:
            defaults = {name: getattr(TrainConfig, name) for name in DATA_SET_OPTIONS}
            trained = dataclasses.replace(trained, **defaults)
        return dataclasses.replace(trained, **self.options)


def parse_extra_test(text: str) -> ExtraTest:
    """Read an extra test from NAME:option=value,option=value.

    Raises:
        ConfigError: The text has another form, an option is unknown, or a value is not
            allowed.
    """
    name, colon, rest = text.partition(":")
    name = name.strip()
    pairs = [part.partition("=")[::2] for part in rest.split(",")]
    values = {key.strip(): value.strip() for key, value in pairs}
    if not name or not colon or not all(values.values()) or len(values) < len(pairs):
        raise ConfigError(f"--also-test: {_EXTRA_TEST_FORM} Received: {text!r}.")
    if name == TEST:
        raise ConfigError(
            f"--also-test: {TEST!r} is the name of the run's own test split. Choose another."
        )
    split = values.pop("split", "test")
    if split not in SPLITS:
        raise ConfigError(f"--also-test {name}: {unknown_name('split', split, SPLITS)}")
    for key in values:
        if key not in EXTRA_TEST_OPTIONS:
            known = ("split", *EXTRA_TEST_OPTIONS)
            raise ConfigError(f"--also-test {name}: {unknown_name('option', key, known)}")
    config = merge_options(values)
    return ExtraTest(name, split, {key: getattr(config, key) for key in values})


def check_names(tests: Sequence[ExtraTest]) -> None:
    """Check that the reports of all tests go to different folders.

    Raises:
        ConfigError: Two names differ only in characters other than ASCII letters and digits.
    """
    folders = [test.folder_name for test in tests]
    for test in tests:
        if folders.count(test.folder_name) > 1:
            raise ConfigError(
                "--also-test: names must differ in their letters a-z or digits. Received more "
                f"than one like {test.name!r}."
            )


@dataclass(frozen=True)
class SweepSettings:
    """The networks and tests of a sweep.

    Attributes:
        rhos: Values of rho.
        seeds: Number of seeds.
        variants: Names of the variants.
        tests: Extra tests.
    """

    rhos: list[Rho]
    seeds: int
    variants: list[str]
    tests: tuple[ExtraTest, ...]


def sweep_settings(flags: Mapping[str, Any], tables: Sequence[Recipe] = ()) -> SweepSettings:
    """Return the settings of a sweep from its flags and the tables `sweep` of its recipes.

    Args:
        flags: rho, seeds, variants and also_test (a list), as far as they were given.
        tables: From `read_sweep_table`. Each overrides those before it, and flags override
            them all. Lists may be given as text with commas, as on the command line.

    Raises:
        ConfigError: A value is not allowed, or rho is missing.
    """
    parsers: dict[str, Callable[[Any], Any]] = {
        "rho": lambda value: parse_rhos(_joined(value)),
        "seeds": lambda value: whole(1)("--seeds", value),
        "variants": lambda value: parse_variants(_joined(value)),
        "also_test": _parse_extra_tests,
    }
    values: dict[str, Any] = {"seeds": 3, "variants": ["plain"], "also_test": ()}
    for source, table in tables:
        with located(f"{source}: {SWEEP}"):
            values |= {key: parsers[key](value) for key, value in table.items()}
    values |= {key: parsers[key](value) for key, value in flags.items()}
    if "rho" not in values:
        raise ConfigError(
            "A sweep needs the values of rho: --rho 0:22:2, --rho 3,7,11, or --recipe with a "
            f"recipe that has rho in its table {SWEEP!r}, such as choose_rho."
        )
    return SweepSettings(
        values["rho"], values["seeds"], values["variants"], values["also_test"]
    )


def _joined(value: Any) -> str:
    """Return a list as text with commas."""
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _parse_extra_tests(value: Any) -> tuple[ExtraTest, ...]:
    """Read one extra test or a list of them."""
    texts = value if isinstance(value, list | tuple) else [value]
    tests = tuple(parse_extra_test(str(text)) for text in texts)
    check_names(tests)
    return tests


@dataclass(frozen=True)
class Job:
    """A run of the sweep with everything that is needed to do it.

    Attributes:
        run: Variant, rho and seed.
        folder: The run folder, in DIR/runs.
        config: The complete configuration.
        tests: Extra tests of the trained model.
    """

    run: SweepRun
    folder: RunFolder
    config: TrainConfig
    tests: tuple[ExtraTest, ...]

    @property
    def is_done(self) -> bool:
        """Return whether the run is trained and all of its tests are scored."""
        reports = [report_file(self.folder, test) for test in self.tests]
        return self.folder.is_finished and all(path.exists() for path in reports)


def plan_jobs(
    own: Mapping[str, Any], flags: Mapping[str, Any], recipe: str | None, output: Path
) -> list[Job]:
    """Return the runs of a sweep.

    Args:
        own: Options of the sweep by the keys of a recipe's `sweep` table: rho, seeds, variants
            and also_test; None for those that are not given.
        flags: Options of the runs that are given.
        recipe: Name or path of a recipe.
        output: Folder of the sweep.

    Raises:
        ConfigError: An option is wrong, or the model lacks an option of a variant.
        DatasetError: The folder of the data set does not exist.
    """
    import zoo
    from rfkeras.datasets.load import check_data_dir

    recipe_used = recipe_in_use(flags, recipe)
    settings = sweep_settings(
        {key: value for key, value in own.items() if value is not None},
        () if recipe_used is None else read_sweep_table(recipe_used),
    )
    for source, given in option_sources(flags, recipe):
        check_no_variant_options(f"Recipe {source}", given)
    flags = {"export": False, **flags}
    model = resolve(flags, recipe, shared=True).model
    check_no_variant_options(f"Model {model!r}", zoo.model_info(model).options)
    jobs = []
    for sweep_run in make_grid(settings.variants, settings.rhos, settings.seeds):
        config = resolve({**flags, **sweep_run.options()}, recipe, shared=True)
        check_initial_weights(config)
        config = complete(config)
        resolved = [complete(test.config_for(config)) for test in settings.tests]
        with_paths = tuple(
            replace(test, options={name: getattr(full, name) for name in test.options})
            for test, full in zip(settings.tests, resolved, strict=True)
        )
        folder = RunFolder(output / "runs" / sweep_run.name)
        jobs.append(Job(sweep_run, folder, config, with_paths))
    for used in (config, *resolved):  # the same data in each run, which would fail without
        check_data_dir(used.dataset, used.data_dir)
    return jobs


def features_dir(folder: RunFolder) -> Path:
    """Return the folder of the features that all runs of a run's sweep share."""
    return folder.root.parent.parent / "features"


def report_file(folder: RunFolder, test: ExtraTest) -> Path:
    """Return the file with a run's scores on an extra test."""
    return folder.root / test.folder_name / "report.json"


def prepare_job(job: Job) -> None:
    """Create the folder of a run, or check that it holds the same run.

    Raises:
        ConfigError: The folder holds a run with other options, or another extra test was
            scored under the same name.
    """
    if not job.folder.config.exists():
        create_run_folder(job.config, job.folder.root)
    differing = differing_options(job.folder.read_config(), job.config)
    if differing:
        raise ConfigError(
            f"{job.folder.root} holds a run with other options: {', '.join(differing)}. Use "
            "the same options as before, or choose another --output."
        )
    for test in job.tests:
        record = report_file(job.folder, test).with_name(TEST_RECORD)
        if record.exists() and ExtraTest(**json.loads(record.read_text("utf-8"))) != test:
            raise ConfigError(
                f"--also-test {test.name!r} was scored on other data in {record.parent}. Give "
                "the new test another name, or remove that folder."
            )
    entries = [dataclasses.asdict(test) for test in job.tests]
    write_text(job.folder.root / EXTRA_TESTS_FILE, json.dumps(entries, indent=2) + "\n")


def read_extra_tests(folder: RunFolder) -> tuple[ExtraTest, ...]:
    """Read the extra tests that `prepare_job` stored in a run's folder."""
    entries: Sequence[Mapping[str, Any]] = json.loads(
        (folder.root / EXTRA_TESTS_FILE).read_text(encoding="utf-8")
    )
    return tuple(ExtraTest(**entry) for entry in entries)
