"""The expressions of `rfkeras find`, such as `violin > 0.5 and not drums`.

    expression = term {"or" term}
    term       = factor {"and" factor}
    factor     = "not" factor | "(" expression ")" | tag [comparison number]
    comparison = ">" | ">=" | "<" | "<="

A tag without a comparison means that it applies. Tags of letters, digits and underscores are
written as they are; others, and those named "and", "or", "not" or like a number, in single or
double quotation marks. In a quoted name, its quotation mark is written twice.
"""

from __future__ import annotations

import operator
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import NoReturn

from rfkeras.errors import ConfigError, did_you_mean

_WORDS = ("and", "or", "not")
_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
_TOKEN = re.compile(
    r"""\s*(?:
    (?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))
    |(?P<name>\w+)
    |(?P<quoted>"(?:[^"]|"")*"|'(?:[^']|'')*')
    |(?P<symbol>>=|<=|[<>()])
    |(?P<end>\Z)
    )""",
    re.VERBOSE,
)
_NOT_A_SCORE = 'Compare a tag with a score from 0 to 1, as in "violin > 0.5".'
_DEEPEST = 100  # levels of parentheses and "not", far below Python's limit of recursion


@dataclass(frozen=True)
class TagScore:
    """The score of a tag in one file.

    Attributes:
        score: From 0 to 1.
        applies: Whether the tag applies, by the thresholds with which the file was tagged.
    """

    score: float
    applies: bool


Test = Callable[[Mapping[str, TagScore]], bool]


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    start: int


class Query:
    """An expression over the tags of a file.

    Args:
        text: The expression.

    Attributes:
        text: The expression.
        names: The tags in it, in the order of their first appearance.

    Raises:
        ConfigError: The expression is malformed. The message shows where.

    Example:
        >>> query = Query("violin > 0.5 and not drums")
        >>> query.names
        ('violin', 'drums')
        >>> query({"violin": TagScore(0.7, True), "drums": TagScore(0.2, False)})
        True
    """

    def __init__(self, text: str) -> None:
        self.text = text = unicodedata.normalize("NFC", text)
        self._places: dict[str, int] = {}
        self._tokens = list(_tokens(text))
        self._next = 0
        self._depth = 0
        self._test = self._expression()
        if self._token.kind != "end":
            self._expected('"and" or "or"')
        self.names = tuple(self._places)

    def __call__(self, scores: Mapping[str, TagScore]) -> bool:
        """Return whether a file fulfils the expression.

        Args:
            scores: The scores of the tags in `names`.
        """
        return self._test(scores)

    def check_names(self, known: Collection[str]) -> None:
        """Check that the tags exist.

        Raises:
            ConfigError: A tag is unknown. The message shows where, and the known tags.
        """
        for name, start in self._places.items():
            if name not in known:
                _fail(self.text, start, unknown_tag(name, known))

    @property
    def _token(self) -> _Token:
        return self._tokens[self._next]

    def _takes(self, *texts: str) -> str | None:
        """Step over the next token if it is one of these words or symbols, and return it."""
        token = self._token
        text = token.text.lower()
        if token.kind in ("word", "symbol") and text in texts:
            self._next += 1
            return text
        return None

    def _expression(self) -> Test:
        return self._joined("or", lambda: self._joined("and", self._factor, all), any)

    def _joined(
        self, word: str, part: Callable[[], Test], join: Callable[[Iterable[bool]], bool]
    ) -> Test:
        parts = [part()]
        while self._takes(word):
            parts.append(part())
        return parts[0] if len(parts) == 1 else lambda scores: join(p(scores) for p in parts)

    def _factor(self) -> Test:
        self._depth += 1
        if self._depth > _DEEPEST:
            _fail(self.text, self._token.start, f"More than {_DEEPEST} levels are nested.")
        test = self._nested()
        self._depth -= 1
        return test

    def _nested(self) -> Test:
        if self._takes("not"):
            inner = self._factor()
            return lambda scores: not inner(scores)
        opened = self._token
        if self._takes("("):
            inner = self._expression()
            if not self._takes(")"):
                if self._token.kind == "end":
                    _fail(self.text, opened.start, "This parenthesis is not closed.")
                self._expected('"and", "or" or ")"')
            return inner
        return self._comparison()

    def _comparison(self) -> Test:
        token = self._token
        if token.kind != "name":
            self._expected('a tag, "not" or "("')
        name = token.text
        self._next += 1
        self._places.setdefault(name, token.start)
        sign = self._takes(*_COMPARISONS)
        if sign is None:
            return lambda scores: scores[name].applies
        compare, limit = _COMPARISONS[sign], self._number()
        return lambda scores: compare(scores[name].score, limit)

    def _number(self) -> float:
        token = self._token
        if token.kind != "number":
            self._expected(f'a number after "{self._tokens[self._next - 1].text}"')
        value = float(token.text)
        if not 0 <= value <= 1:
            _fail(self.text, token.start, f"{_NOT_A_SCORE} Received: {token.text}.")
        self._next += 1
        return value

    def _expected(self, what: str) -> NoReturn:
        token = self._token
        received = "the end" if token.kind == "end" else repr(token.text)
        hint = ""
        previous = self._tokens[self._next - 1] if self._next else None
        if token.kind == "number":
            hint = f" {_NOT_A_SCORE}"
        elif token.kind == "name" and previous is not None and previous.kind == "name":
            joined = f"{previous.text} {token.text}"
            hint = f" If {joined!r} is one tag, write it in quotation marks."
        _fail(self.text, token.start, f"Expected {what}, received {received}.{hint}")


