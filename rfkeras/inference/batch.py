"""Tag many files with one model; one bad file does not stop the batch.

Batches that write a journal (JSON lines) or sidecars (one JSON file per audio file) can be
resumed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rfkeras.audio.decode import check_audio
from rfkeras.audio.find import FoundFile, find_audio
from rfkeras.errors import ConfigError, reason_of
from rfkeras.inference.output import (
    Outcome,
    OutputError,
    Stamp,
    TaggedFile,
    TagRules,
    Write,
    record_line,
    shared_output,
    sidecar_text,
)
from rfkeras.utils.files import (
    atomic_write,
    disk_refusal,
    fit_name,
    malformed,
    sole_writer,
    write_bytes,
)
from rfkeras.utils.progress import ProgressBar, print_status
from rfkeras.utils.remote import RemotePath, scratch_path
from rfkeras.utils.streams import reader_left
from rfkeras.utils.text import clock, count, printable
from rfkeras.utils.user_code import import_user_code
from zoo.pretrained import best_weights, existing_model, sha256_of

if TYPE_CHECKING:
    from rfkeras.inference import ChunkTagger, TagResult

_LONG_SECONDS = 120.0  # files at least this long get a separate bar
_UPLOAD_SECONDS = 60.0  # between uploads of a journal, unless they take long


@dataclass(frozen=True)
class TagOptions:
    """Options of a tagging job.

    Attributes:
        model: Model with pretrained weights, .keras file or run folder.
        threshold: One threshold for all tags; None uses those saved in the model.
        frames: Whether to record frame scores as well.
        chunk_seconds: See `ChunkTagger`.
        decoder: See `ChunkTagger`.
        imports: Files or modules that register the user's layers.
        strict: Whether damage that can be read around is an error.
        engine: See `rfkeras.inference.open_tagger`.
    """

    model: str
    threshold: float | None = None
    frames: bool = False
    chunk_seconds: float = 30.0
    decoder: str = "soundfile"
    imports: tuple[str, ...] = ()
    strict: bool = False
    engine: str = "auto"

    def open_tagger(self, on_status: Callable[[str], None] = print_status) -> ChunkTagger:
        """Load the model and return its tagger; see `rfkeras.inference.open_tagger`."""
        from rfkeras.inference.engines import open_tagger

        import_user_code(self.imports)
        return open_tagger(self.model, self.chunk_seconds, self.decoder, self.engine, on_status)

    def rules(self, tagger: ChunkTagger) -> TagRules:
        """Return the rules that decide which of the tagger's tags apply."""
        return TagRules.of(tagger, self.model, self.threshold)

    def job(self) -> Job:
        """Return the settings that must agree for results to share one output.

        Raises:
            ConfigError: The model does not exist.
            CheckpointError: Its file is missing.
        """
        file_digest = sha256_of(existing_model(self.model))
        strict = ["strict"] if self.strict else []  # absent from the records of version 0.1.0
        settings = json.dumps([file_digest, self.threshold, self.frames, *strict])
        digest = hashlib.sha256(settings.encode()).hexdigest()[:12]
        return Job(printable(self.model), digest)


@dataclass
class BatchSummary:
    """The outcome of a batch.

    Attributes:
        total: Number of files to read.
        done: Number of files read and written.
        failed: Number of files that could not be used; their errors are written.
        noted: Number of files that were used, but with notes.
        interrupted: Whether Ctrl-C stopped the batch.
        stopped: Why the batch stopped early: too many files could not be used. Otherwise "".
    """

    total: int
    done: int = 0
    failed: int = 0
    noted: int = 0
    interrupted: bool = False
    stopped: str = ""

    def count(self, outcome: Outcome, max_bad_share: float) -> None:
        """Count one outcome."""
        if outcome.error is None:
            self.done += 1
            self.noted += bool(outcome.notes)
            return
        self.failed += 1
        if self.failed > max_bad_share * self.total:
            self.stopped = too_many_failed(self.failed, self.total, max_bad_share)


def too_many_failed(failed: int, total: int, max_bad_share: float) -> str:
    """Return the sentence for a batch in which too many files could not be used."""
    return (
        f"{failed:,} of {count(total, 'file')} could not be used, more than --max-bad-share "
        f"{max_bad_share:g} allows. Repair or remove them, or raise --max-bad-share."
    )


