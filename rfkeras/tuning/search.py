"""What a search is: its options, its folder, and the check that a folder holds this search."""

from __future__ import annotations

import dataclasses
import json
import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rfkeras.config import TrainConfig, from_json, to_json
from rfkeras.errors import ConfigError
from rfkeras.files import write_text
from rfkeras.locks import exclusive
from rfkeras.training.run_folder import RunFolder
from rfkeras.tuning.space import SearchSpace, parse_space

HYPERBAND, BAYESIAN, RANDOM = METHODS = ("hyperband", "bayesian", "random")


@dataclass(frozen=True)
class Search:
    """The options of a search.

    Attributes:
        base: What all trials share; options of the model may be None, for its own defaults.
        space: What they differ in.
        method: "hyperband", "bayesian" or "random".
        trials: How many; Hyperband counts them itself.
        factor: Of Hyperband: one in so many trials goes on, for so many times the epochs.
        iterations: How often Hyperband runs through all its brackets.
        seed: Of the values that are tried.
        max_failures: Trials that may fail one after the other before the search ends.
        command: The command line that began it.
    """

    base: TrainConfig
    space: SearchSpace
    method: str = HYPERBAND
    trials: int = 20
    factor: int = 3
    iterations: int = 1
    seed: int = 0
    max_failures: int = 3
    command: str = ""

    @property
    def monitor(self) -> str:
        """The figure of the validation split by which trials are compared."""
        return self.base.monitor

    @property
    def lower_is_better(self) -> bool:
        """Whether that figure is a loss."""
        return self.monitor.endswith("loss")

    def better(self, score: float, best: float | None) -> bool:
        """Whether a score is better than the best so far."""
        if best is None:
            return True
        return score < best if self.lower_is_better else score > best

    @property
    def shortest(self) -> int:
        """Epochs of the shortest trials."""
        return min((epochs for _, epochs in self.rungs()), default=self.base.epochs)

    def rungs(self) -> list[tuple[int, int]]:
        """(trials, epochs) of everything to be trained, in the order of its start."""
        if self.method == HYPERBAND:
            return hyperband_rungs(self.base.epochs, self.factor) * self.iterations
        return [(self.trials, self.base.epochs)]


def hyperband_rungs(epochs: int, factor: int) -> list[tuple[int, int]]:
    """The rungs of Hyperband's brackets as keras-tuner lays them out.

    A bracket begins with many short trials; the best one in `factor` goes on to the next
    rung, with `factor` times the epochs. The next bracket begins with fewer and longer ones.

    Args:
        epochs: Of the longest trials.
        factor: 2 or more.

    Returns:
        (trials, epochs) of each rung.
    """
    last_size = math.ceil(1 + math.log(epochs, factor))
    brackets = 0
    left: float = epochs
    while left >= 1:  # in floating point, as keras-tuner counts them
        left /= factor
        brackets += 1
    return [
        (
            math.ceil(last_size / (bracket + 1) * factor ** (bracket - rung)),
            math.ceil(epochs / factor ** (bracket - rung)),
        )
        for bracket in reversed(range(brackets))
        for rung in range(bracket + 1)
    ]


@dataclass(frozen=True)
class SearchFolder:
    """Paths in the folder of a search."""

    root: Path

    @property
    def options(self) -> Path:
        """The options of the search, but for those of training."""
        return self.root / "search.json"

    @property
    def base(self) -> Path:
        """The options of training that all trials share."""
        return self.root / "base.json"

    @property
    def lock(self) -> Path:
        """Held by the process that runs the search, or serves its workers."""
        return self.root / ".lock"

    @property
    def state(self) -> Path:
        """keras-tuner's own files, from which a search goes on."""
        return self.root / "oracle"

    @property
    def workers(self) -> Path:
        """A file for each worker, which changes as long as the worker lives."""
        return self.root / "workers"

    @property
    def table(self) -> Path:
        """A line for each trial."""
        return self.root / "trials.csv"

    @property
    def best(self) -> Path:
        """The recipe of the best trial."""
        return self.root / "best.yaml"

    @property
    def score_plot(self) -> Path:
        """Scores in the order of the trials."""
        return self.root / "scores.png"

    @property
    def value_plot(self) -> Path:
        """Scores by the value of each searched option."""
        return self.root / "values.png"

    def trial(self, trial_id: str) -> RunFolder:
        """The run folder of a trial."""
        return RunFolder(self.root / "trials" / trial_id)


def open_folder(search: Search, folder: SearchFolder) -> None:
    """Make the folder of a search, or check that it holds this very one.

    Only `trials` may have grown: the search then goes on for so many more. Processes that
    start at the same time do this one after the other.

    Raises:
        ConfigError: Another search or other files lie there; the message says what differs.
    """
    folder.root.mkdir(parents=True, exist_ok=True)
    with exclusive(folder.root / ".opening", on_wait=lambda _: None):  # for milliseconds
        _open_locked(search, folder)


def _open_locked(search: Search, folder: SearchFolder) -> None:
    if folder.options.exists():
        there = read_search(folder)
        differing = _differences(there, search)
        if differing:
            raise ConfigError(
                f"{folder.root} holds a search with other options: {'; '.join(differing)}. Go "
                f"on with it by --resume {shlex.quote(str(folder.root))}, or choose another "
                "--search-dir."
            )
        if search.trials == there.trials:
            return
        search = dataclasses.replace(search, command=there.command)
    elif any(not _may_precede(path, folder) for path in folder.root.iterdir()):
        raise ConfigError(f"{folder.root} holds other files. Choose another --search-dir.")
    write_text(folder.base, to_json(search.base))
    options = _options(search) | {"command": search.command}
    write_text(folder.options, json.dumps(options, indent=2) + "\n")


def _may_precede(path: Path, folder: SearchFolder) -> bool:
    """Whether a folder may hold this before its search is written, as after a kill."""
    return path.name.startswith(".") or path in (folder.base, folder.workers)


def read_search(folder: SearchFolder) -> Search:
    """The search that a folder holds.

    Raises:
        ConfigError: It holds none.
    """
    if not (folder.options.is_file() and folder.base.is_file()):
        raise ConfigError(
            f"{folder.root} holds no search: it has no {folder.options.name}. Start one with "
            "--search-dir."
        )
    try:
        options = json.loads(folder.options.read_text(encoding="utf-8"))
        space = parse_space(options.pop("space"))
        return Search(base=from_json(TrainConfig, folder.base), space=space, **options)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"{folder.options} cannot be read: {error}") from error


def _options(search: Search) -> dict[str, Any]:
    """What two starts of one search have in common, as JSON; base options aside."""
    own = ("method", "trials", "factor", "iterations", "seed", "max_failures")
    return {
        "space": search.space.to_text(),
        **{name: getattr(search, name) for name in own},
    }


def _differences(there: Search, now: Search) -> list[str]:
    """What a search has otherwise than the one in the folder, in words."""
    if now.trials > there.trials:
        there = dataclasses.replace(there, trials=now.trials)
    pairs = [(_options(there), _options(now)), (_base_options(there), _base_options(now))]
    pairs.insert(0, (pairs[0][0].pop("space"), pairs[0][1].pop("space")))
    return [
        f"{name} was {_shown(old, name)}, now {_shown(new, name)}"
        for old, new in pairs
        for name in dict.fromkeys((*old, *new))
        if old.get(name) != new.get(name)
    ]


def _base_options(search: Search) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(to_json(search.base))
    return values


def _shown(options: Mapping[str, Any], name: str) -> str:
    return str(options[name]) if name in options else "not searched"
