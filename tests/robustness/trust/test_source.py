"""The sources make no unsafe calls, and all dependencies are locked with checksums."""

import ast
import base64
import json
import re
import subprocess
import sys

import pytest

from tests.helpers.processes import ROOT

SOURCES = sorted(
    path
    for folder in ("rfkeras", "zoo", "examples", "benchmarks")
    for path in (ROOT / folder).rglob("*.py")
)
FORBIDDEN = {
    "eval", "exec", "pickle.load", "pickle.loads", "os.system", "os.popen", "yaml.load",
    "yaml.unsafe_load", "yaml.full_load", "joblib.load", "marshal.loads", "shelve.open",
    "keras.config.enable_unsafe_deserialization", "dill.load", "tempfile.mktemp",
}  # fmt: skip
# This copies a layer of a model in memory, whose code has already run.
ALLOWED = {"rfkeras/folding.py": "safe_mode=False"}
LOCKS = sorted((ROOT / "requirements").glob("*.lock"))


def test_the_sources_make_no_unsafe_calls():
    assert len(SOURCES) > 150
    found = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            settings = {k.arg: ast.unparse(k.value) for k in node.keywords}
            if (
                called in FORBIDDEN
                or settings.get("allow_pickle") == "True"
                or settings.get("safe_mode") == "False"
                or settings.get("weights_only") == "False"
                or settings.get("shell") == "True"
            ):
                name, text = str(path.relative_to(ROOT)), ast.unparse(node)
                if ALLOWED.get(name, text) not in text or name not in ALLOWED:
                    found.append(f"{name}:{node.lineno} {text[:60]}")
    assert not found


def packages(lock):
    """Map the name and version of each package to its number of hashes."""
    text = re.sub(r"\\\n\s*", " ", lock.read_text(encoding="utf-8"))
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    found = {}
    for line in lines:
        name, version = re.match(r"([\w.-]+)==([\w.+!]+)", line).groups()
        found[name.lower().replace("_", "-"), version] = len(
            re.findall("--hash=sha256:[0-9a-f]{64}", line)
        )
    return found


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_every_locked_package_has_a_checksum(lock):
    found = packages(lock)
    assert len(found) > 40
    assert all(found.values())


def test_the_bill_of_materials_lists_every_locked_package_and_bundled_part(tmp_path):
    target = tmp_path / "sbom.json"
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8")
    lines = re.findall(r"^\t\$\(BIN\)/python -m (.*\$\(SBOM\).*)$", recipe, re.M)
    lock = ROOT / "requirements/default.lock"
    for line in lines:
        words = line.replace("$(LOCK)", str(lock)).replace("$(SBOM)", str(target)).split()
        subprocess.run([sys.executable, "-m", *words], check=True, cwd=ROOT)
    listed = json.loads(target.read_text(encoding="utf-8"))["components"]
    names = {(part["name"].lower().replace("_", "-"), part["version"]) for part in listed}
    (path,) = (ROOT / "rfkeras").rglob("source.json")
    source = json.loads(path.read_text(encoding="utf-8"))
    assert names == {*packages(lock), (source["package"], source["version"])}
    (bundled,) = (part for part in listed if part["name"] == source["package"])
    digest = bytes.fromhex(bundled["hashes"][0]["content"])
    assert f"sha512-{base64.b64encode(digest).decode()}" == source["integrity"]
