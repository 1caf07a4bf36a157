"""Tag many files with one model; one bad file does not stop the batch.

Batches that write a journal (JSON lines) or sidecars (one JSON file per audio file) can be
resumed.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rfkeras.audio.decode import check_audio
from rfkeras.errors import AudioError, ConfigError
from rfkeras.inference.audio_files import FoundFile, printable
from rfkeras.inference.output import Outcome, TagRules, Write, as_json, record_line
from rfkeras.utils.files import (
    atomic_write,
    malformed,
    naming_write_errors,
    sole_writer,
    write_bytes,
)
from rfkeras.utils.progress import ProgressBar
from rfkeras.utils.text import clock
from rfkeras.utils.user_code import import_user_code
from zoo.pretrained import load_model, model_path

if TYPE_CHECKING:
    from rfkeras.inference import StreamTagger, TagResult

_LONG_SECONDS = 120.0  # files at least this long get a separate bar
SIDECAR_SUFFIX = ".tags.json"


@dataclass(frozen=True)
class TagOptions:
    """Options of a tagging job.

    Attributes:
        model: Model with pretrained weights, .keras file or run folder.
        threshold: One threshold for all tags; None uses those saved in the model.
        frames: Whether to record frame scores as well.
        chunk_seconds: See `StreamTagger`.
        decoder: See `StreamTagger`.
        imports: Files or modules that register the user's layers.
    """

    model: str
    threshold: float | None = None
    frames: bool = False
    chunk_seconds: float = 30.0
    decoder: str = "soundfile"
    imports: tuple[str, ...] = ()

    def open_tagger(self) -> StreamTagger:
        """Load the model and return its tagger."""
        from rfkeras.inference import StreamTagger

        import_user_code(self.imports)
        return StreamTagger(load_model(self.model), self.chunk_seconds, self.decoder)

    def rules(self, tagger: StreamTagger) -> TagRules:
        """Return the rules that decide which of the tagger's tags apply."""
        return TagRules.of(tagger, self.model, self.threshold)

    def job(self) -> Job:
        """Return the settings that must agree for results to share one output.

        Raises:
            ConfigError: The model does not exist.
            CheckpointError: Its file is missing.
        """
        file_digest = hashlib.sha256(model_path(self.model).read_bytes()).hexdigest()
        settings = json.dumps([file_digest, self.threshold, self.frames])
        digest = hashlib.sha256(settings.encode()).hexdigest()[:12]
        return Job(printable(self.model), digest)


@dataclass
class BatchSummary:
    """The outcome of a batch.

    Attributes:
        total: Number of files to read.
        done: Number of files read and written.
        failed: Number of files that could not be used; their errors are written.
        interrupted: Whether Ctrl-C stopped the batch.
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
    frames: bool = False,
    embeddings: bool = False,
) -> BatchSummary:
    """Tag files one after another and pass each outcome to `write`.

    Args:
        tagger: The tagger.
        files: Files to read, in this order.
        write: Called with each outcome, including those of files that cannot be used.
        display: Shows progress and errors.
        frames: Compute frame scores.
        embeddings: Compute frame embeddings.

    Returns:
        The numbers of files. Ctrl-C ends the batch without an exception; outcomes already
        written are kept.
    """
    summary = BatchSummary(len(files))
    warned = tagger.exact

    def begin(file: FoundFile, seconds: float) -> None:
        nonlocal warned
        display.begin(file.name, seconds)
        if not warned and seconds > tagger.chunk_seconds:
            warned = True
            display.print(
                f"Note: files longer than {tagger.chunk_seconds:g} s are processed in chunks, "
                "with results slightly different from a single pass: "
                f"{tagger.reason_not_exact}"
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
                display.print(f"{file.name}: {printable(outcome.error)}")
            with _interrupts_later():
                write(outcome)
                summary.done += outcome.error is None
                summary.failed += outcome.error is not None
            display.end(failed=outcome.error is not None)
    except KeyboardInterrupt:
        summary.interrupted = True
    return summary


def outcome_of(file: FoundFile, read: Callable[[], TagResult]) -> Outcome:
    """Return the outcome for a file: its result, or why there is none.

    Args:
        file: The file. If it already has an error, nothing is read.
        read: Returns the result.
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
        return Outcome(file, error="the model returned NaN or infinite scores")
    return Outcome(file, result)


class Display(ProgressBar):
    """Show how many files are done, and how much of a long file.

    Args:
        total: Files to read.
        quiet: Show no progress; `print` still prints.
    """

    def __init__(self, total: int, *, quiet: bool = False) -> None:
        super().__init__("", total, unit="files", quiet=quiet)
        self.failed = 0

    def begin(self, name: str, seconds: float) -> None:
        """Begin a file of that name and length."""
        self.begin_part(name, seconds, bar=seconds >= _LONG_SECONDS, show=clock)

    def inside(self, seconds_done: float) -> None:
        """Record how much of the file is done."""
        self.update_part(seconds_done, "current file")

    def end(self, *, failed: bool) -> None:
        """Count the file as done or failed."""
        self.end_part()
        self.failed += failed
        self.update(self.done + 1, note=f"{self.failed} failed" if self.failed else "")


