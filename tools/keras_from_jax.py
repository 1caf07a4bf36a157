"""Make a whole model, from waveforms to scores, of weights that `tools.train_on_jax` wrote.

`python -m tools.keras_from_jax OUT/MODEL.npz MODEL.keras`

The file names the model, its options, the tags and the front-end.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import zoo
from rfkeras.errors import CheckpointError, RFKerasError
from rfkeras.frontend import create_frontend
from rfkeras.utils.files import atomic_write, open_npz
from rfkeras.utils.text import first_few


def load(path: Path, model: str | None = None) -> Any:
    """Build a model with its front-end and load the weights.

    Args:
        path: The .npz file.
        model: Name that the model must have; None for any.

    Raises:
        CheckpointError: The file is of another model, or its weights do not fit.
    """
    try:
        with open_npz(path) as file:
            arrays = {name: file[name] for name in file.files}
        record = json.loads(str(arrays.pop("record")))
        name, options, scale = record["model"], record["options"], record["scale"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} is not a file of tools.train_on_jax: {error}."
        ) from error
    if model not in (None, name):
        raise CheckpointError(f"{path} has weights of {name!r}. Received: --model {model}.")
    frontend = create_frontend(
        scale["preset"], fixed_floor=True, dynamic_range_db=scale["dynamic_range_db"]
    )
    tagger = zoo.create_model(
        name, label_names=scale["label_names"], frontend=frontend, **options
    )
    variables = {variable.path: variable for variable in tagger.weights}
    differing = sorted(set(variables) ^ set(arrays))
    differing += [
        key
        for key in sorted(set(variables) & set(arrays))
        if tuple(variables[key].shape) != arrays[key].shape
    ]
    if differing:
        raise CheckpointError(
            f"{path} does not fit {name}: {len(differing)} weights are missing, unknown or of "
            f"another shape: {first_few(differing)}."
        )
    for key, variable in variables.items():
        variable.assign(arrays[key])
    return tagger


def main(argv: Sequence[str] | None = None) -> int:
    """Convert a file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", type=Path, help="MODEL.npz of tools.train_on_jax")
    parser.add_argument("out", type=Path, help=".keras file, or folder for model.keras")
    parser.add_argument("--model", help="fail if the weights are of another model")
    given = parser.parse_args(argv)
    out = given.out if given.out.suffix == ".keras" else given.out / "model.keras"
    try:
        tagger = load(given.weights, given.model)
        with atomic_write(out, suffix=".keras") as aside:
            tagger.save(aside)
    except RFKerasError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    print(f"Wrote {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
