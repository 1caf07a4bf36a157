"""Calibrate a trained model: its scores, and the thresholds of its tags.

`python -m tools.calibrate MODEL --data DIR[:SPLIT] ... --output calibrated.keras`

The data are folders in the layout of OpenMIC-2018 that were not used in training. Scale and
bias of each tag's logits are fitted there (see `rfkeras.evaluation.calibration`) and folded
into the last layer before the head, so the saved model returns calibrated scores wherever it is
used. The thresholds of the calibrated scores maximise F1. With --negatives they are also above
the scores of 99 % of the sounds in which no tag applies.

Two files next to the output describe the calibration: `-calibration.json` and
`-reliability.png`. All errors there are measured on clips that the fit did not use, by
cross-validation.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfkeras.audio.find import find_audio
from rfkeras.datasets.base import Split
from rfkeras.errors import ConfigError, RFKerasError
from rfkeras.evaluation.calibration import (
    Calibration,
    cross_fitted_logits,
    expected_calibration_error,
    fit_calibration,
    reliability_diagram,
)
from rfkeras.evaluation.metrics import (
    best_f1_thresholds,
    check_scored,
    f1,
    log_loss,
    mean_of_defined,
    probabilities,
)
from rfkeras.tasks import MULTI_LABEL
from rfkeras.utils.files import atomic_write, write_text
from rfkeras.utils.plotting import save_png
from zoo.evaluate_weights import clip_logits
from zoo.evaluation_sets import EvaluationSet, folder_set, joined_sets
from zoo.pretrained import load_model
from zoo.tagger import label_names

BIAS_GAIN = 0.01
"""A bias is used if it lowers the log loss of other clips by more than this share."""

FALSE_ALARMS = 0.01
"""Share of the sounds without tags that may reach a threshold."""

_POOLINGS = ("average", "max")  # those that a positive scale and a bias pass through
_TOLERANCE = 1e-5
_CHECKED_CLIPS = 8


@dataclass(frozen=True)
class Chosen:
    """A calibration with the choice of its form.

    Attributes:
        calibration: Scale and bias of each tag.
        bias: Whether a bias is used.
        losses: Mean log loss of known labels: "before", and by cross-validation with a
            "scale" alone and with a "bias" too.
        logits: (clips, classes) Logits that were calibrated by a fit to other clips.
    """

    calibration: Calibration
    bias: bool
    losses: dict[str, float]
    logits: NDArray[np.float64]


def choose_calibration(
    logits: NDArray[np.float64], labels: NDArray[Any], mask: NDArray[Any]
) -> Chosen:
    """Fit a calibration, with a bias if that clearly helps on other clips.

    Args:
        logits: (clips, classes).
        labels: (clips, classes) of 0 and 1.
        mask: (clips, classes), 1 where the label is known.
    """
    fitted = {
        name: cross_fitted_logits(logits, labels, mask, bias=bias)
        for name, bias in (("scale", False), ("bias", True))
    }
    known = float(mask.sum() / mask.size)
    losses = {
        name: log_loss(probabilities(values, MULTI_LABEL), labels, mask, MULTI_LABEL) / known
        for name, values in {"before": logits, **fitted}.items()
    }
    bias = bool(losses["bias"] < (1 - BIAS_GAIN) * losses["scale"])
    return Chosen(
        fit_calibration(logits, labels, mask, bias=bias),
        bias,
        losses,
        fitted["bias" if bias else "scale"],
    )


def fold_calibration(model: Any, calibration: Calibration) -> None:
    """Change the last layer before the head so that the model returns calibrated logits.

    A clip's logit is the mean (or maximum) over a map of logits, so it is scaled and shifted
    exactly if every logit of the map is.

    Args:
        model: A tagger whose head reads batch normalisation, or a linear layer with bias.
        calibration: Scale and bias of each tag.

    Raises:
        ConfigError: The head pools in another way, or reads another layer.
    """
    from rfkeras.utils.model_graph import Place, inlined, layer_tensor

    head = model.head
    if head.pooling not in _POOLINGS or head.task != MULTI_LABEL:
        raise ConfigError(
            f"A calibration can be folded into multi-label models that pool by "
            f"{' or '.join(_POOLINGS)}. Received: {head.task}, {head.pooling}."
        )
    layer, _ = Place(layer_tensor(inlined(model), head, "input")).producer()
    names = {weight.name for weight in layer.weights}
    factor, shift = ("gamma", "beta") if "gamma" in names else ("kernel", "bias")
    linear = getattr(getattr(layer, "activation", None), "__name__", "linear") == "linear"
    if not {factor, shift} <= names or not linear:
        raise ConfigError(
            "The head must read a layer that ends in a scale and a shift of each tag: batch "
            f"normalisation, or a convolution with bias. Received: {layer.name!r}."
        )
    scale = calibration.scale
    old = {name: np.asarray(getattr(layer, name)) for name in (factor, shift)}
    getattr(layer, factor).assign(old[factor] * scale)
    getattr(layer, shift).assign(old[shift] * scale + calibration.bias)


def above_negatives(
    thresholds: NDArray[np.float64], scores: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return thresholds, raised where sounds without tags reach them.

    One sound in a hundred may stay above, so that a single odd one does not take the tag from
    all music.

    Args:
        thresholds: (classes,).
        scores: (sounds, classes) of sounds in which no tag applies.
    """
    allowed = int(FALSE_ALARMS * len(scores))
    highest = np.sort(scores, axis=0)[::-1][allowed]
    # A tenth of the way to 1, because other sounds may score a little higher.
    return np.maximum(thresholds, highest + 0.1 * (1 - highest))


