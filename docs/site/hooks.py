"""Pages of the site that are made at the build, from what they describe.

The command line reference comes from the parsers, so it cannot fall behind them; the
changelog and the guide for contributors are files of the repository's root. Links work in the
repository as well as on the site.
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

_WIDTH = "90"  # columns; what fits beside the site's two menus
_LINK = re.compile(r"\[([^\]]+)\]\((?!https?:|#)([^)#]+)(#[^)]*)?\)")
_PAGES = {  # of the site, for files of the repository that lie outside of docs/
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
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **kwargs: Any) -> str:
    """Turn links out of docs/, which serve readers of the repository (called by MkDocs)."""
    source = Path(page.file.src_uri).parent

    def turned(link: re.Match[str]) -> str:
        path = os.path.normpath(source / link[2])
        return site_link(link, path[3:]) if path.startswith("../") else link[0]

    return _LINK.sub(turned, markdown)


def root_page(path: Path) -> str:
    """A page of the repository's root, with its links as they are from docs/."""

    def turned(link: re.Match[str]) -> str:
        inside = link[2].removeprefix("docs/")
        if inside != link[2]:
            return f"[{link[1]}]({inside}{link[3] or ''})"
        return site_link(link, link[2])

    return _LINK.sub(turned, path.read_text(encoding="utf-8"))


def site_link(link: re.Match[str], path: str) -> str:
    """A link to a file outside of docs/: to its page, or its name where it has none.

    Args:
        link: A match of text, address and fragment.
        path: The file, from the repository's root.
    """
    if path in _PAGES:
        return f"[{link[1]}]({_PAGES[path]}{link[3] or ''})"
    return link[1] if path in link[1] else f"{link[1]} (`{path}`)"


def on_post_page(output: str, page: Any, **kwargs: Any) -> str:
    """Mend the pages of notebooks (called by MkDocs).

    Their links name files of docs/, which MkDocs turns into pages of the site only in
    Markdown. And nbconvert adds a script that draws Mermaid diagrams with code from a CDN; the
    notebooks have no such diagram.
    """
    if not page.file.src_uri.endswith(".ipynb"):
        return output
    output = re.sub(r'(href="(?!https?:)[^"#]+)\.(?:md|ipynb)(#[^"]*)?"', r'\1.html\2"', output)
    script = r"<script(?: [^>]*)?>(?:(?!</script>).)*mermaid(?:(?!</script>).)*</script>"
    return re.sub(script, "", output, flags=re.S)


def command_line_page() -> str:
    """The help of every command, as Markdown."""
    parts = [
        "# Command line",
        "`pip install .` gives the command `rfkeras`. From a checkout, `train.py` is "
        "`rfkeras train`, `evaluate.py` is `rfkeras evaluate` and `tune.py` is "
        "`rfkeras tune`. All end with status 0 only when everything was done; 1 after an "
        "error that the message explains, 2 for wrong flags, 130 after Ctrl-C.",
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
    """A parser and all parsers of its sub-commands, each with its depth."""
    yield depth, parser
    for action in parser._actions:
        if isinstance(action.choices, dict):
            for child in action.choices.values():
                yield from _parsers(child, depth + 1)
