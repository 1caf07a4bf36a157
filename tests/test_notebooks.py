"""The notebooks of the documentation: their outputs are what their cells give."""

import nbformat
import pytest

from tests.helpers.notebooks import NOTEBOOKS, executed, pictures, printed, words_and_numbers
from tests.helpers.processes import ROOT

NAMES = ["custom_model.ipynb", "look_inside.ipynb"]
LARGEST_BYTES = 500_000
# Training repeats itself only roughly on another processor; scores are printed with 2 digits.
ABSOLUTE, RELATIVE = 0.05, 0.02


def test_all_notebooks_are_tested():
    assert sorted(path.name for path in NOTEBOOKS.glob("*.ipynb")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_kept_and_small(name):
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
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Jupyter's own packages
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # sockets of the ended kernel
def test_cells_give_the_outputs_that_are_kept(name, tmp_path):
    kept = nbformat.read(NOTEBOOKS / name, as_version=4)
    fresh = executed(NOTEBOOKS / name, tmp_path)
    for cell, said, found in zip(
        [cell for cell in kept.cells if cell.cell_type == "code"],
        printed(kept),
        printed(fresh),
        strict=True,
    ):
        words, numbers = words_and_numbers(said)
        found_words, found_numbers = words_and_numbers(found)
        assert found_words == words, cell.source
        assert found_numbers == pytest.approx(numbers, abs=ABSOLUTE, rel=RELATIVE), cell.source
    assert len(pictures(fresh)) == len(pictures(kept))
