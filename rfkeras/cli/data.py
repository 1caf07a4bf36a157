"""`rfkeras data`: download and check data sets, pack them into shards, or compose music."""

from __future__ import annotations

import argparse
import math
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from rfkeras.cli.audio_job import add_decoder_argument, decoder_of
from rfkeras.cli.beam import add_beam_argument, run_pack_pipeline
from rfkeras.cli.main import COMMANDS, add_train_flags
from rfkeras.cli.parser import add_import_argument
from rfkeras.config.parsing import number, whole
from rfkeras.config.resolve import merge_options
from rfkeras.config.train_config import TrainConfig
from rfkeras.errors import ConfigError
from rfkeras.utils.progress import print_status
from rfkeras.utils.remote import to_path
from rfkeras.utils.table import Table, open_console
from rfkeras.utils.text import count

if TYPE_CHECKING:
    from rich.text import Text

    from rfkeras.datasets.checks import DatasetCheck, SplitCheck
    from rfkeras.datasets.download import DownloadPlan

# Flags of `rfkeras train` that choose a data set.
_DATASET_FLAGS = (
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
    "split_rule",
)
_LISTED_FILES = 10
_LEAST_WIDTH = 100


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser("data", help=COMMANDS["data"])
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    pack = actions.add_parser(
        "pack",
        help="write a data set as TFRecord shards",
        description=(
            "Decode, check and resample every clip once and write TFRecord shards with an "
            "index. Train from them with --dataset packed --data-dir DIR. DIR can also be "
            "an s3://, gs://, az:// or hdfs:// address."
        ),
    )
    pack.add_argument("output", type=to_path, metavar="DIR", help="folder to write")
    add_train_flags(pack, (*_DATASET_FLAGS, "max_bad_share"))
    pack.add_argument(
        "--frontend",
        default=argparse.SUPPRESS,
        metavar="FRONTEND",
        help="front-end preset; the shards have its sample rate",
    )
    pack.add_argument(
        "--input-channels",
        default=argparse.SUPPRESS,
        help="1 for mono, 2 for stereo (default: 1)",
    )
    pack.add_argument(
        "--shard-mb", default=128.0, metavar="MB", help="shard size (default: 128)"
    )
    add_decoder_argument(pack)
    add_beam_argument(pack)
    add_import_argument(pack)
    pack.set_defaults(run=run_pack)
    check = actions.add_parser(
        "check",
        help="check a data set without training",
        description=(
            "Count the clips and labels of every split, compare them with the published "
            "counts, find clips, artists and equal files in more than one split, decode "
            "every audio file, and note what was left out and what looks wrong. The exit "
            "status is 1 if anything is missing, damaged, in two splits or not as published; "
            "notes do not change it."
        ),
    )
    add_train_flags(check, _DATASET_FLAGS)
    check.add_argument(
        "--audio",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="check audio files as well as lists and labels (default: --audio)",
    )
    check.add_argument("--json", type=Path, metavar="FILE", help="write the results as JSON")
    check.add_argument(
        "--bad-files",
        type=Path,
        metavar="FILE",
        help="write a list of all unusable files as CSV",
    )
    add_import_argument(check)
    check.set_defaults(run=run_check)
    _add_compose(actions)
    _add_download(actions)


def _add_download(actions: Any) -> None:
    download = actions.add_parser(
        "download",
        help="download a data set and verify it",
        description=(
            "Download a data set through mirdata or soundata, unpack it and verify the "
            "checksum of every file. Run the same command again to continue an interrupted "
            "download; what is complete is not fetched again. Needs rfkeras[datasets]."
        ),
    )
    download.add_argument(
        "name",
        metavar="NAME",
        help="openmic, mtg_jamendo (its lists), gtzan, dcase, mirdata:NAME or soundata:NAME",
    )
    download.add_argument(
        "--data-dir", required=True, metavar="DIR", help="folder for this data set only"
    )
    download.add_argument("--subset", metavar="NAME", help="dcase: 2019-1a or 2020-1a")
    download.add_argument("--yes", action="store_true", help="download without asking first")
    download.set_defaults(run=run_download)


