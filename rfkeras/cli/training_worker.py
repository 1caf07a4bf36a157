"""One worker of `rfkeras launch`, in a process of its own.

    python -m rfkeras.cli.training_worker RUN_FOLDER

It is `rfkeras train --resume RUN_FOLDER` under the TF_CONFIG that it finds, but ends with
its standard input, so it does not outlive a launcher that was killed.
"""

from __future__ import annotations

import sys

from rfkeras.cli.main import run
from rfkeras.training.launch import end_with_parent

if __name__ == "__main__":
    end_with_parent()
    sys.exit(run(["train", "--resume", sys.argv[1]]))
