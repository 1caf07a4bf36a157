"""Show that the tests can fail: break the code in a few hundred places and run them.

    python -m tools.mutants [--number 300] [--workers 2]  # draw, run, print the table
    python -m tools.mutants --listed                      # the faults of listed_mutants.py
    python -m tools.mutants --only TEXT --wide            # survivors again, with more tests
    python -m tools.mutants --only TEXT --tests FILE      # survivors again, with these tests

Each mutant is one small change of the source (`tools/mutations.py`). The tool runs the tests
that enter the changed function, those of its own test file first, until one fails. First it
runs all quick tests once, to learn which test enters which function. Each mutant gets a process
that is forked after TensorFlow was imported, because that import takes longer than most tests.
Each worker has a copy of the repository, so tests that start processes see the fault too.

Results go to a file as they come. Run the command again to continue after an interruption.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any

from tools.listed_mutants import LISTED
from tools.mutations import Mutant, sample

ROOT = Path(__file__).parents[1]
ROOMS = (
    "rfkeras/audio",
    "rfkeras/frontend",
    "rfkeras/layers",
    "rfkeras/datasets",
    "rfkeras/evaluation",
    "zoo",
    "rfkeras/inference",
    "rfkeras/training",
)
TESTS = tuple(f"tests/{room.removeprefix('rfkeras/')}" for room in ROOMS)
# Tests of other rooms, and of the command line, for the survivors.
WIDE = {
    "rfkeras/audio": ("tests/robustness/odd_files", "tests/cli/test_tag.py"),
    "rfkeras/frontend": ("tests/export/test_portable.py", "tests/zoo"),
    "rfkeras/layers": ("tests/zoo", "tests/folding", "tests/rf"),
    "rfkeras/datasets": ("tests/cli/test_data.py", "tests/cli/test_train.py"),
    "rfkeras/evaluation": ("tests/cli/test_evaluate.py",),
    "zoo": ("tests/robustness/trust", "tests/cli/test_convert.py", "tests/interop"),
    "rfkeras/inference": ("tests/cli/test_tag.py", "tests/cli/test_embed.py", "tests/export"),
    "rfkeras/training": ("tests/cli/test_train.py", "tests/training"),
}
QUICK = "not slow and not long and not gpu"
# Imported before the processes are forked. None of them starts a thread.
PACKAGES = ("tensorflow", "keras", "kapre", "librosa", "sklearn.metrics", "matplotlib.pyplot")
SECONDS, WIDE_SECONDS = 40.0, 900.0  # of tests for each mutant
SETUP = "setup"


class Recorder:
    """Pytest plugin: records the functions that each test enters, and its time.

    Functions entered by fixtures count for all tests of the file, because a fixture is shared.
    """

    def __init__(self, root: Path):
        self.root = f"{root}/"
        self.tests: dict[str, dict[str, Any]] = {}
        self.fixtures: dict[str, set[str]] = defaultdict(set)
        self._entered: set[tuple[str, str]] = set()
        self._begun = 0.0

    def _trace(self, frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        if code.co_filename.startswith(self.root):
            self._entered.add((code.co_filename, code.co_qualname))

    def _functions(self) -> set[str]:
        entered, self._entered = self._entered, set()
        return {
            f"{path.removeprefix(self.root)}::{name}"
            for path, name in entered
            if "/tests/" not in path
        }

    def pytest_runtest_logstart(self) -> None:
        self._entered = set()
        self._begun = time.monotonic()
        threading.settrace(self._trace)
        sys.settrace(self._trace)

    def pytest_runtest_logreport(self, report: Any) -> None:
        file = report.nodeid.partition("::")[0]
        if report.when == SETUP:
            self.fixtures[file] |= self._functions()
            self._begun = time.monotonic()
        elif report.when == "call" and report.passed:
            seconds = round(time.monotonic() - self._begun, 3)
            functions = sorted(self._functions())
            self.tests[report.nodeid] = {"seconds": seconds, "functions": functions}

    def pytest_runtest_logfinish(self) -> None:
        sys.settrace(None)
        threading.settrace(None)  # type: ignore[arg-type]


class FirstFailure:
    """Pytest plugin: runs the tests in a given order, and remembers the first that fails."""

    def __init__(self, tests: Sequence[str]):
        self.rank = {test: number for number, test in enumerate(tests)}
        self.failed = ""

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed and not self.failed:
            self.failed = report.nodeid

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed and not self.failed:
            self.failed = f"{report.nodeid} (import)"

    def sort(self, items: list[Any]) -> None:
        items.sort(key=lambda item: self.rank.get(item.nodeid, len(self.rank)))


class Coverage:
    """Knows which quick tests enter which function."""

    def __init__(self, record: dict[str, Any]):
        self.seconds: dict[str, float] = {}
        self.by_function: dict[str, set[str]] = defaultdict(set)
        self.by_file: dict[str, set[str]] = defaultdict(set)
        for test, entry in record["tests"].items():
            self.seconds[test] = entry["seconds"]
            shared = record["fixtures"].get(test.partition("::")[0], ())
            for function in (*entry["functions"], *shared):
                self.by_function[function].add(test)
                self.by_file[function.partition("::")[0]].add(test)

    def _unknown(self, file: str) -> list[str]:
        """Return the quick tests of a file that were written after the recording."""
        if not (ROOT / file).is_file():
            return []
        known = {test.partition("[")[0] for test in self.seconds}
        body = ast.parse((ROOT / file).read_text(encoding="utf-8")).body
        if any(isinstance(node, ast.Assign) and is_slow(node) for node in body):
            return []
        return [
            f"{file}::{node.name}"
            for node in body
            if isinstance(node, ast.FunctionDef)
            and node.name.startswith("test_")
            and not is_slow(node)
            and f"{file}::{node.name}" not in known
        ]

    def tests_for(self, mutant: Mutant) -> list[str]:
        """Return the tests for a mutant, those of its own test file first, then the fastest."""
        entering = self.by_function.get(f"{mutant.path}::{mutant.function}", set())
        if not entering:
            entering = self.by_file.get(mutant.path, set())
        own = mirror(mutant.path)
        chosen = entering | {test for test in self.seconds if test.startswith(own)}

        def order(test: str) -> tuple[bool, float]:
            return not test.startswith(own), self.seconds[test]

        total, tests = 0.0, self._unknown(f"{own}.py")
        for test in sorted(chosen, key=order):
            total += self.seconds[test] + 0.02
            if total > SECONDS:
                break
            tests.append(test)
        files = {test.partition("::")[0]: None for test in tests}
        return [test for file in files for test in tests if test.startswith(f"{file}::")]


def is_slow(node: ast.AST) -> bool:
    """Return whether a test, or a file with `pytestmark`, is left out of the quick tests."""
    text = " ".join(ast.unparse(mark) for mark in getattr(node, "decorator_list", [node]))
    return any(f"mark.{name}" in text for name in ("gpu", "long", "slow"))


def wide_tests(mutant: Mutant) -> list[str]:
    """Return the whole test file of a module, slow tests too, and tests of other rooms."""
    own = f"{mirror(mutant.path)}.py"
    rest = next(
        (tests for room, tests in WIDE.items() if mutant.path.startswith(f"{room}/")), ()
    )
    return [*([own] if (ROOT / own).is_file() else []), *rest]


def mirror(path: str) -> str:
    """Return the test file of a module: tests/ROOM/test_MODULE.py."""
    folder, _, name = path.removeprefix("rfkeras/").rpartition("/")
    return f"tests/{folder}/test_{name}"


def import_packages() -> None:
    """Import what all tests need, and check that the process can still be forked."""
    os.environ.update(
        TF_CPP_MIN_LOG_LEVEL="3",
        TF_NUM_INTRAOP_THREADS="1",
        OPENBLAS_NUM_THREADS="1",
        OMP_NUM_THREADS="1",
    )
    for name in (*PACKAGES, "pytest"):
        import_module(name)
    if any(name.partition(".")[0] in ("rfkeras", "zoo") for name in sys.modules):
        raise RuntimeError("rfkeras is imported already, so its source cannot be changed.")
    tasks = Path("/proc/self/task").iterdir()
    threads = [(task / "comm").read_text(encoding="utf-8").strip() for task in tasks]
    # pyarrow's memory allocator handles forks: it starts its thread again in the child.
    if len([name for name in threads if name != "jemalloc_bg_thd"]) != 1:
        raise RuntimeError(f"Only a process with one thread can be forked. Threads: {threads}.")


def copy_tree(target: Path) -> None:
    """Copy the files of the repository that git knows."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    ).stdout.decode()
    shutil.rmtree(target, ignore_errors=True)
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def pytest_in(tree: Path, arguments: Sequence[str], plugin: object) -> int:
    """Run pytest in this process, on the code of a tree."""
    import pytest

    os.chdir(tree)
    os.environ["PYTHONPATH"] = str(tree)
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    os.environ.setdefault("RFKERAS_SHARED", str(ROOT.parent / "shared"))
    sys.dont_write_bytecode = True
    sys.path[:] = [str(tree), *(path for path in sys.path if path not in ("", str(ROOT)))]
    for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
        del sys.modules[name]
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:randomly"]
    return int(pytest.main([*options, *arguments], plugins=[plugin]))


