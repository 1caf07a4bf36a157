"""Sides for the benchmark's tests that need no framework."""

import os
import sys
import time


def sleeping(seconds, threads):
    processors = len(os.sched_getaffinity(0))
    variable = os.environ["OMP_NUM_THREADS"]
    print(f"threads {threads}, processors {processors}, OMP_NUM_THREADS {variable}")
    return lambda: time.sleep(seconds)


def with_missing_package(threads):
    import not_installed

    return not_installed.function


def dying(threads):
    sys.exit(3)
