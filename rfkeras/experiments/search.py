"""A search: its options, folder, trial configurations and default space, and its processes.

A search by several processes has one coordinator, which hands out trials and trains none, and
workers that train them. keras-tuner calls the coordinator "chief". A worker keeps changing a
file in the search folder (a heartbeat), and the coordinator watches these files.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shlex
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rfkeras.config.train_config import TrainConfig, from_json, to_json
from rfkeras.errors import ConfigError, unknown_name
from rfkeras.experiments.search_space import AXES, SearchSpace, Value, parse_space
from rfkeras.training.run_dir import RunFolder
from rfkeras.utils.files import exclusive, write_text

HYPERBAND, BAYESIAN, RANDOM = METHODS = ("hyperband", "bayesian", "random")

# keras-tuner's environment variables.
ID, IP, PORT = "KERASTUNER_TUNER_ID", "KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT"

SINGLE, COORDINATOR, WORKER = "single", "coordinator", "worker"
_HEARTBEAT_SECONDS = 1.0


@dataclass(frozen=True)
class Search:
    """The options of a search.

    Attributes:
        base: Options that all trials share. Model options that are None take the model's
            defaults.
        space: Options in which the trials differ.
        method: "hyperband", "bayesian" or "random".
        trials: Number of trials. Hyperband computes its own.
        factor: Hyperband promotes one in `factor` trials, with `factor` times the epochs.
        iterations: Number of times that Hyperband runs all its brackets.
        seed: Seed of the values that are tried.
        max_failures: Number of consecutive failed trials that ends the search.
        command: Command line that started the search.
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
        """The metric on the validation split by which trials are compared."""
        return self.base.monitor

    @property
    def lower_is_better(self) -> bool:
        """Return whether that metric is a loss."""
        return self.monitor.endswith("loss")

    def better(self, score: float, best: float | None) -> bool:
        """Return whether a score is better than the best so far."""
        if best is None:
            return True
        return score < best if self.lower_is_better else score > best

    @property
    def shortest(self) -> int:
        """Number of epochs of the shortest trials."""
        return min((epochs for _, epochs in self.rungs()), default=self.base.epochs)

    def rungs(self) -> list[tuple[int, int]]:
        """Return (trials, epochs) of everything to train, in the order of its start."""
        if self.method == HYPERBAND:
            return hyperband_rungs(self.base.epochs, self.factor) * self.iterations
        return [(self.trials, self.base.epochs)]


def hyperband_rungs(epochs: int, factor: int) -> list[tuple[int, int]]:
    """Return the rungs of Hyperband's brackets as keras-tuner plans them.

    A bracket starts with many short trials. The best one in `factor` is promoted to the next
    rung, with `factor` times the epochs. The next bracket starts with fewer, longer trials.

    Args:
        epochs: Epochs of the longest trials.
        factor: 2 or more.

    Returns:
        (trials, epochs) of each rung.
    """
    last_size = math.ceil(1 + math.log(epochs, factor))
    brackets = 0
    left: float = epochs
    while left >= 1:  # in floating point, as in keras-tuner
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
        """Options of the search, without the training options."""
        return self.root / "search.json"

    @property
    def base(self) -> Path:
        """Training options that all trials share."""
        return self.root / "base.json"

    @property
    def lock(self) -> Path:
        """Lock of the process that runs the search or serves its workers."""
        return self.root / ".lock"

    @property
    def state(self) -> Path:
        """keras-tuner's files, from which a search is resumed."""
        return self.root / "oracle"

    @property
    def workers(self) -> Path:
        """Heartbeat files, one per worker."""
        return self.root / "workers"

    @property
    def table(self) -> Path:
        """Table with one line per trial."""
        return self.root / "trials.csv"

    @property
    def best(self) -> Path:
        """Recipe of the best trial."""
        return self.root / "best.yaml"

    @property
    def score_plot(self) -> Path:
        """Plot of the scores in the order of the trials."""
        return self.root / "scores.png"

    @property
    def value_plot(self) -> Path:
        """Plot of the scores by the value of each searched option."""
        return self.root / "values.png"

    def trial(self, trial_id: str) -> RunFolder:
        """Return the run folder of a trial."""
        return RunFolder(self.root / "trials" / trial_id)


