"""One run of a sweep, in a process of its own: train, then score the extra tests.

python -m rfkeras.sweep.cell RUN_FOLDER
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
from pathlib import Path

from rfkeras.errors import RFKerasError
from rfkeras.files import write_text
from rfkeras.locks import try_exclusive
from rfkeras.sweep.plan import TEST_RECORD, figures_of, read_extra_tests
from rfkeras.training.child import INTERRUPTED, end_with_parent
from rfkeras.training.run_folder import RunFolder

TAKEN = 75  # exit status: another process works on this run


def main(root: str) -> int:
    """Do what is left of the run; returns the exit status."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be inherited as ignored
    end_with_parent()
    folder = RunFolder(Path(root))
    with try_exclusive(folder.lock) as holder:
        if holder is not None:
            return TAKEN
        try:
            _train(folder)
            _score_extra_tests(folder)
        except RFKerasError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return INTERRUPTED
    return 0


def _train(folder: RunFolder) -> None:
    if folder.is_finished:
        return
    from rfkeras.training.recorder import Interrupted
    from rfkeras.training.run import train

    try:
        train(folder.read_config(), folder, resume=True)
    except Interrupted:
        raise KeyboardInterrupt from None


def _score_extra_tests(folder: RunFolder) -> None:
    from rfkeras.evaluation.report import write_report
    from rfkeras.training.rescoring import score_model

    for test in read_extra_tests(folder):
        figures = figures_of(folder, test)
        if figures.exists():
            continue
        record = json.dumps(dataclasses.asdict(test), indent=2) + "\n"
        write_text(figures.with_name(TEST_RECORD), record)
        config = test.config_for(folder.read_config())
        scored = score_model(
            folder.model,
            config,
            test.split,
            figures.with_name("bad_files.csv"),
            trained_in=folder,
            bootstrap_samples=0,  # the sweep resamples all of its runs together
        )
        arrays = (scored.scores, scored.labels, scored.mask)
        write_report(scored.report, figures.parent, *arrays, keys=scored.keys)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.exit(main(sys.argv[1]))
