"""`rfkeras data pack` as a pipeline with one element per shard.

The clips of each shard are fixed beforehand by the order in which `rfkeras.datasets.pack`
stores clips, so any worker can write a shard, repeat it, or leave it to a later pipeline.
Each finished shard has an entry file next to it. The index is built from the entries at the
end.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.utils.shared import Shared

from rfkeras.audio.io import AudioFormat
from rfkeras.beam.runner import counter, pipeline_options, run_pipeline
from rfkeras.config.train_config import TrainConfig, from_text, to_json
from rfkeras.datasets.base import AudioDataset, BadFile, BadFileLog, Split, print_damaged
from rfkeras.datasets.checks import check_clip, check_present
from rfkeras.datasets.pack import (
    LOCK,
    ShardWriter,
    WrittenShard,
    check_target,
    encode_clip,
    shard_name,
    storage_order,
    write_index,
)
from rfkeras.errors import AudioError, ConfigError
from rfkeras.training.data import open_dataset, print_notes
from rfkeras.utils.files import remove_leftovers, sole_writer, write_text

_SAMPLE_BYTES = 2
_MEASURED_CLIPS = 32  # used to estimate the clips per shard


@dataclass(frozen=True)
class PackSettings:
    """Settings of a packing pipeline.

    Attributes:
        config: Configuration that names the data set, as JSON. Every worker opens the data set.
        audio: Format to store.
        out_dir: Output folder. Every worker writes to it.
        decoder: Decoder for files.
    """

    config: str
    audio: AudioFormat
    out_dir: str
    decoder: str

    def open(self) -> AudioDataset:
        """Open the data set."""
        return open_dataset(from_text(self.config, "the pipeline's options"))


@dataclass(frozen=True)
class PlannedShard:
    """A shard to write.

    Attributes:
        split: Name of the split of its clips.
        number: Its number in the split.
        start: Position of its first clip in the storage order.
        stop: Position after its last clip.
    """

    split: str
    number: int
    start: int
    stop: int

    @property
    def file(self) -> str:
        """Name of the shard's file."""
        return shard_name(self.split, self.number)

    def rows(self, split: Split) -> list[int]:
        """Return the rows of its clips in the split."""
        return [int(row) for row in storage_order(self.split, split)[self.start : self.stop]]


def pack(
    config: TrainConfig,
    audio: AudioFormat,
    out_dir: Path,
    *,
    shard_mb: float,
    decoder: str = "isolated",
    beam_arguments: Sequence[str] = (),
) -> Path:
    """Pack a data set with a pipeline.

    If packing was interrupted, calling this again on the same folder keeps the shards that are
    complete. Raises the same errors as `rfkeras.datasets.pack.pack`.

    Args:
        config: Names the data set.
        audio: Format to store; the format of the model.
        out_dir: A folder on a file system that every worker can access.
        shard_mb: Average shard size in MB.
        decoder: Decoder for files.
        beam_arguments: See `rfkeras.beam.runner.pipeline_options`.

    Returns:
        The index file.

    Raises:
        PipelineError: The pipeline ended before its work was done.
    """
    options = pipeline_options(beam_arguments)
    settings = PackSettings(to_json(config), audio, str(out_dir.absolute()), decoder)
    dataset = settings.open()
    print_notes(dataset)
    check_target(out_dir, dataset)
    check_present(dataset, max_bad_share=config.max_bad_share)
    total = sum(len(split) for split in dataset.splits.values())
    with sole_writer(out_dir / LOCK, out_dir):
        check_target(out_dir, dataset)  # another process may have finished in the meantime
        remove_leftovers(out_dir)
        bad_files = BadFileLog(
            out_dir / "bad_files.csv", total_files=total, max_bad_share=config.max_bad_share
        )
        planned = plan(dataset, audio, shard_mb, decoder)

        def progress() -> str:
            written = sum(_entry_path(out_dir, shard).exists() for shard in planned)
            return f"{written} of {len(planned)} shards written"

        def build(pipeline: beam.Pipeline) -> None:
            shards = pipeline | "Shards" >> beam.Create(planned) | beam.Reshuffle()
            _ = shards | "Pack" >> beam.ParDo(PackShard(settings))

        run_pipeline(options, build, progress)
        entries = [_read_entry(_entry_path(out_dir, shard)) for shard in planned]
        bad_files.record_all(BadFile(**bad) for entry in entries for bad in entry["bad"])
        damaged = [BadFile(**each) for entry in entries for each in entry.get("damaged", ())]
        print_damaged(dataset.name, damaged)
        shards: dict[str, list[WrittenShard]] = {name: [] for name in dataset.splits}
        for one, entry in zip(planned, entries, strict=True):
            if entry["shard"] is not None:
                shards[one.split].append(WrittenShard(**entry["shard"]))
        return write_index(out_dir, dataset, audio, shards, bad_files.files)


