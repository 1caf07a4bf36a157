"""The rooms of the library (its packages): which may import which, and what each contains.

`python -m tests.test_architecture` prints the numbers of the tree; with `--write` it also
writes the table of rooms into CONTRIBUTING.md.
"""

from __future__ import annotations

import ast
import statistics
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CONTRIBUTING = ROOT / "CONTRIBUTING.md"

# A room imports only from rooms above it. Imports inside functions count.
ORDER = (
    ("rfkeras.errors", "exceptions that users may see"),
    ("rfkeras.tasks", "multi-label and single-label, the two tasks"),
    ("rfkeras.utils", "atomic writes, safe reads, locks, progress, tables, plot style"),
    ("rfkeras.audio", "file to samples; decoding in a process that may crash"),
    ("rfkeras.frontend", "presets and the Keras layer from waveform to mel spectrogram"),
    ("rfkeras.layers", "Keras layers of the networks"),
    (
        "rfkeras.rf",
        "exact and effective receptive field of any Keras model, rho to RF and back",
    ),
    ("rfkeras.folding", "batch normalisation, damping and branches folded into convolutions"),
    ("rfkeras.interop", "published PyTorch weights loaded into a model"),
    ("rfkeras.synthesis", "music composed and rendered: the built-in data set"),
    ("rfkeras.datasets", "one file per data set; excerpts, pipelines, packed shards, checks"),
    ("rfkeras.evaluation", "metrics, intervals, thresholds, reports, plots"),
    ("zoo", "one file per architecture; registry, pretrained weights, transfer, recipes"),
    ("rfkeras.config", "options of a run, recipes, flags; no TensorFlow"),
    ("rfkeras.inference", "audio of any length to scores over time, embeddings, outputs"),
    ("rfkeras.export", "SavedModel, TFLite, ONNX, verification"),
    ("rfkeras.training", "the loop around model.fit, one worker or many; the run folder"),
    ("rfkeras.beam", "tagging and packing as Apache Beam pipelines"),
    ("rfkeras.experiments", "sweeps over receptive fields and hyper-parameter searches"),
    ("rfkeras.cli", "one file per command"),
)
ROOMS = tuple(name for name, _ in ORDER)
LOOSE_MODULES = 3
MAX_FILES, MAX_LINES, MEDIAN_LINES = 205, 700, (200, 350)

# Names that two rooms share because the name is right in both, such as the
# command `tag` and the pipeline `tag`.
SHARED_NAMES = frozenset({"convert", "data", "find", "launch", "pack", "plots", "sweep", "tag"})

# Known exceptions. These lists must not grow.
KNOWN_UPWARD = frozenset[tuple[str, str]]()
KNOWN_CYCLES = frozenset[str]()


