"""Run Beam pipelines, and list, read and write files on any file system that Beam reaches."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.io.filesystem import BeamIOError
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.runners.runner import PipelineState

from rfkeras.audio.find import AUDIO_SUFFIXES, FoundFile, find_audio
from rfkeras.audio.source import Source
from rfkeras.errors import AudioError, ConfigError, PipelineError
from rfkeras.utils.files import write_bytes

# Beam's own default may download the binary of another runner.
_LOCAL_RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
_LOCAL_NAMES = (None, "DirectRunner")
_PROGRESS_SECONDS = 10.0  # between two progress lines
MAX_REMOTE_BYTES = 2_000_000_000  # remote files are read into memory
_WILDCARDS = "*?["


def pipeline_options(arguments: Sequence[str]) -> PipelineOptions:
    """Parse Beam's options from a command line.

    Args:
        arguments: Options as Beam documents them, such as
            `--runner=FlinkRunner --flink_master=HOST:8081`. Without a runner, or with
            DirectRunner, Beam's local runner is used, which needs no installation. It accepts
            `--direct_running_mode=multi_processing` and `--direct_num_workers=N`.

    Raises:
        ConfigError: An argument is not an option, or the local runner does not know it.
    """
    if arguments and not arguments[0].startswith("--"):
        raise ConfigError(
            "Options after --beam belong to Beam, such as --runner=FlinkRunner. Received: "
            f"{arguments[0]}."
        )
    options = PipelineOptions(list(arguments))
    standard = options.view_as(StandardOptions)
    if standard.runner in _LOCAL_NAMES:
        standard.runner = _LOCAL_RUNNER
        # Cluster runners may accept options that the local Beam does not know.
        unknown = set(options.get_all_options(retain_unknown_options=True))
        unknown -= set(options.get_all_options())
        if unknown:
            raise ConfigError(
                f"Beam's local runner has no option --{min(unknown)}. Put options of rfkeras "
                "before --beam."
            )
    return options


def run_pipeline(
    options: PipelineOptions, build: Callable[[beam.Pipeline], Any], progress: Callable[[], str]
) -> Any:
    """Build a pipeline and run it until it finishes.

    Args:
        options: See `pipeline_options`.
        build: Called with the pipeline.
        progress: Returns a progress line, printed to standard error when it changes.

    Returns:
        Beam's result.

    Raises:
        PipelineError: The pipeline ended before its work was done.
    """
    try:
        pipeline = beam.Pipeline(options=options)
        build(pipeline)
        with _progress_lines(progress):
            result = pipeline.run()
            state = result.wait_until_finish()
    except Exception as error:  # each runner raises its own exceptions
        last = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        if last[0].startswith(KeyboardInterrupt.__name__):  # Ctrl-C, which Beam wraps
            raise KeyboardInterrupt from error
        raise PipelineError(f"The pipeline failed: {last[0]}") from error
    if state != PipelineState.DONE:
        raise PipelineError(f"The pipeline ended in state {state}.")
    return result


@contextlib.contextmanager
def _progress_lines(progress: Callable[[], str]) -> Iterator[None]:
    """Print the progress while the block runs, whenever it has changed."""
    done = threading.Event()

    def watch() -> None:
        shown = progress()
        while not done.wait(_PROGRESS_SECONDS):
            now = progress()
            if now != shown:
                print(now, file=sys.stderr, flush=True)
                shown = now

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def counter(name: str) -> Any:
    """Return a counter that the runner displays."""
    return beam.metrics.Metrics.counter("rfkeras", name)


@dataclass(frozen=True)
class RemoteFile(FoundFile):
    """A file that is only accessible through Beam's file systems.

    Attributes:
        uri: Its address, such as gs://bucket/song.flac.
    """

    uri: str = ""

    @property
    def name(self) -> str:
        """The address."""
        return self.uri

    @property
    def key(self) -> str:
        """The address."""
        return self.uri


def is_remote(path: str) -> bool:
    """Return whether a path names a file system, such as gs://."""
    return "://" in path