def plan(
    dataset: AudioDataset, audio: AudioFormat, shard_mb: float, decoder: str
) -> list[PlannedShard]:
    """Return the shards of a data set, each of about `shard_mb` MB."""
    if shard_mb <= 0:
        raise ConfigError(f"shard_mb must be positive. Received: {shard_mb}.")
    planned = []
    for name, split in dataset.splits.items():
        order = storage_order(name, split)
        seconds = _mean_seconds(split, order.tolist(), dataset.clip_seconds, decoder)
        clip_bytes = seconds * audio.sample_rate_hz * audio.channels * _SAMPLE_BYTES
        clips = max(1, int(shard_mb * 1e6 / clip_bytes))
        for number, start in enumerate(range(0, len(order), clips)):
            planned.append(PlannedShard(name, number, start, min(start + clips, len(order))))
    return planned


def _mean_seconds(
    split: Split, order: Sequence[int], clip_seconds: float | None, decoder: str
) -> float:
    """Return the mean clip length of a split, measured on some clips if no list has it."""
    if split.seconds is not None and len(split):
        return max(float(split.seconds.mean()), 1e-3)
    if clip_seconds is not None:
        return clip_seconds
    lengths = []
    for row in order[:_MEASURED_CLIPS]:
        try:
            lengths.append(check_clip(split, row, None, decoder=decoder).duration_seconds)
        except AudioError:
            continue  # reported when it is packed
    return max(sum(lengths) / len(lengths), 1e-3) if lengths else 1.0


class PackShard(beam.DoFn):
    """Writes one shard and its entry, unless both exist.

    Args:
        settings: What to pack, and how.
    """

    def __init__(self, settings: PackSettings) -> None:
        self._settings = settings
        self._shared = Shared()
        self._dataset: AudioDataset | None = None

    def setup(self) -> None:
        """Open the data set."""
        self._dataset = self._shared.acquire(self._settings.open)

    def process(self, planned: PlannedShard) -> Iterator[str]:
        """Write one shard and yield the name of its file."""
        assert self._dataset is not None
        split = self._dataset.splits[planned.split]
        rows = planned.rows(split)
        path = Path(self._settings.out_dir) / planned.file
        entry_path = _entry_path(path.parent, planned)
        fingerprint = self._fingerprint(split, rows)
        if _is_complete(entry_path, path, fingerprint):
            counter("shards_kept").inc()
            return
        bad: list[BadFile] = []
        damaged: list[BadFile] = []
        writer = ShardWriter(path, split)
        for row in rows:
            try:
                clip = encode_clip(
                    split,
                    row,
                    self._settings.audio,
                    self._dataset.clip_seconds,
                    self._settings.decoder,
                )
            except AudioError as error:
                bad.append(BadFile(error.path, error.reason, f"pack {planned.split}"))
                counter(f"dead: {error.reason.partition(':')[0][:60]}").inc()
            else:
                writer.add(clip)
                if clip.damage:
                    path_of_clip = str(split.paths[row])
                    damaged.append(BadFile(path_of_clip, clip.damage, f"pack {planned.split}"))
                seconds = clip.length / self._settings.audio.sample_rate_hz
                counter("audio_milliseconds").inc(round(1000 * seconds))
        shard = writer.finish()
        if not shard.rows:
            path.unlink()
        entry = {
            "of": fingerprint,
            "shard": asdict(shard) if shard.rows else None,
            "bad": [asdict(file) for file in bad],
            "damaged": [asdict(file) for file in damaged],
        }
        write_text(entry_path, json.dumps(entry))
        counter("clips_packed").inc(len(shard.rows))
        counter("clips_dead").inc(len(bad))
        yield planned.file

    def _fingerprint(self, split: Split, rows: Sequence[int]) -> str:
        """Return a hash of the intended content of a shard."""
        labels, mask = split.labels[rows].tolist(), split.mask[rows].tolist()
        keys = [split.keys[row] for row in rows]
        content = json.dumps([asdict(self._settings.audio), keys, labels, mask])
        return hashlib.sha256(content.encode()).hexdigest()


def _entry_path(out_dir: Path, planned: PlannedShard) -> Path:
    """Return the path of a shard's entry."""
    return out_dir / f"{planned.file}.entry.json"


def _read_entry(path: Path) -> Any:
    """Read an entry."""
    return json.loads(path.read_text(encoding="utf-8"))


def _is_complete(entry_path: Path, path: Path, fingerprint: str) -> bool:
    """Return whether a shard exists with all of its clips."""
    if not entry_path.exists() or not path.exists():
        return False
    entry = _read_entry(entry_path)
    size = path.stat().st_size
    return bool(
        entry["of"] == fingerprint and not entry["bad"] and entry["shard"]["bytes"] == size
    )
