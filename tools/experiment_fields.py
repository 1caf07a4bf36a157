"""Measure where the trained networks of the receptive-field experiment look.

`python -m tools.experiment_fields SWEEP --plan PLAN.json --data CLIPS --out effective.csv`

For every file in SWEEP/weights of the condition `plain`: the smallest centred windows with 95
and with 50 % of the gradient energy, on clips of the set `new`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import zoo
from rfkeras.errors import DatasetError, RFKerasError
from rfkeras.rf.effective import effective_receptive_field
from rfkeras.utils.files import open_npz, write_text
from rfkeras.utils.progress import track
from rfkeras.utils.table import csv_text
from tools.feature_parts import Features, read_parts
from tools.sweep_plan import Run, read_plan

CONDITION = "plain"


def network(run: Run, weights: Path, tags: Sequence[str]) -> Any:
    """Build the network of a run, without front-end, and load its weights.

    Raises:
        DatasetError: The file is not of this network.
    """
    condition = run.condition
    model = zoo.create_model(
        condition.model,
        label_names=tags,
        frontend=None,
        **condition.network_options(run.rho),
    )
    with open_npz(weights) as file:
        arrays = {name: file[name] for name in file.files}
    for variable in model.weights:
        value = arrays.get(variable.path)
        if value is None or value.shape != tuple(variable.shape):
            raise DatasetError(f"{weights} has no weights {variable.path} of {run.name}.")
        variable.assign(value)
    return model


def spectrograms(train: Features, test: Features, clips: int) -> NDArray[np.float32]:
    """Return what networks get for the first clips of a test set, (clips, frames, bands, 1).

    Args:
        train: The training clips, whose bands have mean 0 and deviation 1.
        test: The test set.
        clips: Number of clips.
    """
    mean, deviation = train.band_statistics()
    levels_db = test.steps[:clips].astype(np.float32) * np.float32(train.scale.step_db)
    return ((levels_db - mean) / deviation)[..., None]


def measure(sweep: Path, plan: Path, data: Path, clips: int) -> list[dict[str, Any]]:
    """Measure the effective fields of a sweep; return a row for each network.

    Args:
        sweep: Folder of `tools.sweep_on_jax`.
        plan: Its plan.
        data: Folder of its clips.
        clips: Number of clips to measure on.
    """
    runs = [run for run in read_plan(plan) if run.condition.name == CONDITION]
    runs = [run for run in runs if (sweep / "weights" / f"{run.name}.npz").is_file()]
    if not runs:
        raise DatasetError(f"{sweep}/weights has no networks of {CONDITION!r}.")
    sets = {
        name: read_parts(sorted(data.glob(f"{name}-[0-9]*.npz")), lambda text: None)
        for name in (runs[0].condition.train, "new")
    }
    inputs = spectrograms(*sets.values(), clips)
    rows = []
    for run in track(runs, len(runs), "effective fields", unit="networks"):
        weights = sweep / "weights" / f"{run.name}.npz"
        model = network(run, weights, run.condition.tags or sets["new"].scale.label_names)
        field = effective_receptive_field(model, inputs)
        exact = zoo.model_info(run.condition.model).plan_for(
            **run.condition.network_options(run.rho)
        )
        (frames, bands), (half_frames, half_bands) = field.window(0.95), field.window(0.5)
        rows.append(
            {
                "run": run.name,
                "rho": run.rho,
                "exact_pixels": exact.time.size if exact.time else "",
                "frames_95": round(frames, 1),
                "bands_95": round(bands, 1),
                "frames_50": round(half_frames, 1),
                "bands_50": round(half_bands, 1),
            }
        )
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write the table; 2 if something is missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sweep", type=Path)
    parser.add_argument("--plan", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder of the clips")
    parser.add_argument("--out", type=Path, required=True, help="table to write")
    parser.add_argument("--clips", type=int, default=16)
    given = parser.parse_args(argv)
    try:
        rows = measure(given.sweep, given.plan, given.data, given.clips)
    except RFKerasError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    write_text(given.out, csv_text(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
