"""What is told of a tagged file: decisions, spans of time, and the record as JSON."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

import numpy as np
from numpy.typing import NDArray

from rfkeras import __version__
from rfkeras.errors import ConfigError
from rfkeras.inference.audio_files import FoundFile, printable
from rfkeras.tasks import MULTI_LABEL, SINGLE_LABEL
from rfkeras.utils.files import replacing

if TYPE_CHECKING:
    from rfkeras.inference import FrameTimes, StreamTagger, TagResult

Span = tuple[float, float]
_CLOSED_GAP_S = 2


def spans(active: NDArray[np.bool_], edges: NDArray[np.float64]) -> list[Span]:
    """The stretches of time in which frames are active, in seconds.

    Args:
        active: (frames,).
        edges: (frames + 1,) seconds: frame i lasts from edge i to edge i + 1.
    """
    padded = np.concatenate([[False], active & (np.diff(edges) > 0), [False]])
    changes = np.flatnonzero(padded[1:] != padded[:-1])
    return [
        (float(edges[first]), float(edges[stop]))
        for first, stop in zip(changes[::2], changes[1::2], strict=True)
    ]


def spans_text(parts: Sequence[Span], most: int) -> str:
    """Spans as "0:12-0:47, 1:03-1:20".

    They are rounded outwards to whole seconds; those that are then up to 2 s apart become
    one, for who reads does not care about a missing frame.

    Args:
        parts: Ascending.
        most: How many are written out before "and 3 more".
    """
    whole: list[list[int]] = []
    for start, end in parts:
        first, last = math.floor(start), math.ceil(end)
        if whole and first - whole[-1][1] <= _CLOSED_GAP_S:
            whole[-1][1] = last
        else:
            whole.append([first, last])
    shown = [f"{clock(first)}-{clock(last)}" for first, last in whole[:most]]
    more = [f"and {len(whole) - most} more"] if len(whole) > most else []
    return ", ".join([*shown, *more])


def clock(seconds: float) -> str:
    """Time as min:s, or h:min:s from an hour: 75 is "1:15"."""
    minutes, rest = divmod(math.floor(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


Scores = NDArray[np.floating[Any]]
_SCORE_DIGITS, _FRAME_DIGITS, _SECOND_DIGITS = 6, 4, 4


@dataclass(frozen=True)
class Outcome:
    """What came of one file.

    Attributes:
        file: Which.
        result: What the model says of it; None if it could not be read.
        error: Why it could not be read; None if it could.
    """

    file: FoundFile
    result: TagResult | None = None
    error: str | None = None


@dataclass(frozen=True)
class TagRules:
    """The tags of a model, and when they apply.

    Attributes:
        model: What the user calls the model.
        names: The tags.
        thresholds: (classes,) score from which each applies; None where classes exclude
            each other and the best applies whatever its score.
        exclusive: Only the best tag can apply.
        sample_rate_hz: At which the model hears.
        frames: When its frames are.
    """

    model: str
    names: tuple[str, ...]
    thresholds: Scores | None
    exclusive: bool
    sample_rate_hz: int
    frames: FrameTimes

    @classmethod
    def of(cls, tagger: StreamTagger, model: str, threshold: float | None = None) -> TagRules:
        """The rules of a tagger.

        Args:
            tagger: The tagger.
            model: What the user calls its model.
            threshold: One for all tags; None takes those stored with the model.

        Raises:
            ConfigError: The threshold does not lie within 0 and 1.
        """
        if threshold is not None and not 0 <= threshold <= 1:
            raise ConfigError(f"A threshold lies between 0 and 1. Received: {threshold:g}.")
        exclusive = tagger.thresholds is None
        names = tuple(tagger.label_names)
        thresholds = None if exclusive else np.asarray(tagger.thresholds, np.float64)
        if threshold is not None:
            thresholds = np.full(len(names), threshold)
        return cls(model, names, thresholds, exclusive, tagger.sample_rate_hz, tagger.frames)

    def applies(self, scores: Scores) -> NDArray[np.bool_]:
        """Which tags apply, of scores (..., classes)."""
        decided: NDArray[np.bool_] = (
            np.ones(scores.shape, bool)
            if self.thresholds is None
            # Scores are float32: a threshold of 0.3 must not lie above the score 0.3.
            else scores >= self.thresholds.astype(scores.dtype)
        )
        if self.exclusive:
            decided &= scores == scores.max(axis=-1, keepdims=True)
        return decided

    def edges(self, result: TagResult) -> NDArray[np.float64]:
        """(frames + 1,) seconds at which the frames of a result begin, and the last ends.

        Frames of the padding behind a very short file are empty.
        """
        n_frames = len(frame_scores_of(result))
        starts_ms, ends_ms = self.frames.starts_ms(n_frames), self.frames.ends_ms(n_frames)
        return np.clip(np.append(starts_ms, ends_ms[-1]) / 1000, 0.0, result.seconds)

    def spans(self, result: TagResult) -> list[list[Span]]:
        """The stretches of time in which each tag applies, in seconds, by tag."""
        edges = self.edges(result)
        return [spans(tag, edges) for tag in self.applies(frame_scores_of(result)).T]

    def ranking(self, result: TagResult) -> list[int]:
        """Tags in the order in which they matter.

        First those that apply to the whole, then by the time in which they apply, if the
        result has frames, then by score.
        """
        seconds = np.zeros(len(self.names))
        if result.frame_scores is not None:
            seconds += [sum(end - start for start, end in tag) for tag in self.spans(result)]
        return [
            int(tag)
            for tag in np.lexsort((-result.scores, -seconds, ~self.applies(result.scores)))
        ]

    def head(self) -> dict[str, Any]:
        """What holds for all files."""
        window_ms = self.frames.window_ms
        thresholds = None
        if self.thresholds is not None:
            pairs = zip(self.names, self.thresholds, strict=True)
            thresholds = {name: round(float(value), _SCORE_DIGITS) for name, value in pairs}
        return {
            "rfkeras": __version__,
            "model": printable(self.model),
            "task": SINGLE_LABEL if self.exclusive else MULTI_LABEL,
            "labels": list(self.names),
            "thresholds": thresholds,
            "sample_rate_hz": self.sample_rate_hz,
            "frame_stride_s": self.frames.stride_ms / 1000,
            "frame_window_s": None if window_ms is None else window_ms / 1000,
        }

    def record(self, outcome: Outcome) -> dict[str, Any]:
        """What is told of one file.

        Returns:
            `path` and `error`; or `path`, `seconds`, `tags` (those that apply, best first),
            `scores` by tag, and of a result with frames `frames` (`start_s`, `centre_s`
            and, by tag, `scores`) and `spans` ([start, end] in seconds, of each tag that
            applies at some time).
        """
        result = outcome.result
        if result is None:
            return {"path": outcome.file.name, "error": printable(outcome.error or "")}
        order = np.argsort(-result.scores, kind="stable")
        applies = self.applies(result.scores)
        content: dict[str, Any] = {
            "path": outcome.file.name,
            "seconds": round(result.seconds, _SECOND_DIGITS),
            "tags": [self.names[tag] for tag in order if applies[tag]],
            "scores": dict(zip(self.names, rounded(result.scores, _SCORE_DIGITS), strict=True)),
        }
        if result.frame_scores is not None:
            centres_s = self.frames.centres_ms(len(result.frame_scores)) / 1000
            columns = [rounded(tag, _FRAME_DIGITS) for tag in result.frame_scores.T]
            content["frames"] = {
                "start_s": rounded(self.edges(result)[:-1], _SECOND_DIGITS),
                "centre_s": rounded(centres_s, _SECOND_DIGITS),
                "scores": dict(zip(self.names, columns, strict=True)),
            }
            content["spans"] = {
                name: [list(rounded(np.asarray(part), _SECOND_DIGITS)) for part in tag]
                for name, tag in zip(self.names, self.spans(result), strict=True)
                if tag
            }
        return content


def frame_scores_of(result: TagResult) -> Scores:
    """The scores of the frames.

    Raises:
        ConfigError: They were not asked for.
    """
    if result.frame_scores is None:
        raise ConfigError("The result has no frames: run the tagger with frames=True.")
    return result.frame_scores


def rounded(values: NDArray[Any], digits: int) -> list[float]:
    """Values as Python numbers with so many digits behind the point."""
    return [round(float(value), digits) for value in values]


def as_json(content: Any) -> str:
    """One line of JSON with every character as it is."""
    return json.dumps(content, ensure_ascii=False, allow_nan=False)


Write = Callable[[Outcome], None]
_TIME_DIGITS, _CSV_SCORE_DIGITS = 4, 6


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
            scores = rounded(result.scores, _CSV_SCORE_DIGITS)
            writer.writerow([outcome.file.name, seconds, "", *scores])
        else:
            centres_s = rules.frames.centres_ms(len(result.frame_scores)) / 1000
            starts_s = rules.edges(result)[:-1]
            for start, centre, scores in zip(
                starts_s, centres_s, result.frame_scores, strict=True
            ):
                when = (round(start, _TIME_DIGITS), round(centre, _TIME_DIGITS))
                writer.writerow(
                    [outcome.file.name, *when, "", *rounded(scores, _CSV_SCORE_DIGITS)]
                )
        file.flush()

    yield write


def record_line(rules: TagRules, outcome: Outcome, **more: str) -> str:
    """A record that stands for itself: with the model, and whatever else is to be told."""
    path, *rest = rules.record(outcome).items()
    return as_json(dict([path, ("model", printable(rules.model)), *rest]) | more) + "\n"