def in_process(work: Any, output: Path, limit: float) -> tuple[int | None, float]:
    """Run a function in a forked process; return (its status or None after the limit, time)."""
    begun = time.monotonic()
    process = os.fork()
    if not process:
        os.setsid()
        with output.open("wb") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        status = 1
        try:
            status = work()
        finally:
            sys.stdout.flush()
            os._exit(status)
    status = None
    while time.monotonic() - begun < limit:
        done, result = os.waitpid(process, os.WNOHANG)
        if done:
            status = os.waitstatus_to_exitcode(result)
            break
        time.sleep(0.05)
    else:
        os.killpg(process, signal.SIGKILL)
        os.waitpid(process, 0)
    return status, round(time.monotonic() - begun, 1)


def record_coverage(cache: Path, work: Path) -> Coverage:
    """Run the quick tests once, or read what an earlier run recorded."""
    if not cache.is_file():
        tree = work / "coverage"
        copy_tree(tree)

        def run() -> int:
            plugin = Recorder(tree)
            pytest_in(tree, ["-m", QUICK, "--timeout", "600", *TESTS], plugin)
            fixtures = {file: sorted(names) for file, names in plugin.fixtures.items()}
            partial = cache.with_suffix(".partial")
            partial.write_text(json.dumps({"tests": plugin.tests, "fixtures": fixtures}))
            partial.replace(cache)
            return 0

        print("Recording which test enters which function ...", file=sys.stderr, flush=True)
        log = work / "coverage.log"
        in_process(run, log, 7200)
        if not cache.is_file():
            raise SystemExit(f"The tests did not end. See {log}.")
        print(log.read_text().splitlines()[-1], file=sys.stderr, flush=True)
    return Coverage(json.loads(cache.read_text()))


