"""Plurals, lists, times and shortened names in messages."""

import pytest

from rfkeras.utils.text import clock, count, duration, first_few, shorten


@pytest.mark.parametrize(
    ("number", "words", "text"),
    [
        (0, ("clip",), "0 clips"),
        (1, ("clip",), "1 clip"),
        (2, ("clip",), "2 clips"),
        (12_345, ("clip",), "12,345 clips"),
        (1, ("entry", "entries"), "1 entry"),
        (2, ("entry", "entries"), "2 entries"),
    ],
)
def test_count_agrees_with_its_number(number, words, text):
    assert count(number, *words) == text


def test_first_few_counts_the_rest():
    assert first_few([]) == ""
    assert first_few("abc") == "a, b, c"
    assert first_few(range(1003)) == "0, 1, 2 and 1,000 more"
    assert first_few("abc", 1) == "a and 2 more"


def test_shorten_keeps_short_text_and_marks_shortened_text():
    assert shorten("flute", 5) == "flute"
    assert shorten("flutes", 5) == "flut…"
    assert shorten("mallet_percussion", 10, "...") == "mallet_..."


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-0.2, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (200, "3 min 20 s"),
        (3599.6, "1 h 00 min"),
        (7512, "2 h 05 min"),
    ],
)
def test_duration_has_units(seconds, text):
    assert duration(seconds) == text


def test_clock_has_hours_only_if_needed():
    assert [clock(s) for s in (0, 59.9, 75, 3599, 3600)] == [
        "0:00",
        "0:59",
        "1:15",
        "59:59",
        "1:00:00",
    ]
