"""Run the code and check the commands in README.md and in the pages of docs/."""

import csv
import json
import re
import shlex
import shutil
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import fields
from io import StringIO

import numpy as np
import pytest
import soundfile
import yaml

from rfkeras.experiments.sweep_report import Point, markdown_tables
from tests.conftest import FIXTURES
from tests.helpers import layouts
from tests.helpers.processes import ROOT, run
from tests.test_readme import check_flags

DOCS = ROOT / "docs"
PAGES = sorted(path.name for path in DOCS.glob("*.md"))
SCRIPTS = {"train.py": "train", "evaluate.py": "evaluate", "tune.py": "tune"}

# Parts of examples that need too much time or data, and what the tests run instead.
REPLACED = {
    "pytorch_checkpoints.md": {
        '"model.npz"': repr(str(ROOT / "tests/fixtures/cp_resnet_rho5_w8_c1_n20.npz"))
    },
    "datasets.md": {'"/data/mtg-jamendo-dataset"': '"mtg-jamendo-dataset"'},
    "gm_instruments.md": {
        "generate(default_cache_dir())": "generate(default_cache_dir(), size=2)",
        'Path("/data"), size=20_000': 'Path("data"), size=3',
    },
    "tagging.md": {'"scores.tsv"])': '"scores.tsv", "--engine", "tensorflow"])'},
    "your_own.md": {"n_trials=20": "n_trials=1"},
}
RUN_BY = {"export.md": "tests/cli/test_export.py"}  # its conversions are slow
# The part of a line before a pipe or a redirection, which may be inside quotation marks.
COMMAND = re.compile(r"""(?:"[^"]*"|'[^']*'|\s(?![|>&])|[^\s"'])*""")
NOT_RUN = re.compile(r"<!-- not run: .+ -->\s*$")


def text_of(page):
    return (DOCS / page).read_text(encoding="utf-8")


