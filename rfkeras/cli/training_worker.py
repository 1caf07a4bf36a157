"""Script that runs one worker of `rfkeras launch`.

    python -m rfkeras.cli.training_worker RUN_FOLDER

It runs `rfkeras train --resume RUN_FOLDER` with the TF_CONFIG of its environment. It exits when
its standard input closes, so it does not outlive a launcher that was killed.
"""

from __future__ import annotations

import sys

from rfkeras.cli.main import run
from rfkeras.utils.processes import obey_parent

if __name__ == "__main__":
    obey_parent()
    sys.exit(run(["train", "--resume", sys.argv[1]]))