def calibrate(
    source: str, data: EvaluationSet, output: Path, negatives: Path | None = None
) -> dict[str, Any]:
    """Write a calibrated model, and the files that describe the calibration.

    Args:
        source: A .keras file, run folder, or name of pretrained weights.
        data: Clips to calibrate on, with the tags of the model in the same order.
        output: The .keras file to write.
        negatives: Folder of sounds in which no tag applies; None for no such sounds.

    Returns:
        The content of the JSON file.

    Raises:
        ConfigError: The model cannot be calibrated, or its tags differ from those of the data.
        CheckpointError: The model cannot be loaded.
    """
    model = load_model(source)
    names = label_names(model)
    if names != data.label_names:
        raise ConfigError(
            f"The tags of the model and of {data.name} differ: {', '.join(names)} and "
            f"{', '.join(data.label_names)}."
        )
    labels, mask = data.clips.labels, data.clips.mask
    logits = clip_logits(model, data)
    chosen = choose_calibration(logits, labels, mask)
    fold_calibration(model, chosen.calibration)
    _check_fold(model, data, chosen.calibration.logits(logits))
    scores = chosen.calibration.scores(logits)
    chosen_f1 = best_f1_thresholds(scores, labels, mask)
    thresholds = chosen_f1
    if negatives is not None:
        silent = _unlabelled(negatives, len(names))
        sounds = probabilities(clip_logits(model, silent), MULTI_LABEL)
        thresholds = above_negatives(chosen_f1, sounds)
    model.head.thresholds = tuple(float(value) for value in thresholds)
    with atomic_write(output, suffix=".keras") as aside:
        model.save(aside)
    before, after = (
        probabilities(logits, MULTI_LABEL),
        probabilities(chosen.logits, MULTI_LABEL),
    )
    errors = [expected_calibration_error(values, labels, mask) for values in (before, after)]
    scored_f1 = [
        f1(scores, labels, mask, threshold=values).values for values in (chosen_f1, thresholds)
    ]
    content = {
        "data": data.description,
        "clips": len(data.clips),
        "bias": chosen.bias,
        "log_loss": chosen.losses,
        "calibration_error": {
            "before": mean_of_defined(errors[0]),
            "after": mean_of_defined(errors[1]),
        },
        "negatives": None if negatives is None else len(silent.clips),
        "tags": [
            {
                "name": name,
                "scale": float(chosen.calibration.scale[tag]),
                "bias": float(chosen.calibration.bias[tag]),
                "threshold": float(thresholds[tag]),
                "threshold_by_f1": float(chosen_f1[tag]),
                "f1": _number(scored_f1[1][tag]),
                "f1_by_f1": _number(scored_f1[0][tag]),
                "calibration_error_before": _number(errors[0][tag]),
                "calibration_error_after": _number(errors[1][tag]),
            }
            for tag, name in enumerate(names)
        ],
    }
    write_text(json_file(output), json.dumps(content, indent=2, allow_nan=False) + "\n")
    figure = reliability_diagram(
        check_scored(before, labels, mask), check_scored(after, labels, mask), names
    )
    save_png(figure, picture_file(output))
    return content


