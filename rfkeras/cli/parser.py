"""The parser of all commands, and the flags that several of them share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from rfkeras.errors import did_you_mean

MODEL_HELP = (
    "run folder, .keras file, model with pretrained weights (see `rfkeras models`), or "
    "hf://USER/NAME on the Hugging Face Hub"
)
_REMAINDER = ("--", "--beam")  # what follows them belongs to others


class CommandParser(argparse.ArgumentParser):
    """Parser that names the nearest command, flag or value for one that does not exist.

    Flags cannot be abbreviated, so that a new flag never changes what a script means.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)
        self._unknown: list[str] = []
        self.needs_model = False
        self.model_words: set[str] = set()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse words, and reject those that are unknown to this command."""
        self._unknown = [] if args is None else self._unknown_flags(args)
        self.model_words = set()
        parsed, rest = super().parse_known_args(args, namespace)
        if rest:
            self.error(f"unexpected arguments: {' '.join(rest)}")
        if self.needs_model and parsed.model is None:
            self.error("the following arguments are required: --model")
        return parsed, rest

    def error(self, message: str) -> NoReturn:
        """Print the usage and the error, with the nearest flags, and exit with status 2."""
        if self._unknown:
            # Argparse reports the flag that is missing, and not the misspelt one.
            message = " ".join(
                f"unknown option {word}.{self._nearest(word)}" for word in self._unknown
            )
        super().error(message)

    def _print_message(self, message: str, file: Any = None) -> None:
        # Argparse ignores that nobody reads the output.
        (file or sys.stderr).write(message or "")

    def _unknown_flags(self, words: Sequence[str]) -> list[str]:
        """Return the flags among the words that do not exist, up to a nested command."""
        unknown = []
        known = self._option_string_actions
        nested = [a for a in self._actions if isinstance(a, argparse._SubParsersAction)]
        for word in words:
            name = word.partition("=")[0]
            if name in _REMAINDER or any(word in action.choices for action in nested):
                break
            if name.startswith("--") and name not in known:
                unknown.append(name)
        return unknown

    def _nearest(self, word: str) -> str:
        shown = [
            flag
            for flag, action in self._option_string_actions.items()
            if flag.startswith("--") and action.help != argparse.SUPPRESS
        ]
        return did_you_mean(word, shown).replace("'", "")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        kind = "command" if isinstance(action, argparse._SubParsersAction) else "value"
        hint = did_you_mean(str(value), map(str, action.choices))
        raise argparse.ArgumentError(
            None if kind == "command" else action,
            f"unknown {kind} {value!r}.{hint} Allowed: {', '.join(map(str, action.choices))}.",
        )


class _StoreModel(argparse.Action):
    """Stores a model that may be given in several spellings, but only in one at a time."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        if values is None or values is self.default:  # an omitted positional argument
            return
        assert isinstance(parser, CommandParser)
        parser.model_words.add(option_string or "MODEL")
        if len(parser.model_words) > 1:
            parser.error(f"{' and '.join(sorted(parser.model_words))}: name one model.")
        setattr(namespace, self.dest, values)


def add_model_argument(
    parser: Any,
    *,
    default: str | None = None,
    required: bool = False,
    help: str = MODEL_HELP,
    deprecated: Iterable[str] = (),
) -> None:
    """Add `--model`, the one flag that names a model.

    Args:
        parser: Parser or group of a command.
        default: The model without the flag; None for none.
        required: Reject a command line without a model.
        help: Help text.
        deprecated: Earlier spellings, such as "--model-path" or "model" (a positional
            argument). They still work, and the help does not show them.
    """
    shown = "" if default is None else f" (default: {default})"
    if required:
        parser.needs_model = True
    parser.add_argument(
        "--model", action=_StoreModel, default=default, metavar="MODEL", help=help + shown
    )
    for name in deprecated:
        if name.startswith("-"):
            parser.add_argument(
                name, dest="model", action=_StoreModel, default=default, help=argparse.SUPPRESS
            )
        else:
            parser.add_argument(
                name, nargs="?", action=_StoreModel, default=default, help=argparse.SUPPRESS
            )


def add_import_argument(parser: Any) -> None:
    """Add `--import`, for code that registers layers; `rfkeras.cli.main.run` imports it."""
    parser.add_argument(
        "--import",
        dest="imports",
        action="append",
        default=[],
        metavar="FILE.py",
        help="run this Python file (or module) first, to register your own layers; can be "
        "repeated",
    )
