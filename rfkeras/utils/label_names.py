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
_REFUSED = {
    "Cc": "a control character",
    "Cf": "an invisible format character",
    "Cs": "a byte that is not valid UTF-8",
    "Zl": "a line separator",
    "Zp": "a paragraph separator",
}
_SEPARATORS = re.compile(r"[;|]|, |^\[.*\]$|^\{.*\}$|^[^\s,]+,[^\s,]+$")
_QUOTED = re.compile("^([\"'`]).*\\1$|^[\u00ab\u2018\u201c\u201e].*[\u00bb\u2019\u201c\u201d]$")


def clean_label_name(text: str) -> str:
    """Return a tag's name in NFC and without surrounding white space.

    Raises:
        ConfigError: The name is empty, or has a control or format character (zero-width
            characters included) or a line or paragraph separator.
    """
    name = unicodedata.normalize("NFC", text).strip()
    for character in name:
        category = unicodedata.category(character)
        if category in _REFUSED:
            raise ConfigError(
                f"The tag name {text!r} has {_REFUSED[category]}, U+{ord(character):04X}. "
                "Remove it: a name is one line of visible text."
            )
    if not name:
        raise ConfigError(f"A tag name must not be empty. Received: {text!r}.")
    return name


def visible_label_name(text: str) -> str:
    """Return a tag's name as `clean_label_name` does, but drop format characters.

    Invisible characters enter names of folders and cells of tables by copying them from web
    pages, and nobody sees them there.

    Raises:
        ConfigError: The name is empty, or has a control character or a line or paragraph
            separator.
    """
    visible = "".join(each for each in text if unicodedata.category(each) != "Cf")
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
    """Return the groups of names that differ only in case or white space."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups["".join(unicodedata.normalize("NFKC", name).casefold().split())].append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def label_name_notes(names: Sequence[str]) -> tuple[str, ...]:
    """Return a note for each kind of name that looks like a mistake.

    Args:
        names: Different names of tags.

    Returns:
        One sentence per kind: names that differ only in case or white space, names that look
        like a list of several tags, and names in quotation marks. Empty if there are none.
    """
    notes = []
    similar = [" and ".join(map(repr, group)) for group in similar_label_names(names)]
    if similar:
        notes.append(f"tags that differ only in case or spaces: {first_few(similar)}")
    lists = [repr(name) for name in names if _SEPARATORS.search(name)]
    if lists:
        notes.append(f"tags that look like a list of several tags: {first_few(lists)}")
    quoted = [repr(name) for name in names if _QUOTED.search(name)]
    if quoted:
        notes.append(f"tags in quotation marks: {first_few(quoted)}")
    return tuple(notes)
