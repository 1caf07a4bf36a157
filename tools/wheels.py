"""Ask pip on which systems the dependencies have wheels, and print a Markdown table.

    python tools/wheels.py                                      # the ranges in setup.py
    python tools/wheels.py --lock requirements/next.lock        # the packages of a lock file

Nothing is installed. A cell names the versions of Python with a wheel: "all", "3.11, 3.12" or
"none". "source" means a package that has no wheels on any system and is built by pip. The
exit status is 1 if a dependency that setup.py asks for on a system has no wheel there.
"""

from __future__ import annotations

import argparse
import io
import re
import runpy
import sys
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.11", "3.12", "3.13")
_GLIBC = range(5, 29)  # minor versions of glibc 2, up to manylinux_2_28
NEVER = "not asked for"
_JOBS = 4


@dataclass(frozen=True)
class System:
    """A system that users have.

    Attributes:
        name: Heading of its column.
        tags: Platforms of wheels that it accepts.
        markers: Values of environment markers there.
    """

    name: str
    tags: tuple[str, ...]
    markers: dict[str, str] = field(hash=False)


def linux(machine: str, *older: str) -> System:
    """Return a Linux system with glibc 2.28."""
    tags = [f"manylinux_2_{minor}_{machine}" for minor in reversed(_GLIBC)]
    tags += [f"{name}_{machine}" for name in ("manylinux2014", *older)]
    markers = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"}
    name = {"x86_64": "x86-64", "aarch64": "ARM64"}[machine]
    return System(f"Linux {name}", tuple(tags), {**markers, "platform_machine": machine})


SYSTEMS = (
    linux("x86_64", "manylinux2010", "manylinux1"),
    linux("aarch64"),
    System(
        "macOS arm64",
        ("macosx_14_0_arm64",),
        {
            "sys_platform": "darwin",
            "platform_system": "Darwin",
            "platform_machine": "arm64",
            "os_name": "posix",
        },
    ),
    System(
        "Windows x86-64",
        ("win_amd64",),
        {
            "sys_platform": "win32",
            "platform_system": "Windows",
            "platform_machine": "AMD64",
            "os_name": "nt",
        },
    ),
)


def read_setup() -> dict[str, list[str]]:
    """Return the dependencies in setup.py by extra; "" for those of every installation."""
    with mock.patch("setuptools.setup") as setup:
        runpy.run_path(str(ROOT / "setup.py"))
    arguments: dict[str, Any] = setup.call_args.kwargs
    return {"": arguments["install_requires"], **arguments["extras_require"]}


def read_lock(path: Path) -> list[str]:
    """Return the requirements in a lock file, without checksums."""
    text = re.sub(r"\\\n", " ", path.read_text(encoding="utf-8"))
    lines = (re.sub(r"--hash=\S+", "", line).strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith(("#", "-"))]


def applies(requirement: Requirement, system: System, python: str) -> bool:
    """Return whether a system needs this requirement."""
    versions = {"python_version": python, "python_full_version": f"{python}.0"}
    environment = {**system.markers, **versions, "extra": ""}
    return requirement.marker is None or requirement.marker.evaluate(environment)


@cache
def versions(name: str, system: System, python: str, *, source: bool) -> tuple[str, ...]:
    """Return the versions of a package that pip can install on a system.

    Args:
        name: Name of the package.
        system: The system.
        python: Version of Python, such as "3.12".
        source: Whether source distributions count too.
    """
    command = ["pip", "index", "versions", name, "--python-version", python]
    command += [word for tag in system.tags for word in ("--platform", tag)]
    command += [] if source else ["--only-binary", ":all:"]
    printed, errors = io.StringIO(), io.StringIO()
    with (
        mock.patch("sys.argv", command),
        redirect_stdout(printed),
        redirect_stderr(errors),
        suppress(SystemExit),
    ):
        runpy.run_module("pip", run_name="__main__")  # in this process: pip starts slowly
    listed = re.search(r"^Available versions: (.+)$", printed.getvalue(), re.MULTILINE)
    if listed is None and "No matching distribution" not in errors.getvalue():
        raise RuntimeError(f"pip failed for {name}: {errors.getvalue().strip()}")
    return tuple(listed[1].split(", ")) if listed else ()


def has(requirement: Requirement, system: System, python: str, *, source: bool = False) -> bool:
    """Return whether pip can install a requirement on a system; see `versions`."""
    found = versions(requirement.name, system, python, source=source)
    return any(requirement.specifier.contains(version) for version in found)


def cell(pythons: Iterable[str], lacking: Iterable[str]) -> str:
    """Return the text of a cell: the versions of Python with a wheel."""
    pythons, lacking = list(pythons), set(lacking)
    if not pythons:
        return NEVER
    having = [python for python in pythons if python not in lacking]
    if len(having) == len(PYTHONS):
        return "all"
    return ", ".join(having) or "none"


def row(text: str) -> tuple[list[str], bool]:
    """Return the cells of a requirement, and whether it is met wherever it is asked for."""
    requirement = Requirement(text)
    asked = [
        (system, python)
        for system in SYSTEMS
        for python in PYTHONS
        if applies(requirement, system, python)
    ]
    lacking = [place for place in asked if not has(requirement, *place)]
    if lacking == asked and has(requirement, *asked[0], source=True):
        return ["source"] * len(SYSTEMS), True
    cells = [
        cell(
            [python for where, python in asked if where == system],
            [python for where, python in lacking if where == system],
        )
        for system in SYSTEMS
    ]
    return cells, not lacking


def print_table(requirements: dict[str, str]) -> bool:
    """Print a Markdown table; return whether every requirement is met.

    Args:
        requirements: Requirement -> the extras that ask for it.
    """
    print(f"| Package | For | {' | '.join(system.name for system in SYSTEMS)} |")
    print(f"|---|---|{'---|' * len(SYSTEMS)}", flush=True)
    complete = True
    with ProcessPoolExecutor(_JOBS) as pool:
        rows = pool.map(row, requirements)
        for (text, extras), (cells, is_met) in zip(requirements.items(), rows, strict=True):
            complete = complete and is_met
            name = text.partition(";")[0].strip()
            print(f"| {name} | {extras} | {' | '.join(cells)} |", flush=True)
    return complete


def main() -> int:
    """Print the table; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--lock", type=Path, help="lock file to read instead of setup.py")
    options = parser.parse_args()
    requirements: dict[str, str] = {}
    if options.lock:
        requirements = dict.fromkeys(read_lock(options.lock), options.lock.name)
    else:
        for extra, texts in read_setup().items():
            if extra in ("dev", "docs"):  # for work on rfkeras itself
                continue
            for text in texts:
                used = f"`[{extra}]`" if extra else "all"
                known = requirements.get(text)
                requirements[text] = f"{known}, {used}" if known else used
    return 0 if print_table(requirements) else 1


if __name__ == "__main__":
    sys.exit(main())
