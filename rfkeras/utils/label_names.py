"""The rule for names of tags, wherever a name enters: folders, tables, layers, text files.

A name is one line of visible text in Unicode's composed form (NFC), without surrounding white
space. Two tags never have the same name. Names are compared with their case: "Guitar" and
"guitar" are two tags, which is worth a note.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from rfkeras.errors import ConfigError
from rfkeras.utils.text import first_few

# Unicode categories that a name must not have. "Cf" are zero-width characters, direction marks
# and soft hyphens; "Cs" are bytes of a file name that is not valid UTF-8.
_INVISIBLE = "Cf"
_REFUSED = {
    "Cc": "a control character",
    _INVISIBLE: "an invisible format character",
    "Cs": "a byte that is not valid UTF-8",
    "Zl": "a line separator",
    "Zp": "a paragraph separator",
}
# Characters that Unicode counts as letters, marks or symbols, but that show nothing: joiners,
# fillers, the blank of Braille, and selectors of variants (of emoji, for example).
_SHOWS_NOTHING = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0"
    "\U000e0100-\U000e01ef]"
)
_SEPARATORS = re.compile(r"[;|]|, |^\[.*\]$|^\{.*\}$|^[^\s,]+,[^\s,]+$")
_JOINED = re.compile(r"\s*[,;|/&+\\]\s*")
_SPACING = re.compile(r"[\s_\-\u2010-\u2015]+")
_QUOTED = re.compile("^([\"'`]).*\\1$|^[\u00ab\u2018\u201c\u201e].*[\u00bb\u2019\u201c\u201d]$")


def clean_label_name(text: str) -> str:
    """Return a tag's name in NFC and without surrounding white space.

    Raises:
        ConfigError: The name is empty, or has a control or format character (zero-width
            characters included) or a line or paragraph separator.
    """
    name = unicodedata.normalize("NFC", text).strip()
    for character in name:
        category = _category(character)
        if category in _REFUSED:
            raise ConfigError(
                f"The tag name {text!r} has {_REFUSED[category]}, U+{ord(character):04X}. "
                "Remove it: a name is one line of visible text."
            )
    if not name:
        raise ConfigError(f"A tag name must not be empty. Received: {text!r}.")
    return name


def is_invisible(character: str) -> bool:
    """Return whether a character shows nothing, although it is not white space."""
    return _category(character) == _INVISIBLE


def _category(character: str) -> str:
    shows_nothing = _SHOWS_NOTHING.match(character)
    return _INVISIBLE if shows_nothing else unicodedata.category(character)


def visible_label_name(text: str) -> str:
    """Return a tag's name as `clean_label_name` does, but drop invisible characters.

    Invisible characters enter names of folders and cells of tables by copying them from web
    pages, and nobody sees them there.

    Raises:
        ConfigError: The name is empty, or has a control character or a line or paragraph
            separator.
    """
    visible = "".join(each for each in text if not is_invisible(each))
    try:
        return clean_label_name(visible)
    except ConfigError:
        if visible.strip():
            raise
        raise ConfigError(
            f"A tag name must have visible characters. Received: {text!r}."
        ) from None


def check_label_names(names: Iterable[str]) -> tuple[str, ...]:
    """Return names of tags, cleaned as `clean_label_name` does.

    Raises:
        ConfigError: A name is refused, or two are equal after cleaning.
    """
    cleaned = tuple(clean_label_name(name) for name in names)
    repeated = [name for name, times in Counter(cleaned).items() if times > 1]
    if repeated:
        raise ConfigError(f"Tag names must differ. Repeated: {first_few(repeated)}.")
    return cleaned


def similar_label_names(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the groups of names that differ only in case, white space, hyphens or underscores.

    Letters that look alike to readers, such as the ligature in "\ufb02ute" and "fl", are equal.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        folded = unicodedata.normalize("NFKC", name).casefold()
        groups[_SPACING.sub("", folded) or folded].append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def label_name_notes(names: Sequence[str]) -> tuple[str, ...]:
    """Return a note for each kind of name that looks like a mistake.

    Args:
        names: Different names of tags.

    Returns:
        One sentence per kind: names that differ only in case or spaces, names that look like a
        list of several tags, names in quotation marks, and names that were decoded wrongly.
        Empty if there are none.
    """
    notes = []
    similar = [" and ".join(map(repr, group)) for group in similar_label_names(names)]
    if similar:
        notes.append(f"tags that differ only in case or spaces: {first_few(similar)}")
    lists = [repr(name) for name in names if _looks_like_a_list(name, names)]
    if lists:
        notes.append(f"tags that look like a list of several tags: {first_few(lists)}")
    quoted = [repr(name) for name in names if _QUOTED.search(name)]
    if quoted:
        notes.append(f"tags in quotation marks: {first_few(quoted)}")
    garbled = [repr(name) for name in names if "\ufffd" in name]
    if garbled:
        notes.append(f"tags whose text was decoded wrongly: {first_few(garbled)}")
    return tuple(notes)


def _looks_like_a_list(name: str, names: Sequence[str]) -> bool:
    """Return whether a name has the form of a list, or joins other names as in "bass/flute"."""
    if _SEPARATORS.search(name):
        return True
    parts = _JOINED.split(name)
    return len(parts) > 1 and all(part in names for part in parts)
