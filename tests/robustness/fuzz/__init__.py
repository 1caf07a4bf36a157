"""Fuzzing of the file readers, see `tests/robustness/fuzz/__main__.py`."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
