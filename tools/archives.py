"""Check the wheel and the source distribution in a folder: `make dist` runs this.

    python tools/archives.py dist

What is checked: both have the version in rfkeras/__init__.py; the wheel holds every module,
type marker, recipe and weight file of `rfkeras` and `zoo`, the licence and the command
`rfkeras`, and no other packages; the source distribution holds these too, and the scripts
train.py, evaluate.py and tune.py; the wheel that is built from it has the same files with the
same bytes. The package `build` must be installed. The exit status is 1 if something is missing,
or there that should not be.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable
from email.parser import Parser
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("rfkeras", "zoo")  # the names that `pip install` adds at the top level
COMMAND = "rfkeras = rfkeras.cli.main:main"
SCRIPTS = ("train.py", "evaluate.py", "tune.py")
# Everything else at the top of a source distribution.
_DESCRIPTION = (
    *("CHANGELOG.md", "CITATION.cff", "LICENSE", "MANIFEST.in", "PKG-INFO", "README.md"),
    *("SECURITY.md", "pyproject.toml", "setup.cfg", "setup.py", "rfkeras.egg-info"),
)


def read_version(root: Path = ROOT) -> str:
    """Return the version of the code, from the one place that states it."""
    text = (root / "rfkeras/__init__.py").read_text(encoding="utf-8")
    return re.findall(r'^__version__ = "(.+)"$', text, re.MULTILINE)[0]


def package_files(root: Path = ROOT) -> dict[str, bytes]:
    """Return the files that both archives must hold: path -> content."""
    files = [
        path
        for package in PACKAGES
        for path in (root / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def read_wheel(path: Path) -> dict[str, bytes]:
    """Return the files of a wheel."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def read_sdist(path: Path) -> dict[str, bytes]:
    """Return the files of a source distribution, without its top folder."""
    with tarfile.open(path) as archive:
        return {
            member.name.partition("/")[2]: content.read()
            for member in archive
            if (content := archive.extractfile(member)) is not None
        }


def compare(
    archive: str, expected: dict[str, bytes], found: dict[str, bytes], also: Iterable[str] = ()
) -> list[str]:
    """Return what is wrong with the files of an archive.

    Args:
        archive: Name of the archive.
        expected: Files that must be there, with their content.
        found: Files that are there.
        also: Names at the top level that may be there too.
    """
    may_be = {name.partition("/")[0] for name in expected}.intersection(PACKAGES)
    top = may_be.union(also)
    faults = [f"{archive} lacks {name}" for name in sorted(expected.keys() - found.keys())]
    for name, content in sorted(found.items()):
        inside_package = name.partition("/")[0] in may_be
        if name.partition("/")[0] not in top or (inside_package and name not in expected):
            faults.append(f"{archive} should not have {name}")
        elif name in expected and content != expected[name]:
            faults.append(f"{archive} has another {name}")
    return faults


def check_metadata(archive: str, text: bytes, version: str) -> list[str]:
    """Return what is wrong with the metadata of an archive."""
    metadata = Parser().parsestr(text.decode())
    expected = {"Name": "rfkeras", "Version": version, "License-Expression": "Apache-2.0"}
    return [
        f"{archive}: {key} is {metadata[key]}, not {value}"
        for key, value in expected.items()
        if metadata[key] != value
    ]


def check_wheel(files: dict[str, bytes], root: Path = ROOT) -> list[str]:
    """Return what is wrong with a wheel."""
    version = read_version(root)
    info = f"rfkeras-{version}.dist-info"
    licence = {f"{info}/licenses/LICENSE": (root / "LICENSE").read_bytes()}
    faults = compare("the wheel", package_files(root) | licence, files, [info])
    faults += check_metadata("the wheel", files.get(f"{info}/METADATA", b""), version)
    if COMMAND not in files.get(f"{info}/entry_points.txt", b"").decode():
        faults.append(f"the wheel lacks the command {COMMAND}")
    if files.get(f"{info}/top_level.txt", b"").decode().split() != list(PACKAGES):
        faults.append(f"the packages at the top of the wheel are not {', '.join(PACKAGES)}")
    return faults


def check_sdist(files: dict[str, bytes], root: Path = ROOT) -> list[str]:
    """Return what is wrong with a source distribution."""
    top = {name: (root / name).read_bytes() for name in ("LICENSE", "setup.py", *SCRIPTS)}
    archive = "the source distribution"
    faults = compare(archive, package_files(root) | top, files, [*SCRIPTS, *_DESCRIPTION])
    return faults + check_metadata(archive, files.get("PKG-INFO", b""), read_version(root))


def check_rebuilt(wheel: dict[str, bytes], rebuilt: dict[str, bytes]) -> list[str]:
    """Return the differences between a wheel and the one built from the source distribution."""
    return [
        f"the wheel built from the source distribution differs: {name}"
        for name in sorted(wheel.keys() | rebuilt.keys())
        if wheel.get(name) != rebuilt.get(name)
    ]


def rebuild(sdist: Path) -> dict[str, bytes]:
    """Build a wheel from a source distribution and return its files."""
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(sdist) as archive:
            archive.extractall(folder, filter="data")
        (source,) = Path(folder).iterdir()
        command = [sys.executable, "-m", "build", "--wheel", "--outdir", folder, str(source)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        (wheel,) = Path(folder).glob("*.whl")
        return read_wheel(wheel)


def main() -> int:
    """Print what is wrong with the archives; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("folder", type=Path, help="folder with one wheel and one .tar.gz")
    folder = parser.parse_args().folder
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    built = read_wheel(wheel)
    faults = [
        *check_wheel(built),
        *check_sdist(read_sdist(sdist)),
        *check_rebuilt(built, rebuild(sdist)),
    ]
    print("\n".join(faults) or f"{wheel.name} and {sdist.name}: {len(built)} files, complete")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
