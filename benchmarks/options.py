"""Measure the effect of options that affect speed on a training step."""

from __future__ import annotations

from typing import Any

from benchmarks.network import FRAMES, N_MELS, TRAINING_BATCH
from benchmarks.suite import Row, Section, Settings
from benchmarks.turns import Side, Times, take_turns

HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
# Also keep freed memory instead of returning it to the system.
KEPT_MEMORY = {
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=4294967296"
    ":glibc.malloc.trim_threshold=17179869184"
}
PLAIN = "default"

TEXT = f"""
A training step of `resnet_rf` at rho 7 with batches of {TRAINING_BATCH} clips of 10 s, as in
the section on the network, with one change each. "default": no change. "huge pages":
`GLIBC_TUNABLES=glibc.malloc.hugetlb=1` in the environment makes glibc (2.35 or newer) request
pages of 2 MB from the kernel. "kept memory": also sets `mmap_threshold` and `trim_threshold`
so high that the process keeps freed memory. This does nothing for TensorFlow, which has its own
allocator, but helps PyTorch a lot. "XLA": `--jit`. "bfloat16": `--precision mixed_bfloat16`,
on processors with AMX or AVX-512 BF16. "oneDNN off": TensorFlow's own kernels. PyTorch is the
network in `benchmarks/torch_resnet.py`, here in channels_last with the same memory settings.
"""


def measure(settings: Settings) -> Section:
    """Measure widths 32 and 128."""
    rows: list[Row] = []
    for width in (4,) if settings.short else (32, 128):
        rows += _rows("training", width, _times(settings, width))
    return Section("Options", TEXT.strip(), rows)


def _times(settings: Settings, width: int) -> dict[str, Times]:
    shape = [2, 43, N_MELS] if settings.short else [TRAINING_BATCH, FRAMES, N_MELS]
    arguments: dict[str, Any] = {"rho": 7, "width": width, "shape": shape}

    def ours(environment: dict[str, str] | None = None, **changed: Any) -> Side:
        target = "benchmarks.keras_sides:training"
        return Side(target, {**arguments, **changed}, environment or {})

    sides = {PLAIN: ours(), "huge pages": ours(HUGE_PAGES)}
    if not settings.short:
        theirs = Side(
            "benchmarks.torch_resnet:training",
            {**arguments, "channels_last": True},
            KEPT_MEMORY,
        )
        sides |= {
            "huge pages, kept memory": ours(KEPT_MEMORY),
            "bfloat16": ours(precision="mixed_bfloat16"),
            "bfloat16, huge pages": ours(HUGE_PAGES, precision="mixed_bfloat16"),
            "XLA": ours(jit=True),
            "oneDNN off": ours({"TF_ENABLE_ONEDNN_OPTS": "0"}),
            "two replicas": ours(replicas=2),
            "PyTorch, huge pages, kept memory": theirs,
        }
    return take_turns(sides, threads=settings.threads, rounds=settings.rounds, calls=1)


def _rows(what: str, width: int, times: dict[str, Times]) -> list[Row]:
    return [
        {
            "what": what,
            "width": width,
            "with": name,
            "ms a step": measured.median,
            "of as it is": measured.median / times[PLAIN].median,
            "ready after s": measured.ready_ms / 1000,
            "peak MB": round(measured.peak_mb),
        }
        for name, measured in times.items()
    ]
