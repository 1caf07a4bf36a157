"""`rfkeras data`: prepare data sets."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rfkeras.config import TrainConfig, number, resolve


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser("data", help="prepare data sets")
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
    for name in ("dataset", "data_dir", "dataset_size", "frontend", "max_bad_share"):
        field = TrainConfig.__dataclass_fields__[name]
        pack.add_argument(
            "--" + name.replace("_", "-"),
            default=argparse.SUPPRESS,
            metavar=name.upper(),
            help=field.metadata["help"]
            + (" (its sample rate is what counts here)" if name == "frontend" else ""),
        )
    pack.add_argument(
        "--input-channels", default=argparse.SUPPRESS, help="1 mono, 2 stereo (default: 1)"
    )
    pack.add_argument("--shard-mb", default=128.0, metavar="MB", help="shard size (128)")
    pack.set_defaults(run=run_pack)


def run_pack(options: argparse.Namespace) -> int:
    """Run `rfkeras data pack`."""
    from rfkeras.data.audio import AudioFormat
    from rfkeras.data.pack import pack
    from rfkeras.frontend.presets import preset_config
    from rfkeras.training.inputs import open_dataset

    own = ("command", "action", "run", "output", "shard_mb")
    flags = {key: value for key, value in vars(options).items() if key not in own}
    config = resolve(TrainConfig, flags)
    rate_hz = preset_config(config.frontend)["sample_rate_hz"]
    index = pack(
        open_dataset(config),
        AudioFormat(rate_hz, config.input_channels),
        options.output,
        shard_mb=number(0.01, 1e6)("--shard-mb", options.shard_mb),
        max_bad_share=config.max_bad_share,
    )
    print(f"Index: {index}")
    return 0
