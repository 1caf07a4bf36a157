"""Tags of files as JSON, JSON lines and CSV, to standard output or to a file."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO

from rfkeras.files import replacing
from rfkeras.tagging.files import printable
from rfkeras.tagging.records import Outcome, TagRules, as_json, rounded

Write = Callable[[Outcome], None]
_TIME_DIGITS, _SCORE_DIGITS = 4, 6


@contextmanager
def text_output(path: Path | None, encoding: str = "utf-8") -> Iterator[TextIO]:
    """Where results go: a file that is written whole or not at all, or standard output.

    Args:
        path: The file; None is standard output.
        encoding: Of the text. What it cannot hold is written as an escape such as
            `\\u00e9`, which JSON reads as the character.
    """
    if path is not None:
        with (
            replacing(path) as aside,
            aside.open("w", encoding=encoding, errors="backslashreplace", newline="") as file,
        ):
            yield file
        return
    binary: BinaryIO | None = getattr(sys.stdout, "buffer", None)
    if binary is None:  # a notebook's standard output takes text alone
        yield sys.stdout
        return
    sys.stdout.flush()
    text = io.TextIOWrapper(binary, encoding, "backslashreplace", newline="")
    try:
        yield text
    finally:
        text.flush()
        text.detach()


@contextmanager
def json_document(file: TextIO, rules: TagRules) -> Iterator[Write]:
    """One JSON object: the model, its labels and thresholds, and `files`, a line each."""
    file.write(as_json(rules.head())[:-1] + ', "files": [')
    separator = "\n"

    def write(outcome: Outcome) -> None:
        nonlocal separator
        file.write(separator + as_json(rules.record(outcome)))
        separator = ",\n"

    yield write
    file.write("\n]}\n")


@contextmanager
def json_lines(file: TextIO, rules: TagRules) -> Iterator[Write]:
    """A JSON object a line, each as soon as its file is done."""

    def write(outcome: Outcome) -> None:
        file.write(record_line(rules, outcome))
        file.flush()

    yield write


@contextmanager
def csv_table(file: TextIO, rules: TagRules, *, frames: bool) -> Iterator[Write]:
    """A row a file, or a row a frame, with a column a tag.

    The columns are path, seconds, error and the tags; of frames path, start_s, centre_s,
    error and the tags. A file that could not be read has one row with nothing but an error.
    """
    writer = csv.writer(file, lineterminator="\n")
    times = ["start_s", "centre_s"] if frames else ["seconds"]
    writer.writerow(["path", *times, "error", *rules.names])

    def write(outcome: Outcome) -> None:
        result = outcome.result
        if result is None:
            blanks = [""] * len(rules.names)
            row = [outcome.file.name, *("" for _ in times), outcome.error, *blanks]
            writer.writerow(row)
        elif result.frame_scores is None:
            seconds = round(result.seconds, _TIME_DIGITS)
            scores = rounded(result.scores, _SCORE_DIGITS)
            writer.writerow([outcome.file.name, seconds, "", *scores])
        else:
            centres_s = rules.frames.centres_ms(len(result.frame_scores)) / 1000
            starts_s = rules.edges(result)[:-1]
            for start, centre, scores in zip(
                starts_s, centres_s, result.frame_scores, strict=True
            ):
                when = (round(start, _TIME_DIGITS), round(centre, _TIME_DIGITS))
                writer.writerow([outcome.file.name, *when, "", *rounded(scores, _SCORE_DIGITS)])
        file.flush()

    yield write


def record_line(rules: TagRules, outcome: Outcome, **more: str) -> str:
    """A record that stands for itself: with the model, and whatever else is to be told."""
    path, *rest = rules.record(outcome).items()
    return as_json(dict([path, ("model", printable(rules.model)), *rest]) | more) + "\n"
