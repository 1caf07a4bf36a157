"""The command line `rfkeras`: find the command, run it, report errors.

Only the module of the command that runs is imported, so `rfkeras --help` takes less than
0.1 s.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module

from rfkeras import __version__
from rfkeras.cli.parser import CommandParser, add_import_argument
from rfkeras.config.parsing import metavar, switch
from rfkeras.config.train_config import TrainConfig, flag
from rfkeras.errors import FULL_INSTALLATION, RFKerasError
from rfkeras.utils.streams import (
    escape_unknown_characters,
    flush_streams,
    open_missing_streams,
    reader_left,
    silence_streams,
)
from rfkeras.utils.user_code import import_user_code

COMMANDS = {  # with their descriptions in the list of commands
    "train": "train a model, evaluate it and export it",
    "launch": "train with several workers on this host",
    "evaluate": "evaluate a model on a data set, or evaluate arrays of scores",
    "tag": "tag audio files",
    "find": "find tagged files by an expression over their tags",
    "embed": "write feature vectors (embeddings) of audio files",
    "similar": "find the files that sound most like one, by their embeddings",
    "export": "write a model as TFLite, ONNX, SavedModel or a page that tags",
    "convert": "convert a published PyTorch checkpoint",
    "push": "upload the model of a run to the Hugging Face Hub",
    "sweep": "train at many receptive fields, with several seeds, and compare",
    "tune": "search for good options with keras-tuner",
    "rf": "show the receptive field of a model",
    "data": "download, check or pack data sets; compose training music",
    "models": "list the models of the zoo",
}
WITHOUT_IMPORT = ("find", "data")  # needs no code of the user; the flag is that of its actions
_SMALL_PRODUCTS = ("tag", "embed")  # the front-end multiplies small matrices with NumPy
INTERRUPTED = 130  # what shells report for a command that Ctrl-C ended
BROKEN_PIPE = 141  # and for one whose output nobody reads any more (SIGPIPE)


def main() -> None:
    """Run the console command `rfkeras`."""
    status = run(sys.argv[1:])
    skip_final_collection()
    sys.exit(status)


def run(arguments: Sequence[str]) -> int:
    """Run one command.

    Returns:
        Exit status: 0 if everything was done, 1 after an error that the message explains, 130
        after Ctrl-C, 143 after SIGTERM, 141 (without a message) if the program that reads
        standard output or error ended, as in `rfkeras ... | head`. (For wrong flags argparse
        exits with status 2.)
    """
    open_missing_streams()
    escape_unknown_characters()
    try:
        try:
            return _run(arguments)
        finally:
            flush_streams()
    except BaseException as error:
        if not reader_left(error):
            raise
        silence_streams()
        return BROKEN_PIPE


def _run(arguments: Sequence[str]) -> int:
    # No flag before the command takes a value, so the first word that names one is the command.
    named = next((word for word in arguments if word in COMMANDS), None)
    if named in _SMALL_PRODUCTS:
        # Before NumPy is imported: its threads would spend as much time waiting for each other.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    options = build_parser(() if named is None else (named,)).parse_args(arguments)
    # TensorFlow's native messages at start-up (such as CUDA factories that are registered
    # twice) do not help users. Real errors still arrive as Python exceptions.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    command = " ".join(filter(None, (options.command, getattr(options, "action", None))))
    try:
        import_user_code(vars(options).pop("imports", ()))
        return int(options.run(options))
    except (RFKerasError, OSError) as error:
        if reader_left(error):
            raise
        print(f"rfkeras {command}: error: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "rfkeras", "zoo"):
            raise
        print(
            f"rfkeras {command}: error: this needs the package {package}, which is not "
            f"installed. To install all of rfkeras, {FULL_INSTALLATION}. rfkeras-tag contains "
            "only what tagging needs; docs/backends.md says what JAX and PyTorch run without "
            "TensorFlow.",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt as interrupt:
        print(f"rfkeras {command}: interrupted. {interrupt}", file=sys.stderr)
        return getattr(interrupt, "status", INTERRUPTED)


def build_parser(complete: Collection[str] = COMMANDS) -> CommandParser:
    """Build the parser of the command line.

    Args:
        complete: Commands that get their flags. The parser only lists the names
            of the others.
    """
    parser = CommandParser(
        prog="rfkeras",
        description="Receptive-field-regularised CNNs for music tagging.",
    )
    parser.add_argument("--version", action="version", version=f"rfkeras {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, description in COMMANDS.items():
        if name in complete:
            import_module(f"rfkeras.cli.{name}").add_parser(commands)
            if name not in WITHOUT_IMPORT:
                add_import_argument(commands.choices[name])
        else:
            commands.add_parser(name, help=description, add_help=False)
    return parser


def join_flags(names: Iterable[str]) -> str:
    """Return the flags of options, separated by commas."""
    return ", ".join(map(flag, names))


def add_train_flags(parser: argparse.ArgumentParser, names: Sequence[str]) -> None:
    """Add flags of `rfkeras train` to another command.

    Flags that are not given are not in the namespace.

    Args:
        parser: Parser of the command.
        names: Fields of `TrainConfig`.
    """
    for name in names:
        field = TrainConfig.__dataclass_fields__[name]
        metadata = field.metadata
        if metadata["parse"] is switch:
            parser.add_argument(
                flag(name),
                default=argparse.SUPPRESS,
                action=argparse.BooleanOptionalAction,
                help=metadata["help"],
            )
        else:
            parser.add_argument(
                flag(name),
                default=argparse.SUPPRESS,
                metavar=metavar(field),
                help=metadata["help"],
            )


@contextmanager
def paused_collector() -> Iterator[None]:
    """Pause Python's garbage collector inside this block.

    Importing Keras and building a model create about a million objects that all stay alive.
    Searching them for garbage takes a sixth of the time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def skip_final_collection() -> None:
    """Let the interpreter exit without a last garbage collection (0.6 s with TensorFlow).

    Objects in reference cycles are then not finalised. Call this right before the process
    exits, when all files are closed.
    """
    gc.freeze()
