"""`rfkeras similar`: find the files whose embeddings are most similar to one."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from rfkeras.cli.audio_job import add_decoder_argument, decoder_of
from rfkeras.cli.find import (
    TaggedFile,
    add_playlist_argument,
    check_selection,
    write_playlist,
)
from rfkeras.cli.main import COMMANDS, paused_collector
from rfkeras.cli.parser import MODEL_HELP, add_model_argument
from rfkeras.errors import ConfigError
from rfkeras.utils.remote import to_path
from rfkeras.utils.table import Table
from rfkeras.utils.text import printable
from rfkeras.utils.user_code import import_user_code

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rfkeras.inference.features import Features

_TOP = 10


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "similar",
        help=COMMANDS["similar"],
        description=(
            "Print the files that sound most like one file: those whose embeddings have the "
            "highest cosine with its own. 1 is the same direction, 0 nothing in common."
        ),
        epilog=(
            "A file that has a row in FEATURES needs no model, so the answer comes at once. "
            "Others are embedded with the model that FEATURES names; .npy and .csv files name "
            "none, so give the same --model as to `rfkeras embed`. Embeddings per frame are "
            "averaged over each file."
        ),
    )
    parser.add_argument("audio", metavar="FILE", help="an audio file, or a path in FEATURES")
    parser.add_argument(
        "features",
        type=to_path,
        metavar="FEATURES",
        help="output of `rfkeras embed`: .npy, .npz, .parquet or .csv",
    )
    parser.add_argument(
        "--top", type=int, default=_TOP, metavar="N", help=f"number of files (default: {_TOP})"
    )
    add_playlist_argument(parser)
    add_model_argument(parser, help=f"{MODEL_HELP} (default: the one that FEATURES names)")
    add_decoder_argument(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from rfkeras.inference.features import read_features

    check_selection(options)
    features = read_features(options.features)
    own = features.row_of(options.audio)
    vector = _embed(options, features) if own is None else features.vectors[own]
    cosines = features.cosines(vector)
    order = [int(row) for row in (-cosines).argsort(kind="stable") if row != own]
    order = order[: options.top]
    if options.m3u8 is not None:
        files = [
            TaggedFile(features.paths[row], seconds=features.seconds[row]) for row in order
        ]
        write_playlist(options.m3u8, files)
        return 0
    table = Table(["cosine", "path"], right=["cosine"])
    for row in order:
        table.add_row(f"{cosines[row]:.4f}", features.paths[row])
    sys.stdout.write(table.to_text())
    return 0


def _embed(options: argparse.Namespace, features: Features) -> NDArray[np.float32]:
    """Return the embedding of an audio file, by the model of the features.

    Raises:
        ConfigError: The file does not exist, or the model is unknown or another one.
    """
    from rfkeras.inference.batch import TagOptions
    from zoo.pretrained import existing_model, sha256_of

    place = printable(options.features)
    path = to_path(options.audio)
    if not path.exists():
        raise ConfigError(f"{options.audio} is neither an audio file nor a path in {place}.")
    if path.is_dir():
        raise ConfigError(f"{options.audio} is a folder. Name one audio file.")
    model = options.model or features.model
    if not model:
        raise ConfigError(
            f"{place} does not name its model. Give the --model with which it was written."
        )
    if features.digest and sha256_of(existing_model(model)) != features.digest:
        raise ConfigError(
            f"{place} was written with other weights than those of {model!r}. Name its model "
            f"with --model (it was {features.model!r} then), or write it again with `rfkeras "
            "embed`."
        )
    with paused_collector():
        tagger = TagOptions(
            model=model, decoder=decoder_of(options), imports=tuple(import_user_code())
        ).open_tagger()
    vector: NDArray[np.float32] = tagger.run_file(path).embedding
    if vector.shape != features.vectors.shape[1:]:
        raise ConfigError(
            f"{place} has {features.vectors.shape[1]} features per file, but {model!r} "
            f"computes {len(vector)}. Name the --model with which it was written."
        )
    return vector
