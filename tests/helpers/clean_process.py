"""One clean process in which `rfkeras.export.verify` runs all exports of a test session."""

import json
import os
import subprocess
import sys

from rfkeras.export.verify import SCRIPT

SERVE_MANY = """
import json, runpy, sys

main = runpy.run_path(sys.argv[1])["main"]
for line in sys.stdin:
    main(*json.loads(line))
    print("done", flush=True)
"""


class CleanProcess:
    """Replaces `subprocess.run` for `verify`; starting TensorFlow each time takes 5 s."""

    def __init__(self):
        self._process = None
        self._otherwise = subprocess.run

    def __call__(self, command, **options):
        if [str(part) for part in command[:3]] != [sys.executable, "-I", str(SCRIPT)]:
            return self._otherwise(command, **options)
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", SERVE_MANY, str(SCRIPT)],
                env=options.get("env", os.environ),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        print(json.dumps(command[3:]), file=self._process.stdin, flush=True)
        answered = self._process.stdout.readline() == "done\n"
        return subprocess.CompletedProcess(command, int(not answered), "", "see above")

    def stop(self):
        """End the process."""
        if self._process is not None:
            self._process.communicate()
