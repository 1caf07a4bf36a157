"""Write sections as JSON files, and all of them as one page of Markdown."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.suite import SECTIONS, Bar, Row, Section
from rfkeras.utils.files import write_text

PAGE = "results.md"
PACKAGES = (
    "tensorflow",
    "keras",
    "kapre",
    "numpy",
    "torch",
    "jax",
    "librosa",
    "onnxruntime",
    "openvino",
)
INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
# The rows in the JSON files have keys that older results use; these headings are clearer.
HEADINGS = {
    "by": "implementation",
    "ms a clip": "ms per clip",
    "times PyTorch": "speed relative to PyTorch",
    "times librosa": "speed relative to librosa",
    "of GEMM": "share of GEMM",
    "ms a step": "ms per step",
    "of as it is": "relative to default",
    "of ONNX Runtime": "time relative to ONNX Runtime",
    "ready after s": "s until ready",
    "of the call": "share of the call",
    "beyond start-up": "times real time, without start-up",
    "processor s": "CPU s",
    "s beyond Keras": "s without Keras",
}


def describe_machine(threads: int) -> dict[str, Any]:
    """Return the processor, memory, versions and load, for the report."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    facts = {name.strip(): value.strip() for name, value in pairs}
    flags = set(facts.get("flags", "").split())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "date": datetime.date.today().isoformat(),
        "commit": _commit(),
        "processor": facts.get("model name", platform.machine()),
        "instructions": [name for name in INSTRUCTIONS if name in flags],
        "processors": os.cpu_count(),
        "threads": threads,
        "memory_gb": round(memory / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "load_before": round(os.getloadavg()[0], 2),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    command = ["git", "describe", "--always", "--dirty"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent
    )
    return done.stdout.strip() or None


def write_section(
    folder: Path, name: str, section: Section, machine: dict[str, Any], seconds: float
) -> None:
    """Write a section as `<name>.json`, and update the page of all sections."""
    content = {"machine": machine, "seconds": round(seconds, 1), **asdict(section)}
    write_text(folder / f"{name}.json", json.dumps(content, indent=1) + "\n")
    write_text(folder / PAGE, page(folder))


def page(folder: Path) -> str:
    """Return the page of all sections in a folder."""
    parts = [
        "# Benchmarks\n\nWritten by `make bench`. The results of a section come from one run. "
        "All implementations took turns, and times are medians over all calls.\n"
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
                        "target": bar.what,
                        "at least": bar.at_least,
                        "measured": bar.value,
                        "": "met" if bar.is_met else "**missed**",
                    }
                    for bar in (Bar(**bar) for bar in content["bars"])
                ]
            )
        )
    parts += [f"![{caption}]({file})" for file, caption in content["pictures"].items()]
    parts.append(f"<small>{machine_line(content['machine'])}</small>")
    return "\n\n".join(parts) + "\n"


def machine_line(machine: dict[str, Any]) -> str:
    """Describe the machine in one line."""
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    return (
        f"{machine['date']}, {machine['commit']}: {machine['processor']} "
        f"({', '.join(machine['instructions'])}), {machine['threads']} of "
        f"{machine['processors']} processors, {machine['memory_gb']} GB; Python "
        f"{machine['python']}, {packages}; load before: {machine['load_before']}."
    )


def table(rows: list[Row]) -> str:
    """Format a Markdown table, with numbers to three digits and "-" for None."""
    if not rows:
        return "Nothing was measured."
    keys = list(rows[0])
    lines = [
        "| " + " | ".join(HEADINGS.get(key, key) for key in keys) + " |",
        "|" + "|".join(" --- " if _is_text(rows, key) else " ---: " for key in keys) + "|",
    ]
    lines += ["| " + " | ".join(_cell(row[key]) for key in keys) + " |" for row in rows]
    return "\n".join(lines)


def _is_text(rows: list[Row], key: str) -> bool:
    return any(isinstance(row[key], str) for row in rows)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        digits = max(0, 2 - len(str(int(abs(value)))) + 1) if abs(value) >= 1 else 3
        return f"{value:,.{digits}f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
