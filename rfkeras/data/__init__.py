"""Audio files and labels on the host: read, check, excerpt, batch."""

from rfkeras.data.audio import AudioFormat, AudioInfo, probe, read_audio
from rfkeras.data.bad_files import BadFile, BadFileLog
from rfkeras.data.cache import WaveformCache
from rfkeras.data.check import DatasetCheck, check_dataset
from rfkeras.data.dataset import AudioDataset, Published, Split, hold_out, hold_out_groups
from rfkeras.data.integrity import check_file
from rfkeras.data.order import default_steps_per_epoch
from rfkeras.data.pack import pack
from rfkeras.data.pipeline import evaluation_batches, training_batches
from rfkeras.data.records import load_packed, verify_packed
from rfkeras.data.scan import ScanResult, scan_split
from rfkeras.data.sources import load_dataset
from rfkeras.data.windows import EvaluationPlan

__all__ = [
    "AudioDataset",
    "AudioFormat",
    "AudioInfo",
    "BadFile",
    "BadFileLog",
    "DatasetCheck",
    "EvaluationPlan",
    "Published",
    "ScanResult",
    "Split",
    "WaveformCache",
    "check_dataset",
    "check_file",
    "default_steps_per_epoch",
    "evaluation_batches",
    "hold_out",
    "hold_out_groups",
    "load_dataset",
    "load_packed",
    "pack",
    "probe",
    "read_audio",
    "scan_split",
    "training_batches",
    "verify_packed",
]
