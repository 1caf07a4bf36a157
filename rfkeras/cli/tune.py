"""`rfkeras tune`: search for good options on the validation split."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from rfkeras.cli.main import COMMANDS
from rfkeras.config.parsing import number, whole
from rfkeras.config.recipes import list_recipes
from rfkeras.config.resolve import add_flags, resolve
from rfkeras.config.train_config import TrainConfig, flag
from rfkeras.errors import ConfigError

# Flags of the search itself. A resumed search already has them.
_WHOLE = {"factor": whole(2), "iterations": whole(1), "search_seed": whole(0, 2**31 - 2)}
_WHOLE |= {"max_failures": whole(1), "trials": whole(1)}
_SEARCH_FLAGS = ("recipe", "space", "search", "search_dir", "method", *_WHOLE)
_OWN_FLAGS = ("command", "run", "resume", "retry_failed", "worker_timeout", *_SEARCH_FLAGS)


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "tune",
        help=COMMANDS["tune"],
        usage=(
            "%(prog)s [--search NAME=SPEC ...] [--recipe FILE] [OPTIONS]\n"
            "       %(prog)s --resume DIR"
        ),
        description=(
            "Train many models with different options and compare them on the validation "
            "split. The best options become a recipe for `rfkeras train`. The test split is "
            "never used."
        ),
        epilog=(
            "NAME=SPEC: rho=0:12 or rho=0:12:2 (whole numbers, with a step), "
            "learning_rate=1e-4:1e-2:log, width=32,64,128, shake=true,false. rho_time and "
            "rho_frequency are the axes of rho. --resume DIR resumes a search. So does "
            "the same command if it names --search-dir. "
            f"Recipes: {', '.join(list_recipes())}."
        ),
    )
    group = parser.add_argument_group("search")
    group.add_argument(
        "--search",
        nargs="+",
        default=[],
        metavar="NAME=SPEC",
        help="options to search (default: rho on both axes, width, shake, frequency_aware, "
        "damping, mixup and learning_rate, if the model has them)",
    )
    group.add_argument(
        "--space", type=Path, metavar="FILE", help="YAML file with the options to search"
    )
    group.add_argument(
        "--recipe",
        metavar="FILE",
        help="options that all trials share, as for `rfkeras train` (default: the recipe of "
        "the data set)",
    )
    group.add_argument(
        "--search-dir",
        type=Path,
        metavar="DIR",
        help="folder of the search (default: a new one under searches/)",
    )
    group.add_argument(
        "--resume", type=Path, metavar="DIR", help="resume the search in this folder"
    )
    group.add_argument(
        "--method",
        choices=("hyperband", "bayesian", "random"),
        help="method of keras-tuner (default: hyperband)",
    )
    group.add_argument(
        "--trials",
        metavar="N",
        help="bayesian, random: number of trials (default: 20); can be raised later",
    )
    group.add_argument(
        "--factor",
        metavar="N",
        help="hyperband: continue one in N trials, with N times the epochs (default: 3)",
    )
    group.add_argument(
        "--iterations", metavar="N", help="hyperband: number of complete passes (default: 1)"
    )
    group.add_argument(
        "--search-seed", metavar="N", help="seed of the values to try (default: 0)"
    )
    group.add_argument(
        "--max-failures",
        metavar="N",
        help="stop after this many failed trials in a row (default: 3)",
    )
    group.add_argument(
        "--retry-failed",
        action="store_true",
        help="retry the failed trials of a resumed search",
    )
    group.add_argument(
        "--worker-timeout",
        default="60",
        metavar="SECONDS",
        help="coordinator: reassign a trial if its worker is silent for this many seconds "
        "(default: 60)",
    )
    add_flags(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from rfkeras.experiments.search import SINGLE, read_role

    role = read_role(os.environ)
    timeout = number(5.0)("--worker-timeout", options.worker_timeout)
    if options.resume is not None:
        search, folder = _resumed(options)
    else:
        search, folder = _new(options, is_single=role.kind == SINGLE)
    from rfkeras.experiments.search_run import run_search

    run_search(search, folder, role, timeout, options.retry_failed)
    return 0


def _resumed(options: argparse.Namespace) -> Any:
    """Return the search in a folder; only the number of trials may change."""
    from dataclasses import replace

    from rfkeras.experiments.search import SearchFolder, read_search

    given = [name for name in vars(options) if name not in _OWN_FLAGS]
    given += [n for n in _SEARCH_FLAGS if n != "trials" and getattr(options, n)]
    if given:
        raise ConfigError(
            "--resume uses the options of the resumed search. Leave out: "
            + ", ".join(map(flag, sorted(given)))
        )
    folder = SearchFolder(options.resume)
    search = read_search(folder)
    if options.trials is not None:
        _check_method(search.method, {"trials"})
        search = replace(search, trials=_WHOLE["trials"]("--trials", options.trials))
    return search, folder


def _new(options: argparse.Namespace, is_single: bool) -> Any:
    """Return the search that the flags describe; its folder may already contain it."""
    from rfkeras.experiments.search import HYPERBAND, Search, SearchFolder

    flags = {name: value for name, value in vars(options).items() if name not in _OWN_FLAGS}
    base = resolve(flags, options.recipe, shared=True)
    method = options.method or HYPERBAND
    numbers = {
        name.removeprefix("search_"): parse(flag(name), getattr(options, name))
        for name, parse in _WHOLE.items()
        if getattr(options, name) is not None
    }
    _check_method(method, set(numbers))
    root = options.search_dir
    if root is None:
        if not is_single:
            raise ConfigError("Coordinator and workers need the same --search-dir.")
        now = time.strftime("%Y%m%d-%H%M%S")
        root = Path("searches", f"{base.model}-{base.dataset}-{method}-{now}")
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    space = _space(options, base, flags)
    return Search(base, space, method, command=command, **numbers), SearchFolder(root)


def _check_method(method: str, given: set[str]) -> None:
    foreign = {"trials"} if method == "hyperband" else {"factor", "iterations"}
    if foreign & given:
        names = ", ".join(f"--{name}" for name in sorted(foreign & given))
        raise ConfigError(
            f"{names} cannot be combined with --method {method}. Hyperband's number of trials "
            "follows from --epochs, --factor and --iterations; the others use --trials."
        )


def _space(options: argparse.Namespace, base: TrainConfig, flags: dict[str, Any]) -> Any:
    from rfkeras.experiments.search import default_space
    from rfkeras.experiments.search_space import AXES, parse_space, read_space, split_flags

    if options.search and options.space:
        raise ConfigError("Use either --search or --space, not both.")
    if not (options.search or options.space):
        return default_space(base, flags)
    space = (
        read_space(options.space) if options.space else parse_space(split_flags(options.search))
    )
    both = [name for name in space.parameters if name in flags]
    if "rho" in flags and all(axis in space.parameters for axis in AXES):
        both.append("rho")
    if both:
        raise ConfigError(f"{', '.join(both)}: search it or give it as a flag, not both.")
    return space