def run_batch(
    tagger: ChunkTagger,
    files: Sequence[FoundFile],
    write: Write,
    display: Display,
    *,
    frames: bool = False,
    embeddings: bool = False,
    strict: bool = False,
    max_bad_share: float = 1.0,
) -> BatchSummary:
    """Tag files one after another and pass each outcome to `write`.

    An error while one file is read, computed, drawn or written is the outcome of that file.

    Args:
        tagger: The tagger.
        files: Files to read, in this order.
        write: Called with each outcome, including those of files that cannot be used.
        display: Shows progress, errors and notes.
        frames: Compute frame scores.
        embeddings: Compute frame embeddings.
        strict: Treat damage that can be read around as an error.
        max_bad_share: Stop when a larger share of the files cannot be used.

    Returns:
        The numbers of files. Ctrl-C and too many bad files end the batch without an exception;
        outcomes already written are kept.

    Raises:
        OSError: The output that all files share cannot be written, or the disk cannot be
            written at all.
    """
    summary = BatchSummary(len(files))
    warned = tagger.exact

    def begin(file: FoundFile, seconds: float) -> None:
        nonlocal warned
        display.begin(file.name, seconds)
        if not warned and seconds > tagger.chunk_seconds:
            warned = True
            display.note(
                f"files longer than {tagger.chunk_seconds:g} s are processed in chunks, "
                "with results slightly different from a single pass: "
                f"{tagger.reason_not_exact}"
            )

    def read(file: FoundFile) -> Outcome:
        def result() -> TagResult:
            info = check_audio(file.path, decoder=tagger.decoder, strict=strict)
            begin(file, info.duration_seconds)
            return tagger.run_file(
                file.path,
                frames=frames,
                embeddings=embeddings,
                on_progress=display.inside,
                strict=strict,
            )

        return outcome_of(file, result)

    try:
        for file in files:
            outcome = read(file)
            with _interrupts_later():
                outcome = _write_one(outcome, write)
                summary.count(outcome, max_bad_share)
            if outcome.error is not None:
                display.print(f"{file.name}: {printable(outcome.error)}")
            for note in outcome.notes:
                display.note(f"{file.name}: {printable(note)}")
            display.end(failed=outcome.error is not None)
            if summary.stopped:
                break
    except KeyboardInterrupt:
        summary.interrupted = True
    return summary


def _write_one(outcome: Outcome, write: Write) -> Outcome:
    """Write an outcome; if that fails, write the error as the outcome of the file.

    Returns:
        The outcome that was written, or that could not be written.

    Raises:
        OSError: The disk cannot be written, not even for the error.
    """
    try:
        write(outcome)
        return outcome
    except OutputError:
        raise
    except Exception as error:  # noqa: BLE001 (whatever it is, it is this file's)
        failed = Outcome(outcome.file, error=reason_of(error, "cannot be written"))
    try:
        write(failed)
    except OutputError:
        raise
    except Exception as error:
        if disk_refusal(error) is not None:
            kept = "All files before this one are recorded; resume with --skip-existing."
            raise OutputError(f"{error}. {kept}") from error
    return failed


def outcome_of(file: FoundFile, read: Callable[[], TagResult]) -> Outcome:
    """Return the outcome for a file: its result, or why there is none.

    Args:
        file: The file. If it already has an error, nothing is read.
        read: Returns the result. Any exception becomes the outcome of the file.
    """
    if file.error is not None:
        return Outcome(file, error=file.error)
    # Before reading: a sound that changes meanwhile is tagged again.
    stamp = Stamp.of(file)
    try:
        result = read()
    except Exception as error:
        if reader_left(error):  # of this program's progress
            raise
        return Outcome(file, error=reason_of(error, "unreadable"), stamp=stamp)
    values = (result.scores, result.frame_scores, result.embedding, result.frame_embeddings)
    if not all(np.isfinite(each).all() for each in values if each is not None):
        reason = "the model returned NaN or infinite scores"
        return Outcome(file, error=reason, stamp=stamp)
    return Outcome(file, result, stamp=stamp)


class Display(ProgressBar):
    """Show how many files are done, and how much of a long file.

    Args:
        total: Files to read.
        quiet: Show no progress and no notes; `print` still prints.
    """

    def __init__(self, total: int, *, quiet: bool = False) -> None:
        super().__init__("", total, unit="files", quiet=quiet)
        self.failed = 0

    def note(self, text: str) -> None:
        """Print a note, unless the display is quiet."""
        if not self._quiet:
            self.print(f"Note: {text}")

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
                "--threshold, or another setting of --frames or --strict. Use the same "
                "settings, or choose another output."
            )


