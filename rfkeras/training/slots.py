"""Places where runs go side by side: a GPU each, or a share of the processor's cores."""

from __future__ import annotations

import os
import shutil
import subprocess

VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"


def visible_gpus() -> list[str]:
    """GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    if VISIBLE_GPUS in os.environ:
        return [name for name in os.environ[VISIBLE_GPUS].split(",") if name not in ("", "-1")]
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(
        ["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=False
    )
    gpus = [line for line in listed.stdout.splitlines() if line.startswith("GPU ")]
    return [str(number) for number in range(len(gpus))]


def slot_environments(jobs: int, gpus: list[str], cores: int) -> list[dict[str, str]]:
    """What each of so many processes side by side finds in its environment.

    With GPUs they take turns at them; without, each has its share of the cores, for
    TensorFlow would start as many threads as there are cores in every one of them.
    """
    if gpus:
        return [{VISIBLE_GPUS: gpus[slot % len(gpus)]} for slot in range(jobs)]
    if jobs == 1:
        return [{}]
    threads = str(max(1, cores // jobs))
    names = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")
    return [dict.fromkeys(names, threads) for _ in range(jobs)]
