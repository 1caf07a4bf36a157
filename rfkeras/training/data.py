"""The data of a run: opened, checked, and served as batches."""

from __future__ import annotations

import hashlib
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfkeras.audio.io import AudioFormat
from rfkeras.config.train_config import TrainConfig
from rfkeras.datasets.base import AudioDataset, BadFileLog, Split, differences
from rfkeras.datasets.checks import check_present, scan_split
from rfkeras.datasets.excerpts import (
    WHOLE,
    EvaluationPlan,
    Part,
    WaveformCache,
    default_steps_per_epoch,
    part_of,
)
from rfkeras.datasets.load import load_dataset
from rfkeras.datasets.packed import PackedSplit
from rfkeras.datasets.pipeline import evaluation_batches, training_batches
from rfkeras.errors import ConfigError, DatasetError
from rfkeras.synthesis.render import paths_in


@dataclass(frozen=True)
class Inputs:
    """A data set in the audio format of a model, its unusable files set aside.

    Attributes:
        dataset: The clips that can be used.
        audio: Sample rate and channels that the model wants.
        bad_files: The files set aside, and those that fail later.
        resampling: For each split, how many files are resampled from which rate.
        cache: Decoded audio kept in memory, shared by all splits; None keeps nothing.
        config: Batch size, excerpt length, seed and the rest.
    """

    dataset: AudioDataset
    audio: AudioFormat
    bad_files: BadFileLog
    resampling: dict[str, list[str]]
    cache: WaveformCache | None
    config: TrainConfig

    @property
    def steps_per_epoch(self) -> int:
        """Steps in an epoch: each training clip gives `excerpts_per_clip` excerpts."""
        excerpts = len(self.dataset.split("train")) * self.config.excerpts_per_clip
        return default_steps_per_epoch(excerpts, self.config.batch_size)

    @property
    def fingerprints(self) -> dict[str, str]:
        """SHA-256 of each split's keys and labels: tells whether the data is the same."""
        return {name: _fingerprint(split) for name, split in self.dataset.splits.items()}

    def training(self, start_step: int, total_steps: int, part: Part = WHOLE) -> Any:
        """Training batches, or one worker's part of them, from one step to another."""
        return training_batches(
            self.dataset.split("train"),
            self.audio,
            excerpt_seconds=self.config.excerpt_seconds,
            batch_size=self.config.batch_size,
            seed=self.config.seed,
            steps_per_epoch=self.steps_per_epoch,
            total_steps=total_steps,
            start_step=start_step,
            bad_files=self.bad_files,
            decoder=self.config.decoder,
            cache=self.cache,
            part=part,
        )

    def evaluation(self, split: str, part: Part = WHOLE) -> tuple[Any, EvaluationPlan]:
        """All windows of a split, or of a worker's part, and the plan that joins them."""
        return evaluation_batches(
            part_of(self.dataset.split(split), part),
            self.audio,
            window_seconds=self.config.window_seconds,
            batch_size=self.config.batch_size,
            bad_files=self.bad_files,
            decoder=self.config.decoder,
            cache=self.cache,
        )

    def truth(
        self, split: str, rows: NDArray[np.integer[Any]]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Labels and mask of these clips of a split."""
        clips = self.dataset.split(split)
        return clips.labels[rows], clips.mask[rows]


def open_inputs(
    config: TrainConfig,
    audio: AudioFormat,
    bad_files_csv: Path | None,
    splits: tuple[str, ...] = ("train", "validation", "test"),
    task: str | None = None,
) -> Inputs:
    """Open a data set and check its files.

    Args:
        config: The run's configuration.
        audio: Sample rate and channels of the model.
        bad_files_csv: Where unusable files are listed.
        splits: The splits that will be used.
        task: As for `open_dataset`.

    Raises:
        ConfigError: Unknown data set, or an option that it does not take.
        DatasetError: It cannot be read, lacks a split, or too many files are missing or
            unusable.
    """
    dataset = open_dataset(config, task)
    missing = [name for name in splits if name not in dataset.splits]
    if missing:
        raise DatasetError(f"Data set {dataset.name!r} has no clips for: {', '.join(missing)}.")
    for difference in differences(dataset):
        print(f"Note on {dataset.name}: {difference}", file=sys.stderr)
    check_present(dataset, splits, max_bad_share=config.max_bad_share)
    total = sum(len(dataset.splits[name]) for name in splits)
    log = BadFileLog(bad_files_csv, total_files=total, max_bad_share=config.max_bad_share)
    kept, resampling = {}, {}
    for name in splits:
        split = dataset.splits[name]
        if not isinstance(split, PackedSplit):  # shards were checked when they were packed
            scan = scan_split(
                split,
                expected_seconds=dataset.clip_seconds,
                stage=name,
                decoder=config.decoder,
            )
            log.record_all(scan.bad)
            split = split.select(scan.good_rows)
            resampling[name] = scan.resampling(audio.sample_rate_hz)
        if len(split) == 0:
            raise DatasetError(f"Split {name!r} of {dataset.name!r} has no usable clip.")
        kept[name] = split
    cache = WaveformCache(int(config.cache_gb * 2**30)) if config.cache_gb else None
    return Inputs(replace(dataset, splits=kept), audio, log, resampling, cache, config)


def open_dataset(config: TrainConfig, task: str | None = None) -> AudioDataset:
    """The data set that a configuration names, its files not yet checked.

    Args:
        config: Names the data set, its options, and its task unless that is "auto".
        task: Where the configuration says "auto", the task of one's own data (`folder`,
            also packed), which do not say themselves whether a clip with one tag may have
            others; None: multi_label. Other data sets know their own.

    Raises:
        ConfigError: Unknown data set, or an option that it does not take.
        DatasetError: It cannot be read, or its labels are not of the task.
    """
    options: dict[str, Any] = {}
    if config.dataset == "gm_instruments":
        options["workers"] = os.cpu_count()
        if config.dataset_size is not None:
            options["size"] = config.dataset_size
        if config.sound_font is not None:
            options["sound_font"] = paths_in(config.sound_font)
    for name in ("dataset_size", "sound_font"):
        if getattr(config, name) is not None and config.dataset != "gm_instruments":
            flag = "--" + name.replace("_", "-")
            raise ConfigError(f"{flag} goes with --dataset gm_instruments alone.")
    if config.dataset == "folder":
        options |= {"test_share": config.test_share, "allow_absolute": config.allow_absolute}
    chosen = {"subset": config.subset, "fold": config.fold, "audio_dir": config.audio_dir}
    options |= {name: value for name, value in chosen.items() if value is not None}
    dataset = load_dataset(
        config.dataset,
        data_dir=config.data_dir,
        validation_share=config.validation_share,
        **options,
    )
    if config.train_share < 1:
        splits = {**dataset.splits, "train": _share(dataset.split("train"), config)}
        dataset = replace(dataset, splits=splits)
    if config.task != "auto":
        return replace(dataset, task=config.task)
    return replace(dataset, task=task) if task and dataset.name == "folder" else dataset


def _share(train: Split, config: TrainConfig) -> Split:
    """The part of the training clips that is used; smaller parts lie inside larger ones.

    It does not hang on the run's seed: runs with different seeds train on the same clips.
    """
    count = max(1, round(config.train_share * len(train)))
    rows = np.random.default_rng(0).permutation(len(train))[:count]
    return train.select(np.sort(rows))


def _fingerprint(split: Split) -> str:
    digest = hashlib.sha256()
    for key in split.keys:
        digest.update(key.encode(errors="surrogateescape") + b"\0")
    digest.update(split.labels.tobytes() + split.mask.tobytes())
    return digest.hexdigest()