def blocks(page, language):
    """Yield the fenced blocks of a page, except those after <!-- not run: REASON -->."""
    text = text_of(page)
    for found in re.finditer(r"^```(\w*)\n(.*?)^```$", text, flags=re.S | re.M):
        if found[1] == language and not NOT_RUN.search(text[: found.start()]):
            yield found[2]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    """Create the files that the examples use: a model, a run, a song, data sets."""
    import zoo
    from rfkeras.frontend import create_frontend

    folder = tmp_path_factory.mktemp("workshop")
    rng = np.random.default_rng(0)
    song = np.sin(np.cumsum(rng.uniform(0.02, 0.2, 60)).repeat(2205) * np.arange(132300))
    for suffix in ("ogg", "wav", "flac"):
        soundfile.write(folder / f"song.{suffix}", 0.1 * song, 22050)
    for name, labels in (
        ("my.keras", ("flute", "voice", "organ")),
        ("runs/NAME/model.keras", layouts.INSTRUMENTS),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        model = zoo.create_model(
            "resnet_rf_tiny",
            label_names=tuple(labels),
            rho=1,
            width=4,
            frontend=create_frontend("perceptual_mel_22k", fixed_floor=True),
            initialization="he",
        )
        model.save(folder / name)
    for i, name in enumerate(("birds", "rain", "voice")):
        (folder / "mysounds" / name).mkdir(parents=True)
        for clip in range(8):
            tone = 0.1 * np.sin((0.05 + 0.3 * i) * np.arange(33075 + clip))
            noisy = tone + 0.01 * rng.normal(size=tone.size)
            soundfile.write(folder / "mysounds" / name / f"{clip}.wav", noisy, 22050)
    shutil.copytree(folder / "mysounds/birds", folder / "annotated")
    rows = [f"{i}.wav,0,1,{('flute', 'voice')[i % 2]}" for i in range(8)]
    (folder / "annotated/events.csv").write_text("\n".join(["file,start_s,stop_s,tag", *rows]))
    shutil.copy(FIXTURES / "cp_resnet_rho5_w8_c1_n20.npz", folder / "model.npz")
    layouts.write_jamendo(folder / "mtg-jamendo-dataset")
    layouts.write_jamendo_audio(folder / "mtg-jamendo-dataset/audio")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in PAGES if page not in RUN_BY and any(blocks(page, "python"))]
)
def test_the_python_examples_of_a_page_run(page, workshop, tmp_path, monkeypatch):
    shutil.copytree(workshop, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RFKERAS_CACHE_DIR", str(tmp_path / "cache"))
    code = "\n".join(blocks(page, "python"))
    for original, replacement in REPLACED.get(page, {}).items():
        assert original in code
        code = code.replace(original, replacement)
    out = StringIO()
    with redirect_stdout(out), redirect_stderr(StringIO()):
        exec(compile(code, page, "exec"), {"__name__": page})
    printed = out.getvalue().splitlines()
    for expected in re.findall(r"^print\(.*\)  # (\(?[\w, .]+?\)?)(?::.*)?$", code, flags=re.M):
        if re.match(r"[\d(T]|logits", expected):
            assert expected in printed, expected


@pytest.mark.slow
def test_parts_and_data_of_a_file_train_by_command(workshop, tmp_path):
    """Run the commands of docs/your_own.md with the file that the page shows."""
    page = "your_own.md"
    parts, data = (
        next(block for block in blocks(page, "python") if text in block)
        for text in ("# my_parts.py", '@rfkeras.register_dataset("events")')
    )
    (tmp_path / "my_parts.py").write_text(parts + data.partition("\n\n\nprint(")[0] + "\n")
    shutil.copytree(workshop / "annotated", tmp_path / "annotated")
    with_parts, check, with_data = calls(page)
    assert (with_parts[0], check[:2], with_data[0]) == ("train", ["data", "check"], "train")
    settings = {"cwd": tmp_path, "PYTHONPATH": str(ROOT)}
    status, out, err = run("-m", "rfkeras.cli", *check, **settings)
    assert status == 0, err
    assert "voice" in out
    small = ("--width 4 --rho 2 --epochs 1 --batch-size 4 --excerpt-seconds 0.5").split()
    small += ["--window-seconds", "1", "--no-export", "--run-dir", "run"]
    words = [*with_parts, *with_data[3:], "--model", "resnet_rf_tiny", *small]
    status, out, err = run("-m", "rfkeras.cli", *words, **settings)
    assert status == 0, err
    with (tmp_path / "run/log.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert 0 <= float(row["val_exact"]) <= 1
    recorded = json.loads((tmp_path / "run/config.json").read_text())
    assert (recorded["loss"], recorded["frontend"]) == ("my_focal", "mel_16k")


def test_pages_run_by_other_tests_are_mentioned_there():
    for page, test in RUN_BY.items():
        assert f"docs/{page}" in (ROOT / test).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES)
def test_flags_and_links_exist(page):
    check_flags(text_of(page))
    prose = re.sub(r"^```.*?^```$", "", text_of(page), flags=re.S | re.M)
    for link in re.findall(r"\]\((?!https?:|#)([^)#]+)(?:#[^)]*)?\)", prose):
        assert (DOCS / link).exists(), link


@pytest.mark.parametrize("page", ["../README.md", *PAGES])
def test_the_parser_accepts_all_commands(page):
    """Check the subcommands, flags and values of all commands."""
    from rfkeras.cli.main import build_parser

    parser = build_parser()
    for words in calls(page):
        errors = StringIO()
        with redirect_stdout(StringIO()), redirect_stderr(errors):
            status = status_of(parser, words)
        assert status == 0, f"{shlex.join(words)}: {errors.getvalue()}"


def status_of(parser, words):
    """Parse arguments; return 0 if they are valid or ask for help."""
    try:
        parser.parse_args(words)
    except SystemExit as end:
        return end.code
    return 0


def calls(page):
    """Yield the arguments of `rfkeras` for every command in the shell blocks of a page."""
    for block in (*blocks(page, "sh"), *blocks(page, "")):
        for line in block.replace("\\\n", " ").splitlines():
            line = COMMAND.match(line.partition(" #")[0])[0]
            if "$" in line or not re.search(r"(?:^|/|python )(?:rfkeras|\w+\.py) ", line):
                continue
            words = [
                word.rpartition("/")[2] if "bin/" in word else word
                for word in shlex.split(line)
            ]
            words = words[1:] if words[0] == "python" else words
            if words[0] == "rfkeras":
                yield words[1:]
            elif words[0] in SCRIPTS:
                yield [SCRIPTS[words[0]], *words[1:]]


@pytest.mark.parametrize("page", PAGES)
def test_yaml_and_json_blocks_can_be_parsed(page):
    for block in blocks(page, "yaml"):
        yaml.safe_load(block)
    for block in blocks(page, "json"):
        json.loads(block)


def test_the_recipe_on_the_training_page_is_valid():
    from rfkeras.config.resolve import merge_options

    (recipe,) = blocks("train.md", "yaml")
    config = merge_options({}, [("train.md", yaml.safe_load(recipe))])
    assert (config.model, config.rho, config.epochs) == ("resnet_rf_small", (7, 3), 40)


def test_the_frame_lengths_on_the_tagging_page_are_correct():
    from rfkeras.frontend.presets import scale_of_preset
    from rfkeras.rf import rf_of_rho

    lines = text_of("tagging.md").splitlines()
    rhos, heard = (
        re.findall(r"[\d.]+", next(line for line in lines if line.startswith(start)))
        for start in ("| rho |", "| audio per frame |")
    )
    scale = scale_of_preset("perceptual_mel_22k")
    assert heard == [f"{scale.ms(rf_of_rho(int(rho))[0]) / 1000:.2f}" for rho in rhos]


def points_of(path):
    """Read the points of a summary.csv."""
    kinds = {"str": str, "int": int, "float": float, "bool": lambda text: text == "True"}
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [
        Point(**{f.name: kinds[f.type](row[f.name]) for f in fields(Point)}) for row in rows
    ]


def test_the_tables_of_the_experiment_match_its_files():
    text = text_of("receptive_field_experiment.md")
    assert markdown_tables(points_of(DOCS / "rf_sweep/summary.csv")) in text
    for point in points_of(DOCS / "rf_sweep/training_summary.csv"):
        row = next(
            line for line in text.splitlines() if f"| {point.variant}, {point.test} |" in line
        )
        assert f" {point.mAP:.3f} |" in row