@contextmanager
def open_journal(
    path: Path,
    job: Job,
    wanted: Collection[str],
    *,
    resume: bool,
    files: Mapping[str, FoundFile] | None = None,
) -> Iterator[Journal]:
    """Open the journal of a job for exclusive use by this process.

    A journal at a URL is written to a temporary file, which is uploaded from time to time and
    at the end, however the job ends.

    Args:
        path: The file.
        job: The job.
        wanted: Keys of the files that this process will tag.
        resume: Continue an existing journal.
        files: See `Journal`.

    Raises:
        ConfigError: The file has content and resume is off, another process writes to it, or
            another job wrote it.
    """
    lock = path.with_name(fit_name(f".{path.name}", ".lock"))
    with sole_writer(lock, Path(printable(path))):
        if not resume and path.exists() and path.stat().st_size:
            raise ConfigError(
                f"{printable(path)} already contains results. Use --skip-existing to continue, "
                "remove the file, or choose another --output."
            )
        if not isinstance(path, RemotePath):
            yield Journal(path, job, wanted, files)
            return
        copy = scratch_path(path.name)
        if path.exists():
            path.download(copy)
        journal = Journal(copy, job, wanted, files, path)
        try:
            yield journal
        finally:
            journal.finish()


class Journal:
    """A file of JSON lines with one line per finished file.

    Each line is on disk before the next file begins. Opening the journal removes an incomplete
    last line left by a killed process, and the lines of files that will be tagged again: those
    that could not be used, and those that were replaced. So no file appears twice.

    Args:
        path: The file; it may not exist yet.
        job: The job that writes to it.
        wanted: Keys of the files that this process will tag, see `FoundFile.key`.
        files: The wanted files by key, to find those that were replaced since; None takes no
            file as replaced.
        url: Where the file is uploaded to; None keeps it here.

    Attributes:
        finished: Keys of the files whose tags are in the journal.
        replaced: Number of files that were replaced since they were tagged.
        unstamped: Number of wanted files whose record has no size and time.

    Raises:
        ConfigError: Another job wrote the file, or it is not a journal.
    """

    def __init__(
        self,
        path: Path,
        job: Job,
        wanted: Collection[str],
        files: Mapping[str, FoundFile] | None = None,
        url: RemotePath | None = None,
    ) -> None:
        self.path = path
        self._url = url
        self._uploaded = (0, time.monotonic(), 0.0)  # size, when, how long it took
        self._job = job
        self.finished: set[str] = set()
        self.replaced = self.unstamped = 0
        if not path.exists():
            return
        with atomic_write(path) as aside, path.open("rb") as old, aside.open("wb") as new:
            for number, line in enumerate(old, start=1):
                if not line.endswith(b"\n"):
                    break
                record = self._parse(line, number)
                key = record["absolute_path"]
                if key in wanted:
                    if "error" in record:
                        continue
                    if files is not None:
                        recorded = Stamp.recorded(record)
                        self.unstamped += recorded is None
                        if recorded is not None and recorded.is_older(files[key]):
                            self.replaced += 1
                            continue
                if "error" not in record:
                    self.finished.add(key)
                new.write(line)

    def _parse(self, line: bytes, number: int) -> dict[str, Any]:
        """Return the record in a line, checked."""
        where = f"{printable(self._place)}, line {number},"
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
        kept = "All files before this one are recorded; resume with --skip-existing."
        with shared_output(self._place, kept):
            file = self.path.open("ab", buffering=0)
        with file:

            def write(outcome: Outcome) -> None:
                line = record_line(
                    rules,
                    outcome,
                    absolute_path=outcome.file.key,
                    job=self._job.digest,
                )
                with shared_output(self._place, kept):
                    _append(file, line.encode("utf-8", "backslashreplace"))
                    _, when, took = self._uploaded
                    if time.monotonic() - when > max(_UPLOAD_SECONDS, 20 * took):
                        with suppress(OSError):  # the last upload decides
                            self._upload()

            yield write

    @property
    def _place(self) -> Path:
        return self._url or self.path

    def finish(self) -> None:
        """Upload the journal if it is at a URL and has new lines.

        Raises:
            OutputError: The upload failed. The message names the file on this machine.
        """
        try:
            self._upload()
        except OSError as error:
            kept = Path(tempfile.gettempdir(), self.path.name)
            shutil.copyfile(self.path, kept)
            text = f"{self._url} cannot be written: {error.strerror or error}."
            raise OutputError(f"{text} The results are kept in {kept}.") from error

    def _upload(self) -> None:
        size = self.path.stat().st_size if self.path.exists() else 0
        if self._url is None or size == self._uploaded[0]:
            return
        start = time.monotonic()
        try:
            self._url.upload(self.path)
        finally:
            end = time.monotonic()
            self._uploaded = self._uploaded[0], end, end - start
        self._uploaded = size, end, end - start


def _append(file: FileIO, content: bytes) -> None:
    """Append to a file and wait until the disk has it; on an error, append nothing."""
    end = file.seek(0, os.SEEK_END)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[file.write(rest) or 0 :]
        os.fsync(file.fileno())
    except OSError:
        with suppress(OSError):
            file.truncate(end)
        raise


