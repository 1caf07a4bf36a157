"""The documentation site builds without warnings and is complete."""

import ast
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest
import yaml

import rfkeras
from tests.helpers.processes import ROOT

PACKAGES = {  # with a public API in __all__, and the page that documents it
    "rfkeras.audio": "audio",
    "rfkeras.datasets": "datasets",
    "rfkeras.export": "export",
    "rfkeras.frontend": "frontend",
    "rfkeras.inference": "inference",
    "rfkeras.interop": "interop",
    "rfkeras.layers": "layers",
    "rfkeras.rf": "rf",
    "rfkeras.synthesis": "datasets",
    "zoo": "zoo",
}
LOADED = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src"}
ELSEWHERE = re.compile(r"(?:https?:)?//")


class Page(HTMLParser):
    """The ids, links and loaded files of an HTML page."""

    def __init__(self, path):
        super().__init__()
        self.ids, self.links, self.loaded = set(), [], []
        self.scripts = []
        self._in_script = False
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if "id" in attributes:
            self.ids.add(attributes["id"])
        if tag == "a" and attributes.get("href"):
            self.links.append(attributes["href"])
        if attributes.get(LOADED.get(tag)):
            self.loaded.append(attributes[LOADED[tag]])
        self._in_script = tag == "script"

    def handle_endtag(self, tag):
        self._in_script = False

    def handle_data(self, data):
        if self._in_script:
            self.scripts.append(data)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site):
    return {path: Page(path) for path in sorted(site.rglob("*.html"))}


def test_every_page_and_picture_exists(site):
    for source in (ROOT / "docs").rglob("*"):
        path = source.relative_to(ROOT / "docs")
        if source.suffix in (".md", ".ipynb"):
            assert (site / path.with_suffix(".html")).is_file(), path
        elif source.is_file() and path.parts[0] != "site":
            assert (site / path).read_bytes() == source.read_bytes(), path
    for generated in ("command_line", "changelog", "contributing"):
        assert (site / f"{generated}.html").is_file()


def test_internal_links_and_files_exist(site, pages):
    for path, page in pages.items():
        if path.name == "404.html":  # its links are relative to the root of a server
            continue
        for link in [*page.links, *page.loaded]:
            if re.match(r"[a-z]+:|//", link):
                continue
            address, fragment = urldefrag(link)
            target = (path.parent / unquote(address)).resolve() if address else path
            target = target / "index.html" if target.is_dir() else target
            assert target.is_file(), f"{path.relative_to(site)}: {link}"
            if fragment and target.suffix == ".html" and not fragment.startswith("__"):
                assert unquote(fragment) in pages[target].ids, (
                    f"{path.relative_to(site)}: {link}"
                )


def test_nothing_is_loaded_from_other_hosts(site, pages):
    for path, page in pages.items():
        where = path.relative_to(site)
        assert not [file for file in page.loaded if ELSEWHERE.match(file)], where
        for script in page.scripts:
            assert not re.search(r"""(?:import|fetch)\(?\s*["'`]?https?:""", script), where
            assert "cdn" not in script, where
    for style in site.rglob("*.css"):
        text = style.read_text(encoding="utf-8")
        assert not re.search(r"""(?:url\(|@import)\s*["']?(?:https?:)?//""", text), style


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_has_an_entry(pages, site, package):
    path = site / f"api/{PACKAGES[package]}.html"
    page, text = pages[path], path.read_text(encoding="utf-8")
    for name in public_names(ROOT / package.replace(".", "/") / "__init__.py"):
        if name.isupper():  # constants are described in the text
            assert f"<code>{name}</code>" in text, name
            continue
        # A function with the name of its module has its full name as id.
        entries = {f"{package}.{name}", f"{package}.{name}.{name}"}
        assert entries & page.ids, name


def test_every_name_of_rfkeras_has_an_entry(pages, site):
    text = (site / "api/rfkeras.html").read_text(encoding="utf-8")
    ids = {name: page.ids for name, page in pages.items() if name.parent == site / "api"}
    entries = set().union(*ids.values())
    for name in rfkeras.__all__:
        home = rfkeras._HOMES.get(name, "")
        documented = (
            any(entry.startswith(f"{home}.") for entry in entries)
            if home == f"rfkeras.{name}"  # a package
            else {f"{home}.{name}", f"{home.partition('.')[0]}.{name}"} & entries
        )
        assert documented or f"<code>{name}</code>" in text, name


def test_every_public_package_is_checked():
    declared = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for room in ("rfkeras/*", "zoo")
        for path in ROOT.glob(f"{room}/__init__.py")
        if "__all__ =" in path.read_text(encoding="utf-8")
    }
    assert declared == set(PACKAGES)


def public_names(path):
    """List the names in a package's __all__ without importing it."""
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.Assign) and statement.targets[0].id == "__all__":
            return ast.literal_eval(statement.value)
    raise AssertionError(f"{path} has no __all__")


def test_entries_have_their_sections_and_examples(site):
    text = (site / "api/layers.html").read_text(encoding="utf-8")
    block = text[text.index('id="rfkeras.layers.ResidualBlock"') :][:60_000]
    assert "frequency_aware" in block
    assert "Parameters:" in block
    assert "ResidualBlock</span>" in block or "ResidualBlock" in block
    assert "&gt;&gt;&gt; block" not in block  # a nested quotation instead of code
    assert "TensorShape([1, 50, 16, 64])" in block


def test_the_command_line_page_lists_every_command(site):
    from rfkeras.cli.main import COMMANDS

    text = (site / "command_line.html").read_text(encoding="utf-8")
    for name in COMMANDS:
        assert f'id="rfkeras-{name}"' in text
    assert 'id="rfkeras-data-pack"' in text
    for flag in ("--rho", "--resume", "--also-test", "--no-audio", "--for-ms"):
        assert flag in text


def test_the_navigation_lists_every_page():
    class Loader(yaml.SafeLoader):
        """Loader for mkdocs.yml."""

    def paths(node):
        if isinstance(node, str):
            return [node]
        values = node.values() if isinstance(node, dict) else node
        return [path for value in values for path in paths(value)]

    settings = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader)
    known = {
        str(path.relative_to(ROOT / "docs"))
        for path in (ROOT / "docs").rglob("*")
        if path.suffix in (".md", ".ipynb")
    }
    generated = {"command_line.md", "changelog.md", "contributing.md"}
    assert set(paths(settings["nav"])) == known | generated
    assert Path(ROOT / settings["hooks"][0]).is_file()