def _tokens(text: str) -> Iterable[_Token]:
    """Yield the tokens of an expression; the last is the end."""
    place = 0
    while True:
        match = _TOKEN.match(text, place)
        if match is None:
            _reject_character(text, place)
        kind = str(match.lastgroup)
        word, start = match[kind], match.start(kind)
        if kind == "quoted":
            mark = word[0]
            word, kind = word[1:-1].replace(mark * 2, mark), "name"
            if not word.strip():
                _fail(text, start, "The name of a tag is empty.")
        elif kind == "name" and word.lower() in _WORDS:
            kind = "word"
        yield _Token(kind, word, start)
        if kind == "end":
            return
        place = match.end()


def _reject_character(text: str, place: int) -> NoReturn:
    start = place + len(text[place:]) - len(text[place:].lstrip())
    character = text[start]
    if character in "\"'":
        _fail(text, start, "This quotation mark is not closed.")
    if character in "=!":
        signs = ", ".join(_COMPARISONS)
        _fail(text, start, f'Unknown comparison. Allowed: {signs}; and "not" before a tag.')
    _fail(
        text,
        start,
        f"Unexpected {character!r}. Tags with characters other than letters, digits and _ "
        'need quotation marks, as in "hip-hop".',
    )


def unknown_tag(name: str, known: Collection[str]) -> str:
    """Return the message for a tag that does not exist, with the known ones as written."""
    allowed = ", ".join(as_written(each) for each in sorted(known))
    return f"Unknown tag {name!r}.{did_you_mean(name, known)} Tags: {allowed}."


def as_written(name: str) -> str:
    """Return a tag as it is written in an expression, in quotation marks if needed."""
    tokens = re.fullmatch(r"\w+", name) and list(_tokens(name))
    if tokens and tokens[0].kind == "name":
        return name
    mark = "'" if '"' in name and "'" not in name else '"'
    return mark + name.replace(mark, mark * 2) + mark


def _fail(text: str, start: int, message: str) -> NoReturn:
    """Raise an error that shows a place in an expression.

    Raises:
        ConfigError: Always.
    """
    shown = "".join(c if c.isprintable() else " " for c in text)
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in shown[:start])
    raise ConfigError(f"{message}\n  {shown}\n  {' ' * (start + wide)}^")
