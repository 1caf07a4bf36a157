"""Selection of the best epoch, early stopping, snapshots, signals, and what is displayed."""

import signal
from dataclasses import asdict, replace
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rfkeras.config.train_config import TrainConfig
from rfkeras.errors import CheckpointError, ConfigError
from rfkeras.training.callbacks import (
    CheckpointCallback,
    Interrupted,
    ProgressDisplay,
    Selection,
    TensorBoardLogger,
    TrainingState,
    make_selection,
)
from rfkeras.training.run_dir import RunFolder, load_snapshot, read_log, read_record

METRICS = ("val_loss", "val_mAP")
NAN = float("nan")


def run(values, **options):
    """Return the best and the last epoch for given values of the monitored metric."""
    selection = Selection(**options)
    best, best_epoch = None, 0
    for epoch, value in enumerate(values, start=1):
        if epoch < selection.first_epoch:
            continue
        if selection.better(value, best):
            best, best_epoch = value, epoch
        if selection.is_over(epoch, best_epoch):
            break
    return best_epoch, epoch


def test_low_losses_and_high_scores_are_best():
    values = [0.5, 0.3, 0.4, 0.3, 0.5]
    assert run(values, monitor="val_loss") == (2, 5)
    assert run(values, monitor="loss") == (2, 5)
    assert run(values, monitor="val_mAP") == (1, 5)


def test_any_value_is_better_than_nan():
    assert run([NAN, 0.2, NAN, 0.1]) == (2, 4)
    assert run([NAN, NAN]) == (1, 2)


def test_patience():
    assert run([3, 2, 1, 0, 9], patience=3) == (1, 4)
    assert run([3, 2, 4, 0, 1, 2], patience=3) == (3, 6)
    assert run([9, 9, 3, 2, 1, 0], patience=2, first_epoch=3) == (3, 5)
    assert run([3, 2, 1, 0, 0, 0], patience=2, patient_until=4) == (1, 5)


def test_an_unknown_metric_is_an_error_that_lists_the_known_ones():
    config = TrainConfig(monitor="val_map")
    with pytest.raises(ConfigError, match=r"Did you mean 'val_mAP'.*loss, val_loss, val_mAP"):
        make_selection(config, METRICS)
    assert make_selection(TrainConfig(monitor="loss"), METRICS).monitor == "loss"


@pytest.mark.parametrize("averaging", ["swa", "ema"])
def test_averaged_weights_cannot_be_chosen_by_training_loss(averaging):
    options = {"monitor": "loss", "averaging": averaging}
    for final in ("best", "average"):
        with pytest.raises(ConfigError, match="Set monitor to one of val_loss, val_mAP, or"):
            make_selection(TrainConfig(**options, final_weights=final), METRICS)
    assert make_selection(TrainConfig(**options, final_weights="last"), METRICS)


def test_the_published_averaging():
    config = TrainConfig(epochs=350, averaging="swa")
    averaged = [e for e in range(1, 351) if config.averages_epoch(e)]
    assert averaged == list(range(250, 351, 3))
    assert not TrainConfig(epochs=350).averages_epoch(250)


def test_only_epochs_at_the_final_size_are_averaged_or_best():
    config = TrainConfig(
        epochs=20, averaging="swa", prune_share=0.5, prune_epochs=17, swa_every=2
    )
    assert [e for e in range(1, 21) if config.averages_epoch(e)] == [18, 20]
    selection = make_selection(config, METRICS)
    assert selection.first_epoch == selection.patient_until == config.first_averaged_epoch == 18
    earlier = replace(config, prune_epochs=12)
    assert (earlier.first_averaged_epoch, make_selection(earlier, METRICS).first_epoch) == (
        15,
        13,
    )


STEPS = 3  # per epoch


