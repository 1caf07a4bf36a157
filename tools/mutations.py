"""Small faults for a source file: which are possible, and the text with one of them.

Only code that a test could notice is changed: no docstrings, type hints, messages, error texts,
strings or logging.
"""

from __future__ import annotations

import ast
import copy
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
}
# Calls whose arguments are read by people, and calls that only report.
MESSAGES = {
    "count", "debug", "flag", "info", "print", "print_status", "report", "unknown_name", "warn",
    "warning", "deprecated", "TypeVar", "cast", "update_label",
}  # fmt: skip
ERRORS = ("Error", "Exception", "Interrupt", "Interrupted", "WorkerLost")


@dataclass(frozen=True)
class Mutant:
    """One possible fault.

    Attributes:
        path: The file, relative to the root of the repository.
        line: The line, counted from 1.
        kind: What is changed.
        function: Qualified name of the function around it; "" outside of functions.
        start: Offset of the replaced text in bytes.
        end: Offset of its end.
        replacement: The new text.
    """

    path: str
    line: int
    kind: str
    function: str
    start: int
    end: int
    replacement: str

    @property
    def name(self) -> str:
        """A name that does not change while the file stays the same."""
        return f"{self.path}:{self.line}:{self.start}:{self.kind}:{self.replacement[:60]}"

    def apply(self, text: str) -> str:
        """Return the source text with the fault."""
        source = text.encode()
        return (source[: self.start] + self.replacement.encode() + source[self.end :]).decode()


class Finder:
    """Finds the possible faults of one file.

    Args:
        path: The file, relative to the root.
        text: Its source.
    """

    def __init__(self, path: str, text: str):
        self.path = path
        self.text = text
        self.lines = [0]
        for line in text.encode().splitlines(keepends=True):
            self.lines.append(self.lines[-1] + len(line))
        self.found: list[Mutant] = []

    def find(self) -> list[Mutant]:
        """Return all faults in the order of the source."""
        self._body(ast.parse(self.text).body, "", in_function=False)
        return self.found

    def _add(self, node: ast.AST, kind: str, function: str, new: ast.AST | str) -> None:
        if isinstance(new, str):
            text = new
        else:
            text = ast.unparse(new)
            if isinstance(new, ast.expr) and not isinstance(new, ast.Constant):
                text = f"({text})"
        start = self.lines[node.lineno - 1] + node.col_offset  # type: ignore[attr-defined]
        end = self.lines[node.end_lineno - 1] + node.end_col_offset  # type: ignore[attr-defined]
        line = node.lineno  # type: ignore[attr-defined]
        self.found.append(Mutant(self.path, line, kind, function, start, end, text))

    def _body(self, body: list[ast.stmt], function: str, *, in_function: bool) -> None:
        for statement in body:
            self._statement(statement, function, in_function)

    def _statement(self, node: ast.stmt, function: str, in_function: bool) -> None:
        if isinstance(node, ast.Import | ast.ImportFrom | ast.Assert | ast.Global):
            return
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            local = f"{function}.<locals>" if in_function else function
            name = f"{local}.{node.name}" if local else node.name
            if isinstance(node, ast.ClassDef):
                self._body(node.body, name, in_function=False)
                return
            for default in [*node.args.defaults, *node.args.kw_defaults]:
                if default is not None:
                    self._expression(default, name)
            self._body(node.body, name, in_function=True)
            return
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Expr):
            if isinstance(node.value, ast.Call) and not _is_message(node.value):
                self._add(node, "statement removed", function, "pass")
                self._expression(node.value, function)
            elif isinstance(node.value, ast.Yield | ast.YieldFrom | ast.Await):
                self._expression(node.value, function)
            return
        if isinstance(node, ast.Raise):
            self._add(node, "raise removed", function, "pass")
            return
        if isinstance(node, ast.Return) and node.value is not None:
            constant = isinstance(node.value, ast.Constant) and node.value.value is None
            if not constant and in_function:
                self._add(node, "returns None", function, "return None")
        if isinstance(node, ast.AugAssign):
            self._add(node, "statement removed", function, "pass")
        if isinstance(node, ast.Assign) and all(
            isinstance(target, ast.Attribute | ast.Subscript) for target in node.targets
        ):
            self._add(node, "statement removed", function, "pass")
        if isinstance(node, ast.Continue):
            self._add(node, "break for continue", function, "break")
        if isinstance(node, ast.If | ast.While):
            self._add(node.test, "condition negated", function, _negated(node.test))
        for child in _children(node):
            if isinstance(child, ast.stmt):
                self._statement(child, function, in_function)
            elif isinstance(child, ast.ExceptHandler | ast.match_case):
                self._body(child.body, function, in_function=in_function)
            elif isinstance(child, ast.withitem):
                self._expression(child.context_expr, function)
            elif isinstance(child, ast.expr):
                self._expression(child, function)

    def _expression(self, node: ast.AST, function: str) -> None:
        if isinstance(node, ast.JoinedStr) or _is_message(node):
            return  # positions in formatted strings are wrong in Python 3.11
        for kind, new in _changes(node):
            self._add(node, kind, function, new)
        for child in ast.iter_child_nodes(node):
            self._expression(child, function)