def _add_compose(actions: Any) -> None:
    compose = actions.add_parser(
        "compose",
        help="compose and render music with your own sounds",
        description=(
            "Compose music for the 20 instruments and render it with sound fonts and recorded "
            "notes, in the layout of OpenMIC-2018. Every part has a source of its own, and "
            "every clip goes through a drawn chain of recording (room, noise, coding, level). "
            "Some clips have no instrument. Train with --dataset openmic --data-dir DIR. Run "
            "the same command again to continue, or with more clips to add some."
        ),
    )
    compose.add_argument("output", type=Path, metavar="DIR", help="folder to write")
    compose.add_argument(
        "--clips",
        required=True,
        metavar="N",
        help="number of clips of 10 s, test split included",
    )
    compose.add_argument(
        "--sound-font",
        action="append",
        default=[],
        metavar="FILE",
        help="SoundFont 2 file, which may lack programs; repeat it for several. TimGM6mb is "
        "the installed one (default: TimGM6mb, unless --recordings is given)",
    )
    compose.add_argument(
        "--recordings",
        type=Path,
        metavar="CSV",
        help="table of recorded notes (docs/composed_music.md)",
    )
    compose.add_argument(
        "--leave-out",
        action="append",
        default=[],
        metavar="NAME",
        help="recording that is not used, to test on later; repeat it for several",
    )
    compose.add_argument(
        "--recording-share",
        metavar="P",
        help="probability that a recording plays a part, if one can (default: it grows with "
        "the number of recordings of the class: 0.15 for 1, 0.3 for 3, 0.45 for 9)",
    )
    compose.add_argument(
        "--negatives",
        type=Path,
        metavar="DIR",
        help="folder of sounds without instruments, such as speech. Clips without "
        "instruments are made of them and of generated noise, weather, engines and birds",
    )
    compose.add_argument(
        "--negative-rate",
        metavar="P",
        help="probability that a clip has no instrument (default: 0.06)",
    )
    compose.add_argument(
        "--parts",
        default="1-8",
        metavar="LOW-HIGH",
        help="smallest and largest number of parts (default: 1-8)",
    )
    compose.add_argument(
        "--feature",
        action="append",
        default=[],
        metavar="CLASS",
        help="class that is heard in turn; repeat it for several (default: all 20)",
    )
    compose.add_argument(
        "--chain",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="record the clips through rooms, noise, coding and levels (default: --chain)",
    )
    compose.add_argument("--seed", default=0, help="seed of every choice (default: 0)")
    compose.add_argument(
        "--test-share", default=0.1, metavar="P", help="share of the test split (default: 0.1)"
    )
    compose.add_argument(
        "--workers", metavar="N", help="number of processes (default: one per core)"
    )
    compose.set_defaults(run=run_compose)


def _config(options: argparse.Namespace, own: Sequence[str]) -> TrainConfig:
    """Return the configuration; `own` names the command's other flags."""
    own = ("command", "action", "run", *own)
    return merge_options({k: v for k, v in vars(options).items() if k not in own})


def run_pack(options: argparse.Namespace) -> int:
    """Run `rfkeras data pack`."""
    from rfkeras.audio.io import AudioFormat
    from rfkeras.datasets.pack import pack
    from rfkeras.frontend.presets import preset_config
    from rfkeras.training.data import open_dataset, print_notes

    config = _config(options, ("output", "shard_mb", "decoder", "beam"))
    audio = AudioFormat(preset_config(config.frontend)["sample_rate_hz"], config.input_channels)
    shard_mb = number(0.01, 1e6)("--shard-mb", options.shard_mb)
    if options.beam is not None:
        index = run_pack_pipeline(options, config, audio, shard_mb)
    else:
        dataset = open_dataset(config)
        print_notes(dataset)
        index = pack(
            dataset,
            audio,
            options.output,
            shard_mb=shard_mb,
            max_bad_share=config.max_bad_share,
            decoder=decoder_of(options),
        )
    print(f"Index: {index}")
    return 0


def run_compose(options: argparse.Namespace) -> int:
    """Run `rfkeras data compose`."""
    from rfkeras.synthesis.ensemble_clips import (
        MAX_CLIPS,
        Settings,
        compose_clips,
        find_negatives,
        parse_parts,
    )
    from rfkeras.synthesis.render import parse_sound_fonts

    fonts = options.sound_font or ([] if options.recordings else ["TimGM6mb"])
    paths = [str(path) for text in fonts for path in parse_sound_fonts(text)]
    given: dict[str, Any] = {"featured": tuple(options.feature)} if options.feature else {}
    for name in ("recording_share", "negative_rate"):
        value = getattr(options, name)
        if value is not None:
            given[name] = number(0, 1)(f"--{name.replace('_', '-')}", value)
    settings = Settings(
        fonts=tuple(paths),
        recordings=str(options.recordings.resolve()) if options.recordings else None,
        leave_out=tuple(options.leave_out),
        negatives=find_negatives(options.negatives) if options.negatives else (),
        parts=parse_parts(options.parts),
        chain=options.chain,
        seed=whole(0)("--seed", options.seed),
        **given,
    )
    folder = compose_clips(
        options.output,
        whole(2, MAX_CLIPS)("--clips", options.clips),
        settings,
        test_share=number(0.0001, 0.9999)("--test-share", options.test_share),
        workers=None if options.workers is None else whole(1)("--workers", options.workers),
    )
    print(f"Data set: {folder}")
    return 0


