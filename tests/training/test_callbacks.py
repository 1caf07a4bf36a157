"""Which epoch is the best, and when a run stops early."""

from dataclasses import replace

import pytest

from rfkeras.config.train_config import TrainConfig
from rfkeras.errors import ConfigError
from rfkeras.training.callbacks import Selection, is_averaged, make_selection

FIGURES = ("val_loss", "val_mAP")
NAN = float("nan")


def run(values, **options):
    """(best epoch, last epoch) of a run whose monitored figure takes these values."""
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


def test_losses_are_best_low_and_scores_high():
    values = [0.5, 0.3, 0.4, 0.3, 0.5]
    assert run(values, monitor="val_loss") == (2, 5)
    assert run(values, monitor="loss") == (2, 5)
    assert run(values, monitor="val_mAP") == (1, 5)


def test_nothing_is_worse_than_nan():
    assert run([NAN, 0.2, NAN, 0.1]) == (2, 4)
    assert run([NAN, NAN]) == (1, 2)


def test_patience():
    assert run([3, 2, 1, 0, 9], patience=3) == (1, 4)
    assert run([3, 2, 4, 0, 1, 2], patience=3) == (3, 6)
    assert run([9, 9, 3, 2, 1, 0], patience=2, first_epoch=3) == (3, 5)
    assert run([3, 2, 1, 0, 0, 0], patience=2, patient_until=4) == (1, 5)


def test_unknown_figures_are_refused_with_the_known_ones():
    config = TrainConfig(monitor="val_map")
    with pytest.raises(ConfigError, match=r"Did you mean 'val_mAP'.*loss, val_loss, val_mAP"):
        make_selection(config, FIGURES)
    assert make_selection(TrainConfig(monitor="loss"), FIGURES).monitor == "loss"


@pytest.mark.parametrize("averaging", ["swa", "ema"])
def test_an_average_has_no_training_loss_to_be_chosen_by(averaging):
    options = {"monitor": "loss", "averaging": averaging}
    for final in ("best", "average"):
        with pytest.raises(ConfigError, match="Set monitor to one of val_loss, val_mAP, or"):
            make_selection(TrainConfig(**options, final_weights=final), FIGURES)
    assert make_selection(TrainConfig(**options, final_weights="last"), FIGURES)


def test_the_published_averaging():
    config = TrainConfig(epochs=350, averaging="swa")
    averaged = [e for e in range(1, 351) if is_averaged(config, e)]
    assert averaged == list(range(250, 351, 3))
    assert not is_averaged(TrainConfig(epochs=350), 250)


def test_only_epochs_at_the_final_size_are_averaged_or_best():
    config = TrainConfig(
        epochs=20, averaging="swa", prune_share=0.5, prune_epochs=17, swa_every=2
    )
    assert [e for e in range(1, 21) if is_averaged(config, e)] == [18, 20]
    selection = make_selection(config, FIGURES)
    assert selection.first_epoch == selection.patient_until == config.first_averaged_epoch == 18
    earlier = replace(config, prune_epochs=12)
    assert (earlier.first_averaged_epoch, make_selection(earlier, FIGURES).first_epoch) == (
        15,
        13,
    )