def open_folder(search: Search, folder: SearchFolder) -> None:
    """Create the folder of a search, or check that it holds the same search.

    Only `trials` may be larger than before; the search then continues with the additional
    trials. Processes that start at the same time do this one after the other.

    Raises:
        ConfigError: The folder holds another search, whose differences are listed, or other
            files.
    """
    folder.root.mkdir(parents=True, exist_ok=True)
    with exclusive(folder.root / ".opening", on_wait=lambda _: None):  # for milliseconds
        _open_locked(search, folder)


def _open_locked(search: Search, folder: SearchFolder) -> None:
    """Do the work of `open_folder` while no other process does."""
    if folder.options.exists():
        there = read_search(folder)
        differing = _differences(there, search)
        if differing:
            raise ConfigError(
                f"{folder.root} holds a search with other options: {'; '.join(differing)}. "
                f"Resume it with --resume {shlex.quote(str(folder.root))}, or choose another "
                "--search-dir."
            )
        if search.trials == there.trials:
            return
        search = dataclasses.replace(search, command=there.command)
    elif any(not _may_precede(path, folder) for path in folder.root.iterdir()):
        raise ConfigError(
            f"{folder.root} contains files that do not belong to a search. Choose another "
            "--search-dir."
        )
    write_text(folder.base, to_json(search.base))
    options = _options(search) | {"command": search.command}
    write_text(folder.options, json.dumps(options, indent=2) + "\n")


def _may_precede(path: Path, folder: SearchFolder) -> bool:
    """Return whether a start that was killed early may have left this file in the folder."""
    return path.name.startswith(".") or path in (folder.base, folder.workers)


def read_search(folder: SearchFolder) -> Search:
    """Read the search in a folder.

    Raises:
        ConfigError: The folder holds no search, or its files cannot be read.
    """
    if not (folder.options.is_file() and folder.base.is_file()):
        raise ConfigError(
            f"{folder.root} holds no search: {folder.options.name} is missing. Start a search "
            "with --search-dir."
        )
    try:
        options = json.loads(folder.options.read_text(encoding="utf-8"))
        space = parse_space(options.pop("space"))
        return Search(base=from_json(folder.base), space=space, **options)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"{folder.options} cannot be read: {error}") from error


def _options(search: Search) -> dict[str, Any]:
    """Return the options that must not change when a search is resumed, without `base`."""
    own = ("method", "trials", "factor", "iterations", "seed", "max_failures")
    return {
        "space": search.space.to_text(),
        **{name: getattr(search, name) for name in own},
    }


def _differences(there: Search, now: Search) -> list[str]:
    """Describe how a search differs from the one in the folder."""
    if now.trials > there.trials:
        there = dataclasses.replace(there, trials=now.trials)
    pairs = [(_options(there), _options(now)), (_base_options(there), _base_options(now))]
    pairs.insert(0, (pairs[0][0].pop("space"), pairs[0][1].pop("space")))
    return [
        f"{name} was {_value_text(old, name)}, now {_value_text(new, name)}"
        for old, new in pairs
        for name in dict.fromkeys((*old, *new))
        if old.get(name) != new.get(name)
    ]


def _base_options(search: Search) -> dict[str, Any]:
    """Return the training options that all trials share, as JSON values."""
    values: dict[str, Any] = json.loads(to_json(search.base))
    return values


def _value_text(options: Mapping[str, Any], name: str) -> str:
    return str(options[name]) if name in options else "not searched"


# The default space. Published sweeps found the best models at or below this rho.
LARGEST_RHO = 12
_DEFAULT_SPECS = {
    "shake": "false,true",
    "frequency_aware": "false,true",
    "damping": "none,0.01,0.1",
    "mixup": "0,0.1,0.3",
    "learning_rate": "1e-4:5e-3:log",
}
# Schedule options in epochs, which shrink with the length of a trial.
_FRACTIONS_OF_EPOCHS = ("hold_epochs", "decay_end_epoch")
_WHOLE_EPOCHS = ("swa_start_epoch", "prune_epochs", "early_stop_epochs")


def trial_config(
    base: TrainConfig, values: Mapping[str, Value], epochs: int | None = None
) -> TrainConfig:
    """Return the configuration of a trial.

    Args:
        base: The options that all trials share.
        values: Values of the searched options. rho_time and rho_frequency set rho of one
            axis; the other axis keeps its rho.
        epochs: Length of the trial; None takes that of `base`. Schedule options of `base`
            that count epochs are scaled, so that the schedule keeps its shape. `values` are
            not scaled; `check_space` rejects such a search.

    Raises:
        ConfigError: The options do not go together.
    """
    options = dict(values)
    if any(axis in options for axis in AXES):
        axes = rho_axes(base)
        pair = [options.pop(name, default) for name, default in zip(AXES, axes, strict=True)]
        options["rho"] = pair[0] if pair[0] == pair[1] else tuple(pair)
    if epochs is not None and epochs != base.epochs:
        options = {"epochs": epochs, **_scaled(base, epochs / base.epochs), **options}
    return dataclasses.replace(base, **options)


