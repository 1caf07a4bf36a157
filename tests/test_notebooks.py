"""The outputs saved in the notebooks of the documentation are up to date."""

import nbformat
import pytest

from tests.helpers.notebooks import NOTEBOOKS, execute, pictures, split_numbers, text_outputs
from tests.helpers.processes import ROOT

NAMES = ["custom_model.ipynb", "look_inside.ipynb"]
LARGEST_BYTES = 500_000
# Training gives slightly different results on other processors; scores have 2 digits.
ABSOLUTE, RELATIVE = 0.05, 0.02


def test_all_notebooks_are_tested():
    assert sorted(path.name for path in NOTEBOOKS.glob("*.ipynb")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_saved_and_small(name):
    notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
    assert (NOTEBOOKS / name).stat().st_size < LARGEST_BYTES
    assert pictures(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.execution_count, cell.source
            for output in cell.outputs:
                assert output.get("name") != "stderr", output.text
                assert output.output_type != "error"
    assert str(ROOT) not in (NOTEBOOKS / name).read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # from Jupyter's packages
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # sockets of the stopped kernel
def test_cells_give_the_saved_outputs(name, tmp_path):
    saved = nbformat.read(NOTEBOOKS / name, as_version=4)
    fresh = execute(NOTEBOOKS / name, tmp_path)
    for cell, expected, found in zip(
        [cell for cell in saved.cells if cell.cell_type == "code"],
        text_outputs(saved),
        text_outputs(fresh),
        strict=True,
    ):
        words, numbers = split_numbers(expected)
        found_words, found_numbers = split_numbers(found)
        assert found_words == words, cell.source
        assert found_numbers == pytest.approx(numbers, abs=ABSOLUTE, rel=RELATIVE), cell.source
    assert len(pictures(fresh)) == len(pictures(saved))