def json_file(model: Path) -> Path:
    """Return the file that describes the calibration of a .keras file."""
    return model.with_name(f"{model.stem}-calibration.json")


def picture_file(model: Path) -> Path:
    """Return the reliability diagram of a .keras file."""
    return model.with_name(f"{model.stem}-reliability.png")


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _check_fold(model: Any, data: EvaluationSet, expected: NDArray[np.float64]) -> None:
    """Compare scores of the changed model with the calibrated ones on a few clips."""
    rows = np.arange(min(_CHECKED_CLIPS, len(data.clips)))
    few = EvaluationSet(data.name, "", data.label_names, data.clips.select(rows))
    found = probabilities(clip_logits(model, few, quiet=True), MULTI_LABEL)
    error = np.abs(found - probabilities(expected[rows], MULTI_LABEL)).max()
    if not error < _TOLERANCE:
        raise ConfigError(
            f"The folded model differs from the calibrated scores by {error:.2g}, more than "
            f"{_TOLERANCE:g}. Its last layers compute something else than assumed."
        )


def _unlabelled(folder: Path, classes: int) -> EvaluationSet:
    files = find_audio([folder])
    usable = [file for file in files if file.error is None]
    if not usable:
        raise ConfigError(f"--negatives: {folder} has no audio files.")
    zeros = np.zeros((len(usable), classes), np.float32)
    keys = tuple(file.name for file in usable)
    clips = Split(keys, tuple(file.path for file in usable), zeros, np.ones_like(zeros))
    return EvaluationSet("negatives", "", (), clips)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.calibrate",
        description="Calibrate the scores of a model and choose the thresholds of its tags.",
    )
    parser.add_argument("model", help=".keras file, run folder or name of pretrained weights")
    parser.add_argument(
        "--data",
        required=True,
        nargs="+",
        metavar="DIR[:SPLIT]",
        help="folders in the layout of OpenMIC-2018 that were not used in training; SPLIT is "
        "train, validation, test (the default) or all",
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FILE", help=".keras file to write"
    )
    parser.add_argument(
        "--negatives",
        type=Path,
        metavar="DIR",
        help="folder of sounds in which no tag applies; thresholds are raised above them",
    )
    options = parser.parse_args(arguments)
    try:
        if options.output.suffix != ".keras":
            raise ConfigError(f"--output must end in .keras. Received: {options.output}.")
        data = joined_sets([folder_set(f"validation={text}") for text in options.data])
        content = calibrate(options.model, data, options.output, options.negatives)
    except (RFKerasError, OSError) as error:
        print(f"tools.calibrate: error: {error}", file=sys.stderr)
        return 1
    losses, errors = content["log_loss"], content["calibration_error"]
    kept = "scale and bias" if content["bias"] else "scale alone"
    print(
        f"log loss {losses['before']:.4f}, with a scale {losses['scale']:.4f}, with a bias too "
        f"{losses['bias']:.4f}: {kept}"
    )
    print(f"expected calibration error {errors['before']:.4f} -> {errors['after']:.4f}")
    print(f"Written: {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
