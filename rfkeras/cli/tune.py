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
from rfkeras.config.recipes import list_recipes, recipes_for
from rfkeras.config.train_config import TrainConfig, add_flags, resolve
from rfkeras.errors import ConfigError

# Flags that say what is searched, and how; a search that goes on has them already.
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
            "split; the best becomes a recipe for train.py. The test split is not touched."
        ),
        epilog=(
            "NAME=SPEC: rho=0:12 or rho=0:12:2 (whole numbers, in steps), "
            "learning_rate=1e-4:1e-2:log, width=32,64,128, shake=true,false. rho_time and "
            "rho_frequency are the axes of rho. --resume DIR goes on with a search, as does "
            "the same command again if it names --search-dir. "
            f"Recipes: {', '.join(list_recipes())}."
        ),
    )
    group = parser.add_argument_group("search")
    group.add_argument(
        "--search",
        nargs="+",
        default=[],
        metavar="NAME=SPEC",
        help="what to search (default: rho on both axes, width, shake, frequency_aware, "
        "damping, mixup and learning_rate, as far as the model has them)",
    )
    group.add_argument("--space", type=Path, metavar="FILE", help="the same as a YAML file")
    group.add_argument(
        "--recipe",
        metavar="FILE",
        help="options that all trials share, as for train.py (default: the data set's own)",
    )
    group.add_argument(
        "--search-dir", type=Path, metavar="DIR", help="folder (default: searches/...)"
    )
    group.add_argument(
        "--resume", type=Path, metavar="DIR", help="go on with the search in this folder"
    )
    group.add_argument(
        "--method",
        choices=("hyperband", "bayesian", "random"),
        help="of keras-tuner (default: hyperband)",
    )
    group.add_argument(
        "--trials", metavar="N", help="trials of bayesian and random (20); may grow later"
    )
    group.add_argument(
        "--factor", metavar="N", help="hyperband: one in N goes on, for N times the epochs (3)"
    )
    group.add_argument(
        "--iterations", metavar="N", help="hyperband: how often it runs as a whole (1)"
    )
    group.add_argument("--search-seed", metavar="N", help="of the values that are tried (0)")
    group.add_argument(
        "--max-failures",
        metavar="N",
        help="trials that may fail one after the other before the search ends (3)",
    )
    group.add_argument(
        "--retry-failed", action="store_true", help="try failed trials of the folder again"
    )
    group.add_argument(
        "--worker-timeout",
        default="60",
        metavar="SECONDS",
        help="chief: after this long without life a worker's trial goes to another (60)",
    )
    add_flags(parser, TrainConfig)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from rfkeras.experiments.oracle import ALONE, read_role

    role = read_role(os.environ)
    timeout = number(5.0)("worker_timeout", options.worker_timeout)
    if options.resume is not None:
        search, folder = _resumed(options)
    else:
        search, folder = _new(options, alone=role.kind == ALONE)
    from rfkeras.experiments.search_run import run_search

    run_search(search, folder, role, timeout, options.retry_failed)
    return 0


def _resumed(options: argparse.Namespace) -> Any:
    """The search of a folder; only the number of trials may be another."""
    from dataclasses import replace

    from rfkeras.experiments.search import SearchFolder, read_search

    given = [name for name in vars(options) if name not in _OWN_FLAGS]
    given += [n for n in _SEARCH_FLAGS if n != "trials" and getattr(options, n)]
    if given:
        raise ConfigError(
            "--resume takes the options of the search it goes on with; leave out: "
            + ", ".join(sorted(given))
        )
    folder = SearchFolder(options.resume)
    search = read_search(folder)
    if options.trials is not None:
        _check_method(search.method, {"trials"})
        search = replace(search, trials=_WHOLE["trials"]("trials", options.trials))
    return search, folder


def _new(options: argparse.Namespace, alone: bool) -> Any:
    """The search that the flags describe, which may lie in its folder already."""
    from rfkeras.experiments.search import HYPERBAND, Search, SearchFolder

    flags = {name: value for name, value in vars(options).items() if name not in _OWN_FLAGS}
    base = resolve(TrainConfig, flags, recipes_for(flags, options.recipe))
    method = options.method or HYPERBAND
    numbers = {
        name.removeprefix("search_"): parse(name, getattr(options, name))
        for name, parse in _WHOLE.items()
        if getattr(options, name) is not None
    }
    _check_method(method, set(numbers))
    root = options.search_dir
    if root is None:
        if not alone:
            raise ConfigError("Chief and workers need the same --search-dir.")
        moment = time.strftime("%Y%m%d-%H%M%S")
        root = Path("searches", f"{base.model}-{base.dataset}-{method}-{moment}")
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    space = _space(options, base, flags)
    return Search(base, space, method, command=command, **numbers), SearchFolder(root)


def _check_method(method: str, given: set[str]) -> None:
    foreign = {"trials"} if method == "hyperband" else {"factor", "iterations"}
    if foreign & given:
        names = ", ".join(f"--{name}" for name in sorted(foreign & given))
        raise ConfigError(
            f"{names}: not with --method {method}. Hyperband counts its trials from --epochs, "
            "--factor and --iterations; bayesian and random take --trials."
        )


def _space(options: argparse.Namespace, base: TrainConfig, flags: dict[str, Any]) -> Any:
    from rfkeras.experiments.search import default_space
    from rfkeras.experiments.search_space import AXES, parse_space, read_space, split_flags

    if options.search and options.space:
        raise ConfigError("Give the space by --search or by --space, not by both.")
    if not (options.search or options.space):
        return default_space(base, flags)
    space = (
        read_space(options.space) if options.space else parse_space(split_flags(options.search))
    )
    both = [name for name in space.parameters if name in flags]
    if "rho" in flags and all(axis in space.parameters for axis in AXES):
        both.append("rho")
    if both:
        raise ConfigError(f"{', '.join(both)}: either searched or given as a flag, not both.")
    return space
