"""`--beam`: what a command does to millions of files, as a pipeline."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rfkeras.cli.audio_job import decoder_of
from rfkeras.errors import ConfigError, PipelineError

if TYPE_CHECKING:
    from rfkeras.audio.io import AudioFormat
    from rfkeras.config.train_config import TrainConfig

SHARD_FILES = 200


def add_beam_argument(parser: argparse.ArgumentParser) -> None:
    """Add the flag, behind which all belongs to Beam."""
    parser.add_argument(
        "--beam",
        nargs=argparse.REMAINDER,
        metavar="OPTION",
        help="do it as an Apache Beam pipeline (extra: beam), for millions of files on many "
        "machines; all that follows are options of Beam, such as --runner=FlinkRunner",
    )


def run_tag(options: argparse.Namespace) -> int:
    """`rfkeras tag --beam`."""
    from rfkeras.beam import require_beam
    from rfkeras.config.parsing import whole

    _check_tag(options)
    require_beam()
    from rfkeras.beam.tag import DEAD, TAGS, TagSettings, tag_files

    folder = options.output_dir
    settings = TagSettings(
        model=options.model,
        threshold=options.threshold,
        frames=options.frames,
        chunk_seconds=options.chunk_seconds,
        decoder=decoder_of(options),
        output_dir=folder,
        shard_files=SHARD_FILES
        if options.shard_files is None
        else whole(1)("--shard-files", options.shard_files),
    )
    with _kept(
        f"Tags in finished shards are kept; go on with them by --skip-existing: {folder}"
    ):
        counts = tag_files(
            settings,
            options.audio,
            [str(path) for path in options.files_from],
            resume=options.skip_existing,
            beam_arguments=options.beam,
        )
    if not options.quiet:
        parts = [f"{counts['tagged']:,} files tagged ({counts['hours']:,.2f} h of audio)"]
        if counts["done_before"]:
            parts.append(f"{counts['done_before']:,} done before")
        if counts["dead"]:
            parts.append(f"{counts['dead']:,} could not be used: {folder}/{DEAD}-*.jsonl")
        print(f"{', '.join(parts)}. Tags: {folder}/{TAGS}-*.jsonl", file=sys.stderr)
    return 1 if counts["dead"] else 0


def _check_tag(options: argparse.Namespace) -> None:
    """Refuse what a pipeline does not do.

    Raises:
        ConfigError: It was asked to.
    """
    for flag, is_set in (
        ("--output", options.output is not None),
        ("--format", options.format not in (None, "jsonl")),
        ("--plot", options.plot is not None),
    ):
        if is_set:
            raise ConfigError(f"{flag} is not for --beam, which writes JSON lines.")
    if options.output_dir is None:
        raise ConfigError("--beam needs --output-dir DIR, for shards of JSON lines.")
    for path in options.files_from:
        path.open("rb").close()
    if not options.audio and not options.files_from:
        raise ConfigError("Name audio files or folders, or a list of them by --files-from.")


def run_pack_pipeline(
    options: argparse.Namespace, config: TrainConfig, audio: AudioFormat, shard_mb: float
) -> Path:
    """`rfkeras data pack --beam`; returns the index."""
    from rfkeras.beam import require_beam

    require_beam()
    from rfkeras.beam.pack import pack

    with _kept(f"Finished shards are kept; the same command goes on: {options.output}"):
        return pack(
            config,
            audio,
            options.output,
            shard_mb=shard_mb,
            decoder=decoder_of(options),
            beam_arguments=options.beam,
        )


@contextmanager
def _kept(what: str) -> Iterator[None]:
    """Say what is kept where a pipeline ends before its time."""
    try:
        yield
    except PipelineError as error:
        raise PipelineError(f"{error} {what}") from error
    except KeyboardInterrupt:
        raise KeyboardInterrupt(what) from None
