"""`rfkeras convert`: convert PyTorch checkpoints to .keras files."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rfkeras.cli.main import COMMANDS, add_train_flags
from rfkeras.config.parsing import whole
from rfkeras.config.train_config import TrainConfig
from rfkeras.errors import ConfigError

# Options of the network; the flags are those of `train`.
_OPTIONS = (
    *("rho", "width", "blocks", "input_channels", "frequency_aware"),
    *("decomposition", "damping", "damp_time", "damp_stem", "frontend"),
)
_TASKS = ("multi_label", "single_label")


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "convert",
        help=COMMANDS["convert"],
        description=(
            "Convert a published CP-ResNet to a .keras file with a model card (.md and .json). "
            "Options stored in the weights (rho, width, blocks, channels, classes, "
            "decomposition, frequency-awareness) can be omitted; a flag that contradicts them "
            "is an error."
        ),
    )
    parser.add_argument(
        "--from-torch",
        required=True,
        metavar="PATH",
        help=".pth, .pt or .npz file, or folder with model_config.json and "
        "model_state_dict.pth",
    )
    parser.add_argument(
        "--model",
        default="resnet_rf",
        metavar="NAME",
        help="model of the zoo (default: resnet_rf)",
    )
    parser.add_argument(
        "-o", "--output", required=True, metavar="FILE", help=".keras file to write"
    )
    parser.add_argument(
        "--num-classes", default=argparse.SUPPRESS, metavar="N", help="number of tags"
    )
    parser.add_argument(
        "--labels",
        metavar="NAMES",
        help="names of the tags in the order of the outputs: a,b,c or a file with one per line",
    )
    parser.add_argument(
        "--task",
        choices=_TASKS,
        default=argparse.SUPPRESS,
        help="multi_label: a clip has any number of tags (default); single_label: exactly one",
    )
    parser.add_argument(
        "--reference",
        metavar="FILE",
        help=".npz with input_nchw and the original network's logits, to compare with",
    )
    add_train_flags(parser, _OPTIONS)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    given = {name: getattr(options, name) for name in _OPTIONS if hasattr(options, name)}
    fields = TrainConfig.__dataclass_fields__
    given = {name: fields[name].metadata["parse"](name, given[name]) for name in given}
    if hasattr(options, "num_classes"):
        given["num_classes"] = whole(1)("--num-classes", options.num_classes)
    if hasattr(options, "task"):
        given["task"] = options.task

    from zoo.convert import convert

    made = convert(
        options.from_torch,
        options.output,
        model=options.model,
        labels=None if options.labels is None else read_labels(options.labels),
        reference=options.reference,
        **given,
    )
    for name in sorted(made.options):
        print(f"{name:<16} {made.options[name]!s:<14} {made.told_by[name]}")
    if made.largest_difference is not None:
        print(
            f"Logits differ from the reference by at most {made.largest_difference:.2g} (the "
            f"largest logit is {made.largest_logit:.3g})"
        )
    for note in made.notes:
        print(f"Note: {note}")
    output = Path(options.output)
    print(f"Model: {output}\nCard: {output.with_suffix('.md')}, {output.with_suffix('.json')}")
    return 0


def read_labels(text: str) -> list[str]:
    """Return the names in "a,b,c", or in a file with one per line.

    Raises:
        ConfigError: There are no names.
    """
    path = Path(text)
    parts = path.read_text(encoding="utf-8").splitlines() if path.is_file() else text.split(",")
    names = [part.strip() for part in parts if part.strip()]
    if not names:
        raise ConfigError(f"--labels contains no names. Received: {text!r}.")
    return names
