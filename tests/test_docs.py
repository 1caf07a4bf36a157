"""What the pages in docs/ say, run."""

import csv
import re
from dataclasses import fields

import pytest

from rfkeras.sweep.markdown import markdown_tables
from rfkeras.sweep.results import Point
from tests.processes import ROOT, run
from tests.test_readme import check_flags, check_links

DOCS = ROOT / "docs"


def text_of(page):
    return (DOCS / page).read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_examples_of_the_receptive_field_page_print_what_they_say(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", text_of("receptive_field.md"), flags=re.S)
    code = "\n".join(blocks)
    status, out, err = run("-c", code, cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert status == 0, err
    printed = out.splitlines()
    for said in re.findall(r"^print\(.*\)  # (\(?[\w, .]+?\)?)(?::.*)?$", code, flags=re.M):
        if re.match(r"[\d(T]|logits", said):
            assert said in printed, said


@pytest.mark.parametrize("page", sorted(path.name for path in DOCS.glob("*.md")))
def test_flags_and_links_exist(page):
    check_flags(text_of(page))
    check_links(text_of(page), DOCS)


def points_of(path):
    """The points of a summary.csv."""
    kinds = {"str": str, "int": int, "float": float, "bool": lambda text: text == "True"}
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [
        Point(**{f.name: kinds[f.type](row[f.name]) for f in fields(Point)}) for row in rows
    ]


def test_the_tables_of_the_experiment_are_those_of_its_files():
    text = text_of("receptive_field_experiment.md")
    assert markdown_tables(points_of(DOCS / "rf_sweep/summary.csv")) in text
    for point in points_of(DOCS / "rf_sweep/training_summary.csv"):
        row = next(
            line for line in text.splitlines() if f"| {point.variant}, {point.test} |" in line
        )
        assert f" {point.mAP:.3f} |" in row