def _children(node: ast.stmt) -> Iterator[ast.AST]:
    """Yield the parts of a statement, without type hints."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "type_comment"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield child


def _is_message(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    called = node.func
    name = getattr(called, "attr", getattr(called, "id", ""))
    return name in MESSAGES or name.endswith(ERRORS)


def _negated(test: ast.expr) -> ast.expr:
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return test.operand
    return ast.UnaryOp(ast.Not(), test)


def _changed(node: ast.AST, change: Callable[[ast.AST], None]) -> ast.AST:
    new = copy.deepcopy(node)
    change(new)
    return new


def _changes(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Yield (kind, new expression) for an expression."""
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        for operator in COMPARISONS[type(node.ops[0])]:
            yield "comparison", ast.Compare(node.left, [operator()], node.comparators)
    elif isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
        if not any(_is_text(side) for side in (node.left, node.right)):
            yield "arithmetic", ast.BinOp(node.left, ARITHMETIC[type(node.op)](), node.right)
    elif isinstance(node, ast.BoolOp):
        other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield "and/or", ast.BoolOp(other, node.values)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        if not isinstance(node.operand, ast.Constant):
            yield "negation removed", node.operand
    elif isinstance(node, ast.IfExp):
        yield "condition negated", ast.IfExp(_negated(node.test), node.body, node.orelse)
    elif isinstance(node, ast.comprehension):
        return
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield "constant", ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int):
        yield "constant", ast.Constant(node.value + 1)
        if node.value > 0:
            yield "constant", ast.Constant(node.value - 1)
    elif isinstance(node, ast.Constant) and isinstance(node.value, float):
        yield "constant", ast.Constant(node.value + 1.0)
    elif isinstance(node, ast.Call) and len(node.args) >= 2:
        first, second = node.args[:2]
        starred = isinstance(first, ast.Starred) or isinstance(second, ast.Starred)
        symmetric = isinstance(node.func, ast.Name) and node.func.id in ("max", "min")
        if not starred and not symmetric and ast.dump(first) != ast.dump(second):
            arguments = [second, first, *node.args[2:]]
            yield "arguments swapped", ast.Call(node.func, arguments, node.keywords)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def sample(root: Path, rooms: tuple[str, ...], number: int, seed: int) -> list[Mutant]:
    """Draw mutants of some packages, at most one of each line, in random order.

    A prefix of the list is itself a random sample.

    Args:
        root: The repository.
        rooms: Folders relative to the root.
        number: Mutants to draw. Every room gets a share that grows with the square root of
            its possible mutants, so that small rooms are not left out.
        seed: The same seed draws the same mutants from the same source.
    """
    rng = random.Random(seed)
    drawn: dict[str, list[Mutant]] = {}
    for room in rooms:
        lines: dict[tuple[str, int], list[Mutant]] = {}
        for file in sorted((root / room).rglob("*.py")):
            path = file.relative_to(root).as_posix()
            for mutant in Finder(path, file.read_text(encoding="utf-8")).find():
                lines.setdefault((path, mutant.line), []).append(mutant)
        drawn[room] = [rng.choice(mutants) for mutants in lines.values()]
        rng.shuffle(drawn[room])
    total = sum(len(mutants) ** 0.5 for mutants in drawn.values())
    chosen: list[Mutant] = []
    for mutants in drawn.values():
        chosen += mutants[: round(number * len(mutants) ** 0.5 / total)]
    rng.shuffle(chosen)
    return chosen
