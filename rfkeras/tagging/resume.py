"""Results that an interrupted job goes on with: JSON lines, and a sidecar for each file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rfkeras.errors import ConfigError
from rfkeras.files import replacing, write_bytes
from rfkeras.locks import try_exclusive
from rfkeras.tagging.files import printable
from rfkeras.tagging.outputs import Write, record_line
from rfkeras.tagging.records import Outcome, TagRules, as_json

SIDECAR_SUFFIX = ".tags.json"


class Journal:
    """A file of JSON lines, one for each file that is done.

    A line is on the disk before the next file is begun. What a killed process left of its
    last line, and the lines of files that could not be read, are taken out on opening: those
    files are tried again, and none stands there twice.

    Args:
        path: The file; it may not exist yet.
        model: What the user calls the model.

    Attributes:
        finished: Paths of the files whose tags stand there.

    Raises:
        ConfigError: It was written with another model, or is no such file.
    """

    def __init__(self, path: Path, model: str) -> None:
        self.path = path
        self.finished: set[str] = set()
        if not path.exists():
            return
        with replacing(path) as aside, path.open("rb") as old, aside.open("wb") as new:
            for number, line in enumerate(old, start=1):
                if not line.endswith(b"\n"):
                    break
                record = self._parse(line, number, printable(model))
                if "error" not in record and record["path"] not in self.finished:
                    self.finished.add(record["path"])
                    new.write(line)

    def _parse(self, line: bytes, number: int, model: str) -> dict[str, Any]:
        where = f"{printable(self.path)}, line {number},"
        try:
            record: dict[str, Any] = json.loads(line)
            found, _ = record["model"], record["path"]
        except (ValueError, TypeError, KeyError) as error:
            raise ConfigError(
                f"{where} was not written by `rfkeras tag`, so there is nothing to go on with. "
                "Name another --output."
            ) from error
        if found != model:
            raise ConfigError(
                f"{where} was written with the model {found!r}, and this is {model!r}. Name "
                "another --output."
            )
        return record

    @contextmanager
    def writing(self, rules: TagRules) -> Iterator[Write]:
        """Append records."""
        with self.path.open("ab") as file:

            def write(outcome: Outcome) -> None:
                file.write(record_line(rules, outcome).encode("utf-8", "backslashreplace"))
                file.flush()
                os.fsync(file.fileno())

            yield write


@contextmanager
def open_journal(path: Path, model: str, *, resume: bool) -> Iterator[Journal]:
    """The journal of a job, for one process at a time.

    Args:
        path: The file.
        model: What the user calls the model.
        resume: Go on with what stands there.

    Raises:
        ConfigError: Something stands there and resume is off, another process writes to it,
            or it is of another job.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with try_exclusive(path.with_name(f".{path.name}.lock")) as holder:
        if holder is not None:
            raise ConfigError(f"Process {holder} is writing to {printable(path)}.")
        if not resume and path.exists() and path.stat().st_size:
            raise ConfigError(
                f"{printable(path)} has results in it. Go on with them by --skip-existing, "
                "remove it, or name another --output."
            )
        yield Journal(path, model)


@contextmanager
def sidecars(targets: Mapping[str, Path], rules: TagRules) -> Iterator[Write]:
    """A JSON file for each file that is read, with all that is needed to understand it.

    Args:
        targets: Where it goes, by the name of the file that is read.
        rules: What goes into it.
    """

    def write(outcome: Outcome) -> None:
        content = {**rules.head(), **rules.record(outcome)}
        items = (f"{as_json(key)}: {as_json(value)}" for key, value in content.items())
        text = "{\n" + ",\n".join(items) + "\n}\n"
        write_bytes(targets[outcome.file.name], text.encode("utf-8", "backslashreplace"))

    yield write


def has_sidecar(target: Path, name: str, model: str) -> bool:
    """Is the sidecar of a file there, with its tags?

    Args:
        target: The sidecar.
        name: Of the file that it is for.
        model: What the user calls the model.

    Raises:
        ConfigError: It was written for another file, or with another model.
    """
    try:
        content = json.loads(target.read_bytes())
        found = content["path"], content["model"]
    except FileNotFoundError:
        return False
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(
            f"{printable(target)} was not written by `rfkeras tag`. Name another --output-dir."
        ) from error
    if found != (name, printable(model)):
        raise ConfigError(
            f"{printable(target)} holds the tags of {found[0]!r} by the model {found[1]!r}, "
            f"and would now hold those of {name!r} by {printable(model)!r}. Name another "
            "--output-dir, or leave out --skip-existing to replace it."
        )
    return "error" not in content