def complete_config(
    base: TrainConfig, values: Mapping[str, Value], epochs: int | None = None
) -> TrainConfig:
    """Return the configuration of a trial with all defaults filled in, as in a run folder.

    Raises:
        ConfigError: The options do not go together or contradict the initial weights, or the
            model does not have all of them.
    """
    from rfkeras.config.resolve import check_initial_weights, complete

    config = trial_config(base, values, epochs)
    check_initial_weights(config)
    return complete(config)


def _scaled(base: TrainConfig, share: float) -> dict[str, Any]:
    """Return the schedule options in epochs, scaled by a factor."""
    scaled: dict[str, Any] = {}
    for name in _FRACTIONS_OF_EPOCHS:
        value = getattr(base, name)
        if value is not None:
            scaled[name] = value * share
    for name in _WHOLE_EPOCHS:
        value = getattr(base, name)
        if value is not None:
            scaled[name] = max(1, math.ceil(value * share))
    return scaled


def rho_axes(config: TrainConfig) -> tuple[int, int]:
    """Return rho along time and along frequency, by default those of the model.

    Raises:
        ConfigError: The model has no rho.
    """
    import zoo

    known = zoo.model_info(config.model).options
    if "rho" not in known:
        raise ConfigError(unknown_name(f"option of {config.model}", "rho", known))
    rho = known["rho"] if config.rho is None else config.rho
    return (rho, rho) if isinstance(rho, int) else (rho[0], rho[1])


def recipe_options(config: TrainConfig) -> dict[str, Any]:
    """Return the options of a recipe that gives this configuration: all but the defaults.

    Options without effect, because another one is off, are left out: recipes must not
    contain them.
    """
    options: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value, needs = getattr(config, field.name), field.metadata["needs"]
        if value != field.default and (needs is None or needs.is_on(vars(config))):
            options[field.name] = list(value) if isinstance(value, tuple) else value
    return options


def default_space(base: TrainConfig, fixed: Mapping[str, Any]) -> SearchSpace:
    """Return the space that is searched by default.

    It has rho on each axis, the width and half of it, Shake-Shake, frequency awareness,
    damping, mixup and the learning rate, where the model has these options.

    Args:
        base: The options that all trials share.
        fixed: Options given as flags, which are not searched.

    Raises:
        ConfigError: The model is unknown.
    """
    import zoo

    info = zoo.model_info(base.model)
    known = {*info.options, "mixup", "learning_rate"}
    specs: dict[str, str] = {}
    if "rho" in known:
        rho = _largest_rho(info)
        specs |= dict.fromkeys(AXES, f"0:{rho}") if rho else {}
    if "width" in known:
        width = info.options["width"] if base.width is None else base.width
        specs["width"] = f"{width // 2},{width}"
    specs |= {name: spec for name, spec in _DEFAULT_SPECS.items() if name in known}
    given = {*fixed, *(AXES if "rho" in fixed else ())}
    return parse_space({name: spec for name, spec in specs.items() if name not in given})


def _largest_rho(info: Any) -> int:
    """Return the largest rho in the default space of a model; 0 if it has only one rho."""
    for rho in range(LARGEST_RHO, 0, -1):
        try:
            info.plan_for(rho=rho)
        except ConfigError:
            continue
        return rho
    return 0


def check_space(space: SearchSpace, base: TrainConfig, shortest: int | None = None) -> None:
    """Check before training that the values of a space are possible.

    The ends of each parameter are tried with all others at their first and at their last
    value. Other values that contradict each other make a trial fail.

    Args:
        space: The searched options.
        base: The options that all trials share.
        shortest: Epochs of the shortest trial; None takes those of `base`.

    Raises:
        ConfigError: A value is impossible, an option has no effect, or an option counts
            epochs although trials differ in length.
    """
    short = shortest is not None and shortest != base.epochs
    counts = [n for n in space.parameters if n in (*_FRACTIONS_OF_EPOCHS, *_WHOLE_EPOCHS)]
    if short and counts:
        raise ConfigError(
            f"Hyperband cannot search {', '.join(counts)}: its trials have from {shortest} to "
            f"{base.epochs} epochs, so the same value means a different schedule in each. "
            "Use --method random or bayesian, or give a fixed value as a flag, which is scaled "
            "with the length of the trial."
        )
    for values in _corners(space):
        try:
            config = complete_config(base, values, shortest)
        except ConfigError as error:
            example = ", ".join(f"{name}={value}" for name, value in values.items())
            if short:
                example += (
                    f" in Hyperband's shortest trials (epochs {shortest} of {base.epochs})"
                )
            raise ConfigError(
                f"Some trials are impossible, such as {example}: {error}"
            ) from None
        for name in values:
            field = TrainConfig.__dataclass_fields__["rho" if name in AXES else name]
            needs = field.metadata["needs"]
            if needs is None or needs.is_on(vars(config)) or set(needs.switches) & set(values):
                continue
            raise ConfigError(f"A search over {name} needs {needs.how}.")


