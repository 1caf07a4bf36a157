"""Ask pip on which systems the dependencies have wheels, and print a Markdown table.

    python tools/wheels.py                                      # the ranges in setup.py
    python tools/wheels.py --lock requirements/newest.lock      # the packages of a lock file

Nothing is installed. pip lists the files of each package once, wherever it is configured to
look; the tags of the wheels are compared with those of each system here. A cell names the
versions of Python with a wheel: "all", "3.11, 3.12" or "none"; in parentheses where setup.py
does not ask for the package. "source" means a package that has no wheels on any system and is
built by pip. The exit status is 1 if a dependency that setup.py asks for on a system has no
wheel there.
"""

from __future__ import annotations

import argparse
import re
import runpy
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import unquote

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.tags import Tag, compatible_tags, cpython_tags, mac_platforms
from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.11", "3.12", "3.13")
_GLIBC = range(5, 29)  # minor versions of glibc 2, up to manylinux_2_28
_JOBS = 4
# Lines of `pip -vv index versions`; those of releases that were withdrawn are left out.
_FILE = re.compile(
    r"^\s*(?:Found link|Skipping link: (?!yanked).*?:) (?:\w+:\S*/)(?P<name>[^/\s#?]+)\S*"
    r"(?: \(from [^)]*\))?(?: \(requires-python:(?P<python>[^)]*)\))?",
    re.MULTILINE,
)


@dataclass(frozen=True)
class System:
    """A system that users have.

    Attributes:
        name: Heading of its column.
        platforms: Platforms of wheels that it accepts.
        markers: Values of environment markers there.
    """

    name: str
    platforms: tuple[str, ...]
    markers: dict[str, str] = field(hash=False)


@dataclass(frozen=True)
class File:
    """A file of a package.

    Attributes:
        version: Version of the package.
        tags: Tags of a wheel; none for a source distribution.
        pythons: Versions of Python that it is for.
    """

    version: Version
    tags: frozenset[Tag]
    pythons: SpecifierSet


def linux(machine: str, *older: str) -> System:
    """Return a Linux system with glibc 2.28."""
    platforms = [f"manylinux_2_{minor}_{machine}" for minor in reversed(_GLIBC)]
    platforms += [f"{name}_{machine}" for name in ("manylinux2014", *older)]
    markers = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"}
    name = {"x86_64": "x86-64", "aarch64": "ARM64"}[machine]
    return System(f"Linux {name}", tuple(platforms), {**markers, "platform_machine": machine})


SYSTEMS = (
    linux("x86_64", "manylinux2010", "manylinux1"),
    linux("aarch64"),
    System(
        "macOS arm64",
        tuple(mac_platforms((14, 0), "arm64")),
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


def read_file(name: str, package: str, pythons: str) -> File | None:
    """Return a file of a package; None for files of other kinds or with an invalid name.

    Args:
        name: Name of the file.
        package: Name of the package.
        pythons: Versions of Python that the index states for it.
    """
    tags: frozenset[Tag] = frozenset()
    try:
        if name.endswith(".whl"):
            named, version, _, tags = parse_wheel_filename(name)
        else:
            named, version = parse_sdist_filename(name)
    except (InvalidSdistFilename, InvalidWheelFilename):
        return None
    same = named == canonicalize_name(package)
    return File(version, tags, SpecifierSet(pythons)) if same else None


@cache
def list_files(package: str) -> tuple[File, ...]:
    """Return the files of a package that pip finds, for all systems."""
    command = [sys.executable, "-m", "pip", "--no-color", "-vv", "index", "versions", package]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = _FILE.finditer(done.stdout)
    files = [
        read_file(unquote(match["name"]), package, match["python"] or "") for match in found
    ]
    known = tuple(file for file in files if file is not None)
    if not known:
        raise RuntimeError(f"pip lists no files of {package}: {done.stderr.strip()}")
    return known


@cache
def system_tags(system: System, python: str) -> frozenset[Tag]:
    """Return the tags of the wheels that a system with a version of Python accepts."""
    major, minor = map(int, python.split("."))
    return frozenset(
        [
            *cpython_tags((major, minor), platforms=system.platforms),
            *compatible_tags((major, minor), f"cp{major}{minor}", system.platforms),
        ]
    )


def has_wheel(requirement: Requirement, system: System, python: str) -> bool:
    """Return whether a wheel meets a requirement on a system."""
    accepted = system_tags(system, python)
    return any(
        requirement.specifier.contains(file.version)
        and not accepted.isdisjoint(file.tags)
        and file.pythons.contains(f"{python}.0")
        for file in list_files(requirement.name)
    )


def is_source_only(requirement: Requirement) -> bool:
    """Return whether a package has no wheels at all in the range that is asked for."""
    return not any(
        file.tags
        for file in list_files(requirement.name)
        if requirement.specifier.contains(file.version)
    )


def cell(requirement: Requirement, system: System) -> tuple[str, bool]:
    """Return the text of a cell, and whether the requirement is met if it is asked for."""
    asked = [python for python in PYTHONS if applies(requirement, system, python)]
    having = [python for python in PYTHONS if has_wheel(requirement, system, python)]
    text = "all" if len(having) == len(PYTHONS) else ", ".join(having) or "none"
    return (text if asked else f"({text})"), set(asked) <= set(having)


def row(text: str) -> tuple[list[str], bool]:
    """Return the cells of a requirement, and whether it is met wherever it is asked for."""
    requirement = Requirement(text)
    if is_source_only(requirement):
        return ["source"] * len(SYSTEMS), True
    cells = [cell(requirement, system) for system in SYSTEMS]
    return [text for text, _ in cells], all(is_met for _, is_met in cells)


def print_table(requirements: dict[str, str]) -> bool:
    """Print a Markdown table; return whether every requirement is met.

    Args:
        requirements: Requirement -> the extras that ask for it.
    """
    print(f"| Package | For | {' | '.join(system.name for system in SYSTEMS)} |")
    print(f"|---|---|{'---|' * len(SYSTEMS)}", flush=True)
    complete = True
    with ThreadPoolExecutor(_JOBS) as pool:
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
