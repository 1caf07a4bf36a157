"""Errors caused by an input, a file or a configuration, and not by a bug.

A message states what is wrong and where, what is allowed and how to fix it. The command line
prints it as one line on standard error. A traceback means a bug.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

# How to replace the distribution rfkeras-tag, which contains only what tagging needs.
FULL_INSTALLATION = (
    "run pip uninstall rfkeras-tag, then pip install . in the folder of the sources"
)


def install_extra(extra: str) -> str:
    """Return the command that installs an extra of the distribution that is installed.

    Args:
        extra: One that both rfkeras and rfkeras-tag have.
    """
    from importlib.metadata import PackageNotFoundError, distribution

    for name in ("rfkeras", "rfkeras-tag"):
        try:
            distribution(name)
        except PackageNotFoundError:
            continue
        return f"pip install '{name}[{extra}]'"
    return f"pip install 'rfkeras[{extra}]'"


class RFKerasError(Exception):
    """Base class of all errors that are caused by the input."""


class ConfigError(RFKerasError, ValueError):
    """An option, recipe or argument has an invalid value."""


class DatasetError(RFKerasError):
    """A data set's folder, label file or split is missing or malformed."""


class CheckpointError(RFKerasError):
    """A checkpoint or run folder cannot be read or does not fit the model."""


class PipelineError(RFKerasError):
    """A Beam pipeline stopped before it was done."""


class AudioError(RFKerasError):
    """One audio file cannot be used.

    Args:
        path: The file.
        reason: A few words, such as "empty file" or "truncated: ...".
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


_REASON_CHARACTERS = 300


def reason_of(error: Exception, trouble: str = "unreadable") -> str:
    """Describe in one line why one file cannot be used.

    Args:
        error: Any exception.
        trouble: What an error of the operating system means, such as "cannot be written".
    """
    if isinstance(error, AudioError):
        return error.reason
    lines = str(error).strip().splitlines() or [""]
    if isinstance(error, OSError):
        place = "" if error.filename is None else f": {error.filename!r}"
        return f"{trouble}: {error.strerror or lines[0]}{place if error.strerror else ''}"
    if isinstance(error, MemoryError):
        return f"not enough memory. {lines[0]}".strip()
    if isinstance(error, RFKerasError):
        return " ".join(lines)
    text = f"{type(error).__name__}: {lines[0]}"
    is_long = len(text) > _REASON_CHARACTERS
    return text[:_REASON_CHARACTERS] + "..." if is_long else text


@contextmanager
def one_file(path: object) -> Iterator[None]:
    """Turn every exception in the block into an AudioError of one file.

    Raises:
        AudioError: The block failed.
    """
    try:
        yield
    except AudioError:
        raise
    except Exception as error:
        raise AudioError(str(path), reason_of(error)) from error


@contextmanager
def located(place: object) -> Iterator[None]:
    """Prefix errors raised in the block with a file or folder, unless they name it.

    Raises:
        RFKerasError: The same error, with the place in its message.
    """
    try:
        yield
    except (ConfigError, DatasetError, CheckpointError) as error:
        if str(place) in str(error):
            raise
        raise type(error)(f"{place}: {error}") from error


def unknown_name(kind: str, received: str, allowed: Iterable[str]) -> str:
    """Return the message for a name that is not allowed, with the nearest allowed one."""
    names = sorted(allowed)
    hint = did_you_mean(received, names)
    known = f"Allowed: {', '.join(names)}." if names else "None is registered."
    return f"Unknown {kind} {received!r}.{hint} {known}"


def did_you_mean(received: str, names: Iterable[str]) -> str:
    """Return " Did you mean 'X'?" with the most similar name; "" if none is similar.

    Names that differ in case only, or in a prefix such as "soundata:", are the most similar.
    Initials stand for a name: "--lr" for "--learning-rate".
    """
    known = list(names)
    folded = {name.partition(":")[2].casefold(): name for name in known if ":" in name}
    folded |= {initials: name for name in known if (initials := _initials(name))}
    folded |= {name.casefold(): name for name in known}
    nearest = difflib.get_close_matches(received, known, n=1)
    same = folded.get(received.casefold())
    if same is None and not nearest:
        close = difflib.get_close_matches(received.casefold(), list(folded), n=1)
        nearest = [folded[name] for name in close]
    best = nearest if same is None else [same]
    return f" Did you mean {best[0]!r}?" if best else ""


def _initials(name: str) -> str:
    """Return "--lr" for "--learning-rate"; "" for a single word."""
    words = name.lstrip("-").replace("_", "-").split("-")
    dashes = name[: len(name) - len(name.lstrip("-"))]
    return dashes + "".join(word[:1] for word in words) if len(words) > 1 else ""
