"""Python's garbage collector, kept from walking over all of TensorFlow again and again."""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module

from rfkeras import __version__
from rfkeras.config.parsing import metavar, switch
from rfkeras.config.train_config import TrainConfig
from rfkeras.errors import RFKerasError


@contextmanager
def paused_collector() -> Iterator[None]:
    """Collect no garbage in this block.

    Importing Keras and building a model make some million objects that all stay: searching
    them for garbage is a sixth of the time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def leave_everything() -> None:
    """Let the interpreter end without a last search for garbage, 0.6 s with TensorFlow.

    What has no other owner than a cycle of references is then not finalised: for use right
    before a process ends, when all files are closed.
    """
    gc.freeze()


COMMANDS = {  # to what the list of commands says of it
    "train": "train a model, evaluate it and export it",
    "launch": "train by several workers on this host",
    "evaluate": "evaluate a model on a data set, or evaluate arrays of scores",
    "tag": "tag audio files",
    "embed": "write what a model's trunk says of audio files",
    "export": "write a model as TFLite, ONNX or SavedModel",
    "convert": "convert a published PyTorch checkpoint",
    "sweep": "train at many receptive fields, with several seeds, and compare",
    "tune": "search for good options with keras-tuner",
    "rf": "show the receptive field of a model",
    "data": "prepare data sets",
    "models": "list the models of the zoo",
}


def add_train_flags(parser: argparse.ArgumentParser, names: Sequence[str]) -> None:
    """Add flags of a training run that mean the same here.

    Flags that are not given leave no trace in the namespace.

    Args:
        parser: The parser of the command.
        names: Fields of `TrainConfig`.
    """
    for name in names:
        field = TrainConfig.__dataclass_fields__[name]
        metadata = field.metadata
        flag = "--" + name.replace("_", "-")
        if metadata["parse"] is switch:
            parser.add_argument(
                flag,
                default=argparse.SUPPRESS,
                action=argparse.BooleanOptionalAction,
                help=metadata["help"],
            )
        else:
            parser.add_argument(
                flag, default=argparse.SUPPRESS, metavar=metavar(field), help=metadata["help"]
            )


INTERRUPTED = 130  # what shells report for a command ended by Ctrl-C


def build_parser(complete: Collection[str] = COMMANDS) -> argparse.ArgumentParser:
    """The parser of the command line.

    Args:
        complete: Commands that get their flags; of the others it knows the name, which is
            enough to list them. By default all do.
    """
    parser = argparse.ArgumentParser(
        prog="rfkeras",
        description="Receptive-field-regularised CNNs for music tagging.",
    )
    parser.add_argument("--version", action="version", version=f"rfkeras {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, shown in COMMANDS.items():
        if name in complete:
            import_module(f"rfkeras.cli.{name}").add_parser(commands)
        else:
            commands.add_parser(name, help=shown, add_help=False)
    return parser


def run(arguments: Sequence[str]) -> int:
    """Run one command.

    Returns:
        Exit status: 0 when all was done, 1 for an error that the message explains, 130
        after Ctrl-C, 143 after a SIGTERM that was obeyed. (Wrong flags end in argparse with
        status 2.)
    """
    # No flag before the command takes a value, so the first word that names one is it.
    named = next((word for word in arguments if word in COMMANDS), None)
    options = build_parser(() if named is None else (named,)).parse_args(arguments)
    # TensorFlow's native notes at start-up (CUDA factories registered twice, and the like)
    # say nothing to a user; real errors come as Python exceptions all the same.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        return int(options.run(options))
    except (RFKerasError, OSError) as error:
        print(f"rfkeras {options.command}: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as interrupt:
        print(f"rfkeras {options.command}: interrupted. {interrupt}", file=sys.stderr)
        return getattr(interrupt, "status", INTERRUPTED)


def main() -> None:
    """Entry point of the console command."""
    status = run(sys.argv[1:])
    leave_everything()
    sys.exit(status)