def run_download(options: argparse.Namespace) -> int:
    """Run `rfkeras data download`."""
    from rfkeras.datasets.download import download

    done = download(
        options.name,
        options.data_dir,
        confirm=lambda plan: _confirm(plan, sure=options.yes),
        subset=options.subset,
    )
    if done is None:
        print_status("Nothing was downloaded.")
        return 1
    print(f"Verified: {count(done.files, 'file')}")
    if done.archives:
        print(f"No longer needed: {' '.join(shlex.quote(str(path)) for path in done.archives)}")
    if done.can_open:
        place = shlex.quote(options.data_dir)
        print(f"Next: rfkeras data check --dataset {done.flags} --data-dir {place}")
    else:
        print(f"Next: map {done.flags} to tags, see docs/datasets.md")
    return 0


def _confirm(plan: DownloadPlan, *, sure: bool) -> bool:
    """Show what will be downloaded on standard error, and ask unless the user is sure."""
    sizes, known = [], plan.files - plan.unknown_sizes
    if known:
        sizes.append(f"{plan.known_bytes / 1e6:,.1f} MB in {count(known, 'file')}")
    if plan.unknown_sizes:
        sizes.append(f"not stated by the server for {count(plan.unknown_sizes, 'file')}")
    print_status(f"Data set: {plan.name} ({plan.documentation})")
    print_status(f"Licence: {plan.licence}")
    print_status(f"From: {', '.join(plan.hosts)}")
    print_status(f"Size: {', '.join(sizes)}; the unpacked files need as much again")
    print_status(f"To: {plan.folder}")
    if sure:
        return True
    if not sys.stdin.isatty():
        raise ConfigError(
            "There is no terminal to ask on. Add --yes if you accept the licence and the size."
        )
    print("Download? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().casefold() in ("y", "yes")


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


def print_check(
    check: DatasetCheck, *, file: TextIO | None = None, width: int | None = None
) -> None:
    """Print the results of a check: tables and problems.

    Args:
        check: The results.
        file: File to print to; None is standard output.
        width: Number of columns; None uses the terminal's, at least 100.
    """
    from rich.text import Text

    console = open_console(file, width=width, least_width=_LEAST_WIDTH, wrap=False)
    console.print(_title(check))
    console.print(_split_table(check).to_rich())
    console.print(_label_table(check).to_rich())
    for names, (found, expected) in check.published.items():
        state = "as published" if found == expected else f"{expected:,} in the publication"
        console.print(f"{names.replace('+', ' and ')}: {count(found, 'clip')}, {state}")
    bad = check.bad
    for path in bad[:_LISTED_FILES]:
        console.print(Text.assemble((f"{path.stage}:", "red"), f" {path.path}: {path.reason}"))
    if len(bad) > _LISTED_FILES:
        console.print(f"... and {len(bad) - _LISTED_FILES:,} more files")
    if bad:
        kinds = Counter(file.reason.partition(":")[0] for file in bad).most_common()
        reasons = ", ".join(f"{files:,} {kind}" for kind, files in kinds)
        heading = ("Unusable files:", "red")
        console.print(Text.assemble(heading, f" {len(bad):,} ({reasons})"))
        if check.homepage:
            console.print(f"Get them from: {check.homepage}")
    for path in check.damaged[:_LISTED_FILES]:
        line = f" {path.path}: {path.reason}"
        console.print(Text.assemble((f"{path.stage}, damaged:", "red"), line))
    if check.damaged:
        heading = ("Damaged files, used only in part:", "red")
        console.print(Text.assemble(heading, f" {len(check.damaged):,}"))
    for difference in check.differences:
        console.print(Text.assemble(("Mismatch:", "red"), f" {difference}"))
    for note in check.notes:
        console.print(Text.assemble(("Note:", "yellow"), f" {note}"))
    if check.ok:
        checked = all(split.audio is not None for split in check.splits.values())
        console.print(
            f"No problems found{'' if checked else ', audio not checked'}.", style="green"
        )


def _title(check: DatasetCheck) -> Text:
    from rich.text import Text

    info = ", ".join(
        f"{key} {value}"
        for key, value in check.info.items()
        if isinstance(value, str | int | float)
    )
    return Text.assemble((check.name, "bold"), f" ({check.task}) {info}")


def _split_table(check: DatasetCheck) -> Table:
    numbers = ["clips", "no tag", "unusable", "hours", "shortest", "median", "longest"]
    table = Table(["split", *numbers, "rates, Hz", "channels"], right=numbers)
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
    """Return a row per tag: positive and known clips of each split, and their share."""
    numbers = [heading for name in check.splits for heading in (f"{name}: clips", "share")]
    table = Table(["tag", *numbers], right=numbers)
    first = next(iter(check.splits.values()), None)
    for tag in first.labels if first else ():
        cells = []
        for split in check.splits.values():
            label = split.labels[tag]
            share = "-" if math.isnan(label.share) else f"{label.share:.2%}"
            cells += [f"{label.positive:,}/{label.known:,}", share]
        table.add_row(tag, *cells)
    return table
