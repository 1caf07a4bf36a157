"""The notebooks of the documentation, run: by the tests, and to refresh their outputs.

    python -m tests.helpers.notebooks [NAME.ipynb ...]

runs them (all of docs/notebooks without names) and keeps the outputs in the files.
"""

import os
import re
import sys
from unittest.mock import patch

import nbformat
from nbclient import NotebookClient

from tests.helpers.processes import ROOT

NOTEBOOKS = ROOT / "docs/notebooks"
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")


def executed(path, folder):
    """A copy of the notebook with fresh outputs; it runs in `folder`, on one core."""
    notebook = nbformat.read(path, as_version=4)
    quiet = {
        "PYTHONPATH": str(ROOT),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_NUM_INTRAOP_THREADS": "1",
        "TF_NUM_INTEROP_THREADS": "1",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }
    with patch.dict(os.environ, quiet):
        NotebookClient(
            notebook,
            timeout=300,
            kernel_name="python3",
            resources={"metadata": {"path": str(folder)}},
        ).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times of day
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return notebook


def printed(notebook):
    """The text that each code cell printed or returned."""
    return [
        "".join(
            output.get("text", "") or output.get("data", {}).get("text/plain", "")
            for output in cell.outputs
            if "image/png" not in output.get("data", {})
        )
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def pictures(notebook):
    """The PNG images of all cells, base64."""
    return [
        output.data["image/png"]
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    ]


def words_and_numbers(text):
    """A text with its numbers taken out, and the numbers."""
    return NUMBER.sub("#", text).split(), [float(number) for number in NUMBER.findall(text)]


def refresh(paths):
    """Run notebooks and keep their outputs."""
    import tempfile

    for path in paths:
        with tempfile.TemporaryDirectory() as folder:
            notebook = executed(path, folder)
        nbformat.write(notebook, path)
        print(path)


if __name__ == "__main__":
    names = sys.argv[1:]
    refresh([NOTEBOOKS / name for name in names] or sorted(NOTEBOOKS.glob("*.ipynb")))
