"""`--beam`: run a command on millions of files as an Apache Beam pipeline."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rfkeras.cli.audio_job import (
    STANDARD_INPUT,
    decoder_of,
    max_bad_share,
    path_words,
    tag_options,
)
from rfkeras.errors import ConfigError, PipelineError
from rfkeras.utils.remote import is_remote
from rfkeras.utils.text import count

if TYPE_CHECKING:
    from rfkeras.audio.io import AudioFormat
    from rfkeras.config.train_config import TrainConfig

SHARD_FILES = 200


def add_beam_argument(parser: argparse.ArgumentParser) -> None:
    """Add the flag; everything after it is passed to Beam."""
    parser.add_argument(
        "--beam",
        nargs=argparse.REMAINDER,
        metavar="OPTION",
        help="run as an Apache Beam pipeline, for millions of files on many machines (needs "
        "the extra `beam`); all following options are Beam's, such as --runner=FlinkRunner",
    )


def run_tag(options: argparse.Namespace) -> int:
    """Run `rfkeras tag --beam`."""
    from rfkeras.beam import require_beam
    from rfkeras.config.parsing import whole

    _check_tag(options)
    allowed = max_bad_share(options)
    require_beam()
    from rfkeras.beam.tag import DEAD, TAGS, TagSettings, tag_files
    from rfkeras.inference.batch import too_many_failed

    folder = options.output_dir
    standard_input = Path(STANDARD_INPUT)  # only this process can read it
    piped = (
        path_words(options, [standard_input]) if standard_input in options.files_from else []
    )
    settings = TagSettings(
        options=tag_options(options),
        output_dir=folder,
        shard_files=SHARD_FILES
        if options.shard_files is None
        else whole(1)("--shard-files", options.shard_files),
    )
    with _kept(f"Finished shards are kept in {folder}. Resume with --skip-existing."):
        counts = tag_files(
            settings,
            [*options.audio, *piped],
            [str(path) for path in options.files_from if path != standard_input],
            resume=options.skip_existing,
            quiet=options.quiet,
            beam_arguments=options.beam,
        )
    if not options.quiet:
        tagged = count(counts["tagged"], "file")
        parts = [f"{tagged} tagged ({counts['hours']:,.2f} h of audio)"]
        if counts["noted"]:
            parts.append(f"{counts['noted']:,} with notes")
        if counts["replaced"]:
            parts.append(f"{counts['replaced']:,} of them again, because they changed")
        if counts["done_before"]:
            parts.append(f"{counts['done_before']:,} done before")
        if counts["dead"]:
            parts.append(f"{counts['dead']:,} could not be used: {folder}/{DEAD}-*.jsonl")
        print(f"{', '.join(parts)}. Tags: {folder}/{TAGS}-*.jsonl", file=sys.stderr)
    tried = counts["found"] - counts["done_before"]
    if counts["dead"] > allowed * tried:
        raise PipelineError(too_many_failed(counts["dead"], tried, allowed))
    return 1 if counts["dead"] else 0


def _check_tag(options: argparse.Namespace) -> None:
    """Reject flags that a pipeline does not support.

    Raises:
        ConfigError: One of them was given, or --output-dir or the files are missing.
    """
    for flag, is_set in (
        ("--output", options.output is not None),
        ("--format", options.format not in (None, "jsonl")),
        ("--plot", options.plot is not None),
        ("--write-tags", options.write_tags),
        ("--html", options.html is not None),
    ):
        if is_set:
            raise ConfigError(
                f"{flag} cannot be combined with --beam, which writes JSON Lines."
            )
    if options.output_dir is None:
        raise ConfigError("--beam needs --output-dir DIR for its shards of JSON Lines.")
    for path in options.files_from:
        if str(path) != STANDARD_INPUT:
            path.open("rb").close()
    if not options.audio and not options.files_from:
        raise ConfigError("Name audio files or folders, or give a list with --files-from.")


def run_pack_pipeline(
    options: argparse.Namespace, config: TrainConfig, audio: AudioFormat, shard_mb: float
) -> Path:
    """Run `rfkeras data pack --beam`; return the index file."""
    from rfkeras.beam import require_beam

    if is_remote(options.output):
        raise ConfigError(
            f"With --beam, shards are written to a folder. Received: {options.output}. Leave "
            "out --beam, or copy the folder afterwards."
        )
    require_beam()
    from rfkeras.beam.pack import pack

    with _kept(f"Finished shards are kept in {options.output}. Resume with the same command."):
        return pack(
            config,
            audio,
            options.output,
            shard_mb=shard_mb,
            decoder=decoder_of(options),
            beam_arguments=options.beam,
        )


@contextmanager
def _kept(message: str) -> Iterator[None]:
    """State what is kept if the pipeline in this block stops early."""
    try:
        yield
    except PipelineError as error:
        raise PipelineError(f"{error} {message}") from error
    except KeyboardInterrupt:
        raise KeyboardInterrupt(message) from None