@contextmanager
def sidecars(
    targets: Mapping[str, Path], job: Job, rules: TagRules, kind: str = "json"
) -> Iterator[Write]:
    """Write one self-contained file per audio file.

    Args:
        targets: Output path by the name of the audio file.
        job: The job that writes the results.
        rules: The tags and their rules.
        kind: Format, one of `SIDECAR_SUFFIXES`. JSON files also record errors. In the others
            there is no place for them, so a file that could not be used has none.
    """

    def write(outcome: Outcome) -> None:
        target = targets[outcome.file.name]
        if outcome.result is None and kind != "json":
            target.unlink(missing_ok=True)  # tags of an earlier job
            return
        origin: dict[str, Any] = {"absolute_path": outcome.file.key, "job": job.digest}
        if outcome.stamp is not None:
            origin |= outcome.stamp.fields()
        text = sidecar_text(kind, rules, outcome, origin)
        write_bytes(target, text.encode("utf-8", "backslashreplace"))

    yield write


class FinishedSidecars:
    """Finds the audio files that have a sidecar with their tags.

    Args:
        targets: Output path by the name of the audio file.
        job: The job to resume.
        kind: Format of the sidecars: "json" or "jams".

    Attributes:
        replaced: Number of files that were replaced since they were tagged.
        unstamped: Number of finished files whose record has no size and time.
    """

    def __init__(self, targets: Mapping[str, Path], job: Job, kind: str = "json") -> None:
        self._targets = targets
        self._is_jams = kind == "jams"
        self._job = job
        self.replaced = self.unstamped = 0

    def __call__(self, file: FoundFile) -> bool:
        """Return whether the sidecar of a file exists and has its tags.

        Raises:
            ConfigError: The sidecar belongs to another file or another job.
        """
        target = self._targets[file.name]
        try:
            with malformed():
                content = json.loads(target.read_bytes())
                if self._is_jams:
                    content = content["sandbox"]["rfkeras"]
                found, _ = content["absolute_path"], (content["model"], content["job"])
        except OSError:  # there is none; other trouble appears when it is written
            return False
        except ValueError as error:
            raise ConfigError(
                f"{printable(target)} was not written by `rfkeras tag`. Choose another "
                "--output-dir."
            ) from error
        if found != file.key:
            raise ConfigError(
                f"{printable(target)} contains the tags of {found!r}, not those of "
                f"{file.key!r}. Choose another --output-dir, or omit --skip-existing to "
                "replace it."
            )
        self._job.check(content, printable(target))
        if "error" in content:
            return False
        recorded = Stamp.recorded(content)
        if recorded is None:
            self.unstamped += 1
            return True
        replaced = recorded.is_older(file)
        self.replaced += replaced
        return not replaced


def tag(
    audio: str | Path | Sequence[str | Path],
    model: Any = None,
    *,
    threshold: float | None = None,
    frames: bool = False,
    progress: bool = False,
    **options: Any,
) -> list[TaggedFile]:
    """Tag audio files: `rfkeras tag`.

    Args:
        audio: Files and folders, which are searched at any depth.
        model: Model with pretrained weights, .keras file, run folder, or a Keras model. None:
            the recommended weights. A Keras model runs on TensorFlow.
        threshold: One threshold for all tags; None uses those saved in the model.
        frames: Also return when each tag applies.
        progress: Show progress and notes on standard error, where errors are always printed.
        **options: chunk_seconds, decoder, strict and engine, see `TagOptions`.

    Returns:
        An entry per file, also for those that cannot be used.

    Raises:
        ConfigError, CheckpointError: The model or an option is wrong.

    Example:
        >>> for file in rfkeras.tag("album", frames=True):
        ...     print(file.path, file.error or file.tags, file.spans)
    """
    given = [audio] if isinstance(audio, str | Path) else list(audio)
    if model is None:
        model = str(best_weights())
    named = isinstance(model, str | Path)
    settings = TagOptions(str(model if named else model.name), threshold, frames, **options)
    if named:
        tagger = settings.open_tagger()
    else:
        from rfkeras.inference.keras_tagger import StreamTagger

        tagger = StreamTagger(model, settings.chunk_seconds, settings.decoder)
    rules = settings.rules(tagger)
    outcomes: list[Outcome] = []
    files = find_audio(given)
    with Display(len(files), quiet=not progress) as display:
        strict = settings.strict
        summary = run_batch(
            tagger, files, outcomes.append, display, frames=frames, strict=strict
        )
    if summary.interrupted:
        raise KeyboardInterrupt
    return [TaggedFile.of(outcome, rules) for outcome in outcomes]
