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
from rfkeras.utils.remote import to_path


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
            "seconds (per frame: time_s) and features. Files that cannot be used are listed on "
            "standard error and have no rows; the exit status is then 1."
        ),
    )
    add_audio_arguments(parser)
    parser.add_argument(
        "--output",
        type=to_path,
        required=True,
        metavar="FILE",
        help="X.npy (per clip), X.npz (per frame) or X.parquet (either)",
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
    from rfkeras.inference.audio_files import printable
    from rfkeras.inference.features import check_features_path, features_file

    check_features_path(options.output, options.per)
    check_output_file(options.output)
    files = named_files(options)
    tagger = open_tagger(options)
    summary = run_job(
        options,
        tagger,
        files,
        lambda _: features_file(options.output, options.per, options.model, tagger.frames),
        embeddings=options.per == "frame",
    )
    return finish(options, summary, "read", f"Features: {printable(options.output)}")