class Run:
    """A run of `CheckpointCallback` without a network: its one weight counts the steps.

    Args:
        folder: The run's folder.
        values: The monitored metric of each epoch.
        state: State from which to start.
        **options: Arguments of `CheckpointCallback`.
    """

    def __init__(self, folder, values, state=None, **options):
        self.folder = RunFolder(folder)
        self.folder.last.parent.mkdir(parents=True, exist_ok=True)
        self.weight = keras.Variable(0.0, name="weight")
        self.ended = []
        self.left = list(values)
        self.state = state or TrainingState(data={"train": "a"})
        self.model = SimpleNamespace(
            optimizer=SimpleNamespace(learning_rate=keras.Variable(0.5)), stop_training=False
        )
        arguments = {
            "best_variables": [self.weight],
            "variables": [self.weight],
            "steps_per_epoch": STEPS,
            "checkpoint_steps": 100,
            "validate": lambda: {"val_mAP": self.left.pop(0)},
            "selection": Selection("val_mAP"),
            "end_epoch": self.ended.append,
            "state": self.state,
        }
        self.callback = CheckpointCallback(self.folder, **{**arguments, **options})
        self.callback.set_model(self.model)

    def step(self):
        """Do one step; the mean loss of the epoch so far is its number of steps."""
        place = self.state.steps_done % STEPS
        if place == 0 or self.callback._old_handlers == {}:
            self.callback.on_train_begin()
            self.callback.on_epoch_begin(self.state.steps_done // STEPS)
            self.losses = []
        self.weight.assign_add(1.0)
        self.losses.append(float(self.weight.numpy()))
        self.callback.on_train_batch_end(place, {"loss": np.mean(self.losses)})
        if place == STEPS - 1:
            self.logs = {}
            self.callback.on_epoch_end(self.state.steps_done // STEPS - 1, self.logs)
            self.callback.on_train_end()

    def saved(self, path):
        """Return (weight, record) of a snapshot."""
        variable = keras.Variable(0.0, name="weight")
        record = load_snapshot(path, [variable])
        return float(variable.numpy()), record


def test_every_epoch_is_validated_logged_and_saved_and_the_best_is_kept(tmp_path):
    run = Run(tmp_path, [0.2, 0.7, NAN, 0.5])
    for _ in range(4 * STEPS):
        run.step()
    assert run.ended == [1, 2, 3, 4]
    log = read_log(run.folder.log)
    np.testing.assert_array_equal(log["epoch"], [1, 2, 3, 4])
    np.testing.assert_array_equal(log["loss"], [2, 5, 8, 11])  # of steps 1 to 3, 4 to 6 ...
    np.testing.assert_array_equal(log["val_mAP"], [0.2, 0.7, NAN, 0.5])
    np.testing.assert_array_equal(log["learning_rate"], 4 * [0.5])
    assert run.logs == {"loss": 11, "val_mAP": 0.5, "learning_rate": 0.5}
    weight, record = run.saved(run.folder.best)
    assert (weight, record) == (6.0, {"epoch": 2})
    weight, record = run.saved(run.folder.last)
    assert weight == 12.0
    assert (record["steps_done"], record["best"], record["best_epoch"]) == (12, 0.7, 2)
    assert (record["loss_sum"], record["loss_steps"], record["stopped"]) == (0.0, 0, False)
    assert not run.model.stop_training
    assert 0 < record["seconds"] < 60
    assert [row["seconds"] for row in record["history"]] == sorted(log["seconds"])


def test_no_epoch_before_the_first_eligible_is_the_best_or_the_last(tmp_path):
    selection = Selection("val_mAP", patience=1, first_epoch=3)
    run = Run(tmp_path, [0.9, 0.8, 0.1, 0.1], selection=selection)
    for stops in (False, False, False, True):
        for _ in range(STEPS):
            run.step()
        assert run.state.stopped is run.model.stop_training is stops
        assert run.folder.best.exists() is (run.state.steps_done >= 3 * STEPS)
    assert (run.state.best, run.state.best_epoch) == (0.1, 3)


def test_snapshots_within_an_epoch_come_at_their_steps_and_not_before_a_validation(tmp_path):
    run = Run(tmp_path, [0.5, 0.5], checkpoint_steps=2)
    saved = []
    for _ in range(2 * STEPS):
        run.step()
        last = run.folder.last
        saved.append(read_record(last)["steps_done"] if last.exists() else 0)
    assert saved == [0, 2, 3, 4, 4, 6]


def test_a_resumed_epoch_has_the_loss_of_all_its_steps(tmp_path):
    run = Run(tmp_path, [0.5, 0.5], checkpoint_steps=1)
    for _ in range(STEPS + 2):
        run.step()
    run.callback.release_signals()
    again = Run(tmp_path, [0.5], state=TrainingState(data={"train": "a"}))
    again.callback.restore()
    assert asdict(again.state) == {**asdict(run.state), "seconds": again.state.seconds}
    assert again.weight.numpy() == STEPS + 2
    again.step()
    np.testing.assert_array_equal(read_log(again.folder.log)["loss"], [2, 5])
    changed = Run(tmp_path, [], state=TrainingState(data={"train": "b"}))
    with pytest.raises(CheckpointError, match="clips or labels in split train"):
        changed.callback.restore()
    assert changed.weight.numpy() == 0


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_the_step_and_stops(tmp_path, number, status):
    handlers = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    run = Run(tmp_path, [0.5])
    run.step()
    signal.raise_signal(number)
    assert not run.folder.last.exists()
    with pytest.raises(Interrupted) as stopped:
        run.step()
    assert stopped.value.status == status
    assert run.saved(run.folder.last)[0] == 2.0
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == handlers


def test_a_signal_at_the_end_of_an_epoch_stops_after_its_validation(tmp_path):
    run = Run(tmp_path, [0.5])
    run.step()
    run.step()
    signal.raise_signal(signal.SIGTERM)
    with pytest.raises(Interrupted):
        run.step()
    assert run.saved(run.folder.last)[1]["history"][0]["val_mAP"] == 0.5


def test_the_second_signal_stops_immediately(tmp_path):
    run = Run(tmp_path, [0.5])
    run.step()
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    run.callback.release_signals()


def test_a_worker_that_writes_nothing_leaves_sigterm_to_the_chief(tmp_path):
    run = Run(tmp_path, [0.5], writes=False, checkpoint_steps=1)
    run.step()
    signal.raise_signal(signal.SIGTERM)
    run.step()
    run.step()
    assert run.state.best == 0.5
    assert [path.name for path in tmp_path.rglob("*")] == ["checkpoints"]


def test_the_display_counts_steps_and_prints_each_epoch(capsys):
    display = ProgressDisplay(total_steps=6, steps_done=2, epochs=3, monitor="val_mAP")
    display.on_train_begin()
    assert display._bar._bar.live.is_started or not display._bar._live
    assert not display._bar._bar.live.transient  # the full bar stays on the terminal
    display.on_epoch_begin(1)
    display.on_train_batch_end(0, {"loss": 0.25})
    assert (display._bar.done, display._bar.label) == (3, "epoch 2/3")
    assert display._bar._note == "loss 0.2500"
    display.on_epoch_end(1, {"loss": 0.5, "val_mAP": 0.75})
    display.on_train_batch_end(0, {"loss": 0.125})
    assert display._bar._note == "loss 0.1250, validation mAP 0.7500"
    display.stop()
    assert "epoch 2/3: loss 0.5000, validation mAP 0.7500\n" in capsys.readouterr().err


def test_tensorboard_shows_training_and_validation_under_equal_names(tmp_path):
    logger = TensorBoardLogger(tmp_path)
    for epoch, loss in enumerate([0.5, 0.25]):
        logger.on_epoch_end(epoch, {"loss": loss, "val_loss": 2 * loss, "val_mAP": 0.1})
    logger.on_train_end()
    for name, tags, factor in (
        ("train", {"epoch_loss"}, 1),
        ("validation", {"epoch_loss", "epoch_mAP"}, 2),
    ):
        events = EventAccumulator(str(tmp_path / name)).Reload()
        assert set(events.Tags()["scalars"]) == tags
        rows = [(event.step, event.value) for event in events.Scalars("epoch_loss")]
        assert rows == [(0, 0.5 * factor), (1, 0.25 * factor)]
