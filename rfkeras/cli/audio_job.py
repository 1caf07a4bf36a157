"""Shared by `rfkeras tag` and `rfkeras embed`: their flags, their files and their tagger."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfkeras.cli.main import paused_collector
from rfkeras.cli.parser import MODEL_HELP, add_model_argument
from rfkeras.config.parsing import number
from rfkeras.errors import ConfigError, RFKerasError, reason_of
from rfkeras.utils.remote import RemotePath, to_path
from rfkeras.utils.text import count
from rfkeras.utils.user_code import import_user_code

if TYPE_CHECKING:
    from rfkeras.audio.find import FoundFile
    from rfkeras.inference import ChunkTagger
    from rfkeras.inference.batch import BatchSummary, Display, TagOptions
    from rfkeras.inference.output import Write

DEFAULT_MODEL = "resnet_rf_tiny"
DEFAULT_CHUNK_SECONDS = 30.0
STANDARD_INPUT = "-"
# FILE_DECODERS of rfkeras.audio.decode, without its imports.
_DECODERS = ("soundfile", "isolated")
# ENGINES of rfkeras.inference.engines, without its imports.
_ENGINES = ("auto", "onnx", "tensorflow")


def add_audio_arguments(
    parser: argparse.ArgumentParser, default_model: str | None = DEFAULT_MODEL
) -> None:
    """Add the flags for audio files and the model.

    Args:
        parser: Parser of a command.
        default_model: The model without --model; None for the best packaged weights, which
            the command itself has to choose.
    """
    parser.add_argument(
        "audio",
        nargs="*",
        metavar="FILE|FOLDER",
        help="audio of any length in any common format, such as WAV, FLAC, MP3, Ogg, Opus, "
        "M4A; folders are searched at any depth; s3://, gs://, az://, hdfs:// and http(s):// "
        "addresses too",
    )
    parser.add_argument(
        "--files-from",
        type=to_path,
        action="append",
        default=[],
        metavar="LIST",
        help="read further paths from this file, or from standard input with -: one per line, "
        "separated by NUL (find -print0), or a playlist (.m3u, .m3u8)",
    )
    best = " (default: the recommended pretrained weights)"
    help_text = MODEL_HELP if default_model else MODEL_HELP + best
    add_model_argument(parser, default=default_model, help=help_text)
    parser.add_argument(
        "--chunk-seconds",
        type=float,
        default=DEFAULT_CHUNK_SECONDS,
        metavar="S",
        help="seconds of audio processed at a time; smaller values need less memory "
        f"(default: {DEFAULT_CHUNK_SECONDS:g})",
    )
    add_decoder_argument(parser)
    parser.add_argument(
        "--engine",
        choices=_ENGINES,
        default=_ENGINES[0],
        help="onnx: ONNX Runtime, which starts at once; models of yours are converted on first "
        "use. tensorflow: the model itself (default: onnx for models that can be converted)",
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="reject files that are cut at their end or damaged elsewhere; otherwise what can "
        "be decoded is used, with a note",
    )
    parser.add_argument(
        "--max-bad-share",
        default=1.0,
        metavar="X",
        help="stop when a larger share of the files cannot be used (default: 1, never)",
    )
    parser.add_argument("--quiet", action="store_true", help="print errors only")


def add_decoder_argument(parser: argparse.ArgumentParser) -> None:
    """Add the flag for the decoder."""
    parser.add_argument(
        "--decoder",
        choices=_DECODERS,
        help="isolated: decode untrusted files in a separate process, so that a file that "
        "crashes, hangs or needs too much memory is reported and skipped (default: soundfile; "
        "isolated with --beam)",
    )


def decoder_of(options: argparse.Namespace) -> str:
    """Return the decoder; pipelines read so many files that some are surely broken."""
    piped = getattr(options, "beam", None) is not None
    return options.decoder or ("isolated" if piped else "soundfile")


def named_files(options: argparse.Namespace) -> list[FoundFile]:
    """Return the audio files that the flags name.

    Raises:
        ConfigError: No file is named, or a list cannot be read.
    """
    from rfkeras.audio.find import find_audio

    words = [*options.audio, *path_words(options, options.files_from)]
    if not words:
        raise ConfigError("Name audio files or folders, or give a list with --files-from.")
    return find_audio(words, note_of(options))


def path_words(options: argparse.Namespace, lists: Sequence[Path]) -> list[str]:
    """Return the paths in lists of --files-from; "-" is standard input.

    Raises:
        ConfigError: A list cannot be read or decoded.
    """
    from rfkeras.audio.find import read_path_list

    words: list[str] = []
    for path in lists:
        piped = str(path) == STANDARD_INPUT
        try:
            content = sys.stdin.buffer.read() if piped else path.read_bytes()
        except OSError as error:
            raise ConfigError(f"--files-from {reason_of(error, 'cannot be read')}") from error
        paths, notes = read_path_list(path, content)
        words += paths
        for text in notes:
            note_of(options)(text)
    return words


def note_of(options: argparse.Namespace) -> Callable[[str], None]:
    """Return the function that prints a note on standard error unless --quiet is given."""

    def note(text: str) -> None:
        if not options.quiet:
            print(f"Note: {text}", file=sys.stderr)

    return note


def open_tagger(options: argparse.Namespace) -> ChunkTagger:
    """Load the tagger that the flags name."""
    from rfkeras.utils.progress import print_status

    with paused_collector():
        return tag_options(options).open_tagger(
            (lambda _: None) if options.quiet else print_status
        )


def tag_options(options: argparse.Namespace) -> TagOptions:
    """Return the tagging options of the command line."""
    from rfkeras.inference.batch import TagOptions

    return TagOptions(
        model=options.model,
        threshold=getattr(options, "threshold", None),
        frames=getattr(options, "frames", False),
        chunk_seconds=options.chunk_seconds,
        decoder=decoder_of(options),
        imports=tuple(import_user_code()),
        strict=options.strict,
        engine=options.engine,
    )


def max_bad_share(options: argparse.Namespace) -> float:
    """Return the share of unusable files at which the job stops.

    Raises:
        ConfigError: It is not a number from 0 to 1.
    """
    return number(0.0, 1.0)("--max-bad-share", options.max_bad_share)


def run_job(
    options: argparse.Namespace,
    tagger: ChunkTagger,
    files: list[FoundFile],
    output: Callable[[Display], AbstractContextManager[Write]],
    **wanted: Any,
) -> BatchSummary:
    """Tag files and write the results, with progress on standard error.

    Args:
        options: The flags.
        tagger: The tagger.
        files: Files to read.
        output: Opens the output. It is also closed after Ctrl-C, so it keeps the finished
            files.
        **wanted: See `rfkeras.inference.batch.run_batch`.
    """
    from rfkeras.inference.batch import Display, run_batch

    wanted |= {"strict": options.strict, "max_bad_share": max_bad_share(options)}
    with Display(len(files), quiet=options.quiet) as display, output(display) as write:
        return run_batch(tagger, files, write, display, **wanted)


def finish(
    options: argparse.Namespace,
    summary: BatchSummary,
    verb: str,
    where: str,
    *,
    skipped: int = 0,
) -> int:
    """Print a summary of the job.

    Args:
        options: The flags.
        summary: The counts.
        verb: What was done to the files, such as "tagged".
        where: Where the results are, such as "Tags: tags.jsonl"; "" for standard output.
        skipped: Number of files that were done before.

    Returns:
        Exit status: 1 if a file could not be used.

    Raises:
        KeyboardInterrupt: Ctrl-C ended the job; its text states what was kept.
        RFKerasError: Too many files could not be used, see --max-bad-share.
    """
    parts = [f"{count(summary.done, 'file')} {verb}"]
    if skipped:
        parts.append(f"{skipped:,} done before")
    if summary.failed:
        parts.append(f"{summary.failed:,} could not be used")
    if summary.noted:
        parts.append(f"{summary.noted:,} with notes")
    text = ", ".join(parts) + "." + (f" {where}" if where else "")
    if summary.interrupted:
        left = summary.total - summary.done - summary.failed
        raise KeyboardInterrupt(f"{count(left, 'file')} not read. Done so far: {text}")
    if summary.stopped:
        raise RFKerasError(f"{summary.stopped} Done so far: {text}")
    if not options.quiet:
        print(text, file=sys.stderr)
    return 1 if summary.failed else 0


def check_output_file(path: Path) -> None:
    """Reject an output path that is a folder or a device, or cannot be written.

    Raises:
        ConfigError: The path exists and is not a file, or is http(s)://.
    """
    if isinstance(path, RemotePath):
        path.check_writable()
    if path.exists() and not path.is_file():
        raise ConfigError(f"--output must be a file. Received: {path}, which is not a file.")