def check_reachable(path: str) -> None:
    """Check that Beam knows the file system of a path.

    Raises:
        ConfigError: The file system is unknown.
    """
    try:
        FileSystems.get_filesystem(path)
    except ValueError as error:
        raise ConfigError(
            f"Beam cannot reach {path}: {error} Beam's extras add file systems: pip install "
            "'apache-beam[gcp]' (gs://), '[aws]' (s3://), '[azure]' (azfs://)."
        ) from error


def find_files(argument: str, note: Callable[[str], None] | None = None) -> Iterator[FoundFile]:
    """Yield the files that an argument of the command line names.

    Args:
        argument: A local file; a local folder, searched at any depth; an address; or a pattern
            such as `gs://bucket/**.mp3`. A pattern that ends with `*` matches only files with
            an audio suffix.
        note: Called with what was left out of a local folder.
    """
    if os.path.isdir(argument):  # noqa: PTH112 (Path.is_dir fails at too long names)
        try:
            yield from find_audio([argument], note)
        except ConfigError as error:  # the folder contains no audio
            yield FoundFile(Path(argument), Path(), str(error))
        return
    exists = os.path.exists(argument)  # noqa: PTH110 (Path.exists fails at too long names)
    if not is_remote(argument) and (exists or not _is_pattern(argument)):
        yield from find_audio([argument])
        return
    if not _is_pattern(argument):
        yield _remote(argument)
        return
    try:
        matches = FileSystems.match([argument])[0].metadata_list
    except BeamIOError as error:
        yield _remote(argument, f"cannot be listed: {error}")
        return
    chosen = [
        match.path
        for match in matches
        if not argument.endswith("*") or match.path.lower().endswith(AUDIO_SUFFIXES)
    ]
    if not chosen:
        yield _remote(argument, "no file matches")
    for path in chosen:
        if is_remote(path):
            yield _remote(path)
        else:
            yield from find_audio([path])


def _is_pattern(argument: str) -> bool:
    """Return whether an argument contains wildcards."""
    return any(character in argument for character in _WILDCARDS)


def _remote(uri: str, error: str | None = None) -> RemoteFile:
    """Return a remote file, named by the last part of its address."""
    name = Path(uri.rpartition("/")[2])
    return RemoteFile(name, name, error, uri)


def read_source(file: FoundFile) -> Source:
    """Return what a decoder reads: the path of a local file, the content of a remote one.

    Raises:
        AudioError: The remote file cannot be read, or is too large.
    """
    if not isinstance(file, RemoteFile):
        return file.path
    try:
        with FileSystems.open(file.uri, "application/octet-stream") as stream:
            content: bytes = stream.read(MAX_REMOTE_BYTES + 1)
    except Exception as error:  # each file system raises its own exceptions
        raise AudioError(file.uri, f"unreadable: {error}") from error
    if len(content) > MAX_REMOTE_BYTES:
        raise AudioError(file.uri, f"too large: more than {MAX_REMOTE_BYTES:,} bytes")
    if not content:
        raise AudioError(file.uri, "empty file (0 bytes)")
    return content


def write_file(path: str, content: bytes) -> None:
    """Write a file that appears under its name only when complete."""
    if not is_remote(path):
        write_bytes(path, content)
        return
    folder, name = FileSystems.split(path)
    aside = FileSystems.join(folder, f".{name}.{uuid.uuid4().hex}.partial")
    with FileSystems.create(aside) as stream:
        stream.write(content)
    FileSystems.rename([aside], [path])


def list_files(folder: str, pattern: str) -> list[str]:
    """Return the files in a folder whose names match a pattern, sorted."""
    if not is_remote(folder):  # glob in the folder, whose own name may contain wildcards
        return sorted(str(path) for path in Path(folder).glob(pattern))
    matches = FileSystems.match([FileSystems.join(folder, pattern)])[0].metadata_list
    return sorted(match.path for match in matches)