@contextmanager
def _interrupts_later() -> Iterator[None]:
    """Delay Ctrl-C until the end of the block, so that no output is written partially."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread receives signals
        return
    received: list[tuple[Any, ...]] = []
    previous = signal.signal(signal.SIGINT, lambda *signals: received.append(signals))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
    if received and callable(previous):
        previous(*received[0])


@dataclass(frozen=True)
class Job:
    """The settings that must agree for results to share one output.

    Attributes:
        model: The model as named by the user.
        digest: Hash of the model file and of the settings that affect the results.
    """

    model: str
    digest: str

    def check(self, record: Mapping[str, Any], where: str) -> None:
        """Check that a record was written by this job.

        Args:
            record: With "model" and "job".
            where: The place of the record, for error messages.

        Raises:
            ConfigError: Another job wrote the record.
        """
        if record["model"] != self.model:
            raise ConfigError(
                f"{where} was written with the model {record['model']!r}, not "
                f"{self.model!r}. Choose another output, or omit --skip-existing."
            )
        if record["job"] != self.digest:
            raise ConfigError(
                f"{where} was written with other weights of the model {self.model!r}, another "
                "--threshold, or another setting of --frames. Use the same settings, or choose "
                "another output."
            )


@contextmanager
def open_journal(
    path: Path, job: Job, wanted: Collection[str], *, resume: bool
) -> Iterator[Journal]:
    """Open the journal of a job for exclusive use by this process.

    Args:
        path: The file.
        job: The job.
        wanted: Keys of the files that this process will tag.
        resume: Continue an existing journal.

    Raises:
        ConfigError: The file has content and resume is off, another process writes to it, or
            another job wrote it.
    """
    with sole_writer(path.with_name(f".{path.name}.lock"), Path(printable(path))):
        if not resume and path.exists() and path.stat().st_size:
            raise ConfigError(
                f"{printable(path)} already contains results. Use --skip-existing to continue, "
                "remove the file, or choose another --output."
            )
        yield Journal(path, job, wanted)


class Journal:
    """A file of JSON lines with one line per finished file.

    Each line is on disk before the next file begins. Opening the journal removes an incomplete
    last line left by a killed process, and the lines of unreadable files that will be tried
    again. So no file appears twice.

    Args:
        path: The file; it may not exist yet.
        job: The job that writes to it.
        wanted: Keys of the files that this process will tag, see `FoundFile.key`.

    Attributes:
        finished: Keys of the files whose tags are in the journal.

    Raises:
        ConfigError: Another job wrote the file, or it is not a journal.
    """

    def __init__(self, path: Path, job: Job, wanted: Collection[str]) -> None:
        self.path = path
        self._job = job
        self.finished: set[str] = set()
        if not path.exists():
            return
        with atomic_write(path) as aside, path.open("rb") as old, aside.open("wb") as new:
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
        """Return the record in a line, checked."""
        where = f"{printable(self.path)}, line {number},"
        try:
            with malformed():
                record: dict[str, Any] = json.loads(line)
                _ = record["model"], record["job"], {record["absolute_path"]}
        except ValueError as error:
            raise ConfigError(
                f"{where} was not written by `rfkeras tag`, so it cannot be resumed. Choose "
                "another --output."
            ) from error
        self._job.check(record, where.rstrip(","))
        return record

    @contextmanager
    def writing(self, rules: TagRules) -> Iterator[Write]:
        """Open the journal for appending records."""
        with naming_write_errors(self.path), self.path.open("ab") as file:

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
def sidecars(targets: Mapping[str, Path], job: Job, rules: TagRules) -> Iterator[Write]:
    """Write one self-contained JSON file per audio file.

    Args:
        targets: Output path by the name of the audio file.
        job: The job that writes the results.
        rules: The tags and their rules.
    """

    def write(outcome: Outcome) -> None:
        origin = {"absolute_path": outcome.file.key, "job": job.digest}
        content = {**rules.head(), **rules.record(outcome), **origin}
        items = (f"{as_json(key)}: {as_json(value)}" for key, value in content.items())
        text = "{\n" + ",\n".join(items) + "\n}\n"
        write_bytes(targets[outcome.file.name], text.encode("utf-8", "backslashreplace"))

    yield write


def has_sidecar(target: Path, file: FoundFile, job: Job) -> bool:
    """Return whether the sidecar of a file exists and contains its tags.

    Args:
        target: The sidecar.
        file: The audio file.
        job: The job to resume.

    Raises:
        ConfigError: The sidecar belongs to another file or another job.
    """
    try:
        with malformed():
            content = json.loads(target.read_bytes())
            found, _ = content["absolute_path"], (content["model"], content["job"])
    except FileNotFoundError:
        return False
    except ValueError as error:
        raise ConfigError(
            f"{printable(target)} was not written by `rfkeras tag`. Choose another "
            "--output-dir."
        ) from error
    if found != file.key:
        raise ConfigError(
            f"{printable(target)} contains the tags of {found!r}, not those of {file.key!r}. "
            "Choose another --output-dir, or omit --skip-existing to replace it."
        )
    job.check(content, printable(target))
    return "error" not in content
