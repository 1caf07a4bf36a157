"""Many files through one tagger, of which a bad one stops nothing."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rfkeras.data.decoding import check_audio
from rfkeras.errors import AudioError
from rfkeras.tagging.files import FoundFile, printable
from rfkeras.tagging.progress import Display
from rfkeras.tagging.records import Outcome

if TYPE_CHECKING:
    from rfkeras.tagging import StreamTagger, TagResult


@dataclass
class Tally:
    """How a batch ended.

    Attributes:
        total: Files that were to be read.
        done: Files read, and their outcome written.
        failed: Files that could not be used, with their outcome written.
        interrupted: Ctrl-C came before the end.
    """

    total: int
    done: int = 0
    failed: int = 0
    interrupted: bool = False


def run_batch(
    tagger: StreamTagger,
    files: Sequence[FoundFile],
    write: Callable[[Outcome], None],
    display: Display,
    *,
    chunk_seconds: float,
    frames: bool = False,
    embeddings: bool = False,
) -> Tally:
    """Read files one after the other and hand on what comes of each.

    Args:
        tagger: What reads them.
        files: What is read, in this order.
        write: Called with each outcome, also of files that cannot be used.
        display: Told of the progress and of what is wrong.
        chunk_seconds: From which length on the tagger's `reason_not_exact` matters.
        frames: Ask for the scores of frames.
        embeddings: Ask for the features of frames.

    Returns:
        The counts. Ctrl-C ends the batch and is not raised: what was written stays.
    """
    tally = Tally(len(files))
    warned = tagger.exact

    def begin(file: FoundFile, seconds: float) -> None:
        nonlocal warned
        display.begin(file.name, seconds)
        if not warned and seconds > chunk_seconds:
            warned = True
            display.say(
                f"Note: files longer than {chunk_seconds:g} s are read in pieces, and "
                f"differ a little from one pass over all: {tagger.reason_not_exact}"
            )

    def read(file: FoundFile) -> Outcome:
        def result() -> TagResult:
            begin(file, check_audio(file.path, decoder=tagger.decoder).duration_seconds)
            return tagger.run_file(
                file.path, frames=frames, embeddings=embeddings, on_progress=display.inside
            )

        return outcome_of(file, result)

    try:
        for file in files:
            outcome = read(file)
            if outcome.error is not None:
                display.say(f"{file.name}: {printable(outcome.error)}")
            with _interrupts_later():
                write(outcome)
                tally.done += outcome.error is None
                tally.failed += outcome.error is not None
            display.end(failed=outcome.error is not None)
    except KeyboardInterrupt:
        tally.interrupted = True
    return tally


def outcome_of(file: FoundFile, read: Callable[[], TagResult]) -> Outcome:
    """What comes of a file: a result, or why there is none.

    Args:
        file: The file; of what has an error already nothing is read.
        read: Gives the result.
    """
    if file.error is not None:
        return Outcome(file, error=file.error)
    try:
        result = read()
    except AudioError as error:
        return Outcome(file, error=error.reason)
    except OSError as error:
        return Outcome(file, error=f"unreadable: {error.strerror or error}")
    if not np.isfinite(result.scores).all():
        return Outcome(file, error="the model's scores are not numbers (NaN or infinite)")
    return Outcome(file, result)


@contextmanager
def _interrupts_later() -> Iterator[None]:
    """Ctrl-C waits for the block's end, so that nothing is written by halves."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals come to the main thread alone
        return
    received: list[tuple[Any, ...]] = []
    previous = signal.signal(signal.SIGINT, lambda *signals: received.append(signals))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
    if received and callable(previous):
        previous(*received[0])
