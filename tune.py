"""Search for good options: the same as `rfkeras tune`."""

import sys

from rfkeras.cli.main import run

if __name__ == "__main__":
    sys.exit(run(["tune", *sys.argv[1:]]))
