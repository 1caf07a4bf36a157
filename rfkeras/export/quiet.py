"""Keeping the native notes of converters off the terminal."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drop what the block writes to standard output and error, native code's notes too.

    What goes wrong comes as an exception all the same. Warnings and the log records of
    converters tell their authors' concerns; they are dropped as well.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    kept = [os.dup(number) for number in (1, 2)]
    disabled = logging.root.manager.disable
    try:
        with tempfile.TemporaryFile() as nowhere, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logging.disable(logging.CRITICAL)
            for number in (1, 2):
                os.dup2(nowhere.fileno(), number)
            with (
                contextlib.redirect_stdout(io.StringIO()),
                contextlib.redirect_stderr(io.StringIO()),
            ):
                yield
    finally:
        logging.disable(disabled)
        for number, original in zip((1, 2), kept, strict=True):
            os.dup2(original, number)
            os.close(original)
