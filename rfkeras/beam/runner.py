"""Running a pipeline: which runner, what is said meanwhile, and how its failure is told."""

from __future__ import annotations

import contextlib
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

from rfkeras.audio.io import Source
from rfkeras.errors import AudioError, ConfigError, PipelineError
from rfkeras.inference.audio_files import SUFFIXES, FoundFile, find_audio
from rfkeras.utils.files import write_bytes

# Beam's own default may fetch a binary of another runner from the network.
_LOCAL_RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
_LOCAL_NAMES = (None, "DirectRunner")
_SAY_SECONDS = 10.0


def pipeline_options(arguments: Sequence[str]) -> PipelineOptions:
    """Beam's options from a command line.

    Args:
        arguments: As Beam documents them: `--runner=FlinkRunner --flink_master=HOST:8081`.
            Without a runner, and for DirectRunner, Beam's local runner that needs nothing
            installed is taken; it understands `--direct_running_mode=multi_processing` and
            `--direct_num_workers=N`.

    Raises:
        ConfigError: A word is no option, or the local runner knows none of that name.
    """
    if arguments and not arguments[0].startswith("--"):
        raise ConfigError(
            "Behind --beam come options of Beam, such as --runner=FlinkRunner. Received: "
            f"{arguments[0]}."
        )
    options = PipelineOptions(list(arguments))
    standard = options.view_as(StandardOptions)
    if standard.runner in _LOCAL_NAMES:
        standard.runner = _LOCAL_RUNNER
        # Runners on clusters may know more options than Beam here does.
        unknown = set(options.get_all_options(retain_unknown_options=True))
        unknown -= set(options.get_all_options())
        if unknown:
            raise ConfigError(
                f"Beam's local runner has no option --{min(unknown)}. Options of rfkeras stand "
                "in front of --beam."
            )
    return options


def run(
    options: PipelineOptions, build: Callable[[beam.Pipeline], Any], progress: Callable[[], str]
) -> Any:
    """Build a pipeline and run it to its end.

    Args:
        options: See `pipeline_options`.
        build: Called with the pipeline.
        progress: Gives what is said on standard error now and then.

    Returns:
        Beam's result.

    Raises:
        PipelineError: It ended before its work was done.
    """
    try:
        pipeline = beam.Pipeline(options=options)
        build(pipeline)
        with _saying(progress):
            result = pipeline.run()
            state = result.wait_until_finish()
    except Exception as error:  # runners raise what they like
        last = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        if last[0].startswith(KeyboardInterrupt.__name__):  # Ctrl-C, which Beam wraps
            raise KeyboardInterrupt from error
        raise PipelineError(f"The pipeline failed: {last[0]}") from error
    if state != PipelineState.DONE:
        raise PipelineError(f"The pipeline ended in state {state}.")
    return result


@contextlib.contextmanager
def _saying(progress: Callable[[], str]) -> Iterator[None]:
    """Say the progress while the block runs, when it has changed."""
    done = threading.Event()

    def watch() -> None:
        said = progress()
        while not done.wait(_SAY_SECONDS):
            now = progress()
            if now != said:
                print(now, file=sys.stderr, flush=True)
                said = now

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def counter(name: str) -> Any:
    """A counter that the runner shows."""
    return beam.metrics.Metrics.counter("rfkeras", name)


MAX_REMOTE_BYTES = 2_000_000_000  # of a file that is read into memory whole
_WILD = "*?["


@dataclass(frozen=True)
class RemoteFile(FoundFile):
    """A file that only Beam's file systems reach.

    Attributes:
        uri: Its address: gs://bucket/song.flac.
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
    """Whether a path names a file system, as gs:// does."""
    return "://" in path


def check_reachable(path: str) -> None:
    """Refuse a path of a file system that Beam does not know here.

    Raises:
        ConfigError: It is of one.
    """
    try:
        FileSystems.get_filesystem(path)
    except ValueError as error:
        raise ConfigError(
            f"Beam cannot reach {path}: {error} Beam's extras bring the file systems: pip "
            "install 'apache-beam[gcp]' (gs://), '[aws]' (s3://), '[azure]' (azfs://)."
        ) from error


def find(argument: str) -> Iterator[FoundFile]:
    """The files that a word of the command line names.

    Args:
        argument: A local file, a local folder, which is searched at any depth, an address,
            or a pattern: `gs://bucket/**.mp3`. Of a pattern that ends with `*`, files with
            the suffix of audio are taken.
    """
    if Path(argument).is_dir():
        try:
            yield from find_audio([argument])
        except ConfigError as error:  # no audio in it
            yield FoundFile(Path(argument), Path(), str(error))
        return
    if not is_remote(argument) and (Path(argument).exists() or not _is_pattern(argument)):
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
        if not argument.endswith("*") or match.path.lower().endswith(SUFFIXES)
    ]
    if not chosen:
        yield _remote(argument, "no file matches")
    for path in chosen:
        if is_remote(path):
            yield _remote(path)
        else:
            yield from find_audio([path])


def _is_pattern(argument: str) -> bool:
    return any(character in argument for character in _WILD)


def _remote(uri: str, error: str | None = None) -> RemoteFile:
    name = Path(uri.rpartition("/")[2])
    return RemoteFile(name, name, error, uri)


def source_of(file: FoundFile) -> Source:
    """What a decoder reads of a file: its path, or the content of a remote one.

    Raises:
        AudioError: It cannot be read, or is too large.
    """
    if not isinstance(file, RemoteFile):
        return file.path
    try:
        with FileSystems.open(file.uri, "application/octet-stream") as stream:
            content: bytes = stream.read(MAX_REMOTE_BYTES + 1)
    except Exception as error:  # each file system raises errors of its own
        raise AudioError(file.uri, f"unreadable: {error}") from error
    if len(content) > MAX_REMOTE_BYTES:
        raise AudioError(file.uri, f"too large: more than {MAX_REMOTE_BYTES:,} bytes")
    if not content:
        raise AudioError(file.uri, "empty file (0 bytes)")
    return content


def write_whole(path: str, content: bytes) -> None:
    """Write a file under its name only when it is whole."""
    if not is_remote(path):
        write_bytes(path, content)
        return
    folder, name = FileSystems.split(path)
    aside = FileSystems.join(folder, f".{name}.{uuid.uuid4().hex}.partial")
    with FileSystems.create(aside) as stream:
        stream.write(content)
    FileSystems.rename([aside], [path])


def listed(folder: str, pattern: str) -> list[str]:
    """Files in a folder whose names match, sorted."""
    if not is_remote(folder):  # whose own name is no pattern
        return sorted(str(path) for path in Path(folder).glob(pattern))
    matches = FileSystems.match([FileSystems.join(folder, pattern)])[0].metadata_list
    return sorted(match.path for match in matches)