def module_files(root: Path = ROOT) -> dict[str, Path]:
    """Return the files of the library by module name."""
    files = {}
    for folder in ("rfkeras", "zoo"):
        for path in sorted((root / folder).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


def imports_of(path: Path, module: str, modules: dict[str, Path]) -> set[str]:
    """Return the modules of the library that a file imports, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            assert node.module is not None
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                names.append(full if full in modules else node.module)
        found.update(name for name in names if name in modules)
    return found - {module}


def import_graph(root: Path = ROOT) -> dict[str, set[str]]:
    """Return for each module the modules that it imports."""
    modules = module_files(root)
    return {name: imports_of(path, name, modules) for name, path in modules.items()}


def room_of(module: str) -> str | None:
    """Return the room of a module; None for the package `rfkeras` itself."""
    if module == "rfkeras":
        return None
    parts = module.split(".")
    return "zoo" if parts[0] == "zoo" else ".".join(parts[:2])


def upward_imports(graph: dict[str, set[str]]) -> set[tuple[str, str]]:
    """Return the imports that point to a room below."""
    place = {room: i for i, room in enumerate(ROOMS)}
    return {
        (module, target)
        for module, targets in graph.items()
        for target in targets
        if room_of(module) is not None
        and room_of(target) is not None
        and place[str(room_of(module))] < place[str(room_of(target))]
    }


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return the groups of modules that import each other, by Tarjan's algorithm."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups: list[list[str]] = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for target in graph[module]:
            if target not in index:
                visit(target)
                low[module] = min(low[module], low[target])
            elif target in stack:
                low[module] = min(low[module], index[target])
        if low[module] == index[module]:
            group = [stack.pop()]
            while group[-1] != module:
                group.append(stack.pop())
            if len(group) > 1:
                groups.append(sorted(group))

    for module in graph:
        if module not in index:
            visit(module)
    return sorted(groups)


def room_arrows(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """Return for each room the rooms that it imports."""
    arrows: dict[str, set[str]] = defaultdict(set)
    for module, targets in graph.items():
        for target in targets:
            rooms = room_of(module), room_of(target)
            if None not in rooms and rooms[0] != rooms[1]:
                arrows[str(rooms[0])].add(str(rooms[1]))
    return arrows


def contributing_table(graph: dict[str, set[str]]) -> str:
    """Return the Markdown table of rooms that CONTRIBUTING.md shows."""
    arrows = room_arrows(graph)
    rows = ["| room | what it does | imports |", "|---|---|---|"]
    for room, purpose in ORDER:
        used = [name for name in ROOMS if name in arrows[room]]
        names = ", ".join(f"`{name.removeprefix('rfkeras.')}`" for name in used)
        rows.append(f"| `{room.replace('.', '/')}` | {purpose} | {names} |")
    return "\n".join(rows) + "\n"


def with_table(text: str, table: str) -> str:
    """Return CONTRIBUTING.md's text with that table of rooms."""
    start = text.index("| room |")
    end = text.index("\n\n", start)
    return text[:start] + table.rstrip("\n") + text[end:]


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    return import_graph()


def test_every_module_is_in_a_room(graph):
    assert {room_of(module) for module in graph} - {None} == set(ROOMS)


def test_no_import_points_to_a_room_below(graph):
    assert upward_imports(graph) == KNOWN_UPWARD


def test_no_cycle_between_modules(graph):
    assert {" ".join(group) for group in cycles(graph)} == KNOWN_CYCLES


def test_a_cycle_is_found():
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [["b", "c"]]


def test_an_upward_import_inside_a_function_is_found(tmp_path):
    for name, text in {
        "rfkeras/errors.py": "def f():\n    from rfkeras.cli import main\n",
        "rfkeras/cli/main.py": "",
        "zoo/__init__.py": "",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = upward_imports(import_graph(tmp_path))
    assert found == {("rfkeras.errors", "rfkeras.cli.main")}


def test_number_and_length_of_files():
    lengths = {
        name: len(path.read_text().splitlines()) for name, path in module_files().items()
    }
    assert len(lengths) <= MAX_FILES
    assert max(lengths.values()) <= MAX_LINES, max(lengths, key=lengths.__getitem__)
    written = [n for name, n in lengths.items() if module_files()[name].name != "__init__.py"]
    assert MEDIAN_LINES[0] <= statistics.median(written) <= MEDIAN_LINES[1]


def test_few_loose_modules():
    loose = [path.stem for path in (ROOT / "rfkeras").glob("*.py") if path.stem != "__init__"]
    assert len(loose) <= LOOSE_MODULES, loose


def test_a_name_belongs_to_one_module():
    stems = Counter(path.stem for path in module_files().values() if path.stem != "__init__")
    assert {stem for stem, count in stems.items() if count > 1} == SHARED_NAMES


def test_contributing_shows_the_rooms(graph):
    assert contributing_table(graph) in CONTRIBUTING.read_text(encoding="utf-8")


def main() -> None:
    graph = import_graph(ROOT)
    lengths = [len(path.read_text().splitlines()) for path in module_files().values()]
    print(f"{len(lengths)} files, {sum(lengths):,} lines, median {statistics.median(lengths)}")
    print(f"{sum(map(len, graph.values()))} imports between modules")
    print(f"{sum(map(len, room_arrows(graph).values()))} arrows between rooms")
    print(f"{len(cycles(graph))} cycles, of {[len(group) for group in cycles(graph)]} modules")
    for pair in sorted(upward_imports(graph)):
        print("upward:", *pair)
    for group in cycles(graph):
        print("cycle:", *group)
    if "--write" in sys.argv:
        text = CONTRIBUTING.read_text(encoding="utf-8")
        CONTRIBUTING.write_text(with_table(text, contributing_table(graph)), encoding="utf-8")


if __name__ == "__main__":
    main()
