"""Generate pages of the site during the build.

The command line reference comes from the parsers, so it is always up to date. The changelog
and the guide for contributors are files in the root folder of the repository. The demo is what
`rfkeras export --to web` writes. Links work both in the repository and on the site.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

from mkdocs.structure.files import File, Files

from rfkeras.cli.main import build_parser
from rfkeras.inference.web_page import web_files

DEMO = "demo/index.html"
DEMO_MODEL = "resnet_rf_small"
_WIDTH = "90"  # columns that fit between the two menus of the site
_LINK = re.compile(r"\[([^\]]+)\]\((?!https?:|#)([^)#]+)(#[^)]*)?\)")
_PAGES = {  # pages for files outside docs/
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "README.md": "index.md",
    "rfkeras/cli": "command_line.md",
}


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages (called by MkDocs)."""
    root = Path(config.config_file_path).parent
    pages = {
        "command_line.md": command_line_page(),
        "changelog.md": root_page(root / "CHANGELOG.md"),
        "contributing.md": root_page(root / "CONTRIBUTING.md"),
    }
    for path, content in (pages | demo_files()).items():
        files.append(File.generated(config, path, content=content))
    return files


def demo_files() -> dict[str, bytes]:
    """Return the page that tags in the browser: path in the site -> content."""
    folder = Path(DEMO).parent
    files = web_files(DEMO_MODEL)
    return {(folder / name).as_posix(): content for name, content in files.items()}


def on_page_markdown(markdown: str, page: Any, **kwargs: Any) -> str:
    """Rewrite links to files outside docs/, which work in the repository (called by MkDocs)."""
    source = Path(page.file.src_uri).parent

    def rewrite(link: re.Match[str]) -> str:
        path = os.path.normpath(source / link[2])
        return site_link(link, path[3:]) if path.startswith("../") else link[0]

    return _LINK.sub(rewrite, markdown)


def root_page(path: Path) -> str:
    """Read a page in the root folder, and make its links relative to docs/."""

    def rewrite(link: re.Match[str]) -> str:
        inside = link[2].removeprefix("docs/")
        if inside != link[2]:
            return f"[{link[1]}]({inside}{link[3] or ''})"
        return site_link(link, link[2])

    return _LINK.sub(rewrite, path.read_text(encoding="utf-8"))


def site_link(link: re.Match[str], path: str) -> str:
    """Link a file outside docs/ to its page, or show only its name if it has no page.

    Args:
        link: Match with the text, the address and the fragment of a link.
        path: Path of the file, relative to the root of the repository.
    """
    if path in _PAGES:
        return f"[{link[1]}]({_PAGES[path]}{link[3] or ''})"
    return link[1] if path in link[1] else f"{link[1]} (`{path}`)"


def on_post_page(output: str, page: Any, **kwargs: Any) -> str:
    """Fix the pages of notebooks (called by MkDocs).

    Their links point to files in docs/, which MkDocs converts only in Markdown. And nbconvert
    adds a script that loads Mermaid from a CDN, but the notebooks have no Mermaid diagrams.
    """
    if not page.file.src_uri.endswith(".ipynb"):
        return output
    output = re.sub(r'(href="(?!https?:)[^"#]+)\.(?:md|ipynb)(#[^"]*)?"', r'\1.html\2"', output)
    script = r"<script(?: [^>]*)?>(?:(?!</script>).)*mermaid(?:(?!</script>).)*</script>"
    return re.sub(script, "", output, flags=re.S)


def command_line_page() -> str:
    """Return the help of every command as Markdown."""
    parts = [
        "# Command line",
        "`pip install .` installs the command `rfkeras`. In a checkout, `train.py` is the same "
        "as `rfkeras train`, `evaluate.py` as `rfkeras evaluate`, and `tune.py` as "
        "`rfkeras tune`. The exit status is 0 only if everything succeeded, 1 after an error "
        "explained by the message, 2 for invalid flags, and 130 after Ctrl-C.",
    ]
    with patch.dict(os.environ, COLUMNS=_WIDTH):
        for depth, parser in _parsers(build_parser()):
            if depth:
                parts.append(f"{'#' * (depth + 1)} {parser.prog}")
            parts.append(f"```text\n{parser.format_help().rstrip()}\n```")
    return "\n\n".join(parts) + "\n"


def _parsers(
    parser: argparse.ArgumentParser, depth: int = 0
) -> Iterator[tuple[int, argparse.ArgumentParser]]:
    """Yield a parser and the parsers of its subcommands, each with its depth."""
    yield depth, parser
    for action in parser._actions:
        if isinstance(action.choices, dict):
            for child in action.choices.values():
                yield from _parsers(child, depth + 1)
