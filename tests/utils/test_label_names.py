"""The rule for names of tags."""

import pytest

from rfkeras.errors import ConfigError
from rfkeras.utils.label_names import (
    check_label_names,
    clean_label_name,
    label_name_notes,
    similar_label_names,
    visible_label_name,
)

COMPOSED, DECOMPOSED = "fl\u00fbte", "flu\u0302te"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("flute", "flute"),
        (" flute\u00a0", "flute"),
        ("\tflute\n", "flute"),
        (DECOMPOSED, COMPOSED),
        ("electric guitar", "electric guitar"),
        ("mood/theme---dark", "mood/theme---dark"),
        ("\u7434\u3000\u7b1b", "\u7434\u3000\u7b1b"),
        ("\U0001f3b8", "\U0001f3b8"),
    ],
)
def test_names_are_composed_and_trimmed(text, name):
    assert clean_label_name(text) == visible_label_name(text) == name


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        (" \u3000", "empty"),
        ("a\nb", "control character, U\\+000A"),
        ("a\tb", "control character, U\\+0009"),
        ("a\0", "control character, U\\+0000"),
        ("a\x85b", "control character, U\\+0085"),
        ("a\u2028b", "a line separator, U\\+2028"),
        ("a\u2029b", "a paragraph separator, U\\+2029"),
        ("fl\udcfbte", "not valid UTF-8, U\\+DCFB"),
    ],
)
def test_bad_names_are_refused(text, reason):
    with pytest.raises(ConfigError, match=reason):
        clean_label_name(text)
    with pytest.raises(ConfigError, match=reason.replace("empty", "must have visible")):
        visible_label_name(text)


@pytest.mark.parametrize(
    "character",
    [
        *"\u200b\u200d\ufeff\u202e\u00ad\u2066\ufe0f\u034f\u3164\u115f\u2800\uffa0\u180b\U000e0101"
    ],
)
def test_invisible_characters_are_refused_or_dropped(character):
    with pytest.raises(ConfigError, match=f"format character, U\\+{ord(character):04X}"):
        clean_label_name(f"fl{character}ute")
    assert visible_label_name(f"{character} fl{character}ute {character}") == "flute"
    with pytest.raises(ConfigError, match="must have visible characters"):
        visible_label_name(character)


def test_names_must_differ():
    assert check_label_names(["a ", "A", DECOMPOSED]) == ("a", "A", COMPOSED)
    for pair in (("a", "a"), ("a", " a"), (COMPOSED, DECOMPOSED)):
        with pytest.raises(ConfigError, match="must differ. Repeated"):
            check_label_names(pair)


def test_names_that_join_others_or_were_decoded_wrongly():
    names = ["bass", "flute", "bass/flute", "flute & bass", "rock/pop", "R&B", "a\ufffd"]
    assert label_name_notes(names) == (
        "tags that look like a list of several tags: 'bass/flute', 'flute & bass'",
        "tags whose text was decoded wrongly: 'a\ufffd'",
    )


def test_names_that_differ_in_hyphens_or_ligatures():
    names = ["hip-hop", "hip_hop", "hip hop", "\ufb02ute", "flute", "-", "_"]
    assert similar_label_names(names) == [
        ("hip-hop", "hip_hop", "hip hop"),
        ("\ufb02ute", "flute"),
    ]


def test_names_that_differ_only_in_case_or_spaces():
    names = ["Guitar", "bass", "guitar", "Hip Hop", "hip hop", "hiphop", "stra\u00dfe"]
    assert similar_label_names(names) == [
        ("Guitar", "guitar"),
        ("Hip Hop", "hip hop", "hiphop"),
    ]
    (note,) = label_name_notes(names)
    assert note.startswith("tags that differ only in case or spaces: 'Guitar' and 'guitar'")


@pytest.mark.parametrize("name", ["x;y", "['x', 'y']", "a, b", "a|b", "x,y", "{a b}"])
def test_names_that_look_like_lists(name):
    assert label_name_notes(["plain", name]) == (
        f"tags that look like a list of several tags: {name!r}",
    )


@pytest.mark.parametrize("name", ['"rock"', "'rock'", "\u201crock\u201d"])
def test_names_in_quotation_marks(name):
    assert label_name_notes([name]) == (f"tags in quotation marks: {name!r}",)


def test_ordinary_names_have_no_notes():
    names = ["drum'n'bass", "r&b", "60s", "mood/theme---dark", "no vocals", "rock'n'roll"]
    assert label_name_notes(names) == ()
