"""Data sets on the host: clips and labels, checks, excerpts, batches, packed shards."""

from rfkeras.datasets.base import (
    AudioDataset,
    BadFile,
    BadFileLog,
    Published,
    Split,
    hold_out,
    hold_out_groups,
)
from rfkeras.datasets.checks import DatasetCheck, ScanResult, check_dataset, scan_split
from rfkeras.datasets.excerpts import EvaluationPlan, WaveformCache, default_steps_per_epoch
from rfkeras.datasets.load import load_dataset
from rfkeras.datasets.pack import from_tf_data, pack
from rfkeras.datasets.packed import load_packed, verify_packed
from rfkeras.datasets.pipeline import evaluation_batches, training_batches

__all__ = [
    "AudioDataset",
    "BadFile",
    "BadFileLog",
    "DatasetCheck",
    "EvaluationPlan",
    "Published",
    "ScanResult",
    "Split",
    "WaveformCache",
    "check_dataset",
    "default_steps_per_epoch",
    "evaluation_batches",
    "from_tf_data",
    "hold_out",
    "hold_out_groups",
    "load_dataset",
    "load_packed",
    "pack",
    "scan_split",
    "training_batches",
    "verify_packed",
]
