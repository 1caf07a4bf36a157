"""`rfkeras data`: prepare data sets."""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rfkeras.cli.audio_job import add_decoder_argument, decoder_of
from rfkeras.cli.beam import add_beam_argument, run_pack_pipeline
from rfkeras.cli.main import COMMANDS, add_train_flags
from rfkeras.config.parsing import number
from rfkeras.config.train_config import TrainConfig, resolve
from rfkeras.datasets.checks import DatasetCheck, SplitCheck

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
    from rfkeras.audio.io import AudioFormat
    from rfkeras.datasets.pack import pack
    from rfkeras.frontend.presets import preset_config
    from rfkeras.training.data import open_dataset

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
    from rfkeras.datasets.base import write_bad_files
    from rfkeras.datasets.checks import check_dataset
    from rfkeras.training.data import open_dataset
    from rfkeras.utils.files import write_text

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


_NAMED_FILES = 10
_NARROWEST = 100


def print_check(
    check: DatasetCheck, *, file: TextIO | None = None, width: int | None = None
) -> None:
    """Print the tables and what is wrong.

    Args:
        check: What to show.
        file: Where to; None is standard output.
        width: Columns; None takes the terminal's, at least 100.
    """
    console = Console(file=file, width=width, highlight=False, soft_wrap=True)
    if width is None and console.width < _NARROWEST:
        console.width = _NARROWEST
    console.print(_title(check))
    console.print(_split_table(check))
    console.print(_label_table(check))
    for names, (found, expected) in check.published.items():
        state = "as published" if found == expected else f"published are {expected:,}"
        console.print(f"{names.replace('+', ' and ')}: {found:,} clips, {state}")
    bad = check.bad
    for path in bad[:_NAMED_FILES]:
        console.print(f"[red]{path.stage}:[/] {escape(path.path)}: {escape(path.reason)}")
    if len(bad) > _NAMED_FILES:
        console.print(f"... and {len(bad) - _NAMED_FILES:,} more files")
    if bad:
        kinds = Counter(file.reason.partition(":")[0] for file in bad).most_common()
        counts = ", ".join(f"{count:,} {escape(kind)}" for kind, count in kinds)
        console.print(f"[red]Unusable files:[/] {len(bad):,} ({counts})")
        if check.homepage:
            console.print(f"Get them from: {escape(check.homepage)}")
    for difference in check.differences:
        console.print(f"[red]Not as it should be:[/] {escape(difference)}")
    if check.ok:
        looked = all(split.audio is not None for split in check.splits.values())
        console.print(f"[green]All is well{'' if looked else ', audio not checked'}.[/]")


def _title(check: DatasetCheck) -> str:
    info = ", ".join(
        f"{key} {value}"
        for key, value in check.info.items()
        if isinstance(value, str | int | float)
    )
    return f"[bold]{escape(check.name)}[/] ({check.task}) {escape(info)}"


def _split_table(check: DatasetCheck) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("split")
    for heading in ("clips", "no tag", "unusable", "hours", "shortest", "median", "longest"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("rates, Hz")
    table.add_column("channels")
    for name, split in check.splits.items():
        table.add_row(name, f"{split.clips:,}", f"{split.without_tag:,}", *_audio(split))
    return table


def _audio(split: SplitCheck) -> list[str]:
    audio = split.audio
    if audio is None:
        return ["-"] * 7
    seconds = [f"{value:.1f} s" for value in audio.seconds] if audio.seconds else ["-"] * 3
    return [
        f"{len(split.bad):,}",
        f"{audio.hours:,.2f}",
        *seconds,
        _counts(audio.sample_rates_hz),
        _counts(audio.channels),
    ]


def _counts(files_by: dict[int, int]) -> str:
    if len(files_by) == 1:
        return str(next(iter(files_by)))
    return ", ".join(f"{value} ({count:,})" for value, count in files_by.items()) or "-"


def _label_table(check: DatasetCheck) -> Table:
    """A row a tag: clips that have it, of those where that is known, and their share."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("tag", overflow="fold", min_width=12)
    for name in check.splits:
        table.add_column(f"{name}: clips", justify="right", no_wrap=True)
        table.add_column("share", justify="right", no_wrap=True)
    first = next(iter(check.splits.values()), None)
    for tag in first.labels if first else ():
        cells = []
        for split in check.splits.values():
            count = split.labels[tag]
            share = "-" if math.isnan(count.share) else f"{count.share:.2%}"
            cells += [f"{count.positive:,}/{count.known:,}", share]
        table.add_row(escape(tag), *cells)
    return table
