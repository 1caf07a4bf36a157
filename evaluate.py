"""Evaluate a model or arrays of scores: the same as `rfkeras evaluate`."""

import sys

from rfkeras.cli.main import run

if __name__ == "__main__":
    sys.exit(run(["evaluate", *sys.argv[1:]]))