@dataclass(frozen=True)
class Result:
    """What became of a mutant.

    Attributes:
        name: Name of the mutant.
        room: Its package.
        outcome: "killed", "survived", "timeout" (counts as killed) or "untested".
        by: The test that failed.
        tests: Number of tests that were selected.
        seconds: Time taken.
        diff: The change.
    """

    name: str
    room: str
    outcome: str
    by: str
    tests: int
    seconds: float
    diff: str


def try_mutant(tree: Path, mutant: Mutant, tests: Sequence[str], limit: float) -> Result:
    """Break the tree, run the tests, and mend the tree."""
    file = tree / mutant.path
    original = file.read_text(encoding="utf-8")
    broken = mutant.apply(original)
    ast.parse(broken)
    before = original.encode()[mutant.start : mutant.end].decode()
    diff = f"{mutant.path}:{mutant.line} ({mutant.kind})\n- {before}\n+ {mutant.replacement}"
    failed = tree.parent / f"{tree.name}.failed"
    failed.unlink(missing_ok=True)

    def run() -> int:
        plugin = FirstFailure(tests)
        status = pytest_in(
            tree, ["-x", "-m", "not long", "--timeout", "120", *tests], Ordered(plugin)
        )
        failed.write_text(plugin.failed)
        return status

    room = next((room for room in ROOMS if mutant.path.startswith(f"{room}/")), "other")
    if not tests:
        return Result(mutant.name, room, "untested", "", 0, 0.0, diff)
    file.write_text(broken, encoding="utf-8")
    try:
        status, seconds = in_process(run, tree.parent / f"{tree.name}.log", limit)
    finally:
        file.write_text(original, encoding="utf-8")
    by = failed.read_text() if failed.is_file() else ""
    outcome = {0: "survived", None: "timeout"}.get(status, "killed")
    return Result(mutant.name, room, outcome, by, len(tests), seconds, diff)


class Ordered:
    """Pytest plugin: sorts the tests after all other plugins, and stops at a failure."""

    def __init__(self, first_failure: FirstFailure):
        self.pytest_runtest_logreport = first_failure.pytest_runtest_logreport
        self.pytest_collectreport = first_failure.pytest_collectreport
        self._sort = first_failure.sort

    def pytest_collection_finish(self, session: Any) -> None:
        self._sort(session.items)


def work_on(
    number: int, mutants: Iterable[Mutant], coverage: Coverage, options: argparse.Namespace
) -> None:
    """Try mutants one after the other, and append the results to the file."""
    tree = options.work / f"tree{number}"
    copy_tree(tree)
    for mutant in mutants:
        if options.wide or options.tests:
            tests = options.tests or wide_tests(mutant)
            result = try_mutant(tree, mutant, tests, WIDE_SECONDS)
        else:
            tests = coverage.tests_for(mutant)
            expected = sum(coverage.seconds.get(test, 1.0) for test in tests)
            result = try_mutant(tree, mutant, tests, 120 + 8 * expected)
        with options.results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(result)) + "\n")
        print(f"{result.outcome:9} {result.seconds:6.1f} s  {mutant.name}", flush=True)


