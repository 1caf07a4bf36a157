"""The wheel and the source distribution: what is in them (tools/archives.py)."""

import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tools import archives

ROOT = Path(__file__).parents[1]
TOP = (
    *("setup.py", "pyproject.toml", "MANIFEST.in", "LICENSE", "README.md", "CHANGELOG.md"),
    *archives.SCRIPTS,
)
BUILD = (
    "import sys; from setuptools import build_meta as b; getattr(b, sys.argv[1])(sys.argv[2])"
)


def build(kind, source, output):
    """Build an archive of a folder with the installed setuptools; return its path."""
    command = [sys.executable, "-c", BUILD, f"build_{kind}", str(output)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    (archive,) = output.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return archive


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Return the files of wheel, source distribution, and wheel built from the latter."""
    folder = tmp_path_factory.mktemp("archives")
    source = folder / "source"
    for package in (*archives.PACKAGES, "tests", "tools", "benchmarks"):
        ignored = shutil.ignore_patterns("__pycache__", *["fixtures"] * (package == "tests"))
        shutil.copytree(ROOT / package, source / package, ignore=ignored)
    for name in TOP:
        shutil.copy(ROOT / name, source / name)
    sdist = build("sdist", source, folder)
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    (folder / "again").mkdir()
    again = build("wheel", unpacked, folder / "again")
    wheel = build("wheel", source, folder)
    return archives.read_wheel(wheel), archives.read_sdist(sdist), archives.read_wheel(again)


def test_both_archives_are_complete_and_hold_nothing_else(built):
    wheel, sdist, again = built
    assert archives.check_wheel(wheel) == []
    assert archives.check_sdist(sdist) == []
    assert archives.check_rebuilt(wheel, again) == []
    for name in ("rfkeras/py.typed", "zoo/py.typed", "zoo/recipes/gm_instruments.yaml"):
        assert name in wheel
        assert name in sdist
    assert {name.split("/")[0] for name in wheel} == {
        *("rfkeras", "zoo"),
        f"rfkeras-{archives.read_version()}.dist-info",
    }


def test_only_one_file_states_the_version():
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "Makefile"):
        assert f'"{archives.read_version()}"' not in (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("zoo/weights/index.json", None, "the wheel lacks zoo/weights/index.json"),
        ("rfkeras/py.typed", None, "the wheel lacks rfkeras/py.typed"),
        ("tests/test_a.py", b"", "the wheel should not have tests/test_a.py"),
        ("rfkeras/removed.py", b"", "the wheel should not have rfkeras/removed.py"),
        ("zoo/registry.py", b"old", "the wheel has another zoo/registry.py"),
        ("{info}/licenses/LICENSE", None, "the wheel lacks rfkeras-.*LICENSE"),
        ("{info}/entry_points.txt", b"", "the wheel lacks the command rfkeras = "),
        ("{info}/top_level.txt", b"rfkeras", "are not rfkeras, zoo"),
        ("{info}/METADATA", b"Name: rfkeras\nVersion: 0.0.1\n", "Version is 0.0.1, not "),
    ],
)
def test_faults_of_a_wheel_are_named(built, name, content, fault):
    name = name.format(info=f"rfkeras-{archives.read_version()}.dist-info")
    changed = {key: value for key, value in built[0].items() if key != name}
    if content is not None:
        changed[name] = content
    assert re.search(fault, archives.check_wheel(changed)[0])


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("train.py", None, "the source distribution lacks train.py"),
        ("zoo/recipes/openmic_vgg.yaml", None, "lacks zoo/recipes/openmic_vgg.yaml"),
        ("tests/test_a.py", b"", "should not have tests/test_a.py"),
        ("PKG-INFO", b"Name: rfkeras\nVersion: 0.0.1\n", "Version is 0.0.1, not "),
    ],
)
def test_faults_of_a_source_distribution_are_named(built, name, content, fault):
    changed = {key: value for key, value in built[1].items() if key != name}
    if content is not None:
        changed[name] = content
    assert fault in archives.check_sdist(changed)[0]


def test_a_different_wheel_from_the_source_distribution_is_named(built):
    wheel, _, again = built
    changed = again | {"zoo/py.typed": b"x"}
    assert archives.check_rebuilt(wheel, changed) == [
        "the wheel built from the source distribution differs: zoo/py.typed"
    ]
