"""Small pieces of text that messages, tables and plots share."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

TAG_SEPARATOR = "; "  # between the tags of a file in one cell or field


def count(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun in the singular or plural.

    Args:
        number: How many.
        noun: Singular, such as "clip".
        plural: Plural; None appends an "s".

    Example:
        >>> count(1, "clip"), count(1204, "clip"), count(2, "entry", "entries")
        ('1 clip', '1,204 clips', '2 entries')
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def first_few(items: Iterable[object], most: int = 3) -> str:
    """Return the first items and the number of the others, as in "a, b, c and 7 more"."""
    names = [str(item) for item in items]
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def shorten(text: str, most: int, mark: str = "…") -> str:
    """Return at most `most` characters of a text, with a mark where it was cut."""
    return text if len(text) <= most else text[: most - len(mark)] + mark


def clock(seconds: float) -> str:
    """Return a time as min:s, or as h:min:s from one hour: 75 is "1:15"."""
    minutes, rest = divmod(math.floor(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def duration(seconds: float) -> str:
    """Return a duration with units: "45 s", "3 min 20 s" or "2 h 05 min"."""
    whole = max(0, round(seconds))
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def printable(path: Path | str) -> str:
    """Return a path as text, with bytes that are not UTF-8 as escapes such as `\\udcff`."""
    return str(path).encode("utf-8", "backslashreplace").decode("utf-8")
