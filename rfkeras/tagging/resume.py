"""Results that an interrupted job goes on with: JSON lines, and a sidecar for each file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rfkeras.errors import ConfigError
from rfkeras.files import naming, replacing, write_bytes
from rfkeras.loading import model_file
from rfkeras.locks import sole_writer
from rfkeras.reading import malformed
from rfkeras.tagging.files import FoundFile, printable
from rfkeras.tagging.outputs import Write, record_line
from rfkeras.tagging.records import Outcome, TagRules, as_json

SIDECAR_SUFFIX = ".tags.json"


@dataclass(frozen=True)
class Job:
    """What has to be the same for results to stand in one place.

    Attributes:
        model: What the user calls the model.
        digest: Of the model's file and of the settings that the results depend on.
    """

    model: str
    digest: str

    @classmethod
    def of(cls, model: str, threshold: float | None, *, frames: bool) -> Job:
        """The job that flags ask for.

        Raises:
            ConfigError: There is no such model.
            CheckpointError: Its file is missing.
        """
        file_digest = hashlib.sha256(model_file(model).read_bytes()).hexdigest()
        settings = json.dumps([file_digest, threshold, frames])
        return cls(printable(model), hashlib.sha256(settings.encode()).hexdigest()[:12])

    def check(self, record: Mapping[str, Any], where: str) -> None:
        """Refuse results of another job.

        Args:
            record: With "model" and "job".
            where: What errors call the place where it stands.

        Raises:
            ConfigError: It is of another.
        """
        if record["model"] != self.model:
            raise ConfigError(
                f"{where} was written with the model {record['model']!r}, and this is "
                f"{self.model!r}. Name another place, or leave out --skip-existing."
            )
        if record["job"] != self.digest:
            raise ConfigError(
                f"{where} was written with other weights of the model {self.model!r}, another "
                "--threshold, or another choice of --frames. Take the same, or name another "
                "place."
            )


class Journal:
    """A file of JSON lines, one for each file that is done.

    A line is on the disk before the next file is begun. What a killed process left of its
    last line, and the lines of files that could not be read and are to be tried again, are
    taken out on opening: no file stands there twice.

    Args:
        path: The file; it may not exist yet.
        job: Whose results go there.
        wanted: Keys of the files that this process is to tag, see `FoundFile.key`.

    Attributes:
        finished: Keys of the files whose tags stand there.

    Raises:
        ConfigError: It was written by another job, or is no such file.
    """

    def __init__(self, path: Path, job: Job, wanted: Collection[str]) -> None:
        self.path = path
        self._job = job
        self.finished: set[str] = set()
        if not path.exists():
            return
        with replacing(path) as aside, path.open("rb") as old, aside.open("wb") as new:
            for number, line in enumerate(old, start=1):
                if not line.endswith(b"\n"):
                    break
                record = self._parse(line, number)
                key = record["absolute_path"]
                if "error" in record and key in wanted:
                    continue
                if "error" not in record:
                    self.finished.add(key)
                new.write(line)

    def _parse(self, line: bytes, number: int) -> dict[str, Any]:
        where = f"{printable(self.path)}, line {number},"
        try:
            with malformed():
                record: dict[str, Any] = json.loads(line)
                _ = record["model"], record["job"], {record["absolute_path"]}
        except ValueError as error:
            raise ConfigError(
                f"{where} was not written by `rfkeras tag`, so there is nothing to go on with. "
                "Name another --output."
            ) from error
        self._job.check(record, where.rstrip(","))
        return record

    @contextmanager
    def writing(self, rules: TagRules) -> Iterator[Write]:
        """Append records."""
        with naming(self.path), self.path.open("ab") as file:

            def write(outcome: Outcome) -> None:
                line = record_line(
                    rules,
                    outcome,
                    absolute_path=outcome.file.key,
                    job=self._job.digest,
                )
                file.write(line.encode("utf-8", "backslashreplace"))
                file.flush()
                os.fsync(file.fileno())

            yield write


@contextmanager
def open_journal(
    path: Path, job: Job, wanted: Collection[str], *, resume: bool
) -> Iterator[Journal]:
    """The journal of a job, for one process at a time.

    Args:
        path: The file.
        job: The job.
        wanted: Keys of the files that this process is to tag.
        resume: Go on with what stands there.

    Raises:
        ConfigError: Something stands there and resume is off, another process writes to it,
            or it is of another job.
    """
    with sole_writer(path.with_name(f".{path.name}.lock"), Path(printable(path))):
        if not resume and path.exists() and path.stat().st_size:
            raise ConfigError(
                f"{printable(path)} has results in it. Go on with them by --skip-existing, "
                "remove it, or name another --output."
            )
        yield Journal(path, job, wanted)


@contextmanager
def sidecars(targets: Mapping[str, Path], job: Job, rules: TagRules) -> Iterator[Write]:
    """A JSON file for each file that is read, with all that is needed to understand it.

    Args:
        targets: Where it goes, by the name of the file that is read.
        job: Whose results they are.
        rules: What goes into it.
    """

    def write(outcome: Outcome) -> None:
        place = {"absolute_path": outcome.file.key, "job": job.digest}
        content = {**rules.head(), **rules.record(outcome), **place}
        items = (f"{as_json(key)}: {as_json(value)}" for key, value in content.items())
        text = "{\n" + ",\n".join(items) + "\n}\n"
        write_bytes(targets[outcome.file.name], text.encode("utf-8", "backslashreplace"))

    yield write


def has_sidecar(target: Path, file: FoundFile, job: Job) -> bool:
    """Is the sidecar of a file there, with its tags?

    Args:
        target: The sidecar.
        file: That it is for.
        job: Whose results are to go on.

    Raises:
        ConfigError: It was written for another file, or by another job.
    """
    try:
        with malformed():
            content = json.loads(target.read_bytes())
            found, _ = content["absolute_path"], (content["model"], content["job"])
    except FileNotFoundError:
        return False
    except ValueError as error:
        raise ConfigError(
            f"{printable(target)} was not written by `rfkeras tag`. Name another --output-dir."
        ) from error
    if found != file.key:
        raise ConfigError(
            f"{printable(target)} holds the tags of {found!r}, and would now hold those of "
            f"{file.key!r}. Name another --output-dir, or leave out --skip-existing to "
            "replace it."
        )
    job.check(content, printable(target))
    return "error" not in content
