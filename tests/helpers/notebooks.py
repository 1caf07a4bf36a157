"""Run the notebooks of the documentation, for the tests and to refresh their outputs.

    python -m tests.helpers.notebooks [NAME.ipynb ...]

runs the notebooks (default: all in docs/notebooks) and saves the outputs in the files.
"""

import os
import re
import sys
from unittest.mock import patch

import nbformat
from nbclient import NotebookClient

from tests.helpers.processes import ROOT

NOTEBOOKS = ROOT / "docs/notebooks"
NUMBER = re.compile(r"-?\d+(?:\.\d*)?(?:e[+-]?\d+)?")


def execute(path, folder):
    """Run a notebook in `folder` on one core; return a copy with fresh outputs."""
    notebook = nbformat.read(path, as_version=4)
    quiet = {
        "PYTHONPATH": str(ROOT),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_NUM_INTRAOP_THREADS": "1",
        "TF_NUM_INTEROP_THREADS": "1",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        # Keras imports huggingface_hub if it is installed, and tqdm with it.
        "PYTHONWARNINGS": "ignore:IProgress not found",
    }
    with patch.dict(os.environ, quiet):
        NotebookClient(
            notebook,
            timeout=300,
            kernel_name="python3",
            resources={"metadata": {"path": str(folder)}},
        ).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # timestamps
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return notebook


def text_outputs(notebook):
    """Return the text that each code cell printed or returned."""
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
    """Return the PNG images of all cells as base64."""
    return [
        output.data["image/png"]
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    ]


def split_numbers(text):
    """Split a text into its words, with # for numbers, and its numbers."""
    return NUMBER.sub("#", text).split(), [float(number) for number in NUMBER.findall(text)]


def refresh(paths):
    """Run notebooks and save their outputs."""
    import tempfile

    for path in paths:
        with tempfile.TemporaryDirectory() as folder:
            notebook = execute(path, folder)
        nbformat.write(notebook, path)
        print(path)


if __name__ == "__main__":
    names = sys.argv[1:]
    refresh([NOTEBOOKS / name for name in names] or sorted(NOTEBOOKS.glob("*.ipynb")))
