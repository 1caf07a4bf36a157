"""Selection of the best epoch, and early stopping."""

from dataclasses import replace

import pytest

from rfkeras.config.train_config import TrainConfig
from rfkeras.errors import ConfigError
from rfkeras.training.callbacks import Selection, make_selection

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
