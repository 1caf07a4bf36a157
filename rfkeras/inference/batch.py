"""Many files through one tagger, of which a bad one stops nothing."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from rfkeras.audio.decode import check_audio
from rfkeras.errors import AudioError, ConfigError
from rfkeras.inference.audio_files import FoundFile, printable
from rfkeras.inference.output import Outcome, TagRules, Write, as_json, clock, record_line
from rfkeras.utils.files import malformed, naming, replacing, sole_writer, write_bytes
from zoo.pretrained import model_file

if TYPE_CHECKING:
    from rfkeras.inference import StreamTagger, TagResult

PLAIN_SECONDS = 30.0  # between two lines where there is no terminal to draw a bar on
_LONG_SECONDS = 120.0  # files from this length get a bar of their own
_NAME_CELLS = 32


class Display:
    """A bar over the files and one inside a long file; else a plain line now and then.

    Args:
        total: Files to come.
        quiet: Show no progress; `say` still speaks.
    """

    def __init__(self, total: int, *, quiet: bool = False) -> None:
        self.total = total
        self.done = self.failed = 0
        self._quiet = quiet
        console = Console(stderr=True)
        self._live = console.is_terminal and not quiet
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[count]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            redirect_stdout=False,  # results would land on standard error
            redirect_stderr=False,
        )
        self._files = self._bar.add_task("files", total=total, count=f"0/{total}")
        self._file: TaskID | None = None
        self._started = self._last_line = time.monotonic()
        self._now = ""

    def __enter__(self) -> Self:
        if self._live:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live:
            self._bar.stop()

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """No bar on the terminal while something else is printed on it."""
        if not self._live:
            yield
            return
        self._bar.stop()
        try:
            yield
        finally:
            self._bar.start()

    def say(self, line: str) -> None:
        """A line on standard error, above the bar."""
        with self.hidden():
            print(line, file=sys.stderr, flush=True)

    def begin(self, name: str, seconds: float) -> None:
        """A file begins that is so long."""
        self._now = f"{clock(seconds)} of audio"
        if self._live and seconds >= _LONG_SECONDS:
            shown = name if len(name) <= _NAME_CELLS else "..." + name[3 - _NAME_CELLS :]
            self._file = self._bar.add_task(shown, total=seconds, count="")

    def inside(self, seconds_done: float) -> None:
        """So much of the file is done."""
        if self._file is not None:
            shown = clock(seconds_done)
            self._bar.update(self._file, completed=seconds_done, count=shown)
        self._plain(f", {clock(seconds_done)} of {self._now} of the next done")

    def end(self, *, failed: bool) -> None:
        """The file is done, or cannot be."""
        self.done += 1
        self.failed += failed
        if self._file is not None:
            self._bar.remove_task(self._file)
            self._file = None
        self._bar.update(self._files, completed=self.done, count=f"{self.done}/{self.total}")
        left = (time.monotonic() - self._started) / self.done * (self.total - self.done)
        self._plain(f", about {clock(left)} min left")

    def _plain(self, rest: str) -> None:
        now = time.monotonic()
        if self._live or self._quiet or now - self._last_line < PLAIN_SECONDS:
            return
        self._last_line = now
        failed = f" ({self.failed} failed)" if self.failed else ""
        self.say(f"{self.done} of {self.total} files{failed}{rest}")


@dataclass
class Tally:
    """How a batch ended.

    Attributes:
        total: Files that were to be read.
        done: Files read, and their outcome written.
        failed: Files that could not be used, with their outcome written.
        interrupted: Ctrl-C came before the end.
    """

    total: int
    done: int = 0
    failed: int = 0
    interrupted: bool = False


def run_batch(
    tagger: StreamTagger,
    files: Sequence[FoundFile],
    write: Callable[[Outcome], None],
    display: Display,
    *,
    chunk_seconds: float,
    frames: bool = False,
    embeddings: bool = False,
) -> Tally:
    """Read files one after the other and hand on what comes of each.

    Args:
        tagger: What reads them.
        files: What is read, in this order.
        write: Called with each outcome, also of files that cannot be used.
        display: Told of the progress and of what is wrong.
        chunk_seconds: From which length on the tagger's `reason_not_exact` matters.
        frames: Ask for the scores of frames.
        embeddings: Ask for the features of frames.

    Returns:
        The counts. Ctrl-C ends the batch and is not raised: what was written stays.
    """
    tally = Tally(len(files))
    warned = tagger.exact

    def begin(file: FoundFile, seconds: float) -> None:
        nonlocal warned
        display.begin(file.name, seconds)
        if not warned and seconds > chunk_seconds:
            warned = True
            display.say(
                f"Note: files longer than {chunk_seconds:g} s are read in pieces, and "
                f"differ a little from one pass over all: {tagger.reason_not_exact}"
            )

    def read(file: FoundFile) -> Outcome:
        def result() -> TagResult:
            begin(file, check_audio(file.path, decoder=tagger.decoder).duration_seconds)
            return tagger.run_file(
                file.path, frames=frames, embeddings=embeddings, on_progress=display.inside
            )

        return outcome_of(file, result)

    try:
        for file in files:
            outcome = read(file)
            if outcome.error is not None:
                display.say(f"{file.name}: {printable(outcome.error)}")
            with _interrupts_later():
                write(outcome)
                tally.done += outcome.error is None
                tally.failed += outcome.error is not None
            display.end(failed=outcome.error is not None)
    except KeyboardInterrupt:
        tally.interrupted = True
    return tally


def outcome_of(file: FoundFile, read: Callable[[], TagResult]) -> Outcome:
    """What comes of a file: a result, or why there is none.

    Args:
        file: The file; of what has an error already nothing is read.
        read: Gives the result.
    """
    if file.error is not None:
        return Outcome(file, error=file.error)
    try:
        result = read()
    except AudioError as error:
        return Outcome(file, error=error.reason)
    except OSError as error:
        return Outcome(file, error=f"unreadable: {error.strerror or error}")
    if not np.isfinite(result.scores).all():
        return Outcome(file, error="the model's scores are not numbers (NaN or infinite)")
    return Outcome(file, result)


@contextmanager
def _interrupts_later() -> Iterator[None]:
    """Ctrl-C waits for the block's end, so that nothing is written by halves."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals come to the main thread alone
        return
    received: list[tuple[Any, ...]] = []
    previous = signal.signal(signal.SIGINT, lambda *signals: received.append(signals))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
    if received and callable(previous):
        previous(*received[0])


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
