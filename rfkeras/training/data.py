"""The data of a run: opened, checked, and read as batches."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfkeras.audio.io import AudioFormat
from rfkeras.config.train_config import TrainConfig, flag
from rfkeras.datasets.base import AudioDataset, BadFileLog, Split, print_damaged
from rfkeras.datasets.checks import check_present, differences, equal_files, notes, scan_split
from rfkeras.datasets.clip_features import ClipFeatures
from rfkeras.datasets.excerpts import (
    WHOLE,
    EvaluationPlan,
    WaveformCache,
    WorkerPart,
    default_steps_per_epoch,
    part_of,
)
from rfkeras.datasets.folder import tag_notes, with_columns
from rfkeras.datasets.load import load_dataset
from rfkeras.datasets.packed import PackedSplit
from rfkeras.datasets.pipeline import evaluation_batches, training_batches
from rfkeras.errors import ConfigError, DatasetError, did_you_mean
from rfkeras.synthesis.render import parse_sound_fonts
from rfkeras.tasks import MULTI_LABEL, SINGLE_LABEL
from rfkeras.utils.label_names import clean_label_name
from rfkeras.utils.text import count, first_few

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Inputs:
    """The data of a run: a data set without its unusable files, and how it is read.

    Attributes:
        dataset: The usable clips.
        audio: Sample rate and channels that the model expects.
        bad_files: The unusable files, including files that fail later.
        resampling: For each split, a list of sample rates and the number of files with them
            that are resampled.
        cache: Decoded audio in memory, shared by all splits. None: no cache.
        config: The configuration of the run: batch size, excerpt length, seed and so on.
        features: Spectrograms of the training clips, from which training excerpts are cut.
            None: they are cut from the audio.
    """

    dataset: AudioDataset
    audio: AudioFormat
    bad_files: BadFileLog
    resampling: dict[str, list[str]]
    cache: WaveformCache | None
    config: TrainConfig
    features: ClipFeatures | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Steps per epoch. Each training clip gives `excerpts_per_clip` excerpts."""
        excerpts = len(self.dataset.split("train")) * self.config.excerpts_per_clip
        return default_steps_per_epoch(excerpts, self.config.batch_size)

    @property
    def fingerprints(self) -> dict[str, str]:
        """SHA-256 of each split's keys and labels, to detect changes of the data."""
        return {name: _fingerprint(split) for name, split in self.dataset.splits.items()}

    def training_batches(
        self, start_step: int, total_steps: int, part: WorkerPart = WHOLE
    ) -> Any:
        """Return the training batches of some steps.

        Args:
            start_step: First step, counted from the start of the run.
            total_steps: Step after the last.
            part: The part of each batch that this worker reads.

        Returns:
            tf.data set of (waveform or spectrogram, labels, mask), see
            `datasets.pipeline.training_batches`.
        """
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
            features=self.features,
        )

    def evaluation_batches(
        self,
        split: str,
        part: WorkerPart = WHOLE,
        one_pass: range | None = None,
    ) -> tuple[Any, EvaluationPlan]:
        """Return all windows of a split, and the plan that averages them per clip.

        Args:
            split: Name of the split.
            part: The part of the clips that this worker reads.
            one_pass: As in `datasets.pipeline.evaluation_batches`.
        """
        return evaluation_batches(
            part_of(self.dataset.split(split), part),
            self.audio,
            window_seconds=self.config.window_seconds,
            batch_size=self.config.batch_size,
            bad_files=self.bad_files,
            decoder=self.config.decoder,
            cache=self.cache,
            one_pass=one_pass,
        )

    def labels_and_mask(
        self, split: str, rows: NDArray[np.integer[Any]]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return labels and mask, each (rows, classes), of some clips of a split."""
        clips = self.dataset.split(split)
        return clips.labels[rows], clips.mask[rows]

    @contextmanager
    def reporting_bad_files(self) -> Iterator[None]:
        """Raise a `DatasetError` within the block if reading stops at unusable files.

        TensorFlow replaces the error of a pipeline with its own.
        """
        import tensorflow as tf

        try:
            yield
        except tf.errors.OpError:
            self.bad_files.raise_if_stopped()
            raise


def check_splits(dataset: AudioDataset, splits: Sequence[str] = SPLITS) -> None:
    """Check that a data set has the splits that will be used.

    Raises:
        DatasetError: It lacks one.
    """
    missing = [name for name in splits if name not in dataset.splits]
    if missing:
        raise DatasetError(f"Data set {dataset.name!r} has no clips for: {', '.join(missing)}.")


def open_inputs(
    config: TrainConfig,
    audio: AudioFormat,
    bad_files_csv: Path | None,
    splits: tuple[str, ...] = SPLITS,
    task: str | None = None,
    label_names: Sequence[str] | None = None,
) -> Inputs:
    """Open a data set and check its files.

    Args:
        config: The run's configuration.
        audio: Sample rate and channels of the model.
        bad_files_csv: File in which unusable files are listed. None: no list.
        splits: The splits that will be used.
        task: As in `open_dataset`.
        label_names: As in `open_dataset`.

    Raises:
        ConfigError: The data set is unknown or does not have an option.
        DatasetError: The data set cannot be read, lacks a split, or has too many missing or
            unusable files.
    """
    dataset = open_dataset(config, task, label_names)
    check_splits(dataset, splits)
    print_notes(dataset)
    check_present(dataset, splits, max_bad_share=config.max_bad_share)
    if dataset.name == "folder":  # the audio of published data sets is as published
        for text in equal_files(dataset).notes():
            print(f"Note on {dataset.name}: {text}", file=sys.stderr)
    total = sum(len(dataset.splits[name]) for name in splits)
    log = BadFileLog(bad_files_csv, total_files=total, max_bad_share=config.max_bad_share)
    kept, resampling = {}, {}
    for name in splits:
        split = dataset.splits[name]
        if not isinstance(split, PackedSplit):  # packing has checked the shards
            scan = scan_split(
                split,
                expected_seconds=dataset.clip_seconds,
                stage=name,
                decoder=config.decoder,
            )
            log.record_all(scan.bad)
            print_damaged(dataset.name, scan.damaged, name)
            split = split.select(scan.good_rows)
            resampling[name] = scan.resampling(audio.sample_rate_hz)
        if len(split) == 0:
            raise DatasetError(f"Split {name!r} of {dataset.name!r} has no usable clips.")
        kept[name] = split
    cache = WaveformCache(int(config.cache_gb * 2**30)) if config.cache_gb else None
    return Inputs(replace(dataset, splits=kept), audio, log, resampling, cache, config)


def print_notes(dataset: AudioDataset) -> None:
    """Print what is unexpected, left out or looks wrong, a line each, on standard error."""
    for text in (*differences(dataset), *notes(dataset)):
        print(f"Note on {dataset.name}: {text}", file=sys.stderr)


def open_dataset(
    config: TrainConfig, task: str | None = None, label_names: Sequence[str] | None = None
) -> AudioDataset:
    """Open the data set of a configuration without checking its audio files.

    Args:
        config: Names the data set, its options, and its task unless that is "auto".
        task: Task of a `folder` data set (also packed) if the configuration has "auto",
            because such data does not show whether clips can have several tags. None:
            multi_label. Other data sets define their task.
        label_names: Tags of the result, in this order, those of a model for example. Names are
            compared as `clean_label_name` writes them. Tags that no clip has are unknown for
            all clips, in a multi-label data set; their names are in `info` under
            "absent_tags". Other tags are left out; in a single-label data set, so are the clips
            that have them. None uses the tags of the data set.

    Raises:
        ConfigError: The data set is unknown or does not have an option.
        DatasetError: The data set cannot be read, or its labels do not fit the task.
    """
    options: dict[str, Any] = {}
    if config.dataset == "gm_instruments":
        options["workers"] = os.cpu_count()
        if config.dataset_size is not None:
            options["size"] = config.dataset_size
        if config.sound_font is not None:
            options["sound_font"] = parse_sound_fonts(config.sound_font)
    for name in ("dataset_size", "sound_font"):
        if getattr(config, name) is not None and config.dataset != "gm_instruments":
            raise ConfigError(f"{flag(name)} needs --dataset gm_instruments.")
    if config.dataset == "folder":
        options |= {"test_share": config.test_share, "allow_absolute": config.allow_absolute}
        options |= {"label_names": label_names}
    if config.dataset in ("folder", "openmic"):
        options["split_rule"] = config.split_rule
    chosen = {"subset": config.subset, "fold": config.fold, "audio_dir": config.audio_dir}
    options |= {name: value for name, value in chosen.items() if value is not None}
    dataset = load_dataset(
        config.dataset,
        data_dir=config.data_dir,
        validation_share=config.validation_share,
        **options,
    )
    if label_names is not None:
        if config.dataset != "folder":
            dataset = _with_tags(dataset, label_names)
        absent = [n for n, known in zip(label_names, _known(dataset), strict=True) if not known]
        dataset = replace(dataset, info={**dataset.info, "absent_tags": absent})
    if config.train_share < 1:
        splits = {**dataset.splits, "train": _share(dataset.split("train"), config)}
        dataset = replace(dataset, splits=splits)
    if config.task != "auto":
        task = config.task
    elif dataset.name != "folder":
        task = None
    task = dataset.task if task is None else task
    if task == SINGLE_LABEL and label_names is not None:
        return _of_one_class(dataset)
    return replace(dataset, task=task)


def _with_tags(dataset: AudioDataset, label_names: Sequence[str]) -> AudioDataset:
    """Return a multi-label data set with these tags; those that no clip has are masked."""
    names = [clean_label_name(name) for name in dataset.label_names]
    wanted = [clean_label_name(name) for name in label_names]
    absent = [name for name in wanted if name not in names]
    if len(absent) == len(wanted):
        raise DatasetError(
            f"None of the tags of data set {dataset.name!r} is a tag of the model. Data: "
            f"{first_few(names)}. Model: {first_few(wanted)}.{did_you_mean(names[0], wanted)}"
        )
    if wanted == names:
        return dataset

    splits = {
        name: with_columns(split, names, label_names) for name, split in dataset.splits.items()
    }
    notes = tag_notes([name for name in names if name not in wanted], absent)
    chosen_tags = replace(
        dataset,
        splits=splits,
        label_names=tuple(label_names),
        task=MULTI_LABEL,
        notes=(*dataset.notes, *notes),
    )
    return chosen_tags if dataset.task == MULTI_LABEL else _of_one_class(chosen_tags)


def _known(dataset: AudioDataset) -> NDArray[np.bool_]:
    """Return for each tag whether any clip is known to have it or not, (classes,)."""
    known: NDArray[np.bool_] = np.any(
        [split.mask.any(axis=0) for split in dataset.splits.values()], axis=0
    )
    return known


def _of_one_class(dataset: AudioDataset) -> AudioDataset:
    """Return a single-label data set of the clips that have one of its classes.

    They are known not to have the classes that no clip has.
    """
    known = _known(dataset)
    splits, left_out = {}, 0
    for name, split in dataset.splits.items():
        rows = np.flatnonzero(split.labels.any(axis=1))
        if len(rows) < len(split):
            left_out += len(split) - len(rows)
            split = split.select(rows)
        splits[name] = replace(split, mask=np.where(known, split.mask, np.float32(1)))
    notes = dataset.notes
    if left_out:
        notes += (f"left out {count(left_out, 'clip')} of other classes",)
    return replace(dataset, splits=splits, notes=notes, task=SINGLE_LABEL)


def _share(train: Split, config: TrainConfig) -> Split:
    """Return the training clips that are used. Larger shares contain the smaller ones.

    The choice does not depend on the seed: runs with different seeds use the same clips.
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
