"""Train a model: the same as `rfkeras train`."""

import sys

from rfkeras.cli.main import run

if __name__ == "__main__":
    sys.exit(run(["train", *sys.argv[1:]]))
