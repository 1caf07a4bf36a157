"""One trial, in a process of its own: train, choose the weights, write the figure down.

    python -m rfkeras.tuning.trial RUN_FOLDER

It ends with its standard input, so it does not outlive a search that was killed. The test
split is not touched.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from rfkeras.errors import DatasetError, RFKerasError
from rfkeras.files import write_text
from rfkeras.locks import exclusive
from rfkeras.training.child import INTERRUPTED, end_with_parent
from rfkeras.training.run_folder import RunFolder

FAILED, DATA_AT_FAULT = 1, 3  # exit statuses


def result_file(folder: RunFolder) -> Path:
    """What a finished trial leaves: its figure, epochs, seconds and parameters."""
    return folder.root / "trial_result.json"


def main(root: str) -> int:
    """Train what is left of the trial; returns the exit status."""
    end_with_parent()
    folder = RunFolder(Path(root))
    try:
        with exclusive(folder.lock, on_wait=_say_waiting):
            if not result_file(folder).exists():
                _train(folder)
    except RFKerasError as error:
        print(f"error: {error}", file=sys.stderr)
        return DATA_AT_FAULT if isinstance(error, DatasetError) else FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def _train(folder: RunFolder) -> None:
    import numpy as np

    from rfkeras.training.finish import read_columns
    from rfkeras.training.run import fit

    config = folder.read_config()
    fitted = fit(config, folder, resume=True)
    log = read_columns(folder.log)
    result = {
        "monitor": config.monitor,
        "figure": fitted.figure,
        "epochs": len(log["epoch"]),
        "seconds": log["seconds"][-1],
        "parameters": sum(int(np.prod(v.shape)) for v in fitted.model.trainable_variables),
    }
    write_text(result_file(folder), json.dumps(result, indent=2) + "\n")


def _say_waiting(holder: str) -> None:
    print(f"Waiting for process {holder}, which trains this trial", file=sys.stderr)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.exit(main(sys.argv[1]))
