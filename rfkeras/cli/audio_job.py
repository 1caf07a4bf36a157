"""What `rfkeras tag` and `rfkeras embed` share: files in, one tagger, an outcome for each."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfkeras.cli.main import paused_collector
from rfkeras.errors import ConfigError

if TYPE_CHECKING:
    from rfkeras.inference import StreamTagger
    from rfkeras.inference.audio_files import FoundFile
    from rfkeras.inference.batch import Display, Tally
    from rfkeras.inference.output import Write

DEFAULT_MODEL = "resnet_rf_tiny"
DEFAULT_CHUNK_SECONDS = 30.0
# FILE_DECODERS of rfkeras.audio.decode, without what that imports.
_DECODERS = ("soundfile", "isolated")


def add_audio_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what is read and by which model."""
    parser.add_argument(
        "audio",
        nargs="*",
        metavar="FILE|FOLDER",
        help="audio of any length: WAV, FLAC, Ogg Vorbis, Opus, MP3, AIFF; folders are "
        "searched at any depth",
    )
    parser.add_argument(
        "--files-from",
        type=Path,
        action="append",
        default=[],
        metavar="LIST",
        help="text file that names more of them, one a line",
    )
    parser.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        metavar="MODEL",
        help=f"name of the zoo with ready weights, .keras file or run folder ({DEFAULT_MODEL})",
    )
    parser.add_argument(
        "--chunk-seconds",
        type=float,
        default=DEFAULT_CHUNK_SECONDS,
        metavar="S",
        help=f"audio computed at once; less takes less memory ({DEFAULT_CHUNK_SECONDS:g})",
    )
    add_decoder_argument(parser)
    parser.add_argument(
        "--quiet", action="store_true", help="no progress and no summary, only what went wrong"
    )


def add_decoder_argument(parser: argparse.ArgumentParser) -> None:
    """Add what decodes files."""
    parser.add_argument(
        "--decoder",
        choices=_DECODERS,
        help="isolated: soundfile in processes that may die, for files of unknown origin; a "
        "file that crashes or blocks it, or takes too much memory, is one that cannot be used "
        "(soundfile; with --beam isolated)",
    )


def decoder_of(options: argparse.Namespace) -> str:
    """What decodes files: of the many that a pipeline reads, one will be broken."""
    piped = getattr(options, "beam", None) is not None
    return options.decoder or ("isolated" if piped else "soundfile")


def named_files(options: argparse.Namespace) -> list[FoundFile]:
    """The files that the flags name.

    Raises:
        ConfigError: There is none, or a list cannot be read.
    """
    from rfkeras.inference.audio_files import find_audio

    words = list(options.audio)
    for path in options.files_from:
        text = os.fsdecode(path.read_bytes())
        words += [line for line in text.splitlines() if line.strip()]
    if not words:
        raise ConfigError("Name audio files or folders, or a list of them by --files-from.")
    return find_audio(words)


def open_tagger(options: argparse.Namespace) -> StreamTagger:
    """The tagger that the flags name."""
    with paused_collector():
        from rfkeras.inference import StreamTagger
        from zoo.pretrained import open_model

        return StreamTagger(
            open_model(options.model),
            chunk_seconds=options.chunk_seconds,
            decoder=decoder_of(options),
        )


def run_job(
    options: argparse.Namespace,
    tagger: StreamTagger,
    files: list[FoundFile],
    output: Callable[[Display], AbstractContextManager[Write]],
    **wanted: Any,
) -> Tally:
    """Read files into an output, with progress on standard error.

    Args:
        options: The flags.
        tagger: What reads them.
        files: What is read.
        output: Opens the output; it is closed also after Ctrl-C, so that it keeps what was
            done.
        **wanted: See `rfkeras.inference.batch.run_batch`.
    """
    from rfkeras.inference.batch import Display, run_batch

    with Display(len(files), quiet=options.quiet) as display, output(display) as write:
        return run_batch(
            tagger, files, write, display, chunk_seconds=options.chunk_seconds, **wanted
        )


def finish(
    options: argparse.Namespace, tally: Tally, done_as: str, where: str, *, skipped: int = 0
) -> int:
    """Say how it ended.

    Args:
        options: The flags.
        tally: The counts.
        done_as: What was done to the files: "tagged".
        where: What to say of the place of the results; "" for standard output.
        skipped: Files that were done before.

    Returns:
        Exit status: 1 if a file could not be used.

    Raises:
        KeyboardInterrupt: Ctrl-C had ended the job; its text says what is kept.
    """
    parts = [f"{tally.done} {_files(tally.done)} {done_as}"]
    if skipped:
        parts.append(f"{skipped} done before")
    if tally.failed:
        parts.append(f"{tally.failed} could not be used")
    text = ", ".join(parts) + "." + (f" {where}" if where else "")
    if tally.interrupted:
        left = tally.total - tally.done - tally.failed
        raise KeyboardInterrupt(f"{left} {_files(left)} not read. Kept: {text}")
    if not options.quiet:
        print(text, file=sys.stderr)
    return 1 if tally.failed else 0


def _files(count: int) -> str:
    return "file" if count == 1 else "files"


def check_output_file(path: Path) -> None:
    """Refuse an output that is something else than a file.

    Raises:
        ConfigError: There is a folder or a device of that name.
    """
    if path.exists() and not path.is_file():
        raise ConfigError(
            f"--output takes the name of a file. Received: {path}, which is none."
        )
