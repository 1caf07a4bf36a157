"""Published PyTorch networks as .keras files, each with a card that says what it is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

import rfkeras
from rfkeras.errors import CheckpointError, ConfigError
from rfkeras.files import replacing, write_text
from rfkeras.interop.card import Conversion, card
from rfkeras.interop.published import CONFIG, PublishedFolder, open_folder
from rfkeras.interop.told import told_options
from rfkeras.interop.torch import load_torch_checkpoint, read_state
from rfkeras.reading import open_npz

WEIGHTS = "the weights"
FLAG, DEFAULT = "a flag", "default"
_MASK = ".prune_mask"
_AGREEMENT = 1e-4  # of the largest logit: what float32 leaves between two frameworks
_SIGNS = {"frontend", "damping", "damp_time", "task", "label_names"}  # leave none in weights


def convert(
    source: str | Path,
    output: str | Path,
    *,
    model: str = "resnet_rf",
    labels: Sequence[str] | None = None,
    reference: str | Path | None = None,
    **given: Any,
) -> Conversion:
    """Write a published PyTorch network as a .keras file, with `.json` and `.md` beside it.

    Args:
        source: `.pth`, `.pt` or `.npz` with a state dict, or a folder with
            `model_config.json` and `model_state_dict.pth`.
        output: The .keras file.
        model: A residual model of one branch in the zoo.
        labels: Names of the tags, in the order of the logits.
        reference: An .npz of `input_nchw` (batch, channels, frequency, time) and the
            original's `logits` for it (batch, classes), to compare with.
        **given: Options of the model. What the weights tell may be left out; "damping",
            "frontend" and "task" leave no trace in them.

    Raises:
        ConfigError: An option contradicts the checkpoint, or does not exist.
        CheckpointError: The checkpoint cannot be read or expressed, or the logits differ
            from the reference's.
    """
    import zoo
    from zoo.download import sha256_of

    source, output = Path(source), Path(output)
    if output.suffix != ".keras":
        raise ConfigError(f"The output must end in .keras. Received: {output}.")
    folder = open_folder(source) if source.is_dir() else PublishedFolder(source)
    state, notes = _unpruned(read_state(folder.state))
    said = {
        CONFIG: folder.options,
        WEIGHTS: told_options(state),
        FLAG: {key: value for key, value in given.items() if value is not None},
        f"{DEFAULT} of {model}": _defaults(model),
    }
    options, told_by = merge(said)
    if labels is not None:
        options["label_names"], told_by["label_names"] = tuple(labels), FLAG
    network = zoo.create_model(model, **options)
    load_torch_checkpoint(network, state)
    if folder.unknown:
        notes.append(f"Keys of {CONFIG} that are not known: {', '.join(folder.unknown)}.")
    difference, largest = (None, None) if reference is None else compare(network, reference)
    made = Conversion(
        model=model,
        source=str(folder.state),
        sha256=sha256_of(folder.state),
        options={key: value for key, value in options.items() if key != "label_names"},
        told_by=told_by,
        labels=tuple(labels or ()),
        largest_difference=difference,
        largest_logit=largest,
        notes=notes + _open_questions(options, told_by),
    )
    with replacing(output, suffix=".keras") as aside:  # the only ending that Keras writes
        network.save(aside)
    facts = asdict(made) | {"written_by": f"rfkeras {rfkeras.__version__}"}
    write_text(output.with_suffix(".json"), json.dumps(facts, indent=2) + "\n")
    write_text(output.with_suffix(".md"), card(made))
    return made


def merge(said: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, Any], dict[str, str]]:
    """One value for each option, the first that is said, and who said it.

    Raises:
        ConfigError: Two say different things (the last, the defaults, may differ).
    """
    values: dict[str, Any] = {}
    told_by: dict[str, str] = {}
    *_, defaults = said
    for who, options in said.items():
        for key, value in options.items():
            plain = _plain(key, value)
            if key not in values:
                values[key], told_by[key] = plain, who
            elif who != defaults and plain != _plain(key, values[key]):
                flag = "--" + key.replace("_", "-")
                way_out = (
                    f"Leave {flag} out, or give it that value."
                    if who == FLAG
                    else "These files do not belong together."
                )
                raise ConfigError(
                    f"{key} is {values[key]!r} by {told_by[key]}, and {plain!r} by {who}. "
                    f"{way_out}"
                )
    return values, told_by


def _plain(key: str, value: Any) -> Any:
    """Values that mean the same, written alike."""
    if key == "rho" and isinstance(value, int):
        return value, value
    return tuple(value) if isinstance(value, list) else value


def _defaults(model: str) -> dict[str, Any]:
    import zoo

    options = zoo.model_info(model).options
    defaults = {key: options[key] for key in _SIGNS & set(options)}
    # Its standardisation was fitted on data that is not here: spectrograms go in.
    return defaults | {"frontend": None, "task": "multi_label"}


def _unpruned(state: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Weights with their masks applied, without the masks."""
    masks = {name: mask for name, mask in state.items() if name.endswith(_MASK)}
    if not masks:
        return state, []
    weights = {name: value for name, value in state.items() if name not in masks}
    zeros = 0
    for name, mask in masks.items():
        key = name.removesuffix(_MASK) + ".weight"
        if key not in weights:
            raise CheckpointError(f"The checkpoint has {name} but no {key}.")
        weights[key] = weights[key] * (mask != 0)
        zeros += int((mask == 0).sum())
    return weights, [f"The masks of pruning were applied: {zeros:,} weights are zero."]


