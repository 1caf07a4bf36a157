"""The parts that several workers read make up the whole data set."""

import numpy as np
import pytest

from rfkeras.audio.io import AudioFormat
from rfkeras.datasets.excerpts import WHOLE, TrainingPlan, WorkerPart, part_of, rows_of
from rfkeras.datasets.pack import pack
from rfkeras.datasets.packed import load_packed
from rfkeras.datasets.pipeline import evaluation_batches, training_batches
from rfkeras.errors import ConfigError
from tests.datasets.conftest import RATE, log

AUDIO = AudioFormat(RATE)
CLIPS, STEPS, BATCH = 24, 3, 8


def train(split, part=WHOLE, start_step=0, epochs=3):
    return training_batches(
        split,
        AUDIO,
        excerpt_seconds=0.1,
        batch_size=BATCH,
        seed=3,
        steps_per_epoch=STEPS,
        total_steps=STEPS * epochs,
        start_step=start_step,
        bad_files=log(),
        part=part,
    ).as_numpy_iterator()


def joined(parts):
    """Join the batches of the workers to global batches."""
    return [
        [np.concatenate(arrays) for arrays in zip(*own, strict=True)]
        for own in zip(*parts, strict=True)
    ]


def clips_of(batches):
    return [[round(value * 64) for value in labels[:, 2]] for _, labels, _ in batches]


def assert_same(batches, others):
    for one, other in zip(batches, others, strict=True):
        for expected, received in zip(one, other, strict=True):
            np.testing.assert_array_equal(received, expected)


@pytest.fixture
def shards(ramps, tmp_path):
    """Return a function that packs ramps into about the given number of shards."""

    def make(count):
        folder = tmp_path / f"{count}_shards"
        record_mb = (800 * 2 + 200) / 1e6
        pack(ramps(CLIPS), AUDIO, folder, shard_mb=record_mb * CLIPS / count, progress=False)
        return load_packed(str(folder)).splits["train"]

    return make


@pytest.mark.parametrize("workers", [2, 4])
@pytest.mark.parametrize("start_step", [0, 4])
def test_files_read_by_workers_make_up_the_batches_of_a_single_worker(
    ramps, workers, start_step
):
    split = ramps(CLIPS).splits["train"]
    parts = [train(split, WorkerPart(i, workers), start_step) for i in range(workers)]
    assert_same(train(split, start_step=start_step), joined(parts))


def test_the_replicas_of_a_worker_get_their_batches_in_turn(ramps):
    split = ramps(CLIPS).splits["train"]
    own = list(train(split, WorkerPart(1, 2, replicas=2)))
    assert [len(batch[0]) for batch in own] == [2] * 18
    halves = [
        [np.concatenate(a) for a in zip(*own[i : i + 2], strict=True)] for i in range(0, 18, 2)
    ]
    assert_same(train(split, WorkerPart(1, 2)), halves)


def test_one_shard_read_by_workers_makes_up_the_batches_of_a_single_worker(shards):
    split = shards(1)
    assert len(split.shards) == 1
    assert_same(train(split), joined([train(split, WorkerPart(i, 2)) for i in range(2)]))


def test_shards_are_distributed_over_workers_again_in_each_epoch(shards):
    split = shards(6)
    assert len(split.shards) >= 4
    shard_of = {
        key: i
        for i, s in enumerate(np.split(np.array(split.keys), ends(split)[:-1]))
        for key in s
    }
    dealt = []
    for epoch in range(6):
        parts = []
        for i in range(2):
            epochs = clips_of(train(split, WorkerPart(i, 2), epochs=6))
            own = epochs[epoch * STEPS : (epoch + 1) * STEPS]
            parts.append({shard_of[f"clip{clip:02d}"] for batch in own for clip in batch})
        assert not parts[0] & parts[1]  # no shard is read by both
        dealt.append(tuple(parts[0]))
    assert len(set(dealt)) > 1


def test_workers_resume_reading_shards_where_a_run_stopped(shards):
    split = shards(6)
    for part in (WorkerPart(0, 2), WorkerPart(1, 2)):
        assert_same(list(train(split, part))[4:], train(split, part, start_step=4))


def ends(split):
    return np.cumsum([shard.records for shard in split.shards])


@pytest.mark.parametrize("workers", [2, 3, 7])
@pytest.mark.parametrize("stored", ["files", "shards"])
def test_workers_evaluate_every_clip_once(ramps, shards, stored, workers):
    split = shards(5) if stored == "shards" else ramps(CLIPS).splits["train"]
    rows = [rows_of(split, WorkerPart(i, workers)) for i in range(workers)]
    np.testing.assert_array_equal(np.concatenate(rows), np.arange(CLIPS))
    bad = log()
    whole, plan = evaluation_batches(
        split, AUDIO, window_seconds=0.4, batch_size=4, bad_files=bad
    )
    expected = np.concatenate(list(whole.as_numpy_iterator()))[: len(plan.rows)]
    received = []
    for own, part in zip(rows, [WorkerPart(i, workers) for i in range(workers)], strict=True):
        chosen = part_of(split, part)
        assert chosen.keys == tuple(split.keys[row] for row in own)
        np.testing.assert_array_equal(chosen.labels, split.labels[own])
        if len(own):
            windows, own_plan = evaluation_batches(
                chosen, AUDIO, window_seconds=0.4, batch_size=4, bad_files=bad
            )
            batches = np.concatenate(list(windows.as_numpy_iterator()))
            received.append(batches[: len(own_plan.rows)])
    np.testing.assert_array_equal(np.concatenate(received), expected)


def test_invalid_parts_are_rejected(ramps):
    for values in [(2, 2), (-1, 2), (0, 0), (0, 1, 0)]:
        with pytest.raises(ConfigError, match="A part needs an index from 0"):
            WorkerPart(*values)
    with pytest.raises(ConfigError, match="a multiple of the 3 replicas. Received: 8"):
        train(ramps(CLIPS).splits["train"], WorkerPart(0, 3))


def test_a_plan_begins_with_the_first_step():
    assert TrainingPlan(8, seed=3, steps_per_epoch=3, total_steps=9).start_step == 0
