"""What rfkeras raises when the user, a file or a configuration is at fault.

Every message says what was wrong, where, what is allowed and how to mend it. The
command line prints them as one line on standard error; a traceback means a bug.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class RFKerasError(Exception):
    """Base of all errors that are the input's fault and not the program's."""


class ConfigError(RFKerasError, ValueError):
    """An option, recipe or argument has a value that is not allowed."""


class DatasetError(RFKerasError):
    """A data set folder, label file or split is missing or malformed."""


class CheckpointError(RFKerasError):
    """A checkpoint or run folder cannot be read, or does not fit the model."""


class PipelineError(RFKerasError):
    """A bulk pipeline ended before its work was done."""


class AudioError(RFKerasError):
    """One audio file cannot be used.

    Args:
        path: The file.
        reason: Why, in a few words: "empty file", "truncated: ...".
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


@contextmanager
def located(place: object) -> Iterator[None]:
    """Block whose errors of rfkeras name a file or folder, also those that say what is in it.

    Raises:
        RFKerasError: As it was raised, with the place in front if it was not named.
    """
    try:
        yield
    except (ConfigError, DatasetError, CheckpointError) as error:
        if str(place) in str(error):
            raise
        raise type(error)(f"{place}: {error}") from error


def unknown_name(kind: str, received: str, allowed: Iterable[str]) -> str:
    """Message for a name that is not among the allowed ones, with the nearest suggested."""
    names = sorted(allowed)
    nearest = difflib.get_close_matches(received, names, n=1)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    return f"Unknown {kind} {received!r}.{hint} Allowed: {', '.join(names)}."
