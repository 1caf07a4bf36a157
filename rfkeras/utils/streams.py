"""Standard input, output and error of a command that may have been closed."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from contextlib import suppress
from typing import TextIO

_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))  # by file descriptor


def open_missing_streams() -> None:
    """Open the null device for every standard stream that the parent process closed.

    Otherwise the next file that is opened gets the number of standard output, and native code
    would print into it.
    """
    for number, (name, mode) in enumerate(_STREAMS):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            os.dup2(opened, number)
            if opened != number:
                os.close(opened)
        if getattr(sys, name) is None:
            stream = open(number, mode, encoding="utf-8", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)


def escape_unknown_characters() -> None:
    """Print characters that the encoding of standard output lacks as escapes such as `\\u266b`.

    Otherwise a file name can end the command, with an old code page of Windows for example.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def flush_streams() -> None:
    """Write what standard output and error still hold.

    Raises:
        BrokenPipeError: Nobody reads one of them any more.
    """
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and not stream.closed:
            stream.flush()


def reader_left(error: BaseException) -> bool:
    """Return whether an error arose because nobody reads standard output or error any more.

    This is so after `rfkeras ... | head`.
    """
    cause: BaseException | None = error
    while cause is not None and not _is_broken_pipe(cause):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return False
    # Rich has already replaced standard output when it raises SystemExit.
    return isinstance(error, SystemExit) or any(map(_has_no_reader, (1, 2)))


def silence_streams() -> None:
    """Send what is still written to a stream without a reader to the null device."""
    for number in (1, 2):
        if _has_no_reader(number):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, number)
            os.close(null)
    with suppress(OSError):
        flush_streams()


def _is_broken_pipe(error: BaseException) -> bool:
    """Return whether an error says that nobody reads; Windows also calls that "invalid"."""
    invalid = os.name == "nt" and isinstance(error, OSError) and error.errno == errno.EINVAL
    return invalid or isinstance(error, BrokenPipeError)


def _has_no_reader(number: int) -> bool:
    """Return whether a file descriptor is a pipe or socket without a reader."""
    if not hasattr(select, "poll"):  # Windows
        return _cannot_flush(sys.stdout if number == 1 else sys.stderr)
    poll = select.poll()
    poll.register(number, 0)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))


def _cannot_flush(stream: TextIO | None) -> bool:
    """Return whether what a stream still holds cannot be written."""
    try:
        if stream is not None and not stream.closed:
            stream.flush()
    except OSError:
        return True
    return False
