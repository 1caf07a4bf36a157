"""Files on s3://, az://, hdfs:// and http(s)://, read through tensorflow-io.

Credentials and endpoints come from the environment (AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY, AWS_REGION, S3_ENDPOINT, TF_AZURE_STORAGE_KEY, ...), which has to be
set before the first remote path is opened.
"""

from __future__ import annotations

import ctypes
import functools

from rfkeras.errors import DatasetError

SCHEMES = ("s3://", "az://", "hdfs://", "http://", "https://")


def is_remote(path: str) -> bool:
    """Whether tensorflow-io has to read this path."""
    return path.startswith(SCHEMES)


@functools.cache
def prepare(*, s3: bool) -> None:
    """Register tensorflow-io's file systems; safe to call again.

    Args:
        s3: An s3:// path will be opened: make the process end with its true status.

    Raises:
        DatasetError: tensorflow-io is not installed or does not fit this TensorFlow.
    """
    try:
        import tensorflow_io  # noqa: F401  (importing registers the file systems)
    except (ImportError, NotImplementedError) as error:
        raise DatasetError(
            "Remote paths and decoder='tfio' need tensorflow-io 0.37.1 with TensorFlow 2.16. "
            f"Importing it failed: {error}"
        ) from error
    if s3:
        _leave_before_aws_destructors()


def prepare_for(path: str) -> None:
    """`prepare` for this path; does nothing for local ones."""
    if is_remote(path):
        prepare(s3=path.startswith("s3://"))


def _leave_before_aws_destructors() -> None:
    """End the process after Python's own shutdown, before the AWS SDK's static destructors.

    tensorflow-io keeps the AWS client in a static object and never shuts the SDK down. At
    exit that object's destructor writes to a logger that is already destroyed: "pure
    virtual method called", abort, exit status 134 in place of the program's. The C
    library runs exit handlers last in, first out, and passes the status on: registered
    after tensorflow-io was loaded, fflush(NULL) and then _exit(status) run before that
    destructor. By then the interpreter has finished: its atexit functions ran and its
    streams are flushed.
    """
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "on_exit"):  # glibc has it, as does every tensorflow-io wheel's host
        return
    exit_now = ctypes.cast(libc._exit, ctypes.c_void_p)
    flush_all = ctypes.cast(libc.fflush, ctypes.c_void_p)
    libc.on_exit(exit_now, None)  # called as _exit(status, NULL)
    libc.__cxa_atexit(flush_all, None, None)  # called as fflush(NULL), before _exit
