"""Sections as JSON, and all of them as one page of Markdown."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.suite import SECTIONS, Bar, Row, Section
from rfkeras.utils.files import write_text

PAGE = "results.md"


def write_section(
    folder: Path, name: str, section: Section, machine: dict[str, Any], seconds: float
) -> None:
    """Write a section as `<name>.json`, and the page of all sections that are there."""
    content = {"machine": machine, "seconds": round(seconds, 1), **asdict(section)}
    write_text(folder / f"{name}.json", json.dumps(content, indent=1) + "\n")
    write_text(folder / PAGE, page(folder))


def page(folder: Path) -> str:
    """The page of the sections in a folder."""
    parts = [
        "# Benchmarks\n\nWritten by `make bench`; the figures of a section come from one run, "
        "its sides measured in turns, medians of all calls.\n"
    ]
    for name in SECTIONS:
        path = folder / f"{name}.json"
        if path.exists():
            parts.append(_section(json.loads(path.read_text(encoding="utf-8"))))
    return "\n".join(parts)


def _section(content: dict[str, Any]) -> str:
    parts = [f"## {content['title']}", content["text"], table(content["rows"])]
    if content["bars"]:
        parts.append(
            table(
                [
                    {
                        "bar": bar.what,
                        "wanted": bar.at_least,
                        "measured": bar.value,
                        "": "reached" if bar.is_met else "**not reached**",
                    }
                    for bar in (Bar(**bar) for bar in content["bars"])
                ]
            )
        )
    parts += [f"![{caption}]({file})" for file, caption in content["pictures"].items()]
    parts.append(f"<small>{machine_line(content['machine'])}</small>")
    return "\n\n".join(parts) + "\n"


def machine_line(machine: dict[str, Any]) -> str:
    """On what it was measured, in a sentence."""
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    return (
        f"{machine['date']}, {machine['commit']}: {machine['processor']} "
        f"({', '.join(machine['instructions'])}), {machine['threads']} of "
        f"{machine['processors']} processors, {machine['memory_gb']} GB; Python "
        f"{machine['python']}, {packages}; load before: {machine['load_before']}."
    )


def table(rows: list[Row]) -> str:
    """A Markdown table; numbers to three figures, None as a minus sign."""
    if not rows:
        return "Nothing was measured."
    headings = list(rows[0])
    lines = [
        "| " + " | ".join(headings) + " |",
        "|" + "|".join(" --- " if _is_text(rows, h) else " ---: " for h in headings) + "|",
    ]
    lines += ["| " + " | ".join(_cell(row[h]) for h in headings) + " |" for row in rows]
    return "\n".join(lines)


def _is_text(rows: list[Row], heading: str) -> bool:
    return any(isinstance(row[heading], str) for row in rows)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        digits = max(0, 2 - len(str(int(abs(value)))) + 1) if abs(value) >= 1 else 3
        return f"{value:,.{digits}f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