def table(results: Sequence[Result]) -> str:
    """Return a Markdown table of the results for each room."""
    lines = [
        "| Package | Mutants | Killed | Survived | Share killed |",
        "|---|---|---|---|---|",
    ]
    rooms = [room for room in (*ROOMS, "other") if any(r.room == room for r in results)]
    for room in (*rooms, "all"):
        own = [result for result in results if room in (result.room, "all")]
        killed = sum(result.outcome in ("killed", "timeout") for result in own)
        share = killed / len(own) if own else 0.0
        lines.append(
            f"| {room} | {len(own)} | {killed} | {len(own) - killed} | {100 * share:.0f} % |"
        )
    return "\n".join(lines)


def read_results(path: Path) -> dict[str, Result]:
    """Return the last result of each mutant."""
    if not path.is_file():
        return {}
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {row["name"]: Result(**row) for row in rows}


def find_listed() -> list[tuple[str, Mutant, tuple[str, ...]]]:
    """Return the listed mutants as (title, mutant, tests).

    Raises:
        SystemExit: A replacement does not fit the source, or a test file is missing.
    """
    found, wrong = [], []
    for listed in LISTED:
        text = (ROOT / listed.path).read_text(encoding="utf-8")
        if text.count(listed.old) != 1:
            wrong.append(
                f"{listed.title}: the text is {text.count(listed.old)} times in the file"
            )
            continue
        missing = [t for t in listed.tests if not (ROOT / t.partition("::")[0]).is_file()]
        if missing:
            wrong.append(f"{listed.title}: there is no {', '.join(missing)}")
            continue
        before = text[: text.index(listed.old)]
        start = len(before.encode())
        mutant = Mutant(
            listed.path,
            before.count("\n") + 1,
            listed.title,
            "",
            start,
            start + len(listed.old.encode()),
            listed.new,
        )
        found.append((listed.title, mutant, listed.tests))
    if wrong:
        raise SystemExit("tools/listed_mutants.py no longer fits:\n  " + "\n  ".join(wrong))
    return found


def run_listed(options: argparse.Namespace) -> int:
    """Run the listed mutants; return 1 if one survives."""
    listed = [entry for entry in find_listed() if options.only in entry[0]]
    import_packages()
    tree = options.work / "listed"
    copy_tree(tree)
    survived = []
    for title, mutant, tests in listed:
        result = try_mutant(tree, mutant, tests, 600)
        killed = result.outcome == "killed" and "(import)" not in result.by
        if not killed:
            survived.append(title)
        print(
            f"{'killed' if killed else 'SURVIVED':9} {title}: {result.by or result.outcome}",
            flush=True,
        )
    print(f"{len(listed) - len(survived)} of {len(listed)} listed mutants killed")
    return 1 if survived else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--listed", action="store_true", help="run the listed mutants")
    parser.add_argument("--number", type=int, default=300, help="mutants to draw")
    parser.add_argument("--seed", type=int, default=16)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", default="", help="mutants whose name contains this")
    parser.add_argument("--wide", action="store_true", help="survivors again, with more tests")
    parser.add_argument("--tests", nargs="+", help="survivors again, with these tests")
    parser.add_argument("--again", action="store_true", help="survivors again, after new tests")
    parser.add_argument("--work", type=Path, default=ROOT / ".mutants")
    parser.add_argument("--table", action="store_true", help="only print the results")
    options = parser.parse_args(arguments)
    options.work = options.work.absolute()
    options.work.mkdir(parents=True, exist_ok=True)
    options.results = options.work / "results.jsonl"
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if options.listed:
        return run_listed(options)
    mutants = [
        m for m in sample(ROOT, ROOMS, options.number, options.seed) if options.only in m.name
    ]
    done = read_results(options.results)
    again = ("survived", "untested") if options.wide or options.again or options.tests else ()
    left = [m for m in mutants if m.name not in done or done[m.name].outcome in again]
    if again:
        left = [m for m in left if m.name in done]
    if left and not options.table:
        import_packages()
        coverage = record_coverage(options.work / "coverage.json", options.work)
        workers = []
        for number in range(min(options.workers, len(left))):
            process = os.fork()
            if not process:
                status = 1
                try:
                    work_on(number, left[number :: options.workers], coverage, options)
                    status = 0
                finally:
                    os._exit(status)
            workers.append(process)
        for process in workers:
            os.waitpid(process, 0)
    done = read_results(options.results)
    results = [done[m.name] for m in mutants if m.name in done]
    for result in results:
        if result.outcome in ("survived", "untested"):
            print(f"\n{result.outcome}, {result.tests} tests: {result.diff}")
    print(f"\n{table(results)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
