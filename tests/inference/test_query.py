"""Expressions over tags: their meaning, and errors that show the place."""

import itertools
import unicodedata
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfkeras.errors import ConfigError
from rfkeras.inference.query import Query, TagScore, as_written, unknown_tag


def scores(**values):
    """Return scores; a tag applies from 0.5."""
    return {name: TagScore(value, value >= 0.5) for name, value in values.items()}


LOUD = {**scores(violin=0.7, drums=0.5, voice=0.2), "hip-hop": TagScore(0.4, True)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("violin", True),
        ("voice", False),
        ("'hip-hop'", True),  # its own threshold decides
        ('"hip-hop" >= 0.5', False),
        ("violin > 0.7", False),
        ("violin >= 0.7", True),
        ("violin < 0.7", False),
        ("violin <= .7", True),
        ("violin>0.5 and voice<0.5", True),
        ("violin > 5e-1 AND Not voice", True),
        ("not violin", False),
        ("not not violin", True),
        ("not voice and voice", False),  # not binds more than and
        ("not (voice and voice)", True),
        ("violin or violin and voice", True),  # and binds more than or
        ("(violin or violin) and voice", False),
        ("voice or not drums or violin", True),
        ("voice or drums and not violin", False),
        ("((violin))", True),
        ("drums >= 1", False),
        ("drums > 0", True),
    ],
)
def test_an_expression_selects_a_file(text, expected):
    assert Query(text)(LOUD) is expected


def python_meaning(text, values):
    return eval(text, {}, {name: score.applies for name, score in values.items()})


EXPRESSIONS = st.recursive(
    st.sampled_from(["violin", "drums", "voice"]),
    lambda parts: st.one_of(
        parts.map("not {}".format),
        parts.map("({})".format),
        st.lists(parts, min_size=2, max_size=3).map(" and ".join),
        st.lists(parts, min_size=2, max_size=3).map(" or ".join),
    ),
    max_leaves=12,
)


@given(EXPRESSIONS)
def test_and_or_not_bind_as_in_python(text):
    query = Query(text)
    for values in itertools.product([0.1, 0.9], repeat=3):
        given_scores = scores(**dict(zip(("violin", "drums", "voice"), values, strict=True)))
        assert query(given_scores) == python_meaning(text, given_scores)


def test_the_names_stand_in_their_order():
    assert Query("b and (a > 0.5 or not b) and 'c d'").names == ("b", "a", "c d")


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("violin", "violin"),
        ("80s", "80s"),
        ("Bj\u00f6rk_2", "Bj\u00f6rk_2"),
        ("hip-hop", '"hip-hop"'),
        ("drum & bass", '"drum & bass"'),
        ("1980", '"1980"'),
        ("Not", '"Not"'),
        ('drums, "kit"', "'drums, \"kit\"'"),
        ("a\"b'c", '"a""b\'c"'),
    ],
)
def test_a_name_as_it_is_written_is_read_as_that_name(name, written):
    assert as_written(name) == written
    assert Query(f"not {written}").names == (name,)


@given(st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip))
def test_every_name_can_be_written(name):
    name = unicodedata.normalize("NFC", name)
    assert Query(as_written(name)).names == (name,)


def test_a_decomposed_letter_is_the_composed_one():
    assert Query("cafe\u0301").names == ("caf\u00e9",)


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("", 0, 'Expected a tag, "not" or "(", received the end.'),
        ("violin and", 10, 'Expected a tag, "not" or "(", received the end.'),
        ("violin > ", 9, 'Expected a number after ">", received the end.'),
        ("violin > drums", 9, "Expected a number after \">\", received 'drums'."),
        ("0.5 < violin", 0, 'Compare a tag with a score from 0 to 1, as in "violin > 0.5".'),
        ("violin > 50", 9, "Received: 50."),
        ("violin drums", 7, "If 'violin drums' is one tag, write it in quotation marks."),
        ("violin 0.5", 7, 'Expected "and" or "or", received \'0.5\'.'),
        ("(violin or drums", 0, "This parenthesis is not closed."),
        ("(violin drums)", 8, 'Expected "and", "or" or ")", received \'drums\'.'),
        ("violin)", 6, "received ')'."),
        ("violin and 'hip", 11, "This quotation mark is not closed."),
        ("violin and ''", 11, "The name of a tag is empty."),
        ("violin == 0.5", 7, "Unknown comparison. Allowed: >, >=, <, <=;"),
        ("violin and hip-hop", 14, "need quotation marks"),
        ("violin > 0.5.1", 10, "Unexpected '.'."),
        ("not " * 101 + "violin", 400, "More than 100 levels are nested."),
        ("(" * 5000 + "violin", 100, "More than 100 levels are nested."),
    ],
)
def test_an_error_shows_the_place(text, column, message):
    with pytest.raises(ConfigError) as raised:
        Query(text)
    said, shown, pointer = str(raised.value).split("\n")
    assert message in said
    assert shown == f"  {text}"
    assert pointer == " " * (2 + column) + "^"


@given(st.text(max_size=30))
def test_any_text_is_an_expression_or_a_config_error(text):
    with suppress(ConfigError):
        Query(text)


def test_wide_characters_move_the_pointer():
    with pytest.raises(ConfigError) as raised:
        Query("\u97f3\u697d and")
    assert str(raised.value).endswith("\n" + " " * (2 + 8) + "^")


def test_an_unknown_tag_gets_the_nearest_one_and_all():
    query = Query("violin and not Drmus")
    query.check_names({"violin", "Drmus"})
    with pytest.raises(ConfigError) as raised:
        query.check_names({"drums", "violin", "hip-hop"})
    said, _, pointer = str(raised.value).split("\n")
    assert (
        said == "Unknown tag 'Drmus'. Did you mean 'drums'? Tags: drums, \"hip-hop\", violin."
    )
    assert pointer == " " * (2 + 15) + "^"
    assert unknown_tag("zzz", {"drums"}) == "Unknown tag 'zzz'. Tags: drums."
