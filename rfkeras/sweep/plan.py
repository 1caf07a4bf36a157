"""A sweep's folder: which runs it holds, and what was asked for."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rfkeras.config import TrainConfig, differing_options
from rfkeras.errors import ConfigError
from rfkeras.files import write_text
from rfkeras.sweep.extra_tests import ExtraTest
from rfkeras.sweep.grid import Cell
from rfkeras.training.run_folder import RunFolder, create_run_folder

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