def compare(network: Any, reference: str | Path) -> tuple[float, float]:
    """(largest difference of a logit from the reference vectors, their largest logit).

    Raises:
        CheckpointError: They cannot be read, or differ by more than float32 explains.
    """
    try:
        with open_npz(reference) as arrays:
            inputs, wanted = arrays["input_nchw"], arrays["logits"]
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"The reference {reference} must be an .npz with arrays 'input_nchw' and "
            f"'logits': {error}"
        ) from error
    if inputs.ndim != 4 or len(network.inputs[0].shape) != 4:
        raise CheckpointError(
            f"{reference}: 'input_nchw' has shape {inputs.shape}. Reference vectors are "
            "spectrograms (batch, channels, frequency, time): compare without --frontend."
        )
    # (batch, channel, frequency, time) -> (batch, time, frequency, channel)
    logits = np.asarray(network(inputs.transpose(0, 3, 2, 1), training=False))
    if logits.shape != wanted.shape:
        raise CheckpointError(
            f"{reference}: 'logits' has shape {wanted.shape}, the model's are {logits.shape}."
        )
    difference, largest = (float(np.abs(x).max()) for x in (logits - wanted, wanted))
    if not difference <= _AGREEMENT * largest:
        raise CheckpointError(
            f"The converted network's logits differ from those of {reference} by "
            f"{difference:.2g}, where the largest is {largest:.2g}: {_AGREEMENT:g} of it is "
            "allowed. Damping leaves no trace in the weights: was the network trained with "
            "another --damping?"
        )
    return difference, largest


def _open_questions(options: Mapping[str, Any], told_by: Mapping[str, str]) -> list[str]:
    """What nobody said, and what was taken for it."""
    notes = []
    if told_by["damping"].startswith(DEFAULT):
        notes.append(
            f"Damping leaves no trace in the weights: {options['damping']} was taken. Say "
            "--damping if the network was trained with it."
        )
    if options["frontend"] is None:
        notes.append(
            "The model takes spectrograms (batch, time, frequency, channel), standardised as "
            "the network's were in training. --frontend puts a front-end in front."
        )
    else:
        notes.append(
            "The front-end's mean and deviation are not in the checkpoint: fit them by "
            "model.get_layer('frontend').adapt(batches of waveforms), or its scores mean "
            "nothing."
        )
    if told_by["task"].startswith(DEFAULT):
        notes.append("The task was taken as multi_label. Say --task single_label otherwise.")
    if "label_names" not in options:
        notes.append("The tags have no names. Say them by --labels.")
    return notes