def _corners(space: SearchSpace) -> Iterator[dict[str, Value]]:
    """Yield values of trials that together have the ends of every parameter."""
    for place in (0, -1):
        ends = {name: parameter.ends[place] for name, parameter in space.parameters.items()}
        for name, parameter in space.parameters.items():
            for end in parameter.ends:
                values = {**ends, name: end}
                if parameter.when is not None:
                    values[parameter.when[0]] = parameter.when[1][0]
                yield {
                    key: value
                    for key, value in values.items()
                    if _is_active(space, key, values)
                }


def _is_active(space: SearchSpace, name: str, values: Mapping[str, Value]) -> bool:
    """Return whether the condition of a parameter holds."""
    when = space.parameters[name].when
    return when is None or values[when[0]] in when[1]


@dataclass(frozen=True)
class Role:
    """The role of this process in a search.

    Attributes:
        kind: "single" (the only process), "coordinator" or "worker".
        name: keras-tuner's id of this process.
        address: "IP:PORT" of the coordinator; "" for a single process.
    """

    kind: str = SINGLE
    name: str = "tuner0"  # keras-tuner's default
    address: str = ""


def read_role(environment: Mapping[str, str]) -> Role:
    """Return the role that keras-tuner's environment variables give this process.

    Raises:
        ConfigError: Some of the variables are missing or have impossible values.
    """
    given = [name for name in (ID, IP, PORT) if environment.get(name)]
    if not given:
        return Role()
    missing = [name for name in (ID, IP, PORT) if name not in given]
    if missing:
        raise ConfigError(
            f"A search with several processes needs {ID} (chief, or the name of a worker), "
            f"{IP} and {PORT}. Missing: {', '.join(missing)}."
        )
    name, port = environment[ID], environment[PORT]
    if not re.fullmatch(r"[\w-]+", name):
        raise ConfigError(f"{ID} must be letters, digits, - and _. Received: {name!r}.")
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigError(f"{PORT} must be a number from 1 to 65535. Received: {port!r}.")
    kind = COORDINATOR if "chief" in name else WORKER  # keras-tuner's own rule
    return Role(kind, name, f"{environment[IP]}:{port}")


@contextmanager
def heartbeat(path: Path) -> Iterator[None]:
    """Keep changing a file while the block runs and this process lives."""
    over = threading.Event()

    def beat() -> None:
        count = 0
        while True:
            count += 1
            write_text(path, f"{time.time():.0f} {count}\n")
            if over.wait(_HEARTBEAT_SECONDS):
                return

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        path.unlink(missing_ok=True)


@dataclass
class HeartbeatMonitor:
    """Finds dead workers. Only the clock of this process counts.

    Attributes:
        folder: Folder of the workers' heartbeat files.
        timeout_seconds: A worker is dead if its file has not changed for this long.
        clock: Returns seconds that never decrease.
    """

    folder: Path
    timeout_seconds: float
    clock: Callable[[], float] = time.monotonic
    _seen: dict[str, tuple[str, float]] = dataclasses.field(default_factory=dict)

    def dead(self, names: Collection[str]) -> list[str]:
        """Return the workers among these whose file has not changed for too long."""
        now = self.clock()
        for name in names:
            content = self._read(name)
            if name not in self._seen or self._seen[name][0] != content:
                self._seen[name] = content, now
        self._seen = {name: seen for name, seen in self._seen.items() if name in names}
        return [
            name for name in sorted(names) if now - self._seen[name][1] > self.timeout_seconds
        ]

    def _read(self, name: str) -> str:
        try:
            return (self.folder / name).read_text(encoding="utf-8")
        except FileNotFoundError:
            return ""
