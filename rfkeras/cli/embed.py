"""`rfkeras embed`: write feature vectors (embeddings) of audio files."""

from __future__ import annotations

import argparse
from typing import Any

from rfkeras.cli.audio_job import (
    add_audio_arguments,
    check_output_file,
    finish,
    named_files,
    open_tagger,
    run_job,
)
from rfkeras.cli.main import COMMANDS
from rfkeras.errors import ConfigError
from rfkeras.utils.remote import to_path

_FORMATS = ("npy", "npz", "parquet", "csv")


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "embed",
        help=COMMANDS["embed"],
        description=(
            "Write the input of the classifier, averaged over frequency, as one vector per "
            "file or per frame. Similar sounds have similar vectors."
        ),
        epilog=(
            "X.npy: (files, features) float32; X.files.csv next to it names the rows. X.npz, "
            'per frame: one array (frames, features) per file, named "0", "1", ..., and '
            "`paths`, `seconds`, `first_s` and `stride_s`. X.parquet: the columns path, "
            "seconds (per frame: time_s) and features. X.csv: path, seconds or time_s, and one "
            "column per feature. `rfkeras similar` reads all of them. Files that cannot be "
            "used are listed on standard error and have no rows; the exit status is then 1."
        ),
    )
    add_audio_arguments(parser)
    parser.add_argument(
        "--output",
        type=to_path,
        metavar="FILE",
        help="X.npy (per clip), X.npz (per frame), X.parquet or X.csv (either)",
    )
    parser.add_argument(
        "--format",
        choices=_FORMATS,
        help="output format (default: that of the --output file); csv without --output writes "
        "to standard output",
    )
    parser.add_argument(
        "--per",
        choices=("clip", "frame"),
        default="clip",
        help="one vector per clip (file) or per frame (default: clip)",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from rfkeras.inference.features import features_file
    from rfkeras.utils.text import printable
    from zoo.pretrained import existing_model, sha256_of

    _check_output(options)
    files = named_files(options)
    digest = sha256_of(existing_model(options.model))
    tagger = open_tagger(options)
    summary = run_job(
        options,
        tagger,
        files,
        lambda _: features_file(
            options.output, options.per, options.model, tagger.frames, digest
        ),
        embeddings=options.per == "frame",
    )
    where = "" if options.output is None else f"Features: {printable(options.output)}"
    return finish(options, summary, "read", where)


def _check_output(options: argparse.Namespace) -> None:
    """Check `--output` and `--format`.

    Raises:
        ConfigError: They contradict each other, or the file cannot be written.
    """
    from rfkeras.inference.features import check_features_path

    path, kind = options.output, options.format
    if path is None:
        if kind != "csv":
            raise ConfigError(
                "Name a file with --output, or write CSV to standard output with --format csv."
            )
        return
    if kind not in (None, path.suffix[1:]):
        raise ConfigError(
            f"--output must end in .{kind} for --format {kind}. Received: {path}."
        )
    check_features_path(path, options.per)
    check_output_file(path)
