"""Ask pip on which systems the dependencies have wheels, and print a Markdown table.

    python tools/wheels.py                                      # the ranges in setup.py
    python tools/wheels.py --lock requirements/next.lock        # the packages of a lock file

Nothing is installed. A cell names the versions of Python with a wheel: "all", "3.11, 3.12" or
"none". "source" means a package that has no wheels on any system and is built by pip. The
exit status is 1 if a dependency that setup.py asks for on a system has no wheel there.
"""

from __future__ import annotations

import argparse
import json
import re
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.11", "3.12", "3.13")
_GLIBC = range(5, 29)  # minor versions of glibc 2, up to manylinux_2_28
NEVER = "not asked for"


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
    markers: dict[str, str]


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


def bare(requirement: Requirement) -> str:
    """Return a requirement without its marker, which pip would evaluate for this system."""
    return f"{requirement.name}{requirement.specifier}"


def resolves(
    names: Sequence[str], system: System, python: str, *, source: bool = False
) -> bool:
    """Return whether pip finds wheels of all these requirements for a system.

    Args:
        names: Requirements without markers.
        system: The system.
        python: Version of Python, such as "3.12".
        source: Whether source distributions count too.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--no-deps"]
        command += ["--ignore-installed", "--target", folder, "--python-version", python]
        command += [word for tag in system.tags for word in ("--platform", tag)]
        command += [] if source else ["--only-binary", ":all:"]
        report = Path(folder, "report.json")
        done = subprocess.run(
            [*command, "--report", str(report), *names],
            capture_output=True,
            check=False,
        )
        found = json.loads(report.read_text(encoding="utf-8")) if report.exists() else {}
    return done.returncode == 0 and len(found.get("install", ())) == len(names)


def missing(names: Sequence[str], system: System, python: str) -> set[str]:
    """Return the requirements without a wheel, by halving the list."""
    if not names or resolves(names, system, python):
        return set()
    if len(names) == 1:
        return set(names)
    half = len(names) // 2
    return missing(names[:half], system, python) | missing(names[half:], system, python)


def cell(pythons: Iterable[str], lacking: Iterable[str]) -> str:
    """Return the text of a cell: the versions of Python with a wheel."""
    pythons, lacking = list(pythons), set(lacking)
    if not pythons:
        return NEVER
    having = [python for python in pythons if python not in lacking]
    if len(having) == len(PYTHONS):
        return "all"
    return ", ".join(having) or "none"


def table(requirements: dict[str, str]) -> tuple[list[str], bool]:
    """Return the lines of a Markdown table, and whether every requirement is met.

    Args:
        requirements: Requirement -> the extras that ask for it.
    """
    parsed = {text: Requirement(text) for text in requirements}
    places = [(system, python) for system in SYSTEMS for python in PYTHONS]

    def lacking(place: tuple[System, str]) -> set[str]:
        names = sorted({bare(r) for r in parsed.values() if applies(r, *place)})
        return missing(names, *place)

    with ThreadPoolExecutor(4) as pool:
        found = dict(zip(places, pool.map(lacking, places), strict=True))
    lines = [
        f"| Package | For | {' | '.join(system.name for system in SYSTEMS)} |",
        f"|---|---|{'---|' * len(SYSTEMS)}",
    ]
    complete = True
    for text, extras in requirements.items():
        requirement, name = parsed[text], bare(parsed[text])
        asked = [place for place in places if applies(requirement, *place)]
        if all(name in found[place] for place in asked) and resolves(
            [name], *asked[0], source=True
        ):
            cells = ["source"] * len(SYSTEMS)
        else:
            cells = [
                cell(
                    [python for where, python in asked if where == system],
                    [python for where, python in asked if name in found[where, python]],
                )
                for system in SYSTEMS
            ]
            complete = complete and not any(name in found[place] for place in asked)
        lines.append(f"| {name} | {extras} | {' | '.join(cells)} |")
    return lines, complete


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
    lines, complete = table(requirements)
    print("\n".join(lines))
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
