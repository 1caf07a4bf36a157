"""The README: its examples run, and its commands, flags, links and numbers are right."""

import json
import re

import pytest
import yaml

from tests.helpers.processes import ROOT, run

README = (ROOT / "README.md").read_text(encoding="utf-8")
MOST_LINES = 250


def python_blocks():
    """Return the Python examples."""
    return re.findall(r"```python\n(.*?)```", README, flags=re.S)


@pytest.mark.slow
def test_python_examples_run_in_order(tmp_path):
    code = "\n".join(python_blocks())
    status, out, err = run("-c", code, cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert status == 0, err
    assert "\n3204 ms\n7\n" in out
    assert "135 55\n" in out
    assert "(1, 3)" in out
    assert (tmp_path / "saved_model/1/saved_model.pb").is_file()


def test_the_readme_is_short():
    assert len(README.splitlines()) < MOST_LINES


def test_every_command_is_in_the_table():
    from rfkeras.cli.main import COMMANDS

    table = [line for line in README.splitlines() if line.startswith("| `rfkeras ")]
    named = re.findall(r"`rfkeras (\w+)`", "".join(line.split("|")[1] for line in table))
    assert sorted(named) == sorted(COMMANDS)


def test_the_citation_names_the_version_and_the_paper():
    import rfkeras

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == rfkeras.__version__
    paper = citation["preferred-citation"]
    assert "arXiv:2007.13503" in [found["value"] for found in paper["identifiers"]]
    assert paper["authors"][0]["family-names"] == "Koutini"


def test_receptive_field_table_matches_the_arithmetic():
    from rfkeras.rf import rf_of_rho

    rhos, sizes = (
        [int(n) for n in re.findall(r"\d+", line)]
        for line in README.splitlines()
        if line.startswith(("| rho |", "| RF in pixels |"))
    )
    assert [rf_of_rho(rho)[0] for rho in rhos] == sizes


def test_every_make_target_and_linked_file_exists():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", README, flags=re.M):
        assert f"\n{target}:" in makefile
    check_links(README, ROOT)


def check_links(text, folder):
    """Check that linked files exist."""
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (folder / link).exists(), link


def test_every_flag_exists():
    check_flags(README)


def check_flags(text):
    """Check that every flag in a shell example exists."""
    from rfkeras.cli.main import build_parser

    parser = build_parser()
    known = set()
    stack = [parser]
    while stack:
        for action in stack.pop()._actions:
            known.update(action.option_strings)
            if isinstance(action.choices, dict):
                stack.extend(action.choices.values())
    for block in re.findall(r"```sh\n(.*?)```", text, flags=re.S):
        for line in block.replace("\\\n", " ").splitlines():
            if any(name in line for name in ("train.py", "evaluate.py", "tune.py", "rfkeras ")):
                for flag in re.findall(r"--[a-z][a-z0-9-]*", line):
                    assert flag in known, flag


def test_the_table_of_pretrained_weights_matches_the_index():
    rows = re.findall(
        r"^\| \[`(.+?)`\]\((.+?)\)(?:, used by `tag`)? \| ([\d,]+) \| (.+) \|$",
        README,
        flags=re.M,
    )
    index = json.loads((ROOT / "zoo/weights/index.json").read_text(encoding="utf-8"))
    entries = {f"{row['model']}:{row['name']}": row for row in index["weights"]}
    assert {row[0] for row in rows} == entries.keys()
    sets = ("unheard recordings", "unheard font", "midi bands", "gcompris")
    for name, card, parameters, scores in rows:
        figures = entries[name]["figures"]
        assert scores.split(" | ") == [
            f"{figures[key]['average_precision']:.3f}" for key in sets
        ]
        assert f" {parameters} parameters" in (ROOT / card).read_text(encoding="utf-8")
