"""`rfkeras data`: prepare data sets."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rfkeras.cli.audio_job import add_decoder_argument, decoder_of
from rfkeras.cli.bulk import add_beam_argument, run_pack_pipeline
from rfkeras.cli.commands import COMMANDS
from rfkeras.cli.flags import add_train_flags
from rfkeras.config import TrainConfig, resolve
from rfkeras.options.parsers import number

_CHOICE = (
    "dataset",
    "data_dir",
    "subset",
    "fold",
    "audio_dir",
    "dataset_size",
    "sound_font",
    "validation_share",
    "test_share",
    "allow_absolute",
)


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser("data", help=COMMANDS["data"])
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    pack = actions.add_parser(
        "pack",
        help="write a data set as TFRecord shards",
        description=(
            "Decode, check and resample every clip once, and write TFRecord shards with an "
            "index. Train from them with --dataset packed --data-dir DIR; DIR may then lie "
            "on s3://, az://, hdfs:// or http(s)://."
        ),
    )
    pack.add_argument("output", type=Path, metavar="DIR", help="folder to make")
    add_train_flags(pack, (*_CHOICE, "max_bad_share"))
    pack.add_argument(
        "--frontend",
        default=argparse.SUPPRESS,
        metavar="FRONTEND",
        help="front-end preset whose sample rate the shards are made for",
    )
    pack.add_argument(
        "--input-channels", default=argparse.SUPPRESS, help="1 mono, 2 stereo (default: 1)"
    )
    pack.add_argument("--shard-mb", default=128.0, metavar="MB", help="shard size (128)")
    add_decoder_argument(pack)
    add_beam_argument(pack)
    pack.set_defaults(run=run_pack)
    check = actions.add_parser(
        "check",
        help="check a data set without training",
        description=(
            "Count the clips and labels of every split, compare them with what is published, "
            "look for clips and artists in two splits, and check every audio file. Ends with "
            "status 1 if anything is missing, broken or not as published."
        ),
    )
    add_train_flags(check, _CHOICE)
    check.add_argument(
        "--audio",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="check the audio files, not only lists and labels (default: --audio)",
    )
    check.add_argument("--json", type=Path, metavar="FILE", help="write all of it as JSON")
    check.add_argument(
        "--bad-files", type=Path, metavar="FILE", help="write all unusable files as CSV"
    )
    check.set_defaults(run=run_check)


def _config(options: argparse.Namespace, own: Sequence[str]) -> TrainConfig:
    """The configuration that the flags give, without the command's own flags."""
    own = ("command", "action", "run", *own)
    return resolve(TrainConfig, {k: v for k, v in vars(options).items() if k not in own})


def run_pack(options: argparse.Namespace) -> int:
    """Run `rfkeras data pack`."""
    from rfkeras.data.audio import AudioFormat
    from rfkeras.data.pack import pack
    from rfkeras.frontend.presets import preset_config
    from rfkeras.training.inputs import open_dataset

    config = _config(options, ("output", "shard_mb", "decoder", "beam"))
    audio = AudioFormat(preset_config(config.frontend)["sample_rate_hz"], config.input_channels)
    shard_mb = number(0.01, 1e6)("--shard-mb", options.shard_mb)
    if options.beam is not None:
        index = run_pack_pipeline(options, config, audio, shard_mb)
    else:
        index = pack(
            open_dataset(config),
            audio,
            options.output,
            shard_mb=shard_mb,
            max_bad_share=config.max_bad_share,
            decoder=decoder_of(options),
        )
    print(f"Index: {index}")
    return 0


def run_check(options: argparse.Namespace) -> int:
    """Run `rfkeras data check`."""
    from rfkeras.data.bad_files import write_bad_files
    from rfkeras.data.check import check_dataset
    from rfkeras.data.check_table import print_check
    from rfkeras.files import write_text
    from rfkeras.training.inputs import open_dataset

    config = _config(options, ("audio", "json", "bad_files"))
    check = check_dataset(open_dataset(config), audio=options.audio)
    print_check(check)
    if options.json is not None:
        write_text(options.json, check.to_json())
        print(f"JSON: {options.json}")
    if options.bad_files is not None:
        write_bad_files(options.bad_files, check.bad)
        print(f"Unusable files: {options.bad_files}")
    return 0 if check.ok else 1
